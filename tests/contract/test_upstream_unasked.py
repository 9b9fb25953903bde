"""Upstreams that send unrequested answers, on real sockets and on the gateway's own event loop: no call gets an answer
that arrived before its request."""

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
CHUNKED_HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
REQUEST = b"GET /v1/x HTTP/1.1\r\nhost: u\r\n\r\n"


def answer(text: bytes, status: bytes = b"200 OK") -> bytes:
    return b"HTTP/1.1 %b\r\ncontent-length: %d\r\n\r\n%b" % (status, len(text), text)


class ManualUpstream:
    """An upstream of which the test sends every byte itself."""

    def __init__(self, context: ssl.SSLContext | None) -> None:
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self.port: int = self._listener.getsockname()[1]

    def accept(self) -> socket.socket:
        accepted, _ = self._listener.accept()
        accepted.settimeout(PATIENCE)
        if self._context is not None:
            accepted = self._context.wrap_socket(accepted, server_side=True)
        self._sockets.append(accepted)
        return accepted

    def close(self) -> None:
        for each in (self._listener, *self._sockets):
            each.close()


@asynccontextmanager
async def upstream(folder: Path | None) -> AsyncIterator[tuple[Http1Pool, ManualUpstream]]:
    """A pool and its upstream; with TLS if there is a folder for the certificates."""
    client_context = None
    if folder is not None:
        authority = Authority(folder)
        client_context = ssl.create_default_context(cafile=str(authority.file))
    manual_upstream = ManualUpstream(server_context(authority) if folder is not None else None)
    scheme = "http" if client_context is None else "https"
    pool = Http1Pool(f"{scheme}://127.0.0.1:{manual_upstream.port}/v1", asyncio.get_running_loop(), client_context)
    try:
        yield pool, manual_upstream
    finally:
        pool.close()
        manual_upstream.close()
        await asyncio.sleep(0)


async def send_request(pool: Http1Pool, manual: ManualUpstream) -> tuple[Http1Connection, socket.socket]:
    """Send a call on a new connection; returns it, and the upstream's socket, which has read the call."""
    accepting = asyncio.create_task(asyncio.to_thread(manual.accept))
    connection = await pool.connect(PATIENCE)
    connection.send(REQUEST)
    end = await accepting
    assert await asyncio.to_thread(end.recv, 1000) == REQUEST
    return connection, end


async def call_answered_with(
    pool: Http1Pool, manual: ManualUpstream, sent: bytes
) -> tuple[Http1Connection, socket.socket, bytes]:
    """Make a call on a new connection that the upstream answers with `sent`; returns the connection, which is not
    released yet, the upstream's socket, and the body."""
    connection, end = await send_request(pool, manual)
    await asyncio.to_thread(end.sendall, sent)
    await connection.read_head(PATIENCE)
    return connection, end, await connection.read_body(PATIENCE)


async def wait_until_none_open(pool: Http1Pool) -> None:
    async with asyncio.timeout(PATIENCE):
        while pool._connections:  # noqa: ASYNC110 -- what is waited for has no event
            await asyncio.sleep(0.005)


async def is_connection_reused(pool: Http1Pool, manual: ManualUpstream) -> bool:
    """Whether a connection is reused after an ordinary call."""
    connection, _, body = await call_answered_with(pool, manual, answer(b"own"))
    assert body == b"own"
    connection.release()
    return pool.take_idle() is connection


def send_and_wait_until_readable(connection: Http1Connection, end: socket.socket, data: bytes) -> None:
    """Send data; it has arrived when this returns, and the event loop has not read it yet."""
    end.sendall(data)
    wait_until_readable(connection)


def wait_until_readable(connection: Http1Connection) -> None:
    assert connection.transport is not None
    descriptor = connection.transport.get_extra_info("socket").fileno()
    assert select.select([descriptor], [], [], PATIENCE)[0]


async def late_answer_after_the_first(pool: Http1Pool, manual: ManualUpstream) -> None:
    connection, _, body = await call_answered_with(pool, manual, answer(b"first") + answer(b"late"))
    assert body == b"first"
    connection.release()


async def late_answer_on_an_idle_connection(pool: Http1Pool, manual: ManualUpstream) -> None:
    connection, end, _ = await call_answered_with(pool, manual, answer(b"first"))
    connection.release()
    end.sendall(answer(b"late"))


