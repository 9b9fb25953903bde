"""A client that disconnects while nothing is read from its connection: its call is cancelled all the same."""

from __future__ import annotations

import asyncio
import functools
import sys

import pytest
from tests.unit.call_rig import wait_until
from tests.unit.test_gateway_server import LIMITS, WHOLE, Running, post, serving

from groundplan.gateway.http.body_stream import HIGH_WATER

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems do not report it")


def is_read(running: Running) -> bool:
    (connection,) = running.server.connections
    return connection.transport is not None and connection.transport.is_reading()


def is_waiting(running: Running) -> bool:
    return any(target == b"/wait" for _, target, _ in running.seen.requests)


def is_cancelled(running: Running) -> bool:
    return running.seen.cancelled == 1


async def test_a_disconnect_behind_a_pipelined_request_cancels_the_running_call() -> None:
    """Also one that has waited for the call before it."""
    for first in (b"", post(close=False)):
        async with serving(LIMITS) as running:
            _, writer = await asyncio.open_connection("127.0.0.1", running.port)
            writer.write(first + post(path="/wait", close=False) + post(path="/wait", close=False))
            await wait_until(functools.partial(is_waiting, running))
            assert not is_read(running), "the pipelined request waits"
            writer.close()
            await wait_until(functools.partial(is_cancelled, running))


async def test_a_disconnect_behind_unread_bytes_of_an_upload_cancels_its_call() -> None:
    async with serving(LIMITS) as running:
        running.server.is_streamed = lambda _: True
        _, writer = await asyncio.open_connection("127.0.0.1", running.port)
        head = b"POST /wait HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % WHOLE
        writer.write(head + bytes(HIGH_WATER))
        await wait_until(lambda: is_waiting(running) and not is_read(running))
        writer.write(b"unread")
        writer.close()
        await wait_until(lambda: is_cancelled(running))


async def test_a_client_that_reads_a_complete_answer_slowly_may_have_closed_its_half() -> None:
    async with serving(LIMITS) as running:
        connections, seen = running.server.connections, running.seen.requests
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port, limit=1024)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(post(close=False) + post(path="/whole", close=False))
        await wait_until(lambda: len(seen) == 2 and all(each.has_unread_answer for each in connections))
        assert not is_read(running) and running.server.disconnects._watched, "since the first of them was answered"
        writer.write_eof()
        await asyncio.sleep(0.05)
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        assert len(await asyncio.wait_for(reader.read(), 20)) > WHOLE
        writer.close()


async def test_a_connection_that_is_read_again_is_watched_no_longer() -> None:
    """Its descriptor may belong to another connection later."""
    async with serving(LIMITS) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(post(b"a", close=False) * 3)
        for _ in range(3):
            await asyncio.wait_for(reader.readuntil(b"ok:a"), 20)
        await wait_until(lambda: is_read(running))
        assert not running.server.disconnects._watched
        writer.write(post(b"b"))
        assert b"ok:b" in await asyncio.wait_for(reader.read(), 20)
        writer.close()
