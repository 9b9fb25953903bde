"""One WebSocket on our own server: messages in, messages out. The protocol is `websockets`', which this loads.

Binary messages are refused, since nobody here sends any. Who may connect, and what is said, is the caller's.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from websockets.exceptions import ProtocolError
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request as WebSocketRequest
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from groundplan.core.errors import Invalid
from groundplan.gateway.http.server import Request, Response
from groundplan.gateway.stalls import patient

MESSAGE_BYTES = 16 << 20
AT_ONCE = 16 << 10
"""Bytes that are taken before calls have a turn: as pings they are thousands."""
UNCOUNTED = 256 << 10
"""Bytes of a message that are held until the rest of it is here, whatever else is held."""
PING_SECONDS, PONG_SECONDS = 20.0, 300.0
"""A client that says nothing for so long is asked whether it is there, and how long it has to say so: one that plays
what it hears as it reads comes to that only behind all that was said before."""

_SUBPROTOCOL = Subprotocol("realtime")


def _chosen(_: ServerProtocol, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """A client need not offer any."""
    return _SUBPROTOCOL if _SUBPROTOCOL in offered else None


class ServerSocket:
    """See the module. `accept`, then `receive` until None; `send` and `close` at any time between."""

    def __init__(self, request: Request, response: Response) -> None:
        self._request = request
        self._stream = request.stream
        self._response = response
        self._protocol = ServerProtocol(subprotocols=[_SUBPROTOCOL], select_subprotocol=_chosen, max_size=MESSAGE_BYTES)
        lines = b"".join(b"%b: %b\r\n" % item for item in request.headers.items())
        self._protocol.receive_data(b"GET %b HTTP/1.1\r\n%b\r\n" % (request.target, lines))
        self._text = bytearray()
        """Of the message that is coming."""
        self._messages: deque[str] = deque()
        self._listens = False
        """What comes is read, as soon as it is there."""
        self._said = asyncio.Event()
        """Something came since it was looked at."""
        self.closed = False
        self.accepted = False

    def accept(self) -> None:
        """Raises `Invalid` for what is no WebSocket handshake."""
        events = self._protocol.events_received()
        if len(events) != 1 or not isinstance(events[0], WebSocketRequest):
            raise Invalid(
                "this is not a WebSocket handshake", code="upgrade_unsupported", hint="Use a WebSocket client."
            )
        answer = self._protocol.accept(events[0])
        if answer.status_code != 101:
            raise Invalid(
                "the WebSocket handshake is wrong", code="upgrade_unsupported", hint="Use a WebSocket client."
            )
        if self._response.id:
            answer.headers["x-request-id"] = self._response.id
        self._protocol.send_response(answer)
        self._flush()
        self.accepted = True

    async def receive(self) -> str | None:
        """The next message; None when the client has closed, or speaks no WebSocket any more."""
        while not self._messages:
            if self.closed or self._stream is None:
                return None
            self._listens = True
            data = await self._stream.read()
            self._listens = False
            self._said.set()
            if not data:
                return None
            for at in range(0, len(data), AT_ONCE):
                if at:
                    await asyncio.sleep(0)
                self._hear(data[at : at + AT_ONCE])
            if not self._holds():
                self._protocol.fail(CloseCode.TRY_AGAIN_LATER, "memory_full")
                self.closed = True
            self._flush()
            if self._protocol.close_expected():
                self.closed = True
            if self._response.full:
                await self._response.drained()  # whoever reads none of our pongs is asked nothing more
        return self._messages.popleft()

    async def until_lost(self) -> None:
        """Returns when the client is gone without a word, as a telephone that leaves its network: it says nothing, not
        even that it is there, though it is listened to and takes what it is sent."""
        while not self.closed:
            await asyncio.sleep(PING_SECONDS)
            if not self._said.is_set() and self._listens and not self._response.full:
                self._protocol.send_ping(b"")
                self._flush()
                try:
                    async with patient(PONG_SECONDS):
                        await self._said.wait()
                except TimeoutError:
                    if self._listens and not self._response.full:
                        return
            self._said.clear()

    def _holds(self) -> bool:
        """Whether what has come of a message may be held until the rest is here."""
        size = len(self._protocol.reader.buffer) + len(self._text) - UNCOUNTED
        return (size <= 0 and not self._request.held) or self._response.holds(self._request, max(0, size))

    def _hear(self, data: bytes) -> None:
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            if isinstance(event, Frame):
                self._frame(event)

    def _frame(self, frame: Frame) -> None:
        if frame.opcode in (Opcode.TEXT, Opcode.CONT):
            self._text += frame.data
            if frame.fin:
                try:
                    self._messages.append(self._text.decode())
                except UnicodeDecodeError:
                    self._protocol.fail(1007, "not UTF-8")
                self._text.clear()
        elif frame.opcode is Opcode.BINARY:
            self._protocol.fail(1003, "text only")
        elif frame.opcode is Opcode.CLOSE:
            self.closed = True

    async def send(self, text: bytes) -> None:
        """Nothing where the client is gone."""
        if self.closed or self._response.gone:
            return
        self._protocol.send_text(text)
        self._flush()
        if self._response.full:
            await self._response.drained()

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
                self._response.raw(data)
