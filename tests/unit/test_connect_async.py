"""A connection that somebody gives up while it opens is closed, not left to the server's patience."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from groundplan.core.database import connect_async


async def test_giving_up_while_it_opens_leaves_nothing_open() -> None:
    came, gone = asyncio.Event(), asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.set()
        while await reader.read(1000):
            pass
        gone.set()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        opening = asyncio.create_task(connect_async(f"postgresql://u:p@127.0.0.1:{port}/d?sslmode=disable", timeout=2))
        await came.wait()
        opening.cancel()
        with pytest.raises(asyncio.CancelledError) as held:
            await opening
        async with asyncio.timeout(5):
            await gone.wait()
    assert held.value is not None
    with contextlib.suppress(OSError):
        await server.wait_closed()
