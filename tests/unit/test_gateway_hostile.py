"""Malformed and malicious input of clients: each is refused once, and nothing after it is ever read as a request."""

from __future__ import annotations

import asyncio
import gzip
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest
from tests.closing import active_requests, close
from tests.unit.call_rig import wait_until

from groundplan.gateway.http.errors import refusal_body
from groundplan.gateway.http.server import Limits, Request, Response, Server

LIMITS = Limits(
    head_bytes=4096, body_bytes=10_000, head_seconds=20, body_seconds=20, body_bytes_per_second=1 << 30,
    idle_seconds=20, linger_seconds=0.05, sweep_seconds=0.05, total_body_bytes=16_000,
    connections=8, drain_idle_seconds=0.6,
)  # fmt: skip
SHORT_TIMEOUTS = replace(LIMITS, head_seconds=0.4, body_seconds=0.4)
LARGE = 16 << 20
"""Bytes of an answer that exceed the buffers of the system."""
SMUGGLED = b"POST /smuggled HTTP/1.1\r\nhost: y\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


@dataclass
class RunningServer:
    port: int
    server: Server
    targets: list[bytes] = field(default_factory=list)
    headers: list[dict[bytes, bytes]] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)


@pytest.fixture
async def server() -> AsyncIterator[RunningServer]:
    async with run_server(LIMITS) as made:
        yield made


@pytest.fixture
async def impatient_server() -> AsyncIterator[RunningServer]:
    async with run_server(SHORT_TIMEOUTS) as made:
        yield made


@asynccontextmanager
async def run_server(limits: Limits) -> AsyncIterator[RunningServer]:
    async def handle(request: Request, response: Response) -> None:
        running.targets.append(request.target)
        running.headers.append(request.headers)
        if request.target == b"/stream":
            response.write(b"first", response.start(200, b"content-type: text/plain\r\n"))
            await running.gate.wait()
            response.end(b"last")
            return
        if request.target == b"/wait":
            await running.gate.wait()
        response.send(200, b"x" * LARGE if request.target == b"/large" else b"ok:" + request.body)

    loop = asyncio.get_running_loop()
    server = Server(handle, refusal_body, loop, limits)
    listener = await loop.create_server(server.create_connection, "127.0.0.1", 0)
    running = RunningServer(listener.sockets[0].getsockname()[1], server)
    yield running
    await close(listener, server, 0.1)
    assert server.held_bytes == 0


async def send(running: RunningServer, data: bytes, wait: float = 20.0) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    writer.write(data)
    try:
        return await asyncio.wait_for(reader.read(), wait)
    finally:
        writer.close()


def head(*lines: str, target: str = "/") -> bytes:
    return "\r\n".join([f"POST {target} HTTP/1.1", "host: x", *lines, "", ""]).encode("latin-1")


