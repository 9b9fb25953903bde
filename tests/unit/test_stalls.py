"""What a loop that stood still takes for silence: real loops, held up by a sleep that blocks them, and real sockets."""

from __future__ import annotations

import asyncio
import gc
import socket
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.closing import close

from groundplan.core.errors import GroundplanError
from groundplan.gateway.http.errors import error_response, refusal_body
from groundplan.gateway.http.server import Limits, Request, Response, Server
from groundplan.gateway.stalls import LATE_SECONDS, TICK_SECONDS, Alarm, patient, stall_monitor_of
from groundplan.gateway.upstream.connection import UpstreamFailure
from groundplan.gateway.upstream.http1_pool import Http1Pool

UNSEEN = 1.5 * TICK_SECONDS + LATE_SECONDS
"""The most of a stop that is not counted: until the next tick was expected, and what is no stop."""
SLACK = 0.25
"""Seconds that a busy machine may be late by itself."""


@pytest.fixture
async def watched() -> AsyncIterator[None]:
    found = stall_monitor_of(asyncio.get_running_loop())
    found.start()
    yield
    found.stop()


def stand_still(seconds: float) -> None:
    """This loop, and all that it would read."""
    time.sleep(seconds)


def later(seconds: float, sent: socket.socket, data: bytes) -> threading.Thread:
    """Somebody else, who goes on while this loop stands still."""

    def say() -> None:
        time.sleep(seconds)
        sent.sendall(data)

    thread = threading.Thread(target=say)
    thread.start()
    return thread


@settings(max_examples=6, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 0.2), st.floats(0, 0.7)), min_size=1, max_size=3))
def test_only_stopped_time_is_counted_and_nearly_all_of_it(turns: list[tuple[float, float]]) -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        found = stall_monitor_of(loop)
        found.start()
        begun = since = loop.time()
        stood = 0.0
        for ran, blocked in turns:
            await asyncio.sleep(ran)
            stand_still(blocked)
            await asyncio.sleep(0)
            stood += max(0.0, blocked - UNSEEN)
        await asyncio.sleep(2 * TICK_SECONDS)
        counted = found.stalled_seconds(since)
        assert stood - 0.01 * len(turns) <= counted <= loop.time() - begun
        assert found.stalled_seconds(loop.time()) == 0
        before = loop.time()  # which goes on between two lines
        assert found.remaining(since, 1.0) == pytest.approx(since + 1.0 + counted - before, abs=0.1)
        assert found.remaining(since, 1.0, since + 0.5) <= since + 0.5 - before
        found.stop()

    uvloop.run(run())


async def test_a_constantly_late_loop_still_times_out(watched: None) -> None:
    """Its turns take a third of a second each, in every one of which somebody could be heard."""
    loop, rang = asyncio.get_running_loop(), asyncio.Event()
    Alarm(loop, 0.5, rang.set)
    turns = 0
    while not rang.is_set():
        stand_still(0.33)
        await asyncio.sleep(0.001)
        turns += 1
    assert 1 < turns < 15


async def test_no_stall_is_detected_while_the_monitor_is_stopped(watched: None) -> None:
    loop = asyncio.get_running_loop()
    found, since = stall_monitor_of(loop), loop.time()
    found.stop()
    stand_still(0.5)
    await asyncio.sleep(0.01)
    assert found.stalled_seconds(since) == 0
    found.start()
    await asyncio.sleep(2 * TICK_SECONDS)
    assert found.stalled_seconds(since) < SLACK


async def test_data_arrived_during_a_stop_is_read_although_the_timeout_passed(watched: None) -> None:
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=ours)
    thread = later(0.3, theirs, b"here")
    waiting = asyncio.ensure_future(reader.readexactly(4))
    await asyncio.sleep(0.05)
    async with patient(0.2):
        stand_still(0.6)
        assert await waiting == b"here"
    with pytest.raises(TimeoutError):
        async with patient(0.1):
            await asyncio.sleep(5)
    thread.join()
    writer.close()
    theirs.close()


@pytest.mark.parametrize("over", [False, True])
async def test_a_finished_wait_leaves_nothing_behind(watched: None, over: bool) -> None:
    """It knows its task, and all that belongs to that: a worker in trouble would keep every one."""

    async def wait() -> None:
        with suppress(TimeoutError):
            async with patient(0.01 if over else 5):
                await asyncio.sleep(5 if over else 0)

    def left() -> int:
        return sum(isinstance(one, patient | Alarm | asyncio.Timeout) for one in gc.get_objects())

    gc.collect()
    before = left()
    gc.disable()
    try:
        for _ in range(5):
            await asyncio.create_task(wait())
        assert left() == before
    finally:
        gc.enable()


