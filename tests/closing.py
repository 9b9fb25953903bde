"""Closing a server that a test runs in its own event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from groundplan.gateway.http.server import Server


def active_requests(server: Server) -> int:
    """Number of requests that are being answered."""
    return sum(connection.is_answering for connection in server.connections)


async def close(
    listener: asyncio.AbstractServer,
    server: Server,
    seconds: float = 0.2,
    *,
    busy: Callable[[], object] = lambda: False,
) -> None:
    """Stop listening, and cut all connections once no request is active and `busy` is false, or after `seconds`. A
    worker that stops also waits for connections that were accepted just before; here there are none."""
    listener.close()
    end = server.now() + seconds
    await asyncio.sleep(0)
    while (active_requests(server) or busy()) and server.now() < end:  # noqa: ASYNC110 -- it has a deadline
        await asyncio.sleep(0.005)
    await server.drain(0)
