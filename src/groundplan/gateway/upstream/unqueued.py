"""Providers' own clients, told to make a connection for each call: by themselves most make a hundred, and whoever comes
then waits in them until one is free. Nobody sees that such a call was never sent: its time would end, it be charged at
its bound, and the deployment asked last. How many there may be is the gateway's to say. Loaded by the translating
service only; AWS's has as many as threads.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

from groundplan.gateway.upstream.unredirected import clients, of_each_loop

KEPT = 256
"""Connections that nobody uses, at most."""


def spread(api: str, made: Any) -> None:
    """Tell the clients of a provider of the library, in the loop. Raises `AttributeError` where they are built in
    another way than those that are known."""
    for client in clients(api, made):
        if (told := of_each_loop(client)) is not None:
            package = importlib.import_module(client._inner_client_cls.__module__.partition(".")[0])
            told["limits"] = package.Limits(max_connections=None, max_keepalive_connections=KEPT)
        for transport in (client._transport, *client._mounts.values()):
            if transport is not None:
                transport._pool._max_connections, transport._pool._max_keepalive_connections = sys.maxsize, KEPT
    if api == "azure":
        aiohttp = importlib.import_module("aiohttp")
        for each in (made.chat_client, made.embeddings_client):
            # as its own, but for the number; it is closed with the client
            each._client._pipeline._transport.session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0), cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False
            )
