"""When a request goes out: at the end of the turn of the loop in which it was given, in order, or never."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator

import pytest
from tests.unit.raw_upstream import tcp_server

from groundplan.gateway.upstream import http1, http1_pool
from groundplan.gateway.upstream.connection import UpstreamFailure
from groundplan.gateway.upstream.http1 import Http1Connection
from groundplan.gateway.upstream.http1_pool import Http1Pool

HEAD = b"POST /v1/x HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\n"


class Seen:
    """A server that keeps what it is sent and answers nothing."""

    def __init__(self) -> None:
        self.data = b""

    async def serve(self, reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            self.data += data


@pytest.fixture
async def seen() -> AsyncIterator[tuple[Seen, Http1Pool]]:
    kept = Seen()
    async with tcp_server(kept.serve) as port:
        pool = Http1Pool(f"http://127.0.0.1:{port}/v1", asyncio.get_running_loop())
        yield kept, pool
        pool.close()


async def until(seen: Seen, data: bytes) -> None:
    for _ in range(3000):
        if seen.data == data:
            return
        await asyncio.sleep(0.01)
    assert seen.data == data


async def gone(pool: Http1Pool) -> None:
    async with asyncio.timeout(20):
        while pool._connections:  # noqa: ASYNC110 -- what is waited for has no event
            await asyncio.sleep(0.01)


async def test_parts_of_a_request_arrive_in_their_order(seen: tuple[Seen, Http1Pool]) -> None:
    kept, pool = seen
    connection = await pool.connect(5)
    for part in (HEAD, b"ab", b"cd"):
        connection.send(part)
    await until(kept, HEAD + b"abcd")
    connection.abort()


async def test_an_unwritten_request_counts_as_not_sent(seen: tuple[Seen, Http1Pool]) -> None:
    kept, pool = seen
    connection = await pool.connect(5)
    connection.send(HEAD + b"abcd")
    connection.abort()
    with pytest.raises(UpstreamFailure) as caught:
        await connection.read_head(5)
    assert not caught.value.sent
    assert kept.data == b""


async def test_a_written_request_counts_as_sent(seen: tuple[Seen, Http1Pool]) -> None:
    kept, pool = seen
    connection = await pool.connect(5)
    connection.send(HEAD + b"abcd")
    await until(kept, HEAD + b"abcd")
    connection.abort()
    with pytest.raises(UpstreamFailure) as caught:
        await connection.read_head(5)
    assert caught.value.sent


async def test_a_closed_connection_leaves_nothing_behind(seen: tuple[Seen, Http1Pool]) -> None:
    _, pool = seen

    def left() -> int:
        return sum(type(one) is Http1Connection for one in gc.get_objects())

    gc.collect()
    before = left()
    gc.disable()
    try:
        for _ in range(20):
            (await pool.connect(5)).abort()
        await gone(pool)
        async with asyncio.timeout(20):  # whatever holds one for a moment lets it go; a cycle does not
            while left() != before:  # noqa: ASYNC110 -- what is waited for has no event
                await asyncio.sleep(0.01)
    finally:
        gc.enable()


async def test_a_withheld_request_is_never_sent_and_costs_nothing(seen: tuple[Seen, Http1Pool]) -> None:
    kept, pool = seen
    sent, withheld = await pool.connect(5), await pool.connect(5)
    sent.send(HEAD + b"abcd")
    await until(kept, HEAD + b"abcd")
    withheld.send(HEAD + b"efgh")
    pool.cancel_unsent("it could not be written down")
    with pytest.raises(UpstreamFailure, match="could not be written") as caught:
        await withheld.read_head(5)
    assert not caught.value.sent
    await asyncio.sleep(0.05)
    assert kept.data == HEAD + b"abcd" and not sent.lost and withheld.lost


async def test_unused_connections_are_closed(seen: tuple[Seen, Http1Pool], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a deployment that is asked no more they would take files until it closes them itself."""
    monkeypatch.setattr(http1_pool, "IDLE_SECONDS", 0.6)
    _, pool = seen
    connections = [await pool.connect(5) for _ in range(3)]
    for connection in connections[:2]:
        pool.release(connection)
    await asyncio.sleep(0.4)
    pool.release(connections[2])
    assert len(pool._connections) == 3
    async with asyncio.timeout(20):
        while len(pool._connections) == 3:  # noqa: ASYNC110 -- what is waited for has no event
            await asyncio.sleep(0.01)
    assert not connections[2].lost and pool.take_idle() is connections[2]
    pool.release(connections[2])
    await gone(pool)


async def test_a_connection_has_a_maximum_age_however_often_it_is_used(
    seen: tuple[Seen, Http1Pool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else nobody who asks all the time ever learns that a name has another address."""
    _, pool = seen
    for seconds in (600.0, 0.0):
        monkeypatch.setattr(http1, "MAX_AGE_SECONDS", (seconds, seconds))
        connection = await pool.connect(5)
        pool.release(connection)
        assert pool.take_idle() is (connection if seconds else None)
        connection.abort()
    await gone(pool)


async def test_the_number_of_idle_connections_is_bounded(
    seen: tuple[Seen, Http1Pool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http1_pool, "MAX_IDLE", 1)
    _, pool = seen
    kept, more = await pool.connect(5), await pool.connect(5)
    pool.release(kept)
    pool.release(more)
    async with asyncio.timeout(20):
        while len(pool._connections) > 1:  # noqa: ASYNC110 -- what is waited for has no event
            await asyncio.sleep(0.01)
    assert more.lost and pool.take_idle() is kept and pool.take_idle() is None
