"""The HTTP server protocol over real sockets: limits, timeouts, ambiguity, pipelining, back-pressure."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.closing import active_requests, close
from tests.unit.call_rig import wait_until

from groundplan.gateway.app import connections
from groundplan.gateway.call import trace
from groundplan.gateway.http import server as http_server
from groundplan.gateway.http.errors import refusal_body
from groundplan.gateway.http.server import Connection, Limits, Request, Response, Server
from groundplan.gateway.http.websocket import ServerSocket
from groundplan.gateway.surfaces.answers import header_value

LIMITS = Limits(
    head_bytes=2048, body_bytes=10_000, head_seconds=20, body_seconds=20, body_bytes_per_second=1 << 30,
    idle_seconds=20, write_seconds=20, linger_seconds=0.05, sweep_seconds=0.05,
)  # fmt: skip
WHOLE = 16 << 20
"""Bytes of an answer that no buffer of the system takes at once."""
SIZES = {b"/whole": WHOLE, b"/some": 50_000}
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


TEXT = b"content-type: text/plain\r\n"


async def answer(running: Running, request: Request, response: Response) -> None:
    """What each path does; any other one says what was sent."""
    if request.target == b"/from":
        response.send(200, request.headers[b"x-forwarded-for"], content_type=TEXT)
    elif request.target.startswith(b"/header/"):
        response.send(200, request.headers[request.target[8:]], content_type=TEXT)
    elif request.target == b"/trace":
        response.send(200, str(trace.trace_of(request.headers)).encode(), content_type=TEXT)
    elif request.target in SIZES:
        response.send(200, b"x" * SIZES[request.target])
    elif request.target == b"/told":
        response.write(b"one ", response.start(200, TEXT))
        response.write(b"two ")
        response.end(b"three")
    elif request.target == b"/big":
        head = response.start(200, TEXT)
        for _ in range(1000):
            response.write(b"x" * 65536, head)
            head = b""
            running.seen.written += 1
            await response.drain()
        response.end()
    elif request.target == b"/read" and request.stream is not None:
        response.send(200, b"ok:" + await request.stream.read(), content_type=TEXT)
    elif request.target != b"/drop":
        await asyncio.sleep(0)
        response.send(200, b"ok:" + request.body, content_type=TEXT)


async def talking(running: Running, request: Request, response: Response) -> None:
    """Says much, to whoever listens."""
    talk = ServerSocket(request, response)
    talk.accept()
    try:
        for _ in range(1000):
            await talk.send(b"x" * 65536)
    except asyncio.CancelledError:
        running.seen.cancelled += 1
        raise
    finally:
        response.finish()


async def waiting(running: Running) -> None:
    try:
        await asyncio.sleep(30)
    except asyncio.CancelledError:
        running.seen.cancelled += 1
        raise


def lose_all(running: Running, response: Response) -> None:
    """Answer, and cut every connection in the same turn of the loop."""
    response.send(200, b"")
    for connection in running.server.connections:
        assert connection.transport is not None
        connection.transport.abort()


@asynccontextmanager
async def serving(limits: Limits) -> AsyncIterator[Running]:
    async def handle(request: Request, response: Response) -> None:
        made.seen.requests.append((request.method, request.target, request.body))
        if request.target == b"/abort":
            lose_all(made, response)
            return
        if request.target == b"/talk":
            await talking(made, request, response)
            return
        if request.target == b"/wait":
            await waiting(made)
        await answer(made, request, response)

    loop = asyncio.get_running_loop()
    server = Server(handle, refusal_body, loop, limits)
    listener = await loop.create_server(server.create_connection, "127.0.0.1", 0)
    made = Running(listener.sockets[0].getsockname()[1], Seen(), server)
    yield made
    await close(listener, server, 0.1)


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


async def test_a_closed_connection_leaves_nothing_behind(running: Running) -> None:
    """Garbage is looked for each ten million objects: what is in cycles would stay for hours."""

    def left() -> int:
        return sum(type(one) is Connection for one in gc.get_objects())

    gc.collect()
    before = left()
    gc.disable()
    try:
        for _ in range(20):
            await exchange(running, post(b"x"))
        await wait_until(lambda: not running.server.connections)
        await wait_until(lambda: left() == before)
    finally:
        gc.enable()


async def test_forwarded_headers_may_be_in_several_lines(running: Running) -> None:
    lines = "x-forwarded-for: 203.0.113.7\r\nvia: a\r\nX-Forwarded-For: 10.0.0.2, 10.0.0.3\r\n"
    assert (await exchange(running, post(headers=lines, path="/from"))).endswith(b"203.0.113.7, 10.0.0.2, 10.0.0.3")


async def test_tracestate_lines_are_joined_and_two_traceparents_are_ignored(running: Running) -> None:
    lines = "tracestate: a=1\r\nTraceState: b=2\r\n"
    assert (await exchange(running, post(headers=lines, path="/header/tracestate"))).endswith(b"a=1, b=2")
    parent = f"00-{'1' * 32}-{'2' * 16}-01"
    lines = f"traceparent: {parent}\r\ntraceparent: {parent}\r\n"
    assert (await exchange(running, post(headers=lines, path="/trace"))).endswith(b"None")


@pytest.mark.parametrize("name", ["anthropic-beta", "sec-websocket-protocol"])
async def test_list_headers_may_be_in_several_lines(running: Running, name: str) -> None:
    lines = f"{name}: a\r\n{name.title()}: b, c\r\naccept: x\r\nAccept: y\r\n"
    assert (await exchange(running, post(headers=lines, path=f"/header/{name}"))).endswith(b"\r\n\r\na, b, c")
    assert (await exchange(running, post(headers=lines, path="/header/accept"))).endswith(b"\r\n\r\ny")


async def test_a_chunked_body_and_one_in_single_bytes(running: Running) -> None:
    head = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
    assert (await exchange(running, head + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")).endswith(b"ok:abcde")
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    for byte in post(b"tiny"):
        writer.write(bytes([byte]))
        await asyncio.sleep(0)
    assert (await reader.read()).endswith(b"ok:tiny")
    writer.close()


async def test_a_body_in_tiny_pieces_takes_no_more_memory_than_its_size() -> None:
    size, piece = 1 << 18, b"2\r\nab\r\n"
    head = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
    async with serving(replace(LIMITS, body_bytes=size)) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        tracemalloc.start()
        try:
            writer.write(head)
            for _ in range(32):
                writer.write(piece * (size // 64))
                await writer.drain()
            await wait_until(lambda: running.server.held_bytes == size)
            held, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert held < 2 * size, held
        writer.write(b"0\r\n\r\n")
        assert (await asyncio.wait_for(reader.read(), 20)).endswith(b"ab" * 100)
        writer.close()
    assert running.seen.requests[0][2] == b"ab" * (size // 2)


@pytest.mark.parametrize("cut", [1, 7, 1000, 1900])
async def test_the_size_of_a_head_does_not_depend_on_how_it_is_split(running: Running, cut: int) -> None:
    """Lines that were parsed are not counted again in the reads that they came in."""
    data = post(b"x", "".join(f"x-{n}: {'a' * 50}\r\n" for n in range(30)))
    assert 1700 < len(data) < LIMITS.head_bytes
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    for at in range(0, len(data), cut):
        writer.write(data[at : at + cut])
        await asyncio.sleep(0 if cut == 1 else 0.005)
    assert (await asyncio.wait_for(reader.read(), 20)).endswith(b"ok:x")
    writer.close()


async def test_the_end_of_one_body_is_no_part_of_the_next_head(running: Running) -> None:
    """A read may bring the rest of a large request and the beginning of another one."""
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    first, second = post(b"a" * 9000, close=False), post(b"b")
    writer.write(first[:200])
    await asyncio.sleep(0.01)
    writer.write(first[200:] + second[:20])
    assert (await reader.readuntil(b"ok:" + b"a" * 9000)).startswith(b"HTTP/1.1 200 ")
    writer.write(second[20:])
    assert (await asyncio.wait_for(reader.read(), 20)).endswith(b"ok:b")
    writer.close()


@pytest.mark.parametrize("lines", ["", "connection: keep-alive\r\n"])
async def test_a_client_of_http_1_0_gets_no_chunks(running: Running, lines: str) -> None:
    """It knows none: what it gets ends with the connection."""
    whole = await exchange(running, f"GET /told HTTP/1.0\r\n{lines}\r\n".encode())
    head, _, body = whole.partition(b"\r\n\r\n")
    assert body == b"one two three" and b"transfer-encoding" not in head and b"connection: close" in head
    newer = await exchange(running, b"GET /told HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    assert b"transfer-encoding: chunked" in newer and newer.endswith(b"5\r\nthree\r\n0\r\n\r\n")


async def test_the_answer_to_head_ends_with_its_head(running: Running) -> None:
    """Whatever came behind it would be read as the beginning of the next answer."""
    data = b"HEAD / HTTP/1.1\r\nhost: x\r\n\r\n" + post(b"next")
    first, second = (await exchange(running, data)).split(b"HTTP/1.1 200 OK")[1:]
    assert first.endswith(b"content-length: 3\r\n\r\n") and second.endswith(b"ok:next")


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_a_large_answer_to_head_ends_with_its_head(running: Running, version: str) -> None:
    data = f"HEAD /told HTTP/{version}\r\nhost: x\r\n\r\n".encode() + (post(b"next") if version == "1.1" else b"")
    first, *second = (await exchange(running, data)).split(b"HTTP/1.1 200 OK")[1:]
    assert first.startswith(b"\r\n") and first.endswith(b"\r\n\r\n") and first.count(b"\r\n\r\n") == 1
    assert [each.endswith(b"ok:next") for each in second] == [True] * (version == "1.1")


async def test_a_client_of_http_1_0_is_not_kept_waiting(running: Running) -> None:
    """One that offers to keep the connection waits for its end, unless it is told that it is kept."""
    data = b"POST / HTTP/1.0\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nhi"
    answer = await exchange(running, data, wait=5.0)
    assert b"connection: close\r\n" in answer and answer.endswith(b"ok:hi")


async def test_memory_of_a_request_that_never_begins_is_released(running: Running) -> None:
    """The connection is lost between the answer to one request and the first step of the next."""
    await exchange(running, post(path="/abort", close=False) + post(b"x" * 5000))
    await wait_until(lambda: not running.server.connections)
    assert [seen[1] for seen in running.seen.requests] == [b"/abort"] and running.server.held_bytes == 0


@pytest.mark.parametrize("close", [True, False])
async def test_a_client_that_reads_nothing_of_an_answer_is_cut_off(close: bool) -> None:
    """Also where the connection was to end with it, and only waits for what is left to be taken."""
    async with serving(replace(LIMITS, write_seconds=0.3)) as running:
        _, writer = await asyncio.open_connection("127.0.0.1", running.port, limit=1024)
        writer.write(post(path="/whole", close=close))
        await wait_until(lambda: running.seen.requests != [])
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await wait_until(lambda: not running.server.connections)
        writer.transport.abort()


async def test_a_client_that_leaves_the_end_of_an_answer_unread_is_cut_off(running: Running) -> None:
    """Also where that is so little that nobody had to be told to wait."""
    running.server.limits = replace(LIMITS, write_seconds=0.3)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, ("127.0.0.1", running.port))
        await wait_until(lambda: len(running.server.connections) == 1)
        (connection,) = running.server.connections
        assert connection.transport is not None
        with socket.socket(fileno=os.dup(connection.transport.get_extra_info("socket").fileno())) as ours:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        await loop.sock_sendall(client, post(path="/some"))
        await wait_until(lambda: running.seen.requests != [] and active_requests(running.server) == 0)
        assert connection.transport.get_write_buffer_size() and connection.paused is None
        await wait_until(lambda: not running.server.connections)


async def test_a_client_that_reads_nothing_of_a_conversation_is_cut_off() -> None:
    """However long what is said there may take."""
    async with serving(replace(LIMITS, write_seconds=0.3)) as running:
        running.server.accepts_websocket = lambda _: True
        _, writer = await asyncio.open_connection("127.0.0.1", running.port, limit=1024)
        key = "sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        writer.write(
            f"GET /talk HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n{key}\r\n".encode()
        )
        await wait_until(lambda: running.seen.requests != [])
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await wait_until(lambda: running.seen.cancelled == 1 and not running.server.connections)
        writer.transport.abort()


@pytest.mark.parametrize("together", [True, False])
async def test_a_client_that_reads_no_answer_gets_no_further_one(running: Running, together: bool) -> None:
    """Requests wait for their client, also those that came with the first: whoever asks and takes nothing fills no
    memory with answers."""
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port, limit=1024)
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    ask = post(path="/whole", close=False)
    writer.write(ask * 3 if together else ask)
    await wait_until(lambda: running.seen.requests != [] and active_requests(running.server) == 0)
    if not together:
        writer.write(ask * 2)
    await asyncio.sleep(0.3)
    assert len(running.seen.requests) == 1
    writer.write(post(b"last", close=True))
    writer.transport.resume_reading()  # type: ignore[attr-defined]
    taken = await asyncio.wait_for(reader.read(), 20)
    assert len(taken) > 3 * WHOLE and taken.endswith(b"ok:last")
    assert [target for _, target, _ in running.seen.requests] == [b"/whole"] * 3 + [b"/"]
    writer.close()


async def test_pipelined_requests_are_not_read_before_the_answer(running: Running) -> None:
    """What was read waits for the answers before it, and counts nowhere where it is a head alone."""
    _, writer = await asyncio.open_connection("127.0.0.1", running.port)
    writer.write(post(path="/wait", close=False))
    await wait_until(lambda: running.seen.requests != [])
    (connection,) = running.server.connections
    assert connection.transport is not None and connection.transport.is_reading()
    writer.write(post(close=False))
    await wait_until(lambda: connection.transport is not None and not connection.transport.is_reading())
    writer.close()


async def test_malformed_data_after_requests_is_reported_after_their_answers(running: Running) -> None:
    """Also where these wait for their client."""
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port, limit=1024)
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    writer.write(post(path="/whole", close=False) * 2 + b"\x00\x01garbage\r\n\r\n")
    await wait_until(lambda: running.seen.requests != [] and active_requests(running.server) == 0)
    await asyncio.sleep(0.1)
    writer.transport.resume_reading()  # type: ignore[attr-defined]
    taken = await asyncio.wait_for(reader.read(), 20)
    assert len(taken) > 2 * WHOLE and b"malformed_request" in taken[2 * WHOLE :]
    writer.close()


@pytest.mark.parametrize("close", [True, False])
async def test_a_slow_reader_gets_all_of_a_large_answer(close: bool) -> None:
    """As slowly as a body may come: that is more than an idle connection has."""
    async with serving(replace(LIMITS, idle_seconds=0.2, write_seconds=0.2, body_bytes_per_second=1 << 20)) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port, limit=1024)
        writer.write(post(path="/whole", close=close))
        head = await reader.readuntil(b"\r\n\r\n")
        taken, began = 0, asyncio.get_running_loop().time()
        while taken < WHOLE:
            taken += len(await reader.readexactly(WHOLE // 64))
            await asyncio.sleep(0.015)
        assert asyncio.get_running_loop().time() - began > 0.4 and head.startswith(b"HTTP/1.1 200 ")
        writer.close()


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("http://gateway/v1/models?a=b", b"/v1/models?a=b"),
        ("HTTPS://gateway:8443/v1", b"/v1"),
        ("http://gateway", b"/"),
        ("http://gateway?a=/b", b"/?a=/b"),
        ("*", b"*"),
    ],
)
async def test_a_target_may_name_the_host(running: Running, target: str, path: bytes) -> None:
    """As clients send it that take this server for a proxy."""
    method = "OPTIONS" if target == "*" else "GET"
    await exchange(running, f"{method} {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
    assert [seen[1] for seen in running.seen.requests] == [path]


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
        (
            "upgrade: h2c\r\nconnection: upgrade\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n",
            b"ambiguous_length",
        ),
        ("upgrade: h2c\r\nconnection: upgrade\r\ncontent-length: 3\r\ncontent-length: 4\r\n", b"duplicate_header"),
        ("upgrade: websocket\r\nconnection: upgrade\r\n", b"upgrade_unsupported"),
    ],
)
async def test_ambiguous_requests_are_refused(running: Running, headers: str, code: bytes) -> None:
    data = f"POST / HTTP/1.1\r\nhost: x\r\n{headers}\r\n".encode() + b"3\r\nabc\r\n0\r\n\r\n"
    answer = await exchange(running, data)
    assert answer.startswith(b"HTTP/1.1 400 ") and (code in answer or b"malformed_request" in answer)
    assert answer.count(b"HTTP/1.1 4") == 1
    assert running.seen.requests == []


async def test_an_unsupported_websocket_upgrade_is_answered_over_http(running: Running) -> None:
    """Codex does at /v1/responses; any other status ends its turn."""
    upgrade = "connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: eA==\r\n"
    answer = await exchange(running, f"GET /v1/responses HTTP/1.1\r\nhost: x\r\n{upgrade}\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 426 ") and b"\r\nupgrade: HTTP/1.1\r\n" in answer
    assert b"upgrade_unsupported" in answer and running.seen.requests == []


_JAVA = "connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAEAAEAAAAIAAAABAAMAAABk\r\n"


@pytest.mark.parametrize(
    "offer", [_JAVA, "upgrade: TLS/1.3, h2c\r\nconnection: keep-alive, UPGRADE\r\n", "upgrade: h2c\r\n"]
)
@pytest.mark.parametrize(
    "body", ["content-length: 3\r\n\r\nabc", "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"]
)
@pytest.mark.parametrize("step", [1, 7, 10_000])
async def test_an_offer_of_another_protocol_is_ignored(running: Running, offer: str, body: str, step: int) -> None:
    """Java's own client makes one with the first request of each connection."""
    data = f"POST /first HTTP/1.1\r\nhost: x\r\n{offer}{body}GET /second HTTP/1.1\r\nhost: x\r\n{offer}\r\n".encode()
    data += post(b"third")
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    for start in range(0, len(data), step):
        writer.write(data[start : start + step])
        await asyncio.sleep(0)
    answers = (await reader.read()).split(b"HTTP/1.1 200 OK")
    assert [answer.partition(b"\r\n\r\n")[2] for answer in answers[1:]] == [b"ok:abc", b"ok:", b"ok:third"]
    assert [seen[:2] for seen in running.seen.requests] == [(b"POST", b"/first"), (b"GET", b"/second"), (b"POST", b"/")]
    writer.close()


