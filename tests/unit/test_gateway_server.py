"""The HTTP server protocol over real sockets: limits, timeouts, ambiguity, pipelining, back-pressure."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.call_rig import until

from groundplan.gateway.http.server import Connection, Limits, Request, Response, Server
from groundplan.gateway.surfaces.answers import header_value, of_refusal

LIMITS = Limits(
    head=2048, body=10_000, head_seconds=20, body_seconds=20, body_bytes_per_second=1 << 30, idle_seconds=20,
    write_seconds=20, linger_seconds=0.05, sweep_seconds=0.05,
)  # fmt: skip
HASTY = replace(LIMITS, head_seconds=0.3, body_seconds=0.3, idle_seconds=0.5, write_seconds=0.3)


@dataclass
class Seen:
    requests: list[tuple[bytes, bytes, bytes]] = field(default_factory=list)
    cancelled: int = 0
    written: int = 0


@dataclass
class Running:
    port: int
    seen: Seen
    server: Server


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    async with serving(LIMITS) as made:
        yield made


@pytest.fixture
async def hasty() -> AsyncIterator[Running]:
    async with serving(HASTY) as made:
        yield made


@asynccontextmanager
async def serving(limits: Limits) -> AsyncIterator[Running]:
    seen = Seen()

    async def handle(request: Request, response: Response) -> None:
        seen.requests.append((request.method, request.target, request.body))
        if request.target == b"/wait":
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                seen.cancelled += 1
                raise
        if request.target == b"/from":
            response.send(200, request.headers[b"x-forwarded-for"], content_type=b"content-type: text/plain\r\n")
            return
        if request.target == b"/drop":
            return
        if request.target == b"/big":
            head = response.start(200, b"content-type: text/plain\r\n")
            for _ in range(1000):
                response.write(b"x" * 65536, head)
                head = b""
                seen.written += 1
                await response.drained()
            response.end()
            return
        await asyncio.sleep(0)
        response.send(200, b"ok:" + request.body, content_type=b"content-type: text/plain\r\n")

    loop = asyncio.get_running_loop()
    server = Server(handle, of_refusal, loop, limits)
    listener = await loop.create_server(server.protocol, "127.0.0.1", 0)
    yield Running(listener.sockets[0].getsockname()[1], seen, server)
    listener.close()
    await server.drain(0.1)


async def exchange(running: Running, data: bytes, wait: float = 20.0) -> bytes:
    """Send, and read until the server closes (all requests here end their connection)."""
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    writer.write(data)
    try:
        return await asyncio.wait_for(reader.read(), wait)
    finally:
        writer.close()


def post(body: bytes = b"", headers: str = "", path: str = "/", close: bool = True) -> bytes:
    end = "connection: close\r\n" if close else ""
    return f"POST {path} HTTP/1.1\r\nhost: x\r\n{headers}{end}content-length: {len(body)}\r\n\r\n".encode() + body


async def test_keep_alive_and_pipelining_answer_in_order(running: Running) -> None:
    data = b"".join(post(b"%d" % n, close=False) for n in range(20)) + post(b"last")
    answer = await exchange(running, data)
    bodies = [part.rsplit(b"\r\n\r\n", 1)[1] for part in answer.split(b"HTTP/1.1 200 OK")[1:]]
    assert bodies == [b"ok:%d" % n for n in range(20)] + [b"ok:last"]


async def test_nothing_is_left_of_a_connection_that_is_gone(running: Running) -> None:
    """Garbage is looked for each ten million objects: what is in cycles would stay for hours."""

    def left() -> int:
        return sum(type(one) is Connection for one in gc.get_objects())

    gc.collect()
    before = left()
    gc.disable()
    try:
        for _ in range(20):
            await exchange(running, post(b"x"))
        await until(lambda: not running.server.connections)
        await until(lambda: left() == before)
    finally:
        gc.enable()


async def test_each_proxy_may_add_its_own_line_of_where_a_request_is_from(running: Running) -> None:
    lines = "x-forwarded-for: 203.0.113.7\r\nvia: a\r\nX-Forwarded-For: 10.0.0.2, 10.0.0.3\r\n"
    assert (await exchange(running, post(headers=lines, path="/from"))).endswith(b"203.0.113.7, 10.0.0.2, 10.0.0.3")


async def test_a_chunked_body_and_one_in_single_bytes(running: Running) -> None:
    head = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
    assert (await exchange(running, head + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")).endswith(b"ok:abcde")
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    for byte in post(b"tiny"):
        writer.write(bytes([byte]))
        await asyncio.sleep(0)
    assert (await reader.read()).endswith(b"ok:tiny")
    writer.close()


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ("content-length: 3\r\ntransfer-encoding: chunked\r\n", b"ambiguous_length"),
        ("content-length: 3\r\ncontent-length: 4\r\n", b"duplicate_header"),
        ("content-length: 3\r\ncontent-length: 3\r\n", b"duplicate_header"),
        ("transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n", b"duplicate_header"),
        ("transfer-encoding: gzip, chunked\r\n", b"ambiguous_length"),
        ("content-length: +3\r\n", b"malformed_request"),
        ("content-length: 3\r\nhost: y\r\n", b"duplicate_header"),
        ("upgrade: h2c\r\nconnection: upgrade\r\n", b"upgrade_unsupported"),
    ],
)
async def test_what_two_parsers_could_read_differently_is_refused(running: Running, headers: str, code: bytes) -> None:
    data = f"POST / HTTP/1.1\r\nhost: x\r\n{headers}\r\n".encode() + b"3\r\nabc\r\n0\r\n\r\n"
    answer = await exchange(running, data)
    assert answer.startswith(b"HTTP/1.1 400 ") and (code in answer or b"malformed_request" in answer)
    assert answer.count(b"HTTP/1.1 4") == 1
    assert running.seen.requests == []


async def test_sizes_are_bounded_and_nothing_more_is_read(running: Running) -> None:
    for data in (
        b"GET / HTTP/1.1\r\nhost: x\r\nx-long: " + b"a" * 5000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\nx-unended: " + b"a" * 5000,
        b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\nhost: x\r\n\r\n",
    ):
        assert b"headers_too_large" in await exchange(running, data)
    announced = b"POST / HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 50000000\r\n\r\n"
    answer = await exchange(running, announced)
    assert answer.startswith(b"HTTP/1.1 413 ") and b"body_too_large" in answer and b"100 Continue" not in answer
    chunked = (
        b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n" + (b"800\r\n" + b"a" * 2048 + b"\r\n") * 9
    )
    assert b"body_too_large" in await exchange(running, chunked)
    assert running.seen.requests == []


async def test_expect_is_answered_before_the_body(running: Running) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    writer.write(
        b"POST / HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\nconnection: close\r\ncontent-length: 2\r\n\r\n"
    )
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b"hi")
    assert (await reader.read()).endswith(b"ok:hi")
    writer.close()


async def test_a_slow_head_and_a_slow_body_are_cut_off(hasty: Running) -> None:
    for data in (b"GET / HT", b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nabc"):
        answer = await exchange(hasty, data)
        assert answer.startswith(b"HTTP/1.1 408 ") and b"request_timeout" in answer
    assert await exchange(hasty, b"") == b""


async def test_a_client_that_goes_away_cancels_its_call(running: Running) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", running.port)
    writer.write(post(path="/wait"))
    await until(lambda: running.server.busy == 1 and running.seen.requests != [])
    writer.transport.abort()
    await until(lambda: running.seen.cancelled == 1 and running.server.busy == 0)


async def test_an_unanswered_request_closes_the_connection(running: Running) -> None:
    assert await exchange(running, post(path="/drop", close=False)) == b""


async def test_a_reader_that_takes_nothing_stops_the_writer_and_is_dropped(hasty: Running) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", hasty.port, limit=1024)
    writer.write(post(path="/big"))
    await until(lambda: hasty.seen.written > 0)
    await until(lambda: hasty.server.busy == 0)
    assert hasty.seen.written < 900
    writer.close()
    del reader


async def test_malformed_bytes_after_a_good_request_are_answered_after_it(running: Running) -> None:
    answer = await exchange(running, post(b"one", close=False) + b"\x00\x01garbage\r\n\r\n")
    assert b"ok:one" in answer and b"malformed_request" in answer
    assert answer.index(b"ok:one") < answer.index(b"malformed_request")


@settings(max_examples=40, deadline=None)
@given(st.text())
def test_nothing_that_is_reflected_can_end_a_header_line(text: str) -> None:
    value = header_value(text)
    assert all(0x21 <= byte <= 0x7E for byte in value)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300), st.integers(1, 50))
def test_any_bytes_in_any_pieces_leave_the_server_alive(data: bytes, step: int) -> None:
    async def scenario() -> None:
        async def handle(request: Request, response: Response) -> None:
            response.send(200, b"ok")

        loop = asyncio.get_running_loop()
        server = Server(handle, of_refusal, loop, LIMITS)
        listener = await loop.create_server(server.protocol, "127.0.0.1", 0)
        port = listener.sockets[0].getsockname()[1]
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        for at in range(0, len(data), step):
            writer.write(data[at : at + step])
            await asyncio.sleep(0)
        writer.transport.abort()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        assert (await asyncio.wait_for(reader.read(), 20)).endswith(b"ok")
        writer.close()
        listener.close()
        await server.drain(0.1)

    asyncio.run(scenario())
