"""Makes providers' own clients open a connection for each call, and wait for one no longer than others do.

By themselves most make a hundred, and whoever comes then waits in them until one is free; and for a connection they
wait for as long as for an answer. Nobody sees that such a call was never sent: its time would end, it be charged at its
bound, and the deployment asked last. How many there may be is the gateway's to say. Loaded by the translating service
only; of AWS's, which blocks, there are as many as threads.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
from typing import Any

from groundplan.gateway.upstream.translation.no_redirects import clients, of_each_loop

CONNECT_SECONDS = 5.0
KEPT = 256
"""Connections that nobody uses, at most."""


def spread(api: str, made: Any) -> None:
    """Tell the clients of a provider of the library, in the loop. Raises `AttributeError` where they are built in
    another way than those that are known."""
    for client in clients(api, made):
        hooks = client.event_hooks
        client.event_hooks = hooks = {**hooks, "request": [*hooks["request"], _in_time]}
        if (told := of_each_loop(client)) is not None:
            package = importlib.import_module(client._inner_client_cls.__module__.partition(".")[0])
            told["limits"] = package.Limits(max_connections=None, max_keepalive_connections=KEPT)
            told["event_hooks"] = hooks
        for transport in (client._transport, *client._mounts.values()):
            if transport is not None:
                transport._pool._max_connections, transport._pool._max_keepalive_connections = sys.maxsize, KEPT
    if api == "azure":
        for each in (made.chat_client, made.embeddings_client):
            each._client._pipeline._transport.session = _session(auto_decompress=False)  # closed with the client
    elif api in ("gemini", "vertexai"):
        known = made.client._api_client
        if known._use_aiohttp() and not known._use_google_auth_async():
            most = importlib.import_module(type(known).__module__).READ_BUFFER_SIZE
            known._aiohttp_sessions[asyncio.get_running_loop()] = _session(read_bufsize=most)  # closed with the client


async def _in_time(request: Any) -> None:
    """A request of `httpx`, just before it is sent."""
    request.extensions["timeout"] = {**request.extensions.get("timeout", {}), "connect": CONNECT_SECONDS}


def _session(**more: Any) -> Any:
    """Of `aiohttp`."""
    aiohttp = importlib.import_module("aiohttp")

    class Connector(aiohttp.TCPConnector):  # type: ignore[name-defined, misc]
        async def _create_connection(self, *asked: Any, **named: Any) -> Any:
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    return await super()._create_connection(*asked, **named)
            except TimeoutError as error:
                raise aiohttp.ConnectionTimeoutError("no connection in time") from error

    return aiohttp.ClientSession(connector=Connector(limit=0), cookie_jar=aiohttp.DummyCookieJar(), **more)