async def test_many_pipelined_upgrade_offers_are_each_answered(running: Running) -> None:
    data = f"POST / HTTP/1.1\r\nhost: x\r\n{_JAVA}content-length: 1\r\n\r\nx".encode() * 60 + post(b"last")
    answers = await exchange(running, data)
    assert answers.count(b"HTTP/1.1 200 OK") == 61 and answers.endswith(b"ok:last")


async def test_sizes_are_bounded_and_nothing_more_is_read(running: Running) -> None:
    for data in (
        b"GET / HTTP/1.1\r\nhost: x\r\nx-long: " + b"a" * 5000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\nx-unended: " + b"a" * 5000,
        b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\n" + b"x-same: a\r\n" * 400 + b"\r\n",
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


async def test_expect_is_answered_behind_a_request_that_is_answered_first(running: Running) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    writer.write(
        post(b"first", close=False) + b"POST / HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n"
    )
    async with asyncio.timeout(5):
        assert (await reader.readuntil(b"ok:first")).startswith(b"HTTP/1.1 200 OK")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"hi")
        assert (await reader.readuntil(b"ok:hi")).startswith(b"HTTP/1.1 200 OK")
    writer.close()


async def test_a_request_that_began_behind_another_one_has_its_own_time(hasty: Running) -> None:
    """Also where the worker stops, which gives idle connections little."""
    hasty.server.limits = replace(HASTY, drain_idle_seconds=0.01, body_seconds=5)
    reader, writer = await asyncio.open_connection("127.0.0.1", hasty.port)
    writer.write(post(b"first", close=False) + b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n")
    await reader.readuntil(b"ok:first")
    ending = asyncio.ensure_future(hasty.server.quiesce(5))
    await asyncio.sleep(0.3)
    writer.write(b"hi")
    async with asyncio.timeout(5):
        assert (await reader.read()).endswith(b"ok:hi")
        await ending
    writer.close()


async def test_a_client_of_http_1_0_gets_no_100_continue(running: Running) -> None:
    data = b"POST / HTTP/1.0\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\nhi"
    answer = await exchange(running, data)
    assert answer.startswith(b"HTTP/1.1 200 OK") and answer.endswith(b"ok:hi")


@pytest.mark.parametrize("before", [b"", b"POST /first HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n"])
@pytest.mark.parametrize("path", ["/read", "/unread"])
async def test_a_streamed_body_gets_100_continue_once_it_is_read(running: Running, path: str, before: bytes) -> None:
    """Whoever has no key, say, is told so before he sends it; also behind a request that is answered first."""
    running.server.is_streamed = lambda request: request.target != b"/first"
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    writer.write(
        before + f"POST {path} HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n".encode()
    )
    async with asyncio.timeout(5):
        if before:
            assert (await reader.readuntil(b"ok:")).startswith(b"HTTP/1.1 200 OK")
        told = await reader.readuntil(b"\r\n\r\n")
        if path == "/read":
            assert told == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(b"hi")
            assert (await reader.read()).endswith(b"ok:hi")
        else:
            assert told.startswith(b"HTTP/1.1 200 OK") and await reader.read() == b"ok:"
    writer.close()


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        ("host: x\r\ncontent-encoding: gzip\r\n", b"body_compressed"),
        ("host: x\r\nauthorization: a\r\nauthorization: b\r\n", b"duplicate_header"),
        (f"host: x\r\nmore: {'m' * 3000}\r\n", b"headers_too_large"),
        ("", b"host_missing"),
    ],
)
async def test_an_invalid_head_is_refused_at_once_before_a_streamed_body(
    running: Running, lines: str, code: bytes
) -> None:
    """As of any other request: nobody is asked for it, nor waits for a body that is not read."""
    running.server.is_streamed = lambda _: True
    answer = await exchange(running, f"POST /read HTTP/1.1\r\n{lines}content-length: 2\r\n\r\nhi".encode(), 5)
    assert code in answer and running.seen.requests == []


