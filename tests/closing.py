"""How a test's own server ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from groundplan.gateway.http.server import Server


async def close(
    listener: asyncio.AbstractServer,
    server: Server,
    seconds: float = 0.2,
    *,
    busy: Callable[[], object] = lambda: False,
) -> None:
    """Stop listening, and cut whoever is connected, once nothing is answered and nobody is `busy`, or after `seconds`.
    A worker that stops waits for those who were accepted just before as well; here nobody comes any more."""
    listener.close()
    end = server.now() + seconds
    await asyncio.sleep(0)
    while (server.active_requests or busy()) and server.now() < end:  # noqa: ASYNC110 -- it has a deadline
        await asyncio.sleep(0.005)
    await server.drain(0)