async def late_answer_before_the_connection_is_taken(pool: Http1Pool, manual: ManualUpstream) -> None:
    connection, end, _ = await call_answered_with(pool, manual, answer(b"first"))
    connection.release()
    send_and_wait_until_readable(connection, end, answer(b"late"))
    assert pool.take_idle() is connection
    connection.send(REQUEST)
    await _assert_nothing_sent(connection, end)


async def late_answer_before_the_request_is_written(pool: Http1Pool, manual: ManualUpstream) -> None:
    connection, end, _ = await call_answered_with(pool, manual, answer(b"first"))
    connection.release()
    assert pool.take_idle() is connection
    connection.send(REQUEST)
    send_and_wait_until_readable(connection, end, answer(b"late"))
    await _assert_nothing_sent(connection, end)


async def _assert_nothing_sent(connection: Http1Connection, end: socket.socket) -> None:
    """The call gets no answer, and its request was not sent: it may be retried on another connection."""
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
    "timing",
    [
        late_answer_after_the_first,
        late_answer_on_an_idle_connection,
        late_answer_before_the_connection_is_taken,
        late_answer_before_the_request_is_written,
    ],
)
def test_an_unrequested_answer_is_given_to_no_call(
    timing: Callable[[Http1Pool, ManualUpstream], Coroutine[Any, Any, None]],
    secure: bool,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Afterwards that upstream gets one request for each connection: it might answer one that it has not read."""

    async def run() -> None:
        async with upstream(tmp_path if secure else None) as (pool, manual):
            await timing(pool, manual)
            await wait_until_none_open(pool)
            assert pool.take_idle() is None
            for _ in range(2):
                assert not await is_connection_reused(pool, manual)

    uvloop.run(run())
    assert [text.count("nobody had asked for") for text in caplog.messages] == [1], "reported once"


def test_idle_connections_are_closed_after_an_unrequested_answer() -> None:
    async def run() -> None:
        async with upstream(None) as (pool, manual):
            one, end, _ = await call_answered_with(pool, manual, answer(b"one"))
            other, _, _ = await call_answered_with(pool, manual, answer(b"other"))
            one.release()
            other.release()
            end.sendall(answer(b"late"))
            await wait_until_none_open(pool)

    uvloop.run(run())


def test_connections_are_reused_again_after_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with upstream(None) as (pool, manual):
            monkeypatch.setattr(http1_pool, "NO_REUSE_SECONDS", 0.0)
            await late_answer_after_the_first(pool, manual)
            await wait_until_none_open(pool)
            assert await is_connection_reused(pool, manual)

    assert http1_pool.NO_REUSE_SECONDS == 3600
    uvloop.run(run())


@pytest.mark.parametrize("status", [b"408 Request Timeout", b"502 Bad Gateway", b"504 Gateway Timeout"])
def test_a_connection_is_not_reused_after_a_timeout_of_an_intermediary(status: bytes) -> None:
    async def run() -> None:
        async with upstream(None) as (pool, manual):
            connection, _, _ = await call_answered_with(pool, manual, answer(b"sorry", status))
            connection.release()
            assert pool.take_idle() is None
            assert await is_connection_reused(pool, manual), "a timeout is no reason to distrust the upstream"

    uvloop.run(run())


@pytest.mark.parametrize("bytes_", [b"\r\n", answer(b"", b"408 Request Timeout")])
def test_bytes_sent_as_an_idle_connection_closes_are_no_unrequested_answer(bytes_: bytes) -> None:
    async def run() -> None:
        async with upstream(None) as (pool, manual):
            connection, end, _ = await call_answered_with(pool, manual, answer(b"first"))
            connection.release()
            end.sendall(bytes_)
            await wait_until_none_open(pool)
            assert await is_connection_reused(pool, manual)

    uvloop.run(run())


def test_a_connection_with_an_incomplete_request_is_not_reused() -> None:
    """The next request would follow the incomplete one, and the upstream would read both as one."""

    async def run() -> None:
        async with upstream(None) as (pool, manual):
            connection, _, body = await call_answered_with(pool, manual, answer(b"no", b"413 Too Large"))
            connection.is_request_incomplete = True
            assert body == b"no"
            connection.release()
            assert pool.take_idle() is None

    uvloop.run(run())


def test_an_unframed_body_with_regular_data_does_not_time_out() -> None:
    received: list[bytes] = []

    def sink(data: bytes) -> bool:
        received.append(data)
        return True

    def send_slowly(end: socket.socket) -> None:
        for _ in range(6):
            end.sendall(b"x")
            time.sleep(0.1)
        end.shutdown(socket.SHUT_WR)

    async def run() -> None:
        async with upstream(None) as (pool, manual):
            connection, end = await send_request(pool, manual)
            await asyncio.to_thread(end.sendall, b"HTTP/1.1 200 OK\r\n\r\n")
            assert await connection.read_head(PATIENCE) == 200
            sending = asyncio.create_task(asyncio.to_thread(send_slowly, end))
            connection.pump(sink, 0.4)
            assert await connection.read_chunk(0.4) is None and b"".join(received) == b"x" * 6
            await sending
            connection.release()

    uvloop.run(run())


def test_a_shorter_timeout_applies_after_the_first_data() -> None:
    async def run() -> None:
        async with upstream(None) as (pool, manual):
            accepting = asyncio.create_task(asyncio.to_thread(manual.accept))
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


def test_a_connection_paused_by_an_unread_answer_is_read_for_the_next_call() -> None:
    """As after a client that disconnected without reading it, or a call that waited for memory."""

    async def run() -> None:
        async with upstream(None) as (pool, manual):
            connection, end = await send_request(pool, manual)
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


def test_a_request_on_a_closed_connection_counts_as_not_sent() -> None:
    async def run() -> None:
        async with upstream(None) as (pool, manual):
            connection, end, _ = await call_answered_with(pool, manual, answer(b"first"))
            connection.release()
            assert pool.take_idle() is connection
            connection.send(REQUEST)
            end.shutdown(socket.SHUT_WR)
            wait_until_readable(connection)
            await _assert_nothing_sent(connection, end)

    uvloop.run(run())


def test_chunk_extensions_are_bounded_for_each_chunk_and_not_in_total() -> None:
    """However many extensions there are in total, and also while nobody reads."""

    async def run() -> None:
        async with upstream(None) as (pool, manual):
            connection, end = await send_request(pool, manual)
            for part in (CHUNKED_HEAD, *[b"1;" + b"x" * 30_000, b"\r\na\r\n"] * 3):
                await asyncio.to_thread(end.sendall, part)
                await asyncio.sleep(0.02)  # each is read by itself
            await asyncio.to_thread(end.sendall, b"0\r\n\r\n")
            assert await connection.read_head(PATIENCE) == 200 and await connection.read_body(PATIENCE) == b"aaa"
            connection.release()

    uvloop.run(run())


@pytest.mark.parametrize("lines", [b"", b"transfer-encoding: gzip\r\n"], ids=["reset", "another coding"])
def test_a_body_without_length_is_incomplete_if_the_connection_breaks(lines: bytes) -> None:
    async def run() -> None:
        async with upstream(None) as (pool, manual):
            connection, end = await send_request(pool, manual)
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
def test_a_large_answer_to_a_slow_client_is_complete(secure: bool, tmp_path: Path) -> None:
    """Over TLS all of it arrives at once, which is more than is buffered before reading is paused."""
    size, received = 1_000_000, list[bytes]()

    def send_answer(end: socket.socket) -> None:
        data = answer(bytes(size))
        for at in range(0, len(data), 20_000):
            end.sendall(data[at : at + 20_000])
            time.sleep(0.001)

    def sink(data: bytes) -> bool:
        received.append(data)
        return True

    async def run() -> None:
        async with upstream(tmp_path if secure else None) as (pool, manual):
            connection, end = await send_request(pool, manual)
            sending = asyncio.create_task(asyncio.to_thread(send_answer, end))
            assert await connection.read_head(PATIENCE) == 200
            await asyncio.sleep(0.2)  # the client reads nothing
            while (data := await connection.read_chunk(1.0)) is not None:
                received.append(data)
                connection.pump(sink, 1.0)
            assert sum(map(len, received)) == size
            await sending
            connection.release()

    uvloop.run(run())