CHUNKED = "transfer-encoding: chunked"


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(head("content-length: 4", CHUNKED) + b"0\r\n\r\n", id="length-and-chunked"),
        pytest.param(head(CHUNKED, "content-length: 4") + b"0\r\n\r\n", id="chunked-and-length"),
        pytest.param(head("content-length: 4", "content-length: 44") + b"abcd", id="two-lengths"),
        pytest.param(head("content-length: 4, 4") + b"abcd", id="list-of-lengths"),
        pytest.param(head("content-length: +4") + b"abcd", id="signed-length"),
        pytest.param(head("content-length: 0x4") + b"abcd", id="hexadecimal-length"),
        pytest.param(head("content-length: 4 4") + b"abcd", id="spaced-length"),
        pytest.param(head("content-length: -4") + b"abcd", id="negative-length"),
        pytest.param(head("content-length: " + "9" * 30) + b"abcd", id="overflowing-length"),
        pytest.param(head("content-length:") + b"abcd", id="empty-length"),
        pytest.param(head("content-length : 4") + b"abcd", id="space-before-colon"),
        pytest.param(head("transfer-encoding : chunked") + b"0\r\n\r\n", id="space-before-colon-of-coding"),
        pytest.param(head("transfer-encoding: xchunked") + b"0\r\n\r\n", id="other-coding"),
        pytest.param(head("transfer-encoding: chunked, identity") + b"0\r\n\r\n", id="coding-after-chunked"),
        pytest.param(head("transfer-encoding: gzip, chunked") + b"0\r\n\r\n", id="coding-before-chunked"),
        pytest.param(head("transfer-encoding: \x0bchunked") + b"0\r\n\r\n", id="control-in-coding"),
        pytest.param(head(CHUNKED, "transfer-encoding: identity") + b"0\r\n\r\n", id="two-codings"),
        pytest.param(head("transfer-encoding:", " chunked") + b"0\r\n\r\n", id="folded-coding"),
        pytest.param(head("x: a", " b", "content-length: 0"), id="folded-header"),
        pytest.param(b"POST / HTTP/1.1\r\n host: x\r\n\r\n", id="folded-first-line"),
        pytest.param(b"POST / HTTP/1.1\nhost: x\ncontent-length: 0\n\n", id="bare-lf"),
        pytest.param(b"POST / HTTP/1.1\r\nhost: x\ncontent-length: 0\r\n\r\n", id="one-bare-lf"),
        pytest.param(b"POST / HTTP/1.1\r\nhost: x\rcontent-length: 0\r\n\r\n", id="bare-cr"),
        pytest.param(head(CHUNKED) + b"4\nabcd\n0\n\n", id="bare-lf-in-chunks"),
        pytest.param(head(CHUNKED) + b"4;a\nabcd\r\n0\r\n\r\n", id="bare-lf-in-extension"),
        pytest.param(head(CHUNKED) + b"0x4\r\nabcd\r\n0\r\n\r\n", id="prefixed-chunk-size"),
        pytest.param(head(CHUNKED) + b"-4\r\nabcd\r\n0\r\n\r\n", id="negative-chunk-size"),
        pytest.param(head(CHUNKED) + b"4 \r\nabcd\r\n0\r\n\r\n", id="spaced-chunk-size"),
        pytest.param(head(CHUNKED) + b"10000000000000004\r\nabcd\r\n0\r\n\r\n", id="overflowing-chunk-size"),
        pytest.param(head(CHUNKED) + b"4\r\nabcde\r\n0\r\n\r\n", id="longer-chunk"),
        pytest.param(head(CHUNKED) + b"4\r\nabcd\r\n0\r\nauthorization: evil\r\n\r\n", id="trailer"),
        pytest.param(b"POST / HTTP/1.0\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", id="chunked-in-1.0"),
        pytest.param(head("x: a\x00b", "content-length: 0"), id="nul-in-value"),
        pytest.param(head("x\x00y: b", "content-length: 0"), id="nul-in-name"),
        pytest.param(head("without colon", "content-length: 0"), id="no-colon"),
        pytest.param(head("content-length: 0", "host: y"), id="two-hosts"),
        pytest.param(b"POST / HTTP/1.1\r\ncontent-length: 0\r\n\r\n", id="no-host"),
        pytest.param(b"GET /\r\n\r\n", id="http-0.9"),
        pytest.param(b"POST / HTTP/1.2\r\nhost: x\r\n\r\n", id="http-1.2"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", id="http-2"),
        pytest.param(b"POST / HTTP/0.9\r\nhost: x\r\ncontent-length: 0\r\n\r\n", id="http-0.9-that-is-named"),
        pytest.param(b"POST / HTTP/2.0\r\nhost: x\r\ncontent-length: 0\r\n\r\n", id="http-2-in-the-form-of-1"),
        pytest.param(b"CONNECT other:443 HTTP/1.1\r\nhost: x\r\n\r\n", id="connect"),
        pytest.param(head("authorization: Bearer a", "authorization: Bearer b"), id="two-authorizations"),
        pytest.param(head("x-api-key: a", "x-api-key: a"), id="two-keys"),
        pytest.param(head("api-key: a", "Api-Key: b"), id="two-keys-of-azures-clients"),
        pytest.param(head("groundplan-on-behalf-of: a@b.c", "groundplan-on-behalf-of: d@b.c"), id="two-people"),
    ],
)
async def test_request_smuggling_finds_no_second_request(server: RunningServer, data: bytes) -> None:
    answer = await send(server, data + SMUGGLED)
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 405 ")), answer
    assert answer.count(b"HTTP/1.1 4") == 1
    assert server.targets == []


