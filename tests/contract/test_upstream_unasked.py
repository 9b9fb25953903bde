"""Upstreams that answer more than they were asked, on real sockets and on the gateway's own loop: no call gets an
answer that came before its request."""

from __future__ import annotations

import asyncio
import select
import socket
import ssl
import struct
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop
from tests.contract.ways import Authority, server_context

from groundplan.gateway.upstream import http1_pool
from groundplan.gateway.upstream.connection import UpstreamFailure
from groundplan.gateway.upstream.http1 import BUFFER_HIGH, Http1Connection
from groundplan.gateway.upstream.http1_pool import Http1Pool

PATIENCE = 20.0
BEGUN = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
REQUEST = b"GET /v1/x HTTP/1.1\r\nhost: u\r\n\r\n"


def answer(text: bytes, status: bytes = b"200 OK") -> bytes:
    return b"HTTP/1.1 %b\r\ncontent-length: %d\r\n\r\n%b" % (status, len(text), text)


class Far:
    """The upstream, whose every byte the test sends itself."""

    def __init__(self, context: ssl.SSLContext | None) -> None:
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self.port: int = self._listener.getsockname()[1]

    def accept(self) -> socket.socket:
        made, _ = self._listener.accept()
        made.settimeout(PATIENCE)
        if self._context is not None:
            made = self._context.wrap_socket(made, server_side=True)
        self._sockets.append(made)
        return made

    def close(self) -> None:
        for each in (self._listener, *self._sockets):
            each.close()


@asynccontextmanager
async def upstream(folder: Path | None) -> AsyncIterator[tuple[Http1Pool, Far]]:
    """A pool and where it leads; with TLS where there is a folder for its certificates."""
    trusting = None
    if folder is not None:
        authority = Authority(folder)
        trusting = ssl.create_default_context(cafile=str(authority.file))
    far = Far(server_context(authority) if folder is not None else None)
    scheme = "http" if trusting is None else "https"
    pool = Http1Pool(f"{scheme}://127.0.0.1:{far.port}/v1", asyncio.get_running_loop(), trusting)
    try:
        yield pool, far
    finally:
        pool.close()
        far.close()
        await asyncio.sleep(0)


async def asked(pool: Http1Pool, far: Far) -> tuple[Http1Connection, socket.socket]:
    """A new connection on which a call was sent, and the upstream's end of it, which has read it."""
    accepting = asyncio.create_task(asyncio.to_thread(far.accept))
    connection = await pool.connect(PATIENCE)
    connection.send(REQUEST)
    end = await accepting
    assert await asyncio.to_thread(end.recv, 1000) == REQUEST
    return connection, end


async def answered(pool: Http1Pool, far: Far, sent: bytes) -> tuple[Http1Connection, socket.socket, bytes]:
    """One call on a new connection that the upstream answers with `sent`, not yet released, and its body."""
    connection, end = await asked(pool, far)
    await asyncio.to_thread(end.sendall, sent)
    await connection.read_head(PATIENCE)
    return connection, end, await connection.read_body(PATIENCE)


async def none_open(pool: Http1Pool) -> None:
    async with asyncio.timeout(PATIENCE):
        while pool.open_connections:  # noqa: ASYNC110 -- what is waited for has no event
            await asyncio.sleep(0.005)


async def is_kept(pool: Http1Pool, far: Far) -> bool:
    """Whether a connection is used again after an ordinary call."""
    connection, _, body = await answered(pool, far, answer(b"own"))
    assert body == b"own"
    connection.release()
    return pool.take_idle() is connection


def arrived(connection: Http1Connection, end: socket.socket, data: bytes) -> None:
    """Send it; it is there when this returns, and the loop has not looked."""
    end.sendall(data)
    came(connection)


def came(connection: Http1Connection) -> None:
    assert connection.transport is not None
    descriptor = connection.transport.get_extra_info("socket").fileno()
    assert select.select([descriptor], [], [], PATIENCE)[0]


async def behind_the_answer(pool: Http1Pool, far: Far) -> None:
    connection, _, body = await answered(pool, far, answer(b"first") + answer(b"late"))
    assert body == b"first"
    connection.release()


async def while_nobody_uses_it(pool: Http1Pool, far: Far) -> None:
    connection, end, _ = await answered(pool, far, answer(b"first"))
    connection.release()
    end.sendall(answer(b"late"))


async def before_it_is_taken(pool: Http1Pool, far: Far) -> None:
    connection, end, _ = await answered(pool, far, answer(b"first"))
    connection.release()
    arrived(connection, end, answer(b"late"))
    assert pool.take_idle() is connection
    connection.send(REQUEST)
    await _nothing_sent(connection, end)


async def before_the_request_is_written(pool: Http1Pool, far: Far) -> None:
    connection, end, _ = await answered(pool, far, answer(b"first"))
    connection.release()
    assert pool.take_idle() is connection
    connection.send(REQUEST)
    arrived(connection, end, answer(b"late"))
    await _nothing_sent(connection, end)


