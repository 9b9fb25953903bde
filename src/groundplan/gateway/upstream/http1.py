"""One HTTP/1.1 connection to an upstream, on httptools. Which connection a call gets is decided by its pool
(`http1_pool`).

Does not follow redirects, retry, decompress or speak HTTP/2 (`http2` does). One waiter per connection.
"""

from __future__ import annotations

import asyncio
import select
import ssl
from collections import deque
from collections.abc import Awaitable, Callable
from random import uniform
from typing import Protocol, cast

import httptools

from groundplan.gateway.stalls import READ_SECONDS, StallMonitor, patient
from groundplan.gateway.upstream.connection import (
    BODY_LIMIT,
    FOREVER,
    IDENTITY_ENCODINGS,
    UNRESERVED_BYTES,
    BodyMemory,
    Sink,
    UpstreamFailure,
    remaining_wait,
)

MAX_AGE_SECONDS = (600.0, 660.0)
"""Maximum age of a connection that takes another request: the upstream's name may belong to another machine by now,
while the old one goes on answering on open connections. Random between the two, so that connections that began together
do not end together."""
HEAD_LIMIT = 64 << 10
_FIRST_STATUS = 100
"""Lower numbers are no status. The parser takes them for one whose answer has a body, unlike an interim one."""
BUFFER_HIGH = 256 << 10
_LATE_ANSWER_STATUSES = frozenset({408, 502, 504})
"""Sent by a proxy in front of the model that gave up waiting: the model's answer may yet come on the same
connection."""
_IDLE_CLOSE_PREFIXES = (b"HTTP/1.1 408", b"HTTP/1.0 408")
"""What some servers send before they close an idle connection."""
_DETACHED_PARSER = httptools.HttpResponseParser(object())


class ConnectionOwner(Protocol):
    """The pool that a connection belongs to."""

    loop: asyncio.AbstractEventLoop
    stalls: StallMonitor

    def release(self, connection: Http1Connection) -> None: ...
    def discard(self, connection: Http1Connection) -> None: ...
    def disable_reuse(self) -> None: ...