async def test_what_its_head_was_refused_for_is_told_instead_of_100_continue(server: RunningServer) -> None:
    """A client that waits with its body sends it on that word, and it would be thrown away."""
    waits = head("expect: 100-continue", "authorization: Bearer a", "authorization: Bearer b", "content-length: 4")
    answer = await send(server, waits)
    assert answer.startswith(b"HTTP/1.1 400 ") and b"duplicate_header" in answer and server.targets == []


async def test_chunk_extensions_are_ignored(server: RunningServer) -> None:
    answer = await send(server, head(CHUNKED, "connection: close") + b'4;a=b;c="d"\r\nabcd\r\n0;e\r\n\r\n')
    assert answer.endswith(b"ok:abcd") and server.targets == [b"/"]


async def test_endless_chunk_extensions_end_with_the_time_for_a_body(impatient_server: RunningServer) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", impatient_server.port)
    writer.write(head(CHUNKED) + b"4;")
    started = asyncio.get_running_loop().time()
    while not writer.is_closing() and asyncio.get_running_loop().time() - started < 20:
        writer.write(b"a" * 100)
        await asyncio.sleep(0.02)
        if reader.at_eof() or len(reader._buffer):  # type: ignore[attr-defined]
            break
    assert b" 408 " in await asyncio.wait_for(reader.read(), 20)
    writer.close()


