"""The answer to one request as HTTP/1.1 bytes. What it says is the handler's; connections are `server`'s."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import asyncio

    from groundplan.gateway.http.request import Request
    from groundplan.gateway.http.server_state import ServerState

_PHRASES = {s.value: s.phrase for s in HTTPStatus}
STATUS_LINES = {n: f"HTTP/1.1 {n} {_PHRASES.get(n, '')}\r\n".encode("ascii") for n in range(100, 600)}
"""Of every status: upstreams answer with some that nobody has registered, such as 499."""
_PIECE = 256 << 10
_JSON = b"content-type: application/json\r\n"
_GOES_ON, _CLOSES = b"\r\n", b"connection: close\r\n\r\n"
"""How a head ends."""


class Wire(Protocol):
    """The connection of one answer."""

    deadline: float
    distrusted: bool
    """It was agreed upon when other certificates were taken than now."""
    lost: bool
    """The client has closed it."""
    paused: asyncio.Event | None
    """Set once the client, which reads more slowly than we write, has taken enough."""
    transport: asyncio.Transport | None

    @property
    def server(self) -> ServerState: ...

    @property
    def takes_chunks(self) -> bool: ...

    def write(self, data: bytes | memoryview) -> None: ...

    def pass_on(self, chunk: bytes) -> bool:
        """Write a part of an answer as it came; False, with nothing written, where the client is gone or reads more
        slowly than we write."""
        ...

    def cut(self) -> None: ...


class Response:
    """The answer to one request. `headers` are complete lines that end in CR LF, made by us, never reflected from a
    client."""

    __slots__ = ("_chunked", "_connection", "_id", "_last", "ended", "keep_alive", "started")
    _id: str

    def __init__(self, connection: Wire, keep_alive: bool) -> None:
        self._connection = connection
        self.keep_alive = keep_alive
        """What the client was told; where it was told so, the connection takes one more request at least."""
        self._last = _GOES_ON if keep_alive else _CLOSES
        self._chunked = False
        self.started = False
        self.ended = False

    def name(self, id: str, header: bytes, beside: bytes = b"") -> None:
        """Tell this id of an answer that is no call, which tells its own, and lines `beside` it; what is told last
        counts."""
        self._id = id  # calls, which are nearly all there is, have none, and take no step for it
        goes_on = _GOES_ON if self.keep_alive else _CLOSES
        self._last = b"%b: %b\r\n%b%b" % (header, id.encode("ascii"), beside, goes_on)

    @property
    def id(self) -> str:
        """As it was named; empty where it was not."""
        return getattr(self, "_id", "")

    @property
    def distrusted(self) -> bool:
        """Since its connection was agreed upon it was told anew whose certificates callers may show."""
        return self._connection.distrusted

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
        connection = self._connection
        connection.write(
            b"".join(
                (
                    STATUS_LINES[status],
                    connection.server.date_line,
                    content_type,
                    headers,
                    b"content-length: ",
                    str(len(body)).encode(),
                    b"\r\n",
                    self._last,
                    body,
                )
            )
        )

    async def send_slowly(
        self,
        status: int,
        body: bytes | memoryview,
        headers: bytes = b"",
        content_type: bytes = _JSON,
        end: bytes = b"",
    ) -> None:
        """As `send`, a large answer a piece at a time as its client takes it, which has to be as quick as with a body
        of that size. What is not taken is in `body` alone, which a little `end` may follow."""
        size = len(body) + len(end)
        if size <= _PIECE:
            self.send(status, b"".join((body, end)), headers, content_type)
            return
        connection, server = self._connection, self._connection.server
        limits, now = server.limits, server.now
        by = now() + limits.write_seconds + size / limits.body_bytes_per_second
        self.started = True
        told = (STATUS_LINES[status], server.date_line, content_type, headers, size, self._last)
        connection.write(b"%b%b%b%bcontent-length: %d\r\n%b" % told)
        rest = memoryview(body)
        while rest and not connection.lost:
            connection.write(rest[:_PIECE])
            rest = rest[_PIECE:]
            if not rest:
                connection.write(end)
            while (paused := connection.paused) is not None:
                connection.deadline = min(connection.deadline, by)
                await paused.wait()
        self.ended = True

    async def send_pieces(self, status: int, pieces: AsyncIterator[bytes], content_type: bytes) -> None:
        """An answer whose length is not known, a piece at a time as its client takes it, until that is gone. What goes
        wrong before the first piece is raised with nothing written."""
        head = b""
        async for piece in pieces:
            if not self.started:
                head = self.start(status, content_type)
            self.write(piece, head)
            head = b""
            if self.full:
                await self.drained()
            if self.gone:
                return
        if self.started:
            self.end()
        else:
            self.send(status, b"", content_type=content_type)

    def start(self, status: int, headers: bytes) -> bytes:
        """Head of an answer whose length is not known; returned, to be written together with the first bytes. A client
        of HTTP/1.0, which knows no chunks, is told the end by the end of the connection."""
        self.started = True
        self._chunked = self._connection.takes_chunks
        if not self._chunked and self.keep_alive:
            self.keep_alive, self._last = False, self._last.removesuffix(_GOES_ON) + _CLOSES
        coding = b"transfer-encoding: chunked\r\n" if self._chunked else b""
        date = self._connection.server.date_line
        return b"%b%b%b%b%b" % (STATUS_LINES[status], date, headers, coding, self._last)

    def write(self, data: bytes, head: bytes = b"") -> None:
        """Some bytes, after `head` from `start` where given. Nothing is written once the client is gone."""
        if data and self._chunked:
            self._connection.write(b"%b%x\r\n%b\r\n" % (head, len(data), data))
        elif data:
            self._connection.write(head + data)

    @property
    def passing(self) -> Callable[[bytes], bool] | None:
        """Takes whole chunks of HTTP/1.1 as they came from somebody else, as `Wire.pass_on`; None: the client
        knows no chunks."""
        return self._connection.pass_on if self._chunked else None

    def end(self, data: bytes = b"", head: bytes = b"") -> None:
        """The last bytes, and the end of an answer that was begun by `start`."""
        self.ended = True
        if not self._chunked:
            self._connection.write(head + data)
            return
        last = b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data) if data else b"0\r\n\r\n"
        self._connection.write(head + last)

    def raw(self, data: bytes) -> None:
        """Bytes of another protocol; `finish` when there are no more."""
        self.started = True
        self._connection.write(data)

    def holds(self, request: Request, size: int) -> bool:
        """Count `size` bytes as what is held for a request, instead of those that were; False where these are more, and
        all of them together would be too many."""
        server, before = self._connection.server, request.held
        server.let_go(request)
        if size > before:
            there_is = server.hold(request, size)
            server.refused += not there_is
            return there_is
        server.held += size
        request.held = size
        return True

    def finish(self) -> None:
        self.ended = True

    def cut(self) -> None:
        """End its connection in the middle of it."""
        self._connection.cut()

    @property
    def full(self) -> bool:
        """The client reads more slowly than we write: `await drained()` before the next chunk."""
        return self._connection.paused is not None

    async def drained(self) -> None:
        """Returns when the client has taken enough, or is gone."""
        paused = self._connection.paused
        if paused is not None:
            await paused.wait()


class HeadResponse(Response):
    """The answer to a HEAD request, which ends with its head."""

    __slots__ = ()

    def send(self, status: int, body: bytes, headers: bytes = b"", content_type: bytes = _JSON) -> None:
        """What the whole answer would begin with."""
        self.started = self.ended = True
        date = self._connection.server.date_line
        told = (STATUS_LINES[status], date, content_type, headers, len(body), self._last)
        self._connection.write(b"%b%b%b%bcontent-length: %d\r\n%b" % told)

    async def send_slowly(
        self,
        status: int,
        body: bytes | memoryview,
        headers: bytes = b"",
        content_type: bytes = _JSON,
        end: bytes = b"",
    ) -> None:
        self.send(status, b"".join((body, end)), headers, content_type)

    def write(self, data: bytes, head: bytes = b"") -> None:  # noqa: ARG002 -- Response's signature
        self._connection.write(head)

    @property
    def passing(self) -> None:
        return None

    def end(self, data: bytes = b"", head: bytes = b"") -> None:  # noqa: ARG002 -- Response's signature
        self.ended = True
        self._connection.write(head)