class Http1Connection(asyncio.Protocol):
    """One connection. Use: `send`, `await read_head(s)`, then `await read_chunk(s)` until None, or `await
    read_body(s)`; then `release`."""

    __slots__ = (
        "_active_raw_sink",
        "_buffered_bytes",
        "_chunks",
        "_deadline",
        "_error",
        "_framing_bytes",
        "_has_head",
        "_has_length",
        "_incoming_headers",
        "_is_complete",
        "_is_sent",
        "_loop",
        "_parser",
        "_pool",
        "_raw_sink",
        "_read_bytes",
        "_silence_limit",
        "_sink",
        "_sink_seconds",
        "_timer",
        "_unsent",
        "_waiter",
        "_write_resumed",
        "call_deadline",
        "headers",
        "idle_since",
        "in_use",
        "is_request_incomplete",
        "keep_alive",
        "lost",
        "reusable_until",
        "status",
        "transport",
    )  # fmt: skip

    def __init__(self, pool: ConnectionOwner) -> None:
        self._pool = pool
        self._loop = pool.loop
        self._parser = httptools.HttpResponseParser(self)
        self.transport: asyncio.Transport | None = None
        self.lost = False
        self.in_use = False
        self.reusable_until = self._loop.time() + uniform(*MAX_AGE_SECONDS)
        self.idle_since = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._deadline = self._silence_limit = 0.0
        self.call_deadline = FOREVER
        """Loop time at which the caller was promised an answer; no permitted silence extends it."""
        self._waiter: asyncio.Future[None] | None = None
        self._write_resumed: asyncio.Future[None] | None = None
        """While writing is paused: resolved once the upstream has read enough."""
        self.keep_alive = False
        self.is_request_incomplete = False
        """A request was begun and not sent to its end."""
        self._has_length = False
        self._chunks: deque[bytes] = deque()
        self._sink_seconds = 0.0
        self._error: UpstreamFailure | None = None
        self._unsent = b""
        """Bytes that are written at the end of this turn of the loop."""
        self._reset()

    def _reset(self) -> None:
        """Prepare for the next request, after a complete answer without an error. The parser is kept: it is between two
        answers, since no bytes followed this one."""
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self._incoming_headers = self.headers
        """Receives the header lines that come now."""
        self._has_head = self._is_complete = self._is_sent = False
        self._framing_bytes = 0
        """Bytes received since the last progress, of an incomplete head or of chunk framing."""
        if self._chunks:
            self._chunks.clear()
            if self.transport is not None and not self.transport.is_reading():
                self.transport.resume_reading()  # nobody read the bytes for which reading was paused
        self._sink: Sink | None = None
        self._raw_sink: Sink | None = None
        self._active_raw_sink: Sink | None = None
        """`_raw_sink` while the parser is between two chunks: the last bytes were exactly one chunk."""
        self._buffered_bytes = 0
        self._read_bytes = 0
        """Bytes of the body that `read_chunk` returned."""

    # -- transport ----------------------------------------------------------------------------------------------------
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def eof_received(self) -> bool:
        """The upstream has closed its side: bytes that wait for the end of this turn of the loop are not sent."""
        self._unsent = b""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._pool.discard(self)
        self.resume_writing()
        if self.in_use and self._has_head and not self._is_complete and not self._has_length and exc is None:
            self._is_complete = True
        elif self.in_use and not self._is_complete and self.status == 0 and isinstance(exc, ssl.SSLError):
            # a TLS alert instead of an answer: in TLS 1.3 a server judges our certificate after our side of the
            # handshake is done
            self._fail("refused", f"the upstream ended TLS before any answer: {exc.reason}", sent=False)
        elif self.in_use and not self._is_complete:
            message = "the upstream closed the connection before its answer was complete"
            self._fail("cut", message, sent=self._is_sent)
        self._wake()
        # the parser refers to this connection: the cycle would stay until a garbage collection, which is rare
        self._parser = _DETACHED_PARSER

    def data_received(self, data: bytes) -> None:
        armed = self._active_raw_sink
        if armed is not None and armed(data):
            self._deadline = self._loop.time() + self._sink_seconds
            return
        if not self._is_sent or self._is_complete:
            self._handle_unsolicited(data)
            return
        size = self._buffered_bytes
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._fail("malformed", "the upstream did not answer in HTTP/1.1")
            if self._is_complete:
                self._pool.disable_reuse()
            self.abort()
        if self._buffered_bytes == size and not self._is_complete:
            self._framing_bytes += len(data)
            if self._framing_bytes > HEAD_LIMIT:  # the parser keeps a header line until it ends, also one after a body
                what = "what frames" if self._has_head else "the head of"
                self._fail("malformed", f"{what} the upstream's answer is too large")
                self.abort()
        elif self._framing_bytes:
            self._framing_bytes = 0
        if self._sink is not None and self._chunks and not self._is_complete and self._error is None:
            self._feed_sink(self._sink, data)
        else:
            self._wake()
        if self._buffered_bytes > BUFFER_HIGH and self.transport is not None:  # a sink has left none of them
            self.transport.pause_reading()

    def _handle_unsolicited(self, data: bytes) -> None:
        """Handle bytes that answer nothing: there is no request yet, or its answer is complete."""
        if data.strip(b"\r\n") and not data.startswith(_IDLE_CLOSE_PREFIXES):
            self._pool.disable_reuse()
        self.abort()

    def _feed_sink(self, sink: Sink, received: bytes) -> None:
        self._buffered_bytes = self._framing_bytes = 0
        body = self._take_chunks()
        if sink(body):
            self._deadline = self._loop.time() + self._sink_seconds
            self._active_raw_sink = self._raw_sink if received == b"%x\r\n%b\r\n" % (len(body), body) else None
        else:
            self._sink = self._active_raw_sink = None
            self._chunks.append(b"")
            self._wake()

    def _take_chunks(self) -> bytes:
        """All buffered bytes of the body, joined."""
        chunks = self._chunks
        if len(chunks) == 1:
            return chunks.popleft()
        data = b"".join(chunks)
        chunks.clear()
        return data

    def pause_writing(self) -> None:
        self._write_resumed = self._loop.create_future()

    def resume_writing(self) -> None:
        if self._write_resumed is not None and not self._write_resumed.done():
            self._write_resumed.set_result(None)
        self._write_resumed = None

    async def drain(self, seconds: float) -> None:
        """Wait until more may be sent, or the connection is lost; raises when the upstream reads nothing for
        `seconds`."""
        if self._write_resumed is None or self.lost:
            return
        try:
            async with patient(seconds, self.call_deadline):
                await self._write_resumed
        except TimeoutError as error:
            raise UpstreamFailure("timeout", "the upstream did not take the upload in time", sent=True) from error

    # -- parser -------------------------------------------------------------------------------------------------------
    def on_message_begin(self) -> None:
        if self._is_complete:
            # bytes after an answer must never become part of it, nor of the answer to the next call
            raise ValueError("a second answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._incoming_headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        self._has_head = self.status >= 200
        headers = self.headers
        self._incoming_headers = {}  # trailers do not change the headers
        self._has_length = b"content-length" in headers or b"transfer-encoding" in headers
        if self.status < _FIRST_STATUS:
            self._refuse_answer("the upstream's answer has no status")
        if b"content-encoding" in headers and headers[b"content-encoding"].lower() not in IDENTITY_ENCODINGS:
            self._refuse_answer("the upstream compressed its answer, which it was not asked to do")

    def _refuse_answer(self, message: str) -> None:
        """Fail, and read nothing more: another answer that came with this one would be taken for it."""
        self._fail("malformed", message)
        self._has_head = False
        raise ValueError(message)  # ends parsing; the connection is closed

    def on_body(self, body: bytes) -> None:
        self._chunks.append(body)
        self._buffered_bytes += len(body)

    def on_message_complete(self) -> None:
        if not self._has_head:
            self.status, self.headers = 0, {}  # of a final answer that is still to come
            self._incoming_headers = self.headers
            return
        self.keep_alive = self._parser.should_keep_alive() and self.status not in _LATE_ANSWER_STATUSES
        self._is_complete = True

    # -- waiting ------------------------------------------------------------------------------------------------------
    def _fail(self, kind: str, message: str, *, sent: bool = True) -> None:
        if self._error is None:
            self._error = UpstreamFailure(kind, message, sent=sent)

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _expire(self, expired_waiter: asyncio.Future[None] | None = None) -> None:
        """`expired_waiter`: the waiter whose time had run out when this was scheduled, to read first what lay in the
        socket."""
        self._timer = None
        waiter = self._waiter
        if waiter is None or waiter.done():
            return
        remaining = self._deadline - self._loop.time()
        if remaining <= 0:
            patience = self._silence_limit if self._sink is None else max(self._silence_limit, self._sink_seconds)
            remaining = self._pool.stalls.remaining(self._deadline - patience, patience, self.call_deadline)
        if remaining > 0:
            self._timer = self._loop.call_later(remaining, self._expire)
        elif expired_waiter is not waiter:
            self._timer = self._loop.call_later(READ_SECONDS, self._expire, waiter)
        else:
            self._fail("timeout", "the upstream did not answer in time")
            self._wake()

    def _wait_for_data(self, deadline: float, seconds: float) -> asyncio.Future[None]:
        """A future that resolves when bytes arrive, or at `deadline` (loop time; then `_error` is set), which is
        `seconds` away. A timer that fires too early re-arms itself."""
        self._deadline, self._silence_limit = deadline, seconds
        timer = self._timer
        if timer is None or timer.when() > deadline:
            if timer is not None:
                timer.cancel()
            self._timer = self._loop.call_at(deadline, self._expire)
        waiter = self._waiter = self._loop.create_future()
        return waiter

    @property
    def is_sent(self) -> bool:
        """Whether anything was written."""
        return self._is_sent

    def check_when_connected(self, check: Callable[[], Awaitable[None]]) -> bool:  # noqa: ARG002 -- the interface
        """False: it is connected already."""
        return False

    def send(self, data: bytes) -> None:
        """Write a request, or a part of one. From here on it may be billed.

        The first bytes go out at the end of this turn of the loop: an upstream on the same machine is woken once for
        all requests of a turn, which costs this process less than a system call for each.
        """
        if self.transport is None:
            raise UpstreamFailure("cut", "the connection was closed before anything was sent", sent=False)
        if not self._is_sent and not self._unsent:
            self._unsent = data
            self._loop.call_soon(self._send_first)
            return
        self._send_first()
        self.transport.write(data)

    def _send_first(self) -> None:
        data, self._unsent = self._unsent, b""
        if data and self.transport is not None and not self.lost:
            self._is_sent = True
            self.transport.write(data)

    async def read_head(self, seconds: float) -> int:
        """Status of the answer, which must come within `seconds`."""
        deadline = self._loop.time() + seconds
        while not self._has_head:
            if self._error is not None:
                raise self._error
            await self._wait_for_data(deadline, seconds)
        return self.status

    def pump(self, sink: Sink, seconds: float, raw_sink: Sink | None = None) -> None:
        """While `read_chunk` is awaited, give `sink` the bytes as they arrive, without a turn of the loop for each
        piece. `seconds` may pass between two of them, and the sink may call `pump` again with another value. When the
        sink returns False, `read_chunk` returns b"", and pumping ends. `raw_sink` is offered first what may be one
        complete HTTP/1.1 chunk in its frame; it returns False if it does not take it."""
        self._sink, self._sink_seconds, self._raw_sink = sink, seconds, raw_sink
        timer = self._timer
        if self._waiter is not None and timer is not None and timer.when() > (deadline := self._loop.time() + seconds):
            timer.cancel()  # the waiter had more time until now
            self._timer, self._silence_limit = self._loop.call_at(deadline, self._expire), seconds

    async def read_chunk(self, seconds: float) -> bytes | None:
        """Next bytes of the body, which must come within `seconds`; None at its end."""
        deadline = 0.0
        while True:
            if self._chunks:
                self._sink = self._active_raw_sink = None
                size, transport = self._buffered_bytes, self.transport
                self._read_bytes += size
                self._buffered_bytes = self._framing_bytes = 0
                if size > BUFFER_HIGH and transport is not None and not self.lost and not transport.is_reading():
                    transport.resume_reading()
                return self._take_chunks()
            if self._is_complete:
                return None
            if self._error is not None:
                raise self._error
            # chunk framing alone does not extend the time; pumped bytes do
            deadline = self._deadline if deadline else self._loop.time() + seconds
            await self._wait_for_data(deadline, seconds)

    def take_buffered_body(self) -> bytes | None:
        """The complete body, if all of it came with the head, as with most answers; None: call `read_body`."""
        if not self._is_complete or len(self._chunks) != 1 or self._read_bytes or self._error is not None:
            return None
        self._read_bytes, self._buffered_bytes = self._buffered_bytes, 0
        return self._chunks.popleft()

    async def read_body(self, seconds: float, max_seconds: float = FOREVER, memory: BodyMemory | None = None) -> bytes:
        """The complete body. `seconds` may pass between two arrivals, and `max_seconds` until its end, so that an
        upstream that sends a byte now and then holds nobody up for longer. `memory` is asked for room for a large body;
        meanwhile the bytes that come fill a buffer, and then the sockets."""
        parts: list[bytes] = []
        end = self._loop.time() + max_seconds
        unreserved = BODY_LIMIT if memory is None else UNRESERVED_BYTES
        try:
            while (data := await self.read_chunk(min(seconds, max_seconds))) is not None:
                parts.append(data)
                if self._read_bytes > BODY_LIMIT:
                    raise UpstreamFailure("malformed", "the upstream's answer is too large", sent=True)
                if self._read_bytes > unreserved and memory is not None:
                    unreserved = await memory.grow(self._read_bytes, end - self._loop.time())
                if not self._is_complete:
                    max_seconds = remaining_wait(end - self._loop.time())
        except asyncio.CancelledError:
            self._put_back(parts)  # the rest may be read later, to learn what it costs
            raise
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _put_back(self, parts: list[bytes]) -> None:
        size = sum(map(len, parts))
        self._chunks.extendleft(reversed(parts))
        self._buffered_bytes, self._read_bytes = self._buffered_bytes + size, self._read_bytes - size

    def blocks_others(self) -> bool:
        """False: a connection has one call at a time."""
        return False

    # -- end of use ---------------------------------------------------------------------------------------------------
    def release(self) -> None:
        """Return the connection to its pool after a complete answer; else close it. It is also closed if the request
        was answered before it was sent completely: the next request would wait behind the rest of it."""
        self.in_use = False
        if (
            self._is_complete and self.keep_alive and not self.is_request_incomplete
            and self._write_resumed is None and not self.lost and self._error is None
        ):  # fmt: skip
            self._reset()
            self._pool.release(self)
        else:
            self.abort()

    def abort(self) -> None:
        """Close now, so that the upstream stops working on the request."""
        self._unsent = b""
        if self.transport is not None and not self.lost:
            self.transport.abort()

    def cancel_unsent(self, reason: str) -> None:
        """Do not send the bytes that wait for the end of this turn of the loop."""
        if self._unsent:
            self._fail("refused", reason, sent=False)
            self._wake()
            self.abort()

    def interrupt(self, reason: str) -> None:
        """End the answer here, as if the upstream had cut the connection."""
        if self.in_use and not self._is_complete:
            self._fail("cut", reason)
            self._wake()
            self.abort()

    def mark_in_use(self) -> None:
        self.in_use = True
        self.call_deadline = FOREVER

    @property
    def has_unread_data(self) -> bool:
        """Whether unread bytes, or an end, lie in the socket: an idle connection in that state must not be used."""
        transport = self.transport
        if transport is None or transport.is_closing():
            return True
        waiting = select.poll()
        waiting.register(transport.get_extra_info("socket").fileno(), select.POLLIN | select.POLLHUP)
        return bool(waiting.poll(0))
