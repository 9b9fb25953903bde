"""Makes providers' own clients open a connection for each call, and wait for it no longer than other clients do.

By default most of them open at most a hundred, and further calls wait in the client until one is free; and they wait
for a connection as long as for an answer. Nobody would see that such a call was never sent: its time would end, it
would be charged at its bound, and the deployment be attempted last. How many connections there may be is the gateway's
decision. Loaded by the translation service only; AWS's client, which blocks, has as many connections as threads.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
from typing import Any

from groundplan.gateway.upstream.translation.no_redirects import http_clients, loop_client_arguments

CONNECT_SECONDS = 5.0
MAX_IDLE = 256
"""Most idle connections."""


def use_connection_per_call(api: str, provider: Any) -> None:
    """Configure the HTTP clients of the library's provider; called in the loop. Raises `AttributeError` if they are
    built in an unknown way."""
    for client in http_clients(api, provider):
        hooks = client.event_hooks
        client.event_hooks = hooks = {**hooks, "request": [*hooks["request"], _limit_connect_time]}
        if (arguments := loop_client_arguments(client)) is not None:
            package = importlib.import_module(client._inner_client_cls.__module__.partition(".")[0])
            arguments["limits"] = package.Limits(max_connections=None, max_keepalive_connections=MAX_IDLE)
            arguments["event_hooks"] = hooks
        for transport in (client._transport, *client._mounts.values()):
            if transport is not None:
                transport._pool._max_connections, transport._pool._max_keepalive_connections = sys.maxsize, MAX_IDLE
    if api == "azure":
        for each in (provider.chat_client, provider.embeddings_client):
            each._client._pipeline._transport.session = _session(auto_decompress=False)  # closed with the client
    elif api in ("gemini", "vertexai"):
        known = provider.client._api_client
        if known._use_aiohttp() and not known._use_google_auth_async():
            buffer_size = importlib.import_module(type(known).__module__).READ_BUFFER_SIZE
            known._aiohttp_sessions[asyncio.get_running_loop()] = _session(
                read_bufsize=buffer_size
            )  # closed with the client


async def _limit_connect_time(request: Any) -> None:
    """Hook of `httpx` that runs just before a request is sent."""
    request.extensions["timeout"] = {**request.extensions.get("timeout", {}), "connect": CONNECT_SECONDS}


def _session(**more: Any) -> Any:
    """A session of `aiohttp`."""
    aiohttp = importlib.import_module("aiohttp")

    class Connector(aiohttp.TCPConnector):  # type: ignore[name-defined, misc]
        async def _create_connection(self, *asked: Any, **named: Any) -> Any:
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    return await super()._create_connection(*asked, **named)
            except TimeoutError as error:
                raise aiohttp.ConnectionTimeoutError("no connection in time") from error

    return aiohttp.ClientSession(connector=Connector(limit=0), cookie_jar=aiohttp.DummyCookieJar(), **more)
