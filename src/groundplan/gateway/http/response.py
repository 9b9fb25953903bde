"""The answer to one request as HTTP/1.1 bytes. What it says is the handler's; connections are `server`'s."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from groundplan.gateway.http.server import Connection

STATUS_LINES = {s.value: f"HTTP/1.1 {s.value} {s.phrase}\r\n".encode("ascii") for s in HTTPStatus}
_JSON = b"content-type: application/json\r\n"


class Response:
    """The answer to one request. `headers` are complete lines that end in CR LF, made by us, never reflected from a
    client."""

    __slots__ = ("_chunked", "_connection", "_keep_alive", "ended", "started")

    def __init__(self, connection: Connection, keep_alive: bool) -> None:
        self._connection = connection
        self._keep_alive = keep_alive
        self._chunked = False
        self.started = False
        self.ended = False

    @property
    def keep_alive(self) -> bool:
        """What the client was told; where it was told so, the connection takes one more request at least."""
        return self._keep_alive

    @property
    def gone(self) -> bool:
        """The client has closed its connection."""
        return self._connection.lost

    @property
    def peer(self) -> str:
        """Address of whoever is connected, which may be a proxy; empty once it is gone."""
        transport = self._connection.transport
        address = transport.get_extra_info("peername") if transport is not None else None
        return str(address[0]) if address else ""

    def send(self, status: int, body: bytes, headers: bytes = b"", content_type: bytes = _JSON) -> None:
        """The whole answer at once."""
        self.started = self.ended = True
        end = b"\r\n" if self._keep_alive else b"connection: close\r\n\r\n"
        self._connection.write(
            b"%b%b%b%bcontent-length: %d\r\n%b%b"
            % (STATUS_LINES[status], self._connection.server.date_line, content_type, headers, len(body), end, body)
        )

    def start(self, status: int, headers: bytes) -> bytes:
        """Head of a chunked answer; returned, to be written together with the first chunk by `write_raw`."""
        self.started = True
        self._chunked = True
        end = b"\r\n" if self._keep_alive else b"connection: close\r\n\r\n"
        date = self._connection.server.date_line
        return b"%b%b%btransfer-encoding: chunked\r\n%b" % (STATUS_LINES[status], date, headers, end)

    def write(self, data: bytes, head: bytes = b"") -> None:
        """One chunk, after `head` from `start` where given. Nothing is written once the client is gone."""
        if data:
            self._connection.write(b"%b%x\r\n%b\r\n" % (head, len(data), data))

    def end(self, data: bytes = b"", head: bytes = b"") -> None:
        """The last chunk and the end of a chunked answer."""
        self.ended = True
        last = b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data) if data else b"0\r\n\r\n"
        self._connection.write(head + last)

    def raw(self, data: bytes) -> None:
        """Bytes of another protocol; `finish` when there are no more."""
        self.started = True
        self._connection.write(data)

    def finish(self) -> None:
        self.ended = True

    @property
    def full(self) -> bool:
        """The client reads more slowly than we write: `await drained()` before the next chunk."""
        return self._connection.paused is not None

    async def drained(self) -> None:
        """Returns when the client has taken enough, or is gone."""
        paused = self._connection.paused
        if paused is not None:
            await paused.wait()