async def test_a_deadline_is_not_extended_by_a_stop(watched: None) -> None:
    loop = asyncio.get_running_loop()
    begun = loop.time()
    with pytest.raises(TimeoutError):
        async with patient(5, until=begun + 0.3):
            await asyncio.sleep(0)
            stand_still(0.6)
            await asyncio.sleep(0.001)
            async with patient(5, until=begun + 0.3):
                await asyncio.sleep(5)
    assert loop.time() - begun < 0.6 + SLACK


async def test_a_connection_closed_during_a_stop_is_not_reused(watched: None) -> None:
    """Nor is one that was sent something; the others stay."""
    loop, theirs = asyncio.get_running_loop(), list[asyncio.StreamWriter]()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs.append(writer)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    pool = Http1Pool(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", loop)
    connections = [await pool.connect(1) for _ in range(3)]
    for each in connections:
        each.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        assert await each.read_head(1) == 200 and await each.read_chunk(1) is None
        each.release()
    sockets = [writer.get_extra_info("socket") for writer in theirs]

    def ended() -> None:
        time.sleep(0.1)
        sockets[0].shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=ended)
    thread.start()
    stand_still(0.5)
    assert stall_monitor_of(loop).stalled_seconds(loop.time() - 1) > 0
    kept = [pool.take_idle() for _ in range(3)]
    assert sorted(each is not None for each in kept) == [False, True, True]
    for left in kept:
        if left is not None:
            left.abort()
    thread.join()
    server.close()
    for writer in theirs:
        writer.close()


async def test_an_upstream_whose_timeout_passed_during_the_stop_is_read_first(watched: None) -> None:
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        pool = Http1Pool(f"http://127.0.0.1:{listening.getsockname()[1]}", loop)
        connection = await pool.connect(1)
        far = listening.accept()[0]
        connection.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        head = asyncio.ensure_future(connection.read_head(0.2))
        await asyncio.sleep(0.05)
        thread = later(0.4, far, b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n")
        stand_still(0.7)
        assert await head == 200
        thread.join()
        body = asyncio.ensure_future(connection.read_body(0.2))
        await asyncio.sleep(0.05)
        thread = later(0.4, far, b"hello")
        stand_still(0.7)
        assert await body == b"hello"
        thread.join()
        connection.release()
        connection = pool.take_idle() or await pool.connect(1)
        connection.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        begun = loop.time()
        with pytest.raises(UpstreamFailure) as failure:
            await connection.read_head(0.2)
        assert failure.value.kind == "timeout" and loop.time() - begun < 0.2 + SLACK
        pool.close()
        far.close()


HASTY = Limits(head_seconds=0.3, body_seconds=0.3, idle_seconds=0.4, linger_seconds=0.1, sweep_seconds=0.05)


@asynccontextmanager
async def serving(limits: Limits) -> AsyncIterator[int]:
    loop = asyncio.get_running_loop()

    async def handle(request: Request, response: Response) -> None:
        data = request.body
        try:
            while request.stream is not None and (piece := await request.stream.read()):
                data += piece
        except GroundplanError as error:
            response.send(*error_response(error))
            return
        response.send(200, data)

    server = Server(handle, refusal_body, loop, limits)
    server.is_streamed = lambda request: request.target == b"/stream"
    listener = await loop.create_server(server.create_connection, "127.0.0.1", 0)
    yield listener.sockets[0].getsockname()[1]
    await close(listener, server)


@pytest.mark.parametrize(
    ("first", "then"),
    [
        pytest.param(b"POST / HTTP/1.1\r\nhost: a\r\nconte", b"nt-length: 2\r\n\r\nhi", id="head"),
        pytest.param(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nh", b"i", id="body"),
        pytest.param(b"POST /stream HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nh", b"i", id="streamed body"),
        pytest.param(b"", b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi", id="nothing"),
    ],
)
async def test_a_client_whose_timeout_passed_during_the_stop_is_read(watched: None, first: bytes, then: bytes) -> None:
    async with serving(HASTY) as port:
        ours = socket.create_connection(("127.0.0.1", port))
        reader, writer = await asyncio.open_connection(sock=ours)
        writer.write(first)
        await asyncio.sleep(0.1)
        thread = later(0.3, ours, then)
        stand_still(0.7)
        assert await reader.readuntil(b"\r\n\r\nhi") != b""
        thread.join()
        assert await reader.read() == b"", "and who is silent then is let go"
        writer.close()