async def test_a_slow_head_and_a_slow_body_are_cut_off(hasty: Running) -> None:
    for data in (b"GET / HT", b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nabc"):
        answer = await exchange(hasty, data)
        assert answer.startswith(b"HTTP/1.1 408 ") and b"request_timeout" in answer
    assert await exchange(hasty, b"") == b""


async def test_a_client_that_goes_away_cancels_its_call(running: Running) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", running.port)
    writer.write(post(path="/wait"))
    await wait_until(lambda: active_requests(running.server) == 1 and running.seen.requests != [])
    writer.transport.abort()
    await wait_until(lambda: running.seen.cancelled == 1 and active_requests(running.server) == 0)


async def test_an_unanswered_request_closes_the_connection(running: Running) -> None:
    assert await exchange(running, post(path="/drop", close=False)) == b""


async def test_a_client_that_reads_nothing_pauses_the_writer_and_is_dropped(hasty: Running) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", hasty.port, limit=1024)
    writer.write(post(path="/big"))
    await wait_until(lambda: hasty.seen.written > 0)
    await wait_until(lambda: active_requests(hasty.server) == 0)
    assert hasty.seen.written < 900
    writer.close()
    del reader


@pytest.mark.parametrize("offer", ["", _JAVA])
async def test_malformed_bytes_after_a_good_request_are_answered_after_it(running: Running, offer: str) -> None:
    answer = await exchange(running, post(b"one", offer, close=False) + b"\x00\x01garbage\r\n\r\n")
    assert b"ok:one" in answer and b"malformed_request" in answer
    assert answer.index(b"ok:one") < answer.index(b"malformed_request")


@settings(max_examples=40, deadline=None)
@given(st.text())
def test_reflected_values_cannot_end_a_header_line(text: str) -> None:
    value = header_value(text)
    assert all(0x21 <= byte <= 0x7E for byte in value)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300), st.integers(1, 50))
