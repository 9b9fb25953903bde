"""One WebSocket on our own server, frame by frame, as odd clients send them."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from tests.integration.gates import wait_until
from websockets.client import ClientProtocol
from websockets.frames import Close, Frame, Opcode
from websockets.uri import parse_uri

from groundplan.core.errors import Invalid
from groundplan.gateway.http import websocket
from groundplan.gateway.http.body_stream import BodyStream
from groundplan.gateway.http.bounds import Limits
from groundplan.gateway.http.server import Request, Response
from groundplan.gateway.http.websocket import BYTES_PER_TURN, MESSAGES_PER_TURN, UNRESERVED_BYTES, ServerSocket


class Source:
    def pause_reading(self) -> None:
        return

    resume_reading = pause_reading


class Written:
    """An answer whose client takes it when `taken` is set."""

    def __init__(self) -> None:
        self.data: list[bytes] = []
        self.is_write_paused, self.is_disconnected, self.taken, self.request_id = False, False, asyncio.Event(), ""
        self.room = 1 << 20
        """Bytes that may be held."""

    def write_raw(self, data: bytes) -> None:
        self.data.append(data)

    def resize_reservation(self, request: Request, size: int) -> bool:
        request.held_bytes = size if size <= self.room else 0
        return size <= self.room

    async def drain(self) -> None:
        await self.taken.wait()
        self.is_write_paused = False


def connected() -> tuple[ServerSocket, BodyStream, Written]:
    client = ClientProtocol(parse_uri("ws://gateway/v1/realtime"))
    request = Request(0.0)
    request.target = b"/v1/realtime"
    request.headers = {n.lower().encode(): v.encode() for n, v in client.connect().headers.raw_items()}
    request.stream = stream = BodyStream(Source(), asyncio.get_running_loop(), Limits(), allows_silence=True)
    written = Written()
    socket = ServerSocket(request, cast(Response, cast(Any, written)))
    socket.accept()
    return socket, stream, written


def frame(opcode: Opcode, data: bytes = b"", *, fin: bool = True) -> bytes:
    return Frame(opcode, data, fin).serialize(mask=True)


@pytest.mark.parametrize("missing", ["sec-websocket-key", "sec-websocket-version", "connection"])
async def test_a_wrong_handshake_is_refused_before_anything_is_done_for_it(missing: str) -> None:
    """No upstream is connected, since the request comes to no socket."""
    socket, _, _ = connected()
    request = socket._request
    del request.headers[missing.encode()]
    with pytest.raises(Invalid, match="handshake"):
        ServerSocket(request, cast(Response, cast(Any, Written())))


async def test_empty_fragments_are_not_stored() -> None:
    socket, stream, _ = connected()
    stream.feed(frame(Opcode.TEXT, b"one ", fin=False) + frame(Opcode.CONT, fin=False) * 1000)
    receiving = asyncio.create_task(socket.receive())
    await wait_until(lambda: not stream._size)
    assert socket._text == b"one "
    stream.feed(frame(Opcode.CONT, b"two"))
    assert await receiving == "one two"


async def test_thousands_of_pings_do_not_block_calls() -> None:
    socket, stream, written = connected()
    stream.feed(frame(Opcode.PING) * (10 * BYTES_PER_TURN // 6) + frame(Opcode.TEXT, b"hello"))
    receiving, turns = asyncio.create_task(socket.receive()), 0
    while not receiving.done():
        turns += 1
        await asyncio.sleep(0)
    assert receiving.result() == "hello" and turns >= 10
    assert b"".join(written.data).count(b"\x8a\x00") == 10 * BYTES_PER_TURN // 6


async def test_thousands_of_messages_in_one_read_do_not_block_calls() -> None:
    socket, stream, _ = connected()
    count, turns = 100 * MESSAGES_PER_TURN, 0
    stream.feed(frame(Opcode.TEXT, b"x") * count)

    async def receive_all() -> list[str | None]:
        return [await socket.receive() for _ in range(count)]

    receiving = asyncio.create_task(receive_all())
    while not receiving.done():
        turns += 1
        await asyncio.sleep(0)
    assert receiving.result() == ["x"] * count and turns >= 100


async def test_a_client_that_reads_no_pongs_is_paused() -> None:
    """They would pile up as fast as pings come."""
    socket, stream, written = connected()
    written.is_write_paused = True
    stream.feed(frame(Opcode.PING, b"are you there"))
    receiving = asyncio.create_task(socket.receive())
    await wait_until(lambda: len(written.data) == 2)
    stream.feed(frame(Opcode.TEXT, b"hello"))
    for _ in range(10):
        await asyncio.sleep(0)
    assert stream._size > 0 and not receiving.done()
    written.taken.set()
    assert await receiving == "hello"


async def test_after_a_protocol_error_nothing_more_is_sent() -> None:
    """Whatever else is said meanwhile, also where it takes what it was sent slowly."""
    socket, stream, written = connected()
    written.is_write_paused = True
    stream.feed(frame(Opcode.BINARY, b"sound"))
    receiving = asyncio.create_task(socket.receive())
    await wait_until(lambda: len(written.data) == 2)
    await socket.send(b"{}")
    written.taken.set()
    assert await receiving is None and len(written.data) == 2


async def test_nothing_more_is_sent_after_a_wrong_frame_of_which_much_is_read_yet() -> None:
    socket, stream, written = connected()
    handshake, unmasked = len(written.data), Frame(Opcode.TEXT, b"hello").serialize(mask=False)
    stream.feed(unmasked + b"x" * (3 * BYTES_PER_TURN))
    receiving = asyncio.create_task(socket.receive())
    while not receiving.done():  # other tasks have turns between the parts of what was read
        await asyncio.sleep(0)
        if socket._protocol.close_expected():
            await socket.send(b"{}")
    assert receiving.result() is None and socket.closed
    assert [data[:1] for data in written.data[handshake:]] == [b"\x88"]  # the close frame alone


async def test_a_message_counts_as_held_like_a_body_until_it_was_passed_on() -> None:
    """Of many conversations at once it would be gigabytes, also of those whose upstream reads slowly."""
    socket, stream, written = connected()
    told = "x" * (1 << 20)
    data, half = frame(Opcode.TEXT, told.encode()), 700_000
    stream.feed(data[:half])
    receiving = asyncio.create_task(socket.receive())
    await wait_until(lambda: socket._request.held_bytes > 0)  # a part at a time was heard, and then it is held
    assert 0 <= half - UNRESERVED_BYTES - socket._request.held_bytes < 20, "but for what frames it"
    stream.feed(data[half:])
    assert await receiving == told and socket._request.held_bytes == len(told) - UNRESERVED_BYTES
    receiving = asyncio.create_task(socket.receive())
    await wait_until(lambda: socket._request.held_bytes == 0)
    written.room = 300_000
    for at in range(0, half, 100_000):
        stream.feed(data[at : at + 100_000])
        await wait_until(lambda: not stream._size or receiving.done())
    assert await receiving is None and socket._request.held_bytes == 0
    assert written.data[-1] == Frame(Opcode.CLOSE, Close(1013, "memory_full").serialize()).serialize(mask=False)


async def test_a_silently_gone_client_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked, and one that says that it is there is not asked again at once."""
    monkeypatch.setattr(websocket, "PING_SECONDS", 0.02)
    monkeypatch.setattr(websocket, "PONG_SECONDS", 0.1)
    socket, stream, written = connected()
    receiving = asyncio.create_task(socket.receive())
    lost = asyncio.create_task(socket.wait_until_lost())
    ping = Frame(Opcode.PING, b"").serialize(mask=False)
    for number in (1, 2):
        await wait_until(lambda: written.data.count(ping) == number)  # noqa: B023 -- awaited in the same round
        stream.feed(frame(Opcode.PONG))
    assert not lost.done()
    await lost
    assert not receiving.done() and written.data.count(ping) == 3
    receiving.cancel()
