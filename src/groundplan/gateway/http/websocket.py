"""One server-side WebSocket: messages in, messages out. The protocol is implemented by `websockets`, which this module
loads.

Binary messages are refused, since no client of these APIs sends any. Who may connect, and what is said, is the
caller's.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from websockets.exceptions import ProtocolError
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request as WebSocketRequest
from websockets.http11 import Response as WebSocketResponse
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from groundplan.core.errors import Invalid
from groundplan.gateway.http.server import Request, Response
from groundplan.gateway.stalls import patient

MESSAGE_BYTES = 16 << 20
BYTES_PER_TURN = 16 << 10
"""Bytes that are processed before other tasks have a turn: as pings they are thousands."""
MESSAGES_PER_TURN = 32
"""Messages that are returned before other tasks have a turn: one read may bring thousands, and many take no wait."""
UNRESERVED_BYTES = 256 << 10
"""Bytes of messages that are kept without reserving memory for them."""
PING_SECONDS, PONG_SECONDS = 20.0, 300.0
"""How long a client may be silent before it is pinged, and how long it has to answer: a client that plays audio as it
reads comes to the ping only after everything that was sent before."""

_SUBPROTOCOL = Subprotocol("realtime")


def _select_subprotocol(_: ServerProtocol, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """A client need not offer any subprotocol."""
    return _SUBPROTOCOL if _SUBPROTOCOL in offered else None


def _handshake_answer(protocol: ServerProtocol) -> WebSocketResponse:
    """The answer to the handshake that was received. Raises `Invalid` if it is none, or a wrong one."""
    events, hint = protocol.events_received(), "Use a WebSocket client."
    if len(events) != 1 or not isinstance(events[0], WebSocketRequest):
        raise Invalid("this is not a WebSocket handshake", code="upgrade_unsupported", hint=hint)
    answer = protocol.accept(events[0])
    if answer.status_code != 101:
        raise Invalid("the WebSocket handshake is wrong", code="upgrade_unsupported", hint=hint)
    return answer


class ServerSocket:
    """A server-side WebSocket. `accept`, then `receive` until None; `send` and `close` at any time between. Raises
    `Invalid` if the request is not a WebSocket handshake, before anything is done for it."""

    def __init__(self, request: Request, response: Response) -> None:
        self._request = request
        self._stream = request.stream
        self._response = response
        self._protocol = ServerProtocol(
            subprotocols=[_SUBPROTOCOL], select_subprotocol=_select_subprotocol, max_size=MESSAGE_BYTES
        )
        lines = b"".join(b"%b: %b\r\n" % item for item in request.headers.items())
        self._protocol.receive_data(b"GET %b HTTP/1.1\r\n%b\r\n" % (request.target, lines))
        self._answer = _handshake_answer(self._protocol)
        self._text = bytearray()
        """The message that is being received."""
        self._messages: deque[tuple[str, int]] = deque()
        """Complete messages, each with its size in bytes."""
        self._complete_bytes = self._returned_bytes = 0
        """Bytes of complete messages, with the one that the caller works on; of that one alone."""
        self._returned_in_turn = 0
        """Messages that were returned since other tasks had a turn here."""
        self._is_reading = False
        """`receive` is waiting for bytes."""
        self._data_arrived = asyncio.Event()
        """Set when bytes have come since the last check."""
        self.closed = False
        self.accepted = False

    def accept(self) -> None:
        """Send the handshake's answer."""
        if self._response.request_id:
            self._answer.headers["x-request-id"] = self._response.request_id
        self._protocol.send_response(self._answer)
        self._flush()
        self.accepted = True

    async def receive(self) -> str | None:
        """The next message; None when the client has closed the connection, or no longer speaks WebSocket. Memory is
        reserved for it until the next call."""
        self._complete_bytes -= self._returned_bytes
        self._returned_bytes = 0
        if self._request.held_bytes:
            self._reserve_memory()
        while not self._messages:
            if self.closed or self._stream is None:
                return None
            self._is_reading = True
            data = await self._stream.read()
            self._is_reading = False
            self._data_arrived.set()
            if not data:
                return None
            for at in range(0, len(data), BYTES_PER_TURN):
                if at:
                    await asyncio.sleep(0)
                self._receive_data(data[at : at + BYTES_PER_TURN])
            if not self._reserve_memory():
                self._protocol.fail(CloseCode.TRY_AGAIN_LATER, "memory_full")
                self.closed = True
            self._flush()
            if self._response.is_write_paused:
                await self._response.drain()  # a client that does not read our pongs is not read from
        self._returned_in_turn += 1
        if self._returned_in_turn >= MESSAGES_PER_TURN:
            self._returned_in_turn = 0
            await asyncio.sleep(0)
        text, self._returned_bytes = self._messages.popleft()
        return text

    async def wait_until_lost(self) -> None:
        """Wait until the client is lost without a word, as a telephone that leaves its network: it answers no ping
        within `PONG_SECONDS`, though `receive` is reading and the client takes what it is sent."""
        while not self.closed:
            await asyncio.sleep(PING_SECONDS)
            if not self._data_arrived.is_set() and self._is_reading and not self._response.is_write_paused:
                self._protocol.send_ping(b"")
                self._flush()
                try:
                    async with patient(PONG_SECONDS):
                        await self._data_arrived.wait()
                except TimeoutError:
                    if self._is_reading and not self._response.is_write_paused:
                        return
            self._data_arrived.clear()

    def _reserve_memory(self) -> bool:
        """Reserve memory for the messages that are kept, complete or not; False if there is none."""
        size = len(self._protocol.reader.buffer) + len(self._text) + self._complete_bytes - UNRESERVED_BYTES
        return (size <= 0 and not self._request.held_bytes) or self._response.resize_reservation(
            self._request, max(0, size)
        )

    def _receive_data(self, data: bytes) -> None:
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            if isinstance(event, Frame):
                self._handle_frame(event)
        if self._protocol.close_expected():
            self.closed = True  # at once: other tasks send between two parts of what was read

    def _handle_frame(self, frame: Frame) -> None:
        if frame.opcode in (Opcode.TEXT, Opcode.CONT):
            self._text += frame.data
            if frame.fin:
                try:
                    self._messages.append((self._text.decode(), len(self._text)))
                    self._complete_bytes += len(self._text)
                except UnicodeDecodeError:
                    self._protocol.fail(1007, "not UTF-8")
                self._text.clear()
        elif frame.opcode is Opcode.BINARY:
            self._protocol.fail(1003, "text only")
        elif frame.opcode is Opcode.CLOSE:
            self.closed = True

    async def send(self, text: bytes) -> None:
        """Send a message; nothing if the client is gone."""
        if self.closed or self._response.is_disconnected:
            return
        self._protocol.send_text(text)
        self._flush()
        if self._response.is_write_paused:
            await self._response.drain()

    def close(self, code: int, reason: str) -> None:
        if not self.closed:
            self.closed = True
            try:
                self._protocol.send_close(code, reason[:120])
            except ProtocolError:
                return
            finally:
                self._flush()

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self._response.write_raw(data)
