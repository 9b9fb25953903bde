"""Bodies that are read while they arrive, over real sockets: every cut of the bytes, back-pressure, and what breaks."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.closing import close
from tests.unit.call_rig import wait_until

from groundplan.core.errors import GroundplanError
from groundplan.gateway.http.body_stream import HIGH_WATER, STREAM_MEMORY, BodyStream
from groundplan.gateway.http.errors import error_response, refusal_body
from groundplan.gateway.http.server import Limits, Request, Response, Server
from groundplan.gateway.surfaces.upload import Upload

LIMITS = Limits(
    streamed_body_bytes=4 << 20, body_seconds=20, body_bytes_per_second=1 << 30, linger_seconds=0.3, sweep_seconds=0.05
)
HASTY = replace(LIMITS, body_seconds=0.4)


@dataclass
class Running:
    port: int
    server: Server
    bodies: list[bytes] = field(default_factory=list)
    hold: asyncio.Event = field(default_factory=asyncio.Event)


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    async with serving() as made:
        yield made


@asynccontextmanager
async def serving(limits: Limits = LIMITS) -> AsyncIterator[Running]:
    async def handle(request: Request, response: Response) -> None:
        if request.target == b"/refuse":
            response.send(401, b"no")
            return
        if request.stream is None:
            response.send(200, b"whole " + request.body)
            return
        if request.target == b"/held":
            await made.hold.wait()
        parts = []
        try:
            while data := await request.stream.read():
                parts.append(data)
        except GroundplanError as error:
            response.send(*error_response(error))
            return
        made.bodies.append(b"".join(parts))
        response.send(200, b"%d" % len(made.bodies[-1]))

    loop = asyncio.get_running_loop()
    server = Server(handle, refusal_body, loop, limits)
    server.is_streamed = lambda request: request.target != b"/whole"
    listener = await loop.create_server(server.create_connection, "127.0.0.1", 0)
    made = Running(listener.sockets[0].getsockname()[1], server)
    yield made
    await close(listener, server)
    assert server.held_bytes == 0


def head(length: int, path: str = "/") -> bytes:
    return f"POST {path} HTTP/1.1\r\nhost: g\r\ncontent-length: {length}\r\n\r\n".encode()


async def exchange(port: int, *parts: bytes, pause: float = 0.0) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for part in parts:
        writer.write(part)
        await writer.drain()
        await asyncio.sleep(pause)
    try:
        return await asyncio.wait_for(reader.read(), 20)
    finally:
        writer.close()


@settings(max_examples=25, deadline=None)
@given(body=st.binary(max_size=3000), cuts=st.lists(st.integers(0, 4000), max_size=6), chunked=st.booleans())
def test_any_cut_of_the_bytes_gives_the_same_body(body: bytes, cuts: list[int], chunked: bool) -> None:
    async def run() -> None:
        async with serving() as made:
            raw = head(len(body)) + body
            if chunked:
                raw = b"POST / HTTP/1.1\r\nhost: g\r\ntransfer-encoding: chunked\r\n\r\n"
                raw += b"".join(
                    b"%x\r\n%b\r\n" % (len(body[i : i + 700]), body[i : i + 700]) for i in range(0, len(body), 700)
                )
                raw += b"0\r\n\r\n"
            places = sorted({0, len(raw), *(cut for cut in cuts if cut < len(raw))})
            parts = [raw[a:b] for a, b in itertools.pairwise(places)]
            answer = await exchange(made.port, *parts)
            assert answer.startswith(b"HTTP/1.1 200") and b"connection: close" in answer
            assert made.bodies == [body]

    asyncio.run(run())


async def test_an_unread_body_pauses_its_client(running: Running) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    size = 3 << 20
    writer.write(head(size, "/held") + bytes(size))
    await asyncio.sleep(0.2)
    (connection,) = running.server.connections
    stream = connection._request.stream
    assert stream is not None and stream.received_bytes <= HIGH_WATER + (512 << 10)
    running.hold.set()
    assert (await asyncio.wait_for(reader.read(), 20)).endswith(b"%d" % size)
    writer.close()


async def test_streamed_bodies_count_as_held_and_too_many_are_refused_with_retry_after() -> None:
    async with serving(replace(LIMITS, total_body_bytes=STREAM_MEMORY)) as made:
        reader, writer = await asyncio.open_connection("127.0.0.1", made.port)
        writer.write(head(2, "/held") + b"a")
        await wait_until(lambda: made.server.held_bytes == STREAM_MEMORY)
        assert b"memory_full" in await exchange(made.port, head(2), b"ab")
        made.hold.set()
        writer.write(b"b")
        assert (await asyncio.wait_for(reader.read(), 20)).endswith(b"2") and made.bodies == [b"ab"]
        writer.close()


async def test_tiny_pieces_pause_the_client_sooner_and_are_read_together(running: Running) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    size = 1 << 20
    writer.write(b"POST /held HTTP/1.1\r\nhost: g\r\ntransfer-encoding: chunked\r\n\r\n")
    writer.write(b"2\r\nab\r\n" * (size // 2))
    await asyncio.sleep(0.2)
    (connection,) = running.server.connections
    stream = connection._request.stream
    assert stream is not None and stream.received_bytes <= HIGH_WATER, "what each piece takes beside its bytes counts"
    running.hold.set()
    writer.write(b"0\r\n\r\n")
    assert (await asyncio.wait_for(reader.read(), 20)).endswith(b"%d" % size)
    assert running.bodies == [b"ab" * (size // 2)]
    writer.close()


async def test_a_form_in_tiny_pieces_is_kept_in_few_pieces() -> None:
    head = b'--xyz\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
    sound = b"\r\n-" * 100_000
    stream = BodyStream(_Nowhere(), asyncio.get_running_loop(), LIMITS)
    raw = head + sound + b"\r\n--xyz--\r\n"
    for at in range(0, len(raw), 2):
        stream.feed(raw[at : at + 2])
    stream.end()
    request = Request(0.0, headers={b"content-type": b"multipart/form-data; boundary=xyz"})
    request.stream = stream
    upload = Upload(frozenset())
    await upload.begin(request)
    pieces = [piece async for piece in upload.pieces("whisper", b"xyz", {})]
    assert sound in b"".join(pieces) and len(pieces) < 120


class _Nowhere:
    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


async def test_an_answer_before_the_end_of_the_body_reaches_the_client(running: Running) -> None:
    answer = await exchange(running.port, head(2 << 20, "/refuse"), bytes(1 << 20), bytes(1 << 20))
    assert answer.startswith(b"HTTP/1.1 401") and b"connection: close" in answer


async def test_too_large_or_malformed_bodies_are_refused(running: Running) -> None:
    assert b" 413 " in await exchange(running.port, head((4 << 20) + 1))
    chunked = b"POST / HTTP/1.1\r\nhost: g\r\ntransfer-encoding: chunked\r\n\r\n"
    large = b"%x\r\n%b\r\n" % (3 << 20, bytes(3 << 20))
    assert b"body_too_large" in await exchange(running.port, chunked, large, large)
    assert b"malformed_request" in await exchange(running.port, chunked, b"zz\r\nabc\r\n")
    assert running.bodies == []


async def test_a_body_that_does_not_end_in_time_is_refused() -> None:
    async with serving(HASTY) as made:
        assert b"request_timeout" in await exchange(made.port, head(10), b"abc")
        assert made.bodies == []


async def test_other_requests_are_buffered_also_before_a_streamed_one(running: Running) -> None:
    both = head(2, "/whole") + b"ab" + head(3) + b"xyz"
    answer = await exchange(running.port, both)
    assert b"whole ab" in answer and answer.endswith(b"3") and running.bodies == [b"xyz"]


async def test_a_client_that_expects_100_continue_gets_it(running: Running) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    writer.write(b"POST / HTTP/1.1\r\nhost: g\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n")
    assert (await asyncio.wait_for(reader.readline(), 20)).startswith(b"HTTP/1.1 100")
    writer.write(b"ok")
    assert (await asyncio.wait_for(reader.read(), 20)).endswith(b"2")
    writer.close()
