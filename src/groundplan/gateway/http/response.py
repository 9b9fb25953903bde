"""The answer to one request, written as HTTP/1.1 bytes. What it says is the handler's; connections are `server`'s."""

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
"""Status lines of all numbers: upstreams answer with some that nobody has registered, such as 499."""
_PIECE = 256 << 10
_JSON = b"content-type: application/json\r\n"
_KEEP_ALIVE_END, _CLOSE_END = b"\r\n", b"connection: close\r\n\r\n"
"""How a head ends, depending on whether the connection stays open."""


class ClientConnection(Protocol):
    """What a response needs of the connection it is written to."""

    deadline: float
    client_ca_changed: bool
    """The accepted client CAs have changed since the TLS handshake."""
    lost: bool
    """The client has closed the connection."""
    paused: asyncio.Event | None
    """While the client reads more slowly than the server writes: set once it has caught up. Else None."""
    transport: asyncio.Transport | None

    @property
    def server(self) -> ServerState: ...

    @property
    def supports_chunked(self) -> bool: ...

    def write(self, data: bytes | memoryview) -> None: ...

    def try_write(self, chunk: bytes) -> bool:
        """Write a part of an answer; False, with nothing written, if the client is gone or reads more slowly than the
        server writes."""
        ...

    def abort(self) -> None: ...


