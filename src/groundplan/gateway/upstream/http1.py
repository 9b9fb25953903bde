"""One connection to an upstream in HTTP/1.1, on httptools. Which one a call gets is its pool's (`http1_pool`).

Does not follow redirects, retry, decompress or speak HTTP/2 (`http2` does). One waiter per connection.
"""

from __future__ import annotations

import asyncio
import select
import ssl
from collections import deque
from random import uniform
from typing import Protocol, cast

import httptools

from groundplan.gateway.stalls import READ_SECONDS, StallMonitor, patient
from groundplan.gateway.upstream.connection import (
    BODY_LIMIT,
    FOREVER,
    PLAIN,
    UNCOUNTED,
    Sink,
    Taker,
    UpstreamFailure,
    still,
)

KEPT_SECONDS = (600.0, 660.0)
"""A connection that is older is used for no other request: the name of the upstream may be of another machine by now,
while the one before goes on answering whoever is connected to it. Those that began together do not end together."""
HEAD_LIMIT = 64 << 10
BUFFER_HIGH = 256 << 10
_FOLLOWED = frozenset({408, 502, 504})
"""Given up by something in front of the model, whose own answer may yet come on the same connection."""
_GOODBYE = (b"HTTP/1.1 408", b"HTTP/1.0 408")
"""What some servers say before they close a connection that nobody uses."""
_NOBODYS = httptools.HttpResponseParser(object())


class Owner(Protocol):
    """Where a connection comes from, and goes back to."""

    loop: asyncio.AbstractEventLoop
    stalls: StallMonitor

    def put(self, connection: Http1Connection) -> None: ...
    def forget(self, connection: Http1Connection) -> None: ...
    def set_apart(self) -> None: ...