@pytest.mark.parametrize("behind", [b"1\r\na\r\n0\r\nx: ", b"1\r\na\r\n4;", b"0\r\n"])
async def test_framing_of_a_body_is_bounded_like_a_head(server: RunningServer, behind: bytes) -> None:
    """The parser holds all of a line behind a body until it ends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(head(CHUNKED))
    await asyncio.sleep(0.02)
    writer.write(behind)
    answer, sent = asyncio.create_task(reader.read()), 0
    while not answer.done() and sent < 2_000_000:
        writer.write(b"a" * 1000)
        sent += 1000
        await asyncio.sleep(0.002)
    assert (await asyncio.wait_for(answer, 20)).startswith(b"HTTP/1.1 400 ") and sent < 500_000
    assert server.targets == [] and server.server.held_bytes == 0
    writer.close()


async def test_slow_loris_in_head_and_body_is_cut_though_bytes_keep_coming(impatient_server: RunningServer) -> None:
    for start in (b"POST / HTTP/1.1\r\nhost: x\r\nx: ", head("content-length: 9000"), head(CHUNKED)):
        reader, writer = await asyncio.open_connection("127.0.0.1", impatient_server.port)
        writer.write(start)
        answer = asyncio.create_task(reader.read())
        drip = b"1\r\na\r\n" if start.endswith(b"chunked\r\n\r\n") else b"a"
        for _ in range(600):
            if answer.done():
                break
            writer.write(drip)
            await asyncio.sleep(0.02)
        assert (await asyncio.wait_for(answer, 20)).startswith(b"HTTP/1.1 408 ")
        writer.close()
    assert impatient_server.targets == []


@pytest.mark.parametrize("coding", ["gzip", "br", "deflate", "zstd", "gzip, gzip", "GZIP"])
async def test_a_compressed_body_is_refused_before_it_is_read(server: RunningServer, coding: str) -> None:
    bomb = gzip.compress(b"0" * 5_000_000)
    answer = await send(server, head(f"content-encoding: {coding}", f"content-length: {len(bomb)}") + bomb[:100])
    assert answer.startswith(b"HTTP/1.1 415 ") and b"body_compressed" in answer and server.targets == []
    plain = await send(server, head("content-encoding: identity", "connection: close", "content-length: 2") + b"hi")
    assert plain.endswith(b"ok:hi")


async def test_the_total_of_bodies_is_bounded_and_others_are_refused_with_retry_after(server: RunningServer) -> None:
    waiting = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(2)]
    for reader, writer in waiting:
        del reader
        writer.write(head("content-length: 7000", "connection: close", target="/wait") + b"a" * 7000)
    await wait_until(lambda: len(server.targets) == 2)
    assert server.server.held_bytes == 14_000
    for data in (head("content-length: 7000"), head(CHUNKED) + b"1000\r\n" + b"a" * 4096):
        answer = await send(server, data)
        assert answer.startswith(b"HTTP/1.1 503 ") and b"memory_full" in answer and b"\r\nretry-after: 1\r\n" in answer
    small = await send(server, head("content-length: 2", "connection: close") + b"hi")
    assert small.endswith(b"ok:hi")
    waiting[0][1].transport.abort()
    await wait_until(lambda: server.server.held_bytes == 7000)
    half = await asyncio.open_connection("127.0.0.1", server.port)
    half[1].write(head("content-length: 7000") + b"a" * 5000)
    await wait_until(lambda: server.server.held_bytes == 12_000)
    more = await asyncio.open_connection("127.0.0.1", server.port)
    more[1].write(head("content-length: 4000") + b"a" * 3000)
    await wait_until(lambda: server.server.held_bytes == 15_000)
    half[1].write(b"a" * 2000)
    answer = await half[0].read()
    assert answer.startswith(b"HTTP/1.1 503 ") and b"memory_full" in answer
    assert server.server.refused_bodies == 3, "which /metrics tell"
    await wait_until(lambda: server.server.held_bytes == 10_000)
    more[1].transport.abort()
    half[1].close()
    server.gate.set()
    assert (await waiting[1][0].read()).endswith(b"ok:" + b"a" * 7000)
    await wait_until(lambda: server.server.held_bytes == 0)
    waiting[1][1].close()


async def test_a_large_body_without_a_known_key_is_not_read() -> None:
    async with run_server(replace(LIMITS, unknown_caller_body_bytes=1000)) as running:
        running.server.memory_share = lambda request: request.headers.get(b"authorization") == b"Bearer good"
        for start in (head("content-length: 1001"), head(CHUNKED), head("content-length: 9000", "authorization: x")):
            answer = await send(running, start)
            assert answer.startswith(b"HTTP/1.1 401 ") and b'"code":"invalid_api_key"' in answer
        good = ("authorization: Bearer good", "connection: close")
        assert (await send(running, head("content-length: 9000", *good) + b"a" * 9000)).endswith(b"ok:" + b"a" * 9000)
        assert (await send(running, head(CHUNKED, *good) + b"2\r\nhi\r\n0\r\n\r\n")).endswith(b"ok:hi")
        small = await send(running, head("content-length: 1000", "connection: close") + b"a" * 1000)
        assert small.endswith(b"ok:" + b"a" * 1000), "who they are is told by whoever answers"


async def test_announced_but_unsent_bodies_block_nobody(server: RunningServer) -> None:
    announced = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(6)]
    for _, writer in announced:
        writer.write(head("content-length: 9000") + b"a")
    await wait_until(lambda: server.server.held_bytes == 6)
    whole = await send(server, head("content-length: 9000", "connection: close") + b"a" * 9000)
    assert whole.endswith(b"ok:" + b"a" * 9000)
    for _, writer in announced:
        writer.transport.abort()
    await wait_until(lambda: server.server.held_bytes == 0)


async def test_a_slow_body_is_cut_off_whatever_length_it_announced() -> None:
    limits = replace(
        LIMITS, body_bytes=1 << 20, total_body_bytes=1 << 21, body_seconds=0.3, body_bytes_per_second=100_000
    )
    async with run_server(limits) as running:
        loop = asyncio.get_running_loop()
        began = loop.time()
        drips, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(head("content-length: 1000000"))
        answer = asyncio.create_task(drips.read())
        while not answer.done():
            writer.write(b"a")
            await asyncio.sleep(0.02)
        assert answer.result().startswith(b"HTTP/1.1 408 ") and loop.time() - began < 5, "and not after ten seconds"
        writer.close()
        steady, sends = await asyncio.open_connection("127.0.0.1", running.port)
        sends.write(head("content-length: 200000", "connection: close"))
        for _ in range(20):
            sends.write(b"a" * 10_000)
            await asyncio.sleep(0.04)  # for longer than a body may take that is not coming
        assert (await steady.read()).endswith(b"ok:" + b"a" * 200_000)
        sends.close()


async def test_more_connections_than_allowed_are_closed_and_the_others_served(server: RunningServer) -> None:
    busy = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(8)]
    for _, writer in busy:
        writer.write(head("content-length: 0", "connection: close", target="/wait"))
    await wait_until(lambda: len(server.targets) == 8)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    assert await reader.read() == b"", "each is at work"
    writer.close()
    server.gate.set()
    for reader, writer in busy:
        assert (await reader.read()).endswith(b"ok:")
        writer.close()


async def test_silent_connections_block_nobody(server: RunningServer) -> None:
    """Nor do those that were asked something once, send a part of a head, or take their time for a body."""
    slow, body = await asyncio.open_connection("127.0.0.1", server.port)
    body.write(head("content-length: 2", "connection: close") + b"h")
    once = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(3)]
    for reader, writer in once:
        writer.write(head("content-length: 2") + b"hi")
        await reader.readuntil(b"ok:hi")
    silent = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(4)]
    for _, writer in silent:
        writer.write(b"POST / HTTP/1.1\r\n")
    await wait_until(lambda: len(server.server.connections) == 8)
    for _ in range(20):
        assert (await send(server, head("content-length: 2", "connection: close") + b"hi")).endswith(b"ok:hi")
        assert len(server.server.connections) <= 8
        silent.append(await asyncio.open_connection("127.0.0.1", server.port))
    body.write(b"i")
    assert (await slow.read()).endswith(b"ok:hi"), "whoever sends a body is at work"
    for _, writer in (*once, *silent):
        writer.close()
    body.close()


def key_is_good(request: Request) -> bool:
    return request.headers.get(b"authorization") == b"Bearer good"


GOOD = head("authorization: Bearer good", "content-length: 2", "connection: close") + b"hi"
Client = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def opened(running: RunningServer, data: bytes, many: int) -> list[Client]:
    made = [await asyncio.open_connection("127.0.0.1", running.port, limit=1024) for _ in range(many)]
    for _, writer in made:
        writer.write(data)
    return made


def ended(clients: list[Client]) -> None:
    for _, writer in clients:
        writer.transport.abort()


@pytest.mark.parametrize(
    ("data", "why"),
    [
        pytest.param(head("content-length: 100") + b"a", b"", id="a-body-that-does-not-come"),
        pytest.param(
            head("content-length: 100", "authorization: Bearer bad") + b"a", b"", id="of-a-key-that-is-unknown"
        ),
        pytest.param(b"GET\x00", b" 400 ", id="what-was-refused"),
        pytest.param(head("content-length: 100000"), b" 413 ", id="too-large"),
    ],
)
async def test_connections_without_a_known_key_block_nobody(data: bytes, why: bytes) -> None:
    """Those that send a body slowly have half a minute for it, and those that were refused some seconds to read why."""
    async with run_server(replace(LIMITS, linger_seconds=20)) as running:
        running.server.memory_share = key_is_good
        strangers = await opened(running, data, 8)
        for reader, _ in strangers:
            if why:
                assert why in await reader.readline()
        await wait_until(lambda: len(running.server.connections) == 8)
        for _ in range(20):
            assert (await send(running, GOOD)).endswith(b"ok:hi")
            strangers += await opened(running, data, 1)
        ended(strangers)


async def test_a_known_callers_body_is_not_cut_off_for_unknown_ones() -> None:
    async with run_server(LIMITS) as running:
        running.server.memory_share = key_is_good
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(GOOD[:-1])
        strangers = await opened(running, head("content-length: 100") + b"a", 7)
        await wait_until(lambda: len(running.server.connections) == 8)
        for _ in range(20):
            strangers += await opened(running, head("content-length: 100") + b"a", 1)
            assert (await send(running, GOOD)).endswith(b"ok:hi")
        writer.write(b"i")
        assert (await asyncio.wait_for(reader.read(), 20)).endswith(b"ok:hi")
        writer.close()
        ended(strangers)


def key_of(request: Request) -> str:
    return request.headers.get(b"authorization", b"").decode()


async def test_one_workload_holding_connections_with_bodies_blocks_no_other() -> None:
    async with run_server(LIMITS) as running:
        running.server.memory_share, running.server.workload_name = key_is_good, key_of
        held = await opened(running, GOOD[:-1], 8)
        await wait_until(lambda: sum(map(bool, (c.pending_body_workload for c in running.server.connections))) == 8)
        for _ in range(20):
            assert (await send(running, GOOD)).endswith(b"ok:hi")
            held += await opened(running, GOOD[:-1], 1)
        ended(held)


async def test_bodies_of_several_workloads_are_all_read() -> None:
    """Nobody has most of the connections, so that whoever comes is the one for whom there is none."""
    async with run_server(LIMITS) as running:
        running.server.memory_share, running.server.workload_name = (lambda _: 1.0), key_of
        held = [
            client
            for key in ("one", "two")
            for client in await opened(running, GOOD.replace(b"good", key.encode())[:-1], 4)
        ]
        await wait_until(lambda: sum(map(bool, (c.pending_body_workload for c in running.server.connections))) == 8)
        assert await send(running, GOOD) == b""
        for reader, writer in held:
            writer.write(b"i")
            assert (await asyncio.wait_for(reader.read(), 20)).endswith(b"ok:hi")
            writer.close()


async def test_one_workload_holding_memory_with_bodies_leaves_some_to_others() -> None:
    async with run_server(replace(LIMITS, large_body_bytes=100)) as running:
        running.server.memory_share, running.server.workload_name = (lambda _: 1.0), key_of
        large = head("authorization: Bearer good", "content-length: 4900", "connection: close")
        held = await opened(running, large + b"a" * 4800, 1)
        await wait_until(lambda: running.server.held_bytes == 4800)
        held += await opened(running, large + b"a" * 4700, 1)
        await wait_until(lambda: running.server.held_bytes == 9500)
        held += await opened(running, large + b"a" * 200, 1)
        assert b"memory_full" in await asyncio.wait_for(held[2][0].read(), 20), "16,000 may be held, 9,600 of one"
        assert (await send(running, GOOD)).endswith(b"ok:hi"), "what is small is of no importance"
        other = large.replace(b"good", b"else") + b"a" * 4900
        assert (await send(running, other)).endswith(b"ok:" + b"a" * 4900)
        held[0][1].write(b"a" * 100)
        assert (await asyncio.wait_for(held[0][0].read(), 20)).endswith(b"ok:" + b"a" * 4900), "what is there is kept"
        assert (await send(running, large + b"a" * 4900)).endswith(b"ok:" + b"a" * 4900)
        ended(held)
        await wait_until(lambda: running.server.held_bytes == 0)
        assert running.server._large_bytes == {}


async def test_clients_that_do_not_read_answers_block_no_new_clients(server: RunningServer) -> None:
    takes_none = await opened(server, head("content-length: 0", target="/large"), 8)
    for _, writer in takes_none:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
    await wait_until(lambda: len(server.targets) == 8 and active_requests(server.server) == 0)
    for _ in range(20):
        assert (await send(server, GOOD)).endswith(b"ok:hi")
    ended(takes_none)


async def have_answered(server: RunningServer, client: socket.socket, request: bytes) -> None:
    """Send a request, and wait until it is answered; the client reads nothing."""
    before = len(server.targets)
    await asyncio.get_running_loop().sock_sendall(client, request)
    await wait_until(lambda: len(server.targets) > before and not active_requests(server.server))


async def test_clients_that_leave_the_end_of_an_answer_unread_block_no_new_clients(server: RunningServer) -> None:
    """Less than makes the server wait, so that it has nothing to wait for."""
    loop = asyncio.get_running_loop()
    leave_rest = [socket.socket() for _ in range(8)]
    for each in leave_rest:
        each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        each.setblocking(False)
        await loop.sock_connect(each, ("127.0.0.1", server.port))
    await wait_until(lambda: len(server.server.connections) == 8)
    transports = [connection.transport for connection in server.server.connections]
    for transport in transports:
        assert transport is not None
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        port = transport.get_extra_info("peername")[1]
        client = next(each for each in leave_rest if each.getsockname()[1] == port)
        while transport.get_write_buffer_size() < 12_000:
            await have_answered(server, client, head("content-length: 9000") + b"a" * 9000)
    assert all(connection.paused is None for connection in server.server.connections)
    for _ in range(20):
        assert (await send(server, GOOD)).endswith(b"ok:hi")
    for each in leave_rest:
        each.close()


async def test_the_longest_idle_connection_is_closed_and_new_ones_stay() -> None:
    """Whoever asks at once and then waits has a minute more for its next request than a new one has for its head."""
    async with run_server(replace(LIMITS, idle_seconds=75)) as running:
        waiting = await opened(running, head("content-length: 2") + b"hi", 7)
        for reader, _ in waiting:
            await reader.readuntil(b"ok:hi")
        just_come, writer = await asyncio.open_connection("127.0.0.1", running.port)
        await wait_until(lambda: len(running.server.connections) == 8)
        more = await opened(running, b"", 3)
        await wait_until(lambda: running.server.held_bytes == 0 and len(running.server.connections) == 8)
        await asyncio.sleep(0.05)
        writer.write(GOOD)
        assert (await asyncio.wait_for(just_come.read(), 20)).endswith(b"ok:hi")
        writer.close()
        ended([*waiting, *more])


async def test_bodies_without_a_known_key_leave_half_of_the_memory_to_known_callers(server: RunningServer) -> None:
    server.server.memory_share = key_is_good
    strangers = await opened(server, head("content-length: 4900") + b"a" * 1000, 3)
    await wait_until(lambda: server.server.held_bytes == 3000)
    strangers[0][1].write(b"a" * 3000)
    await wait_until(lambda: server.server.held_bytes == 6000)
    answer = await send(server, head("content-length: 4900"))
    assert answer.startswith(b"HTTP/1.1 401 "), "and is told before it sends anything"
    strangers[1][1].write(b"a" * 3000)
    assert b"memory_full" in await asyncio.wait_for(strangers[1][0].read(), 20)
    await wait_until(lambda: server.server.held_bytes == 5000)
    good = ("authorization: Bearer good", "connection: close")
    known = head("content-length: 9000", *good) + b"a" * 9000
    assert (await send(server, known)).endswith(b"ok:" + b"a" * 9000)
    small = await send(server, head("content-length: 2", "connection: close") + b"hi")
    assert small.endswith(b"ok:hi"), "there is room for it"
    ended(strangers)
    await wait_until(lambda: server.server.held_bytes == 0)


async def test_draining_answers_one_more_request_of_a_kept_connection_and_closes_it(server: RunningServer) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(head("content-length: 2") + b"hi")
    await reader.readuntil(b"ok:hi")
    silent = await asyncio.open_connection("127.0.0.1", server.port)
    streaming = await asyncio.open_connection("127.0.0.1", server.port)
    streaming[1].write(head("content-length: 0", target="/stream"))
    await streaming[0].readuntil(b"first")
    draining = asyncio.create_task(server.server.quiesce(30))
    await wait_until(lambda: server.server.draining)
    writer.write(head("content-length: 2") + b"ho")
    answer = await asyncio.wait_for(reader.read(), 20)
    assert b"\r\nconnection: close\r\n" in answer and answer.endswith(b"ok:ho")
    assert await asyncio.wait_for(silent[0].read(), 20) == b""
    assert not draining.done()
    server.gate.set()
    await streaming[0].readuntil(b"last\r\n0\r\n\r\n")
    streaming[1].write(head("content-length: 2") + b"hu")
    assert (await asyncio.wait_for(streaming[0].read(), 20)).endswith(b"ok:hu")
    await asyncio.wait_for(draining, 20)
    for each in (writer, silent[1], streaming[1]):
        each.close()