async def _nothing_sent(connection: Http1Connection, end: socket.socket) -> None:
    """The next call gets no answer, and what it asked never left: it may be asked again on another connection."""
    with pytest.raises(UpstreamFailure) as caught:
        await connection.read_head(PATIENCE)
    assert (caught.value.kind, caught.value.sent, connection.status) == ("cut", False, 0)
    connection.release()
    try:
        assert await asyncio.to_thread(end.recv, 1000) == b""
    except OSError:
        pass  # reset, as it should


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize(
    "timing", [behind_the_answer, while_nobody_uses_it, before_it_is_taken, before_the_request_is_written]
)
def test_an_answer_that_nobody_asked_for_is_no_calls(
    timing: Callable[[Http1Pool, Far], Coroutine[Any, Any, None]],
    secure: bool,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """And from then on that upstream gets no second request on a connection: it could answer one that it never read."""

    async def run() -> None:
        async with upstream(tmp_path if secure else None) as (pool, far):
            await timing(pool, far)
            await none_open(pool)
            assert pool.take_idle() is None
            for _ in range(2):
                assert not await is_kept(pool, far)

    uvloop.run(run())
    assert [text.count("nobody had asked for") for text in caplog.messages] == [1], "told once"


def test_connections_that_wait_are_closed_with_the_one_that_answered_unasked() -> None:
    async def run() -> None:
        async with upstream(None) as (pool, far):
            one, end, _ = await answered(pool, far, answer(b"one"))
            other, _, _ = await answered(pool, far, answer(b"other"))
            one.release()
            other.release()
            end.sendall(answer(b"late"))
            await none_open(pool)

    uvloop.run(run())


def test_after_an_hour_connections_are_shared_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with upstream(None) as (pool, far):
            monkeypatch.setattr(http1_pool, "NO_REUSE_SECONDS", 0.0)
            await behind_the_answer(pool, far)
            await none_open(pool)
            assert await is_kept(pool, far)

    assert http1_pool.NO_REUSE_SECONDS == 3600
    uvloop.run(run())


@pytest.mark.parametrize("status", [b"408 Request Timeout", b"502 Bad Gateway", b"504 Gateway Timeout"])
def test_where_something_in_front_gave_up_the_models_own_answer_may_yet_come(status: bytes) -> None:
    async def run() -> None:
        async with upstream(None) as (pool, far):
            connection, _, _ = await answered(pool, far, answer(b"sorry", status))
            connection.release()
            assert pool.take_idle() is None
            assert await is_kept(pool, far), "that alone says nothing against the upstream"

    uvloop.run(run())


@pytest.mark.parametrize("bytes_", [b"\r\n", answer(b"", b"408 Request Timeout")])
def test_what_servers_say_as_they_close_an_idle_connection_is_no_answer(bytes_: bytes) -> None:
    async def run() -> None:
        async with upstream(None) as (pool, far):
            connection, end, _ = await answered(pool, far, answer(b"first"))
            connection.release()
            end.sendall(bytes_)
            await none_open(pool)
            assert await is_kept(pool, far)

    uvloop.run(run())


def test_a_connection_in_which_a_request_is_not_sent_to_its_end_is_nobody_elses() -> None:
    """The next request would stand behind what was sent of it, and the upstream read both as one."""

    async def run() -> None:
        async with upstream(None) as (pool, far):
            connection, _, body = await answered(pool, far, answer(b"no", b"413 Too Large"))
            connection.is_request_incomplete = True
            assert body == b"no"
            connection.release()
            assert pool.take_idle() is None

    uvloop.run(run())


def test_who_says_something_now_and_then_is_not_silent_however_it_is_framed() -> None:
    got: list[bytes] = []

    def sink(data: bytes) -> bool:
        got.append(data)
        return True

    def said(end: socket.socket) -> None:
        for _ in range(6):
            end.sendall(b"x")
            time.sleep(0.1)
        end.shutdown(socket.SHUT_WR)

    async def run() -> None:
        async with upstream(None) as (pool, far):
            connection, end = await asked(pool, far)
            await asyncio.to_thread(end.sendall, b"HTTP/1.1 200 OK\r\n\r\n")
            assert await connection.read_head(PATIENCE) == 200
            saying = asyncio.create_task(asyncio.to_thread(said, end))
            connection.pump(sink, 0.4)
            assert await connection.read_chunk(0.4) is None and b"".join(got) == b"x" * 6
            await saying
            connection.release()

    uvloop.run(run())


def test_who_was_given_long_for_a_beginning_has_less_for_what_follows() -> None:
    async def run() -> None:
        async with upstream(None) as (pool, far):
            accepting = asyncio.create_task(asyncio.to_thread(far.accept))
            connection = await pool.connect(PATIENCE)

            def sink(data: bytes) -> bool:
                connection.pump(sink, 0.2)
                return True

            connection.send(REQUEST)
            end = await accepting
            assert await asyncio.to_thread(end.recv, 1000) == REQUEST
            await asyncio.to_thread(end.sendall, b"HTTP/1.1 200 OK\r\n\r\n")
            assert await connection.read_head(PATIENCE) == 200
            connection.pump(sink, PATIENCE)
            waiting = asyncio.create_task(connection.read_chunk(PATIENCE))
            await asyncio.sleep(0)  # until it waits
            await asyncio.to_thread(end.sendall, b"x")
            async with asyncio.timeout(PATIENCE / 2):
                with pytest.raises(UpstreamFailure, match="in time"):
                    await waiting
            end.close()

    uvloop.run(run())


def test_a_connection_whose_last_answer_nobody_took_is_read_for_the_next() -> None:
    """As where a client is gone that took nothing of it, or waited for room."""

    async def run() -> None:
        async with upstream(None) as (pool, far):
            connection, end = await asked(pool, far)
            await asyncio.to_thread(end.sendall, answer(bytes(BUFFER_HIGH + 1)))
            assert await connection.read_head(PATIENCE) == 200 and connection.transport is not None
            async with asyncio.timeout(PATIENCE):
                while connection.transport.is_reading():  # noqa: ASYNC110 -- what is waited for has no event
                    await asyncio.sleep(0.005)
            connection.release()
            assert pool.take_idle() is connection
            connection.send(REQUEST)
            assert await asyncio.to_thread(end.recv, 1000) == REQUEST
            await asyncio.to_thread(end.sendall, answer(b"next"))
            assert await connection.read_head(1.0) == 200 and await connection.read_body(1.0) == b"next"
            connection.release()

    uvloop.run(run())


def test_a_request_that_met_the_end_of_its_connection_was_not_sent() -> None:
    async def run() -> None:
        async with upstream(None) as (pool, far):
            connection, end, _ = await answered(pool, far, answer(b"first"))
            connection.release()
            assert pool.take_idle() is connection
            connection.send(REQUEST)
            end.shutdown(socket.SHUT_WR)
            came(connection)
            await _nothing_sent(connection, end)

    uvloop.run(run())


def test_what_frames_a_body_is_bounded_between_two_pieces_of_it_alone() -> None:
    """However much there is of it in all, also while nobody reads."""

    async def run() -> None:
        async with upstream(None) as (pool, far):
            connection, end = await asked(pool, far)
            for part in (BEGUN, *[b"1;" + b"x" * 30_000, b"\r\na\r\n"] * 3):
                await asyncio.to_thread(end.sendall, part)
                await asyncio.sleep(0.02)  # each is read by itself
            await asyncio.to_thread(end.sendall, b"0\r\n\r\n")
            assert await connection.read_head(PATIENCE) == 200 and await connection.read_body(PATIENCE) == b"aaa"
            connection.release()

    uvloop.run(run())


@pytest.mark.parametrize("lines", [b"", b"transfer-encoding: gzip\r\n"], ids=["reset", "another coding"])
def test_what_only_the_end_of_a_connection_ends_is_not_whole_where_that_is_no_end(lines: bytes) -> None:
    async def run() -> None:
        async with upstream(None) as (pool, far):
            connection, end = await asked(pool, far)
            await asyncio.to_thread(end.sendall, b"HTTP/1.1 200 OK\r\n%b\r\nhalf" % lines)
            assert await connection.read_head(PATIENCE) == 200 and await connection.read_chunk(PATIENCE) == b"half"
            if not lines:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            end.close()
            with pytest.raises(UpstreamFailure) as caught:
                await connection.read_chunk(PATIENCE)
            assert caught.value.kind == "cut"
            connection.release()

    uvloop.run(run())


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
def test_what_lay_behind_a_slow_client_comes_to_its_end(secure: bool, tmp_path: Path) -> None:
    """Within TLS all of it comes in one piece, more than is taken before its upstream is held up."""
    size, got = 1_000_000, list[bytes]()

    def sent(end: socket.socket) -> None:
        data = answer(bytes(size))
        for at in range(0, len(data), 20_000):
            end.sendall(data[at : at + 20_000])
            time.sleep(0.001)

    def sink(data: bytes) -> bool:
        got.append(data)
        return True

    async def run() -> None:
        async with upstream(tmp_path if secure else None) as (pool, far):
            connection, end = await asked(pool, far)
            sending = asyncio.create_task(asyncio.to_thread(sent, end))
            assert await connection.read_head(PATIENCE) == 200
            await asyncio.sleep(0.2)  # its client takes nothing
            while (data := await connection.read_chunk(1.0)) is not None:
                got.append(data)
                connection.pump(sink, 1.0)
            assert sum(map(len, got)) == size
            await sending
            connection.release()

    uvloop.run(run())