class Response:
    """The answer to one request. `headers` are complete lines that end in CR LF, made by the gateway, never reflected
    from a client."""

    __slots__ = ("_chunked", "_connection", "_head_end", "_request_id", "ended", "keep_alive", "started")
    _request_id: str
    _sends_pieces = True
    """Whether a large answer is written in pieces."""

    def __init__(self, connection: ClientConnection, keep_alive: bool) -> None:
        self._connection = connection
        self.keep_alive = keep_alive
        """Whether the connection stays open, as the client was told; if so, it accepts at least one more request."""
        self._head_end = _KEEP_ALIVE_END if keep_alive else _CLOSE_END
        self._chunked = False
        self.started = False
        self.ended = False

    def set_request_id(self, request_id: str, header: bytes, extra_lines: bytes = b"") -> None:
        """Set the id that the answer shows in `header`, with `extra_lines` after it; the last call counts. For answers
        that are not model calls, which write their own ids."""
        self._request_id = request_id  # unset for model calls, which are nearly all, so that they take no step for it
        goes_on = _KEEP_ALIVE_END if self.keep_alive else _CLOSE_END
        self._head_end = b"%b: %b\r\n%b%b" % (header, request_id.encode("ascii"), extra_lines, goes_on)

    @property
    def request_id(self) -> str:
        """The id that was set; empty if none was."""
        return getattr(self, "_request_id", "")

    @property
    def client_ca_changed(self) -> bool:
        """Whether the accepted client CAs have changed since the connection's TLS handshake."""
        return self._connection.client_ca_changed

    @property
    def is_disconnected(self) -> bool:
        """Whether the client has closed its connection."""
        return self._connection.lost

    @property
    def peer_address(self) -> str:
        """Address of the peer, which may be a proxy; empty once it is disconnected."""
        transport = self._connection.transport
        address = transport.get_extra_info("peername") if transport is not None else None
        return str(address[0]) if address else ""

    def send(self, status: int, body: bytes, headers: bytes = b"", content_type: bytes = _JSON) -> None:
        """Send the complete answer at once."""
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
                    self._head_end,
                    body,
                )
            )
        )

    async def send_large(
        self,
        status: int,
        body: bytes | memoryview,
        headers: bytes = b"",
        content_type: bytes = _JSON,
        end: bytes = b"",
    ) -> None:
        """Send a complete, possibly large answer in pieces, as the client reads it; the client must read at least as
        fast as it would have to send a body of that size. `end` is a short tail after `body`. Unread bytes stay in
        `body` alone and are not copied."""
        size = len(body) + len(end)
        if size <= _PIECE or not self._sends_pieces:
            self.send(status, b"".join((body, end)), headers, content_type)
            return
        connection, server = self._connection, self._connection.server
        limits, now = server.limits, server.now
        deadline = now() + limits.write_seconds + size / limits.body_bytes_per_second
        self.started = True
        head = (STATUS_LINES[status], server.date_line, content_type, headers, size, self._head_end)
        connection.write(b"%b%b%b%bcontent-length: %d\r\n%b" % head)
        rest = memoryview(body)
        while rest and not connection.lost:
            connection.write(rest[:_PIECE])
            rest = rest[_PIECE:]
            if not rest:
                connection.write(end)
            while (paused := connection.paused) is not None:
                connection.deadline = min(connection.deadline, deadline)
                await paused.wait()
        self.ended = True

    async def send_stream(self, status: int, pieces: AsyncIterator[bytes], content_type: bytes) -> None:
        """Send an answer of unknown length in pieces, as the client reads it, until the client disconnects. An error
        before the first piece is raised with nothing written."""
        head = b""
        async for piece in pieces:
            if not self.started:
                head = self.start(status, content_type)
            self.write(piece, head)
            head = b""
            if self.is_write_paused:
                await self.drain()
            if self.is_disconnected:
                return
        if self.started:
            self.end()
        else:
            self.send(status, b"", content_type=content_type)

    def start(self, status: int, headers: bytes) -> bytes:
        """Return the head of an answer of unknown length, to be written together with the first bytes. To a client of
        HTTP/1.0, which knows no chunks, the end of the connection marks the end."""
        self.started = True
        self._chunked = self._connection.supports_chunked
        if not self._chunked and self.keep_alive:
            self.keep_alive, self._head_end = False, self._head_end.removesuffix(_KEEP_ALIVE_END) + _CLOSE_END
        coding = b"transfer-encoding: chunked\r\n" if self._chunked else b""
        date = self._connection.server.date_line
        return b"%b%b%b%b%b" % (STATUS_LINES[status], date, headers, coding, self._head_end)

    def write(self, data: bytes, head: bytes = b"") -> None:
        """Write some bytes, after `head` from `start` if given. Nothing is written once the client is gone."""
        if data and self._chunked:
            self._connection.write(b"%b%x\r\n%b\r\n" % (head, len(data), data))
        elif data:
            self._connection.write(head + data)

    @property
    def raw_chunk_writer(self) -> Callable[[bytes], bool] | None:
        """Writes complete HTTP/1.1 chunks as an upstream framed them, as `ClientConnection.try_write`; None if the
        client knows no chunks."""
        return self._connection.try_write if self._chunked else None

    def end(self, data: bytes = b"", head: bytes = b"") -> None:
        """Write the last bytes, and end an answer that was begun by `start`."""
        self.ended = True
        if not self._chunked:
            self._connection.write(head + data)
            return
        last = b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data) if data else b"0\r\n\r\n"
        self._connection.write(head + last)

    def write_raw(self, data: bytes) -> None:
        """Write bytes of another protocol; call `finish` when there are no more."""
        self.started = True
        self._connection.write(data)

    def resize_reservation(self, request: Request, size: int) -> bool:
        """Set the memory that is reserved for a request to `size` bytes; False if that is more than before and does not
        fit."""
        server, before = self._connection.server, request.held_bytes
        server.release_body(request)
        if size > before:
            there_is = server.reserve_body(request, size)
            server.refused_bodies += not there_is
            return there_is
        server.held_bytes += size
        request.held_bytes = size
        return True

    def finish(self) -> None:
        self.ended = True

    def abort(self) -> None:
        """Close the connection in the middle of the answer."""
        self._connection.abort()

    @property
    def is_write_paused(self) -> bool:
        """Whether the client reads more slowly than the server writes: `await drain()` before the next chunk."""
        return self._connection.paused is not None

    async def drain(self) -> None:
        """Wait until the client has read enough, or is gone."""
        paused = self._connection.paused
        if paused is not None:
            await paused.wait()


class HeadResponse(Response):
    """The answer to a HEAD request: the head alone."""

    __slots__ = ()
    _sends_pieces = False

    def send(self, status: int, body: bytes, headers: bytes = b"", content_type: bytes = _JSON) -> None:
        """Send the head of the complete answer."""
        self.started = self.ended = True
        date = self._connection.server.date_line
        head = (STATUS_LINES[status], date, content_type, headers, len(body), self._head_end)
        self._connection.write(b"%b%b%b%bcontent-length: %d\r\n%b" % head)

    def write(self, data: bytes, head: bytes = b"") -> None:  # noqa: ARG002 -- Response's signature
        self._connection.write(head)

    @property
    def raw_chunk_writer(self) -> None:
        return None

    def end(self, data: bytes = b"", head: bytes = b"") -> None:  # noqa: ARG002 -- Response's signature
        self.ended = True
        self._connection.write(head)