def test_any_bytes_in_any_pieces_leave_the_server_alive(data: bytes, step: int) -> None:
    async def scenario() -> None:
        async def handle(request: Request, response: Response) -> None:
            response.send(200, b"ok")

        loop = asyncio.get_running_loop()
        server = Server(handle, refusal_body, loop, LIMITS)
        listener = await loop.create_server(server.create_connection, "127.0.0.1", 0)
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
        await close(listener, server, 0.1)

    asyncio.run(scenario())


@pytest.mark.parametrize(("files", "most"), [(100, 64), (1024, 384), (20_000, 9_872), (1 << 20, 20_000)])
def test_connections_leave_file_descriptors_for_calls_and_background_work(files: int, most: int) -> None:
    assert connections(files) == most


async def test_a_client_accepted_just_before_the_worker_stopped_listening_is_answered(running: Running) -> None:
    """The loop makes a connection of it a turn later; until then there is none to wait for."""
    ours, theirs = socket.socketpair()
    with theirs:
        ending = asyncio.create_task(running.server.quiesce(5))
        loop = asyncio.get_running_loop()
        accepted = asyncio.create_task(loop.connect_accepted_socket(running.server.create_connection, ours))
        await asyncio.sleep(0.02)
        theirs.sendall(b"GET /who HTTP/1.1\r\nhost: a\r\n\r\n")
        await ending
        await running.server.drain(0)
        theirs.settimeout(5)
        told = await asyncio.to_thread(theirs.recv, 4096)
    assert told.startswith(b"HTTP/1.1 200 ") and b"connection: close" in told.lower()
    await accepted


async def test_a_stopping_worker_waits_once_for_arriving_clients(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker quiesces, and then drains: nobody can arrive between the two."""
    await running.server.quiesce(5)
    monkeypatch.setattr(http_server, "_ARRIVING_SECONDS", 60.0)
    await asyncio.wait_for(running.server.drain(60), 20)