class Http1Connection(asyncio.Protocol):
    """One connection. Use: `send`, `await head(s)`, then `await chunk(s)` until None, or `await body(s)`; then
    `release`."""

    __slots__ = (
        "_armed", "_chunks", "_complete", "_deadline", "_error", "_fields", "_full", "_has_length", "_head_done",
        "_loop", "_parser", "_patience", "_pool", "_received", "_sink", "_sink_seconds", "_size", "_taken",
        "_through", "_timer", "_unsent", "_waiter", "_written", "busy", "headers", "idle_since", "keep_alive",
        "kept_until", "lost", "status", "transport", "unfinished", "until",
    )  # fmt: skip

    def __init__(self, pool: Owner) -> None:
        self._pool = pool
        self._loop = pool.loop
        self._parser = httptools.HttpResponseParser(self)
        self.transport: asyncio.Transport | None = None
        self.lost = False
        self.busy = False
        self.kept_until = self._loop.time() + uniform(*KEPT_SECONDS)
        self.idle_since = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._deadline = self._patience = 0.0
        self.until = FOREVER
        """Of the loop's clock: when its caller was promised an answer, which no silence outlasts."""
        self._waiter: asyncio.Future[None] | None = None
        self._full: asyncio.Future[None] | None = None
        """Resolves when the upstream has taken enough of what was sent."""
        self.keep_alive = False
        self.unfinished = False
        """A request was begun and is not sent to its end."""
        self._has_length = False
        self._chunks: deque[bytes] = deque()
        self._sink_seconds = 0.0
        self._error: UpstreamFailure | None = None
        self._unsent = b""
        """What is written at the end of this turn of the loop."""
        self._clear()

    def _clear(self) -> None:
        """Ready for the next request, after a whole answer without an error to one that was sent. The parser stays: it
        is between two answers, for nothing came after this one."""
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self._fields = self.headers
        """Takes the header lines that come now."""
        self._head_done = self._complete = self._written = False
        self._received = 0
        """Bytes of a head that is not complete, or of what frames a body, since there was something of that."""
        if self._chunks:
            self._chunks.clear()
            if self.transport is not None and not self.transport.is_reading():
                self.transport.resume_reading()  # nobody took what it was held up for
        self._sink: Sink | None = None
        self._through: Sink | None = None
        self._armed: Sink | None = None
        """`_through`, while the parser is between two chunks: what came last was a whole one and nothing else."""
        self._size = 0
        self._taken = 0
        """Bytes of the body that `chunk` gave."""

    # -- transport ----------------------------------------------------------------------------------------------------
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def eof_received(self) -> bool:
        """Nothing more comes, and so nothing is sent that was to go out at the end of this turn of the loop."""
        self._unsent = b""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._pool.forget(self)
        self.resume_writing()
        if self.busy and self._head_done and not self._complete and not self._has_length and exc is None:
            self._complete = True
        elif self.busy and not self._complete and self.status == 0 and isinstance(exc, ssl.SSLError):
            # an alert instead of an answer: in TLS 1.3 a server judges our certificate after our side is done
            self._fail("refused", f"the upstream ended TLS before any answer: {exc.reason}", sent=False)
        elif self.busy and not self._complete:
            told = "the upstream closed the connection before its answer was complete"
            self._fail("cut", told, sent=self._written)
        self._wake()
        self._parser = _NOBODYS  # ours knows us: together we would stay until garbage is looked for, which is seldom

    def data_received(self, data: bytes) -> None:
        armed = self._armed
        if armed is not None and armed(data):
            self._deadline = self._loop.time() + self._sink_seconds
            return
        if not self._written or self._complete:
            self._unasked(data)
            return
        size = self._size
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._fail("malformed", "the upstream did not answer in HTTP/1.1")
            if self._complete:
                self._pool.set_apart()
            self.abort()
        if self._size == size and not self._complete:
            self._received += len(data)
            if self._received > HEAD_LIMIT:  # the parser holds a header line until it ends, also one behind a body
                what = "what frames" if self._head_done else "the head of"
                self._fail("malformed", f"{what} the upstream's answer is too large")
                self.abort()
        elif self._received:
            self._received = 0
        if self._sink is not None and self._chunks and not self._complete and self._error is None:
            self._pour(self._sink, data)
        else:
            self._wake()
        if self._size > BUFFER_HIGH and self.transport is not None:  # of which a sink has left nothing
            self.transport.pause_reading()

    def _unasked(self, data: bytes) -> None:
        """Bytes that answer nothing: there is no request yet, or its answer is complete."""
        if data.strip(b"\r\n") and not data.startswith(_GOODBYE):
            self._pool.set_apart()
        self.abort()

    def _pour(self, sink: Sink, came: bytes) -> None:
        self._size = self._received = 0
        body = self._joined()
        if sink(body):
            self._deadline = self._loop.time() + self._sink_seconds
            self._armed = self._through if came == b"%x\r\n%b\r\n" % (len(body), body) else None
        else:
            self._sink = self._armed = None
            self._chunks.append(b"")
            self._wake()

    def _joined(self) -> bytes:
        """All that is there of the body."""
        chunks = self._chunks
        if len(chunks) == 1:
            return chunks.popleft()
        data = b"".join(chunks)
        chunks.clear()
        return data

    def pause_writing(self) -> None:
        self._full = self._loop.create_future()

    def resume_writing(self) -> None:
        if self._full is not None and not self._full.done():
            self._full.set_result(None)
        self._full = None

    async def drained(self, seconds: float) -> None:
        """Until more may be sent, or the connection is lost; raises when the upstream takes nothing for `seconds`."""
        if self._full is None or self.lost:
            return
        try:
            async with patient(seconds, self.until):
                await self._full
        except TimeoutError as error:
            raise UpstreamFailure("timeout", "the upstream did not take the upload in time", sent=True) from error

    # -- parser -------------------------------------------------------------------------------------------------------
    def on_message_begin(self) -> None:
        if self._complete:
            # bytes behind an answer must never become part of it, nor the answer to the next call
            raise ValueError("a second answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields[name.lower()] = value

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        self._head_done = self.status >= 200
        headers = self.headers
        self._fields = {}  # what follows the body changes nothing in what was said before it
        self._has_length = b"content-length" in headers or b"transfer-encoding" in headers
        if b"content-encoding" in headers and headers[b"content-encoding"].lower() not in PLAIN:
            self._fail("malformed", "the upstream compressed its answer, which it was not asked to do")
            self._head_done = False
            self.abort()

    def on_body(self, body: bytes) -> None:
        self._chunks.append(body)
        self._size += len(body)

    def on_message_complete(self) -> None:
        if not self._head_done:
            self.status, self.headers = 0, {}  # of an answer that is still to come
            self._fields = self.headers
            return
        self.keep_alive = self._parser.should_keep_alive() and self.status not in _FOLLOWED
        self._complete = True

    # -- waiting ------------------------------------------------------------------------------------------------------
    def _fail(self, kind: str, message: str, *, sent: bool = True) -> None:
        if self._error is None:
            self._error = UpstreamFailure(kind, message, sent=sent)

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _expire(self, silent: asyncio.Future[None] | None = None) -> None:
        """`silent`: who waited when its time was over, and what lay in the sockets was not read yet."""
        self._timer = None
        waiter = self._waiter
        if waiter is None or waiter.done():
            return
        left = self._deadline - self._loop.time()
        if left <= 0:
            patience = self._patience if self._sink is None else max(self._patience, self._sink_seconds)
            left = self._pool.stalls.left(self._deadline - patience, patience, self.until)
        if left > 0:
            self._timer = self._loop.call_later(left, self._expire)
        elif silent is not waiter:
            self._timer = self._loop.call_later(READ_SECONDS, self._expire, waiter)
        else:
            self._fail("timeout", "the upstream did not answer in time")
            self._wake()

    def _arrival(self, by: float, seconds: float) -> asyncio.Future[None]:
        """Resolves when something arrives, or at `by` by the loop's clock (then `_error` is set), which was `seconds`
        away. A timer that is too early re-arms itself."""
        self._deadline, self._patience = by, seconds
        timer = self._timer
        if timer is None or timer.when() > by:
            if timer is not None:
                timer.cancel()
            self._timer = self._loop.call_at(by, self._expire)
        waiter = self._waiter = self._loop.create_future()
        return waiter

    def send(self, data: bytes) -> None:
        """Write one request, or a part of one. From here on it may be billed.

        What is sent first goes out at the end of this turn of the loop: an upstream on the same machine is woken once
        for all requests of a turn, which costs this process less than a system call for each.
        """
        if self.transport is None:
            raise UpstreamFailure("cut", "the connection was closed before anything was sent", sent=False)
        if not self._written and not self._unsent:
            self._unsent = data
            self._loop.call_soon(self._send_first)
            return
        self._send_first()
        self.transport.write(data)

    def _send_first(self) -> None:
        data, self._unsent = self._unsent, b""
        if data and self.transport is not None and not self.lost:
            self._written = True
            self.transport.write(data)

    async def head(self, seconds: float) -> int:
        """Status of the answer, within `seconds`."""
        by = self._loop.time() + seconds
        while not self._head_done:
            if self._error is not None:
                raise self._error
            await self._arrival(by, seconds)
        return self.status

    def pump(self, sink: Sink, seconds: float, through: Sink | None = None) -> None:
        """While `chunk` is awaited, give `sink` what arrives, without a turn of the loop for each piece; `seconds` may
        pass between two of them, and `sink` itself may say anew how many. When `sink` has enough, `chunk` returns
        nothing (b""); once it returns, it pumps no more. `through` is given first what may be one whole chunk of
        HTTP/1.1, in its frame: False where it is not, or is not taken."""
        self._sink, self._sink_seconds, self._through = sink, seconds, through
        timer = self._timer
        if self._waiter is not None and timer is not None and timer.when() > (by := self._loop.time() + seconds):
            timer.cancel()  # whoever waits gave it longer until now
            self._timer, self._patience = self._loop.call_at(by, self._expire), seconds

    async def chunk(self, seconds: float) -> bytes | None:
        """Next bytes of the body, which are to come within `seconds`; None at its end."""
        by = 0.0
        while True:
            if self._chunks:
                self._sink = self._armed = None
                size, transport = self._size, self.transport
                self._taken += size
                self._size = self._received = 0
                if size > BUFFER_HIGH and transport is not None and not self.lost and not transport.is_reading():
                    transport.resume_reading()
                return self._joined()
            if self._complete:
                return None
            if self._error is not None:
                raise self._error
            # what frames a body is no sign of it; what was pumped meanwhile was
            by = self._deadline if by else self._loop.time() + seconds
            await self._arrival(by, seconds)

    def whole(self) -> bytes | None:
        """The whole body where all of it came with the head, as that of most answers does; None: ask `body`."""
        if not self._complete or len(self._chunks) != 1 or self._taken or self._error is not None:
            return None
        self._taken, self._size = self._size, 0
        return self._chunks.popleft()

    async def body(self, seconds: float, most: float = FOREVER, taker: Taker | None = None) -> bytes:
        """The whole body; `seconds` may pass between two arrivals, and `most` until its end: whoever sends a byte now
        and then holds nobody up for longer. `taker` is asked for room for a large one: what comes meanwhile fills a
        buffer, and then the sockets."""
        parts: list[bytes] = []
        end = self._loop.time() + most
        room = BODY_LIMIT if taker is None else UNCOUNTED
        try:
            while (data := await self.chunk(min(seconds, most))) is not None:
                parts.append(data)
                if self._taken > BODY_LIMIT:
                    raise UpstreamFailure("malformed", "the upstream's answer is too large", sent=True)
                if self._taken > room and taker is not None:
                    room = await taker.grown(self._taken, end - self._loop.time())
                if not self._complete:
                    most = still(end - self._loop.time())
        except asyncio.CancelledError:
            self._put_back(parts)  # the rest may be read on, to learn what it costs
            raise
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _put_back(self, parts: list[bytes]) -> None:
        size = sum(map(len, parts))
        self._chunks.extendleft(reversed(parts))
        self._size, self._taken = self._size + size, self._taken - size

    # -- end of use ---------------------------------------------------------------------------------------------------
    def release(self) -> None:
        """Back to the pool after a complete answer; anything else is closed, and so is one whose request was answered
        before it was taken: the next one would wait behind the rest of it."""
        self.busy = False
        if (
            self._complete and self.keep_alive and not self.unfinished
            and self._full is None and not self.lost and self._error is None
        ):  # fmt: skip
            self._clear()
            self._pool.put(self)
        else:
            self.abort()

    def abort(self) -> None:
        """Close now, so that the upstream stops working for it."""
        self._unsent = b""
        if self.transport is not None and not self.lost:
            self.transport.abort()

    def withhold(self, why: str) -> None:
        """What was to go out at the end of this turn of the loop does not."""
        if self._unsent:
            self._fail("refused", why, sent=False)
            self._wake()
            self.abort()

    def break_off(self, why: str) -> None:
        """End the answer here, as if the upstream had cut it."""
        if self.busy and not self._complete:
            self._fail("cut", why)
            self._wake()
            self.abort()

    def take(self) -> None:
        self.busy = True
        self.until = FOREVER

    @property
    def has_news(self) -> bool:
        """Whether something lies there that was not read: of one that nobody uses, that it is not to be used."""
        transport = self.transport
        if transport is None or transport.is_closing():
            return True
        waiting = select.poll()
        waiting.register(transport.get_extra_info("socket").fileno(), select.POLLIN | select.POLLHUP)
        return bool(waiting.poll(0))
