"""What PostgreSQL tells a connection, without looking in between whether it has told something: the `notifies` of
psycopg wakes its process ten times a second for that.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from psycopg import AsyncConnection, Notify

from groundplan.gateway.rhythm import beat


async def heard(connection: AsyncConnection[Any], seconds: float | None = None) -> AsyncIterator[Notify]:
    """What PostgreSQL has told this connection, once there is something, or at the next beat of `seconds`. Raises
    psycopg.Error where it is lost."""
    waits = True
    async for notice in connection.notifies(timeout=0):
        waits = False
        yield notice
    if waits:
        await _readable(connection.fileno(), seconds)
        async for notice in connection.notifies(timeout=0):
            yield notice


async def _readable(descriptor: int, seconds: float | None) -> None:
    loop = asyncio.get_running_loop()
    waiter: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not waiter.done():
            waiter.set_result(None)

    timer = None if seconds is None else loop.call_at(beat(loop.time(), seconds), wake)
    loop.add_reader(descriptor, wake)
    try:
        await waiter
    finally:
        loop.remove_reader(descriptor)
        if timer is not None:
            timer.cancel()
