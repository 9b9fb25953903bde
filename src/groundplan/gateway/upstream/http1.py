"""Pooled HTTP/1.1 client for upstreams, one pool per deployment, on httptools: TLS, and a proxy where declared.

Every failure says whether anything was sent (`sent`), because only that decides whether it may have been billed. Does
not follow redirects, retry, decompress or speak HTTP/2 (`http2` does). One waiter per connection.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections import deque
from collections.abc import Callable
from typing import Protocol, cast
from urllib.parse import SplitResult, urlsplit

import httptools

from groundplan.core.errors import Invalid
from groundplan.gateway.upstream.tunnel import Proxy, TunnelRefused, open_tunnel

HEAD_LIMIT = 64 << 10
BODY_LIMIT = 64 << 20
BUFFER_HIGH = 256 << 10
IDLE_SECONDS = 20.0
MAX_IDLE = 256
APART_SECONDS = 3600.0
"""An upstream that answered without being asked gets a connection for every request, for so long."""
_FOLLOWED = frozenset({408, 502, 504})
"""Given up by something in front of the model, whose own answer may yet come on the same connection."""
_GOODBYE = (b"HTTP/1.1 408", b"HTTP/1.0 408")
"""What some servers say before they close a connection that nobody uses."""
_log = logging.getLogger(__name__)
_NOBODYS = httptools.HttpResponseParser(object())
FOREVER = 1e9
"""Seconds: no bound."""
LEAST = 0.001
"""Seconds that are waited for what is there already."""


Sink = Callable[[bytes], bool]
"""Takes bytes of a body as they arrive; False: whoever waits for `chunk` is to be woken."""


class UpstreamFailure(Exception):
    """An attempt did not give a complete answer.

    `kind`: refused | connect_timeout | timeout | cut | malformed. `sent` False: certainly not billed.
    """

    def __init__(self, kind: str, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.kind = kind
        self.sent = sent


class UpstreamConnection(Protocol):
    """What every way to an upstream offers for one call; `sent` of a failure says whether it may have been billed."""

    @property
    def status(self) -> int:
        """0 until there is a head."""
        ...

    @property
    def headers(self) -> dict[bytes, bytes]: ...

    def send(self, data: bytes) -> None: ...
    async def head(self, seconds: float) -> int: ...
    def pump(self, sink: Sink, seconds: float) -> None: ...
    async def chunk(self, seconds: float) -> bytes | None: ...
    def whole(self) -> bytes | None: ...
    async def body(self, seconds: float, most: float = FOREVER) -> bytes: ...
    def release(self) -> None: ...
    def abort(self) -> None: ...


class Pool(Protocol):
    """The connections to one base URL. `prefix` is the path in front of an endpoint's own."""

    @property
    def prefix(self) -> bytes: ...

    @property
    def host_header(self) -> bytes: ...

    def idle(self) -> UpstreamConnection | None: ...
    async def connect(self, seconds: float) -> UpstreamConnection: ...
    def drop_idle(self) -> None: ...
    def retire(self) -> None: ...
    def break_off(self, why: str) -> None: ...
    def close(self) -> None: ...


class Http1Connection(asyncio.Protocol):
    """One connection. Use: `send`, `await head(s)`, then `await chunk(s)` until None, or `await body(s)`; then
    `release`."""

    __slots__ = (
        "_chunks",
        "_complete",
        "_deadline",
        "_error",
        "_fields",
        "_full",
        "_has_length",
        "_head_done",
        "_loop",
        "_parser",
        "_pool",
        "_received",
        "_sink",
        "_sink_seconds",
        "_size",
        "_timer",
        "_total",
        "_unsent",
        "_waiter",
        "_written",
        "busy",
        "headers",
        "idle_since",
        "keep_alive",
        "lost",
        "status",
        "transport",
        "unfinished",
    )  # fmt: skip

    def __init__(self, pool: UpstreamPool) -> None:
        self._pool = pool
        self._loop = pool.loop
        self._parser = httptools.HttpResponseParser(self)
        self.transport: asyncio.Transport | None = None
        self.lost = False
        self.busy = False
        self.idle_since = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._deadline = 0.0
        self._waiter: asyncio.Future[None] | None = None
        self._full: asyncio.Future[None] | None = None
        """Resolves when the upstream has taken enough of what was sent."""
        self._clear()

    def _clear(self) -> None:
        """Ready for the next request. The parser stays: it is between two answers, for nothing came after this one."""
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self._fields = self.headers
        """Takes the header lines that come now."""
        self.keep_alive = False
        self.unfinished = False
        """A request was begun and is not sent to its end."""
        self._head_done = False
        self._complete = False
        self._has_length = False
        self._received = 0
        self._chunks: deque[bytes] = deque()
        self._sink: Sink | None = None
        self._sink_seconds = 0.0
        self._size = 0
        self._total = 0
        self._error: UpstreamFailure | None = None
        self._unsent = b""
        """What is written at the end of this turn of the loop."""
        self._written = False

    # -- transport ----------------------------------------------------------------------------------------------------
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

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
        if not self._written or self._complete:
            self._unasked(data)
            return
        self._received += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._fail("malformed", "the upstream did not answer in HTTP/1.1")
            if self._complete:
                self._pool.set_apart()
            self.abort()
        if not self._head_done and self._received > HEAD_LIMIT:
            self._fail("malformed", "the head of the upstream's answer is too large")
            self.abort()
        if self._size > BUFFER_HIGH and self.transport is not None:
            self.transport.pause_reading()
        if self._sink is not None and self._chunks and not self._complete and self._error is None:
            self._pour(self._sink)
        else:
            self._wake()

    def _unasked(self, data: bytes) -> None:
        """Bytes that answer nothing: there is no request yet, or its answer is complete."""
        if data.strip(b"\r\n") and not data.startswith(_GOODBYE):
            self._pool.set_apart()
        self.abort()

    def _pour(self, sink: Sink) -> None:
        data = self._chunks.popleft() if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        self._size = 0
        if sink(data):
            self._deadline = self._loop.time() + self._sink_seconds
        else:
            self._sink = None
            self._chunks.append(b"")
            self._wake()

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
            async with asyncio.timeout(seconds):
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
        if b"content-encoding" in headers and headers[b"content-encoding"].lower() != b"identity":
            self._fail("malformed", "the upstream compressed its answer, which it was not asked to do")
            self._head_done = False
            self.abort()

    def on_body(self, body: bytes) -> None:
        self._chunks.append(body)
        self._size += len(body)
        self._total += len(body)

    def on_message_complete(self) -> None:
        if not self._head_done:
            self.headers = self._fields = {}
            return
        self.keep_alive = self._parser.should_keep_alive() and self.status not in _FOLLOWED
        self._complete = True

    # -- waiting ------------------------------------------------------------------------------------------------------
    def _fail(self, kind: str, message: str, *, sent: bool = True) -> None:
        if self._error is None:
            self._error = UpstreamFailure(kind, message, sent=sent)

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _expire(self) -> None:
        self._timer = None
        if self._waiter is None:
            return
        left = self._deadline - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._expire)
            return
        self._fail("timeout", "the upstream did not answer in time")
        self._wake()

    async def _wait(self, seconds: float) -> None:
        """Until something arrives, or `seconds` pass (then `_error` is set). A timer that is too early re-arms
        itself."""
        self._deadline = self._loop.time() + seconds
        if self._timer is not None and self._timer.when() > self._deadline:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._timer = self._loop.call_later(seconds, self._expire)
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

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
        deadline = self._loop.time() + seconds
        while not self._head_done:
            if self._error is not None:
                raise self._error
            await self._wait(max(0.0, deadline - self._loop.time()))
        return self.status

    def pump(self, sink: Sink, seconds: float) -> None:
        """While `chunk` is awaited, give `sink` what arrives, without a turn of the loop for each piece; `seconds` may
        pass between two of them. When `sink` has enough, `chunk` returns nothing (b""); once it returns, it pumps no
        more."""
        self._sink, self._sink_seconds = sink, seconds

    async def chunk(self, seconds: float) -> bytes | None:
        """Next bytes of the body; None at its end."""
        while True:
            if self._chunks:
                self._sink = None
                self._size = 0
                data = self._chunks.popleft() if len(self._chunks) == 1 else b"".join(self._chunks)
                self._chunks.clear()
                if self.transport is not None and not self.lost and not self.transport.is_reading():
                    self.transport.resume_reading()
                return data
            if self._complete:
                return None
            if self._error is not None:
                raise self._error
            await self._wait(seconds)

    def whole(self) -> bytes | None:
        """The whole body where all of it came with the head, as that of most answers does; None: ask `body`."""
        if not self._complete or len(self._chunks) != 1 or self._total != self._size or self._error is not None:
            return None
        self._size = 0
        return self._chunks.popleft()

    async def body(self, seconds: float, most: float = FOREVER) -> bytes:
        """The whole body; `seconds` may pass between two arrivals, and `most` until its end: whoever sends a byte now
        and then holds nobody up for longer."""
        parts: list[bytes] = []
        end = self._loop.time() + most
        while (data := await self.chunk(min(seconds, most))) is not None:
            parts.append(data)
            most = max(LEAST, end - self._loop.time())
            if self._total > BODY_LIMIT:
                raise UpstreamFailure("malformed", "the upstream's answer is too large", sent=True)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    # -- end of use ---------------------------------------------------------------------------------------------------
    def release(self) -> None:
        """Back to the pool after a complete answer; anything else is closed."""
        self.busy = False
        if self._complete and self.keep_alive and not self.unfinished and not self.lost and self._error is None:
            self._clear()
            self._pool.put(self)
        else:
            self.abort()

    def abort(self) -> None:
        """Close now, so that the upstream stops working for it."""
        self._unsent = b""
        if self.transport is not None and not self.lost:
            self.transport.abort()

    def break_off(self, why: str) -> None:
        """End the answer here, as if the upstream had cut it."""
        if self.busy and not self._complete:
            self._fail("cut", why)
            self._wake()
            self.abort()

    def take(self) -> None:
        self.busy = True


def split_url(url: str) -> SplitResult:
    """The parts of an upstream's address. Raises `Invalid` (`upstream_url`)."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or not url.isascii() or not url.isprintable():
        raise Invalid(f"{url!r} is not an upstream's address", code="upstream_url", hint="Write http(s)://host/v1.")
    return parts


class UpstreamPool:
    """Connections to one base URL, such as `https://host/v1`. `prefix` is the path in front of an endpoint's own."""

    def __init__(
        self,
        url: str,
        loop: asyncio.AbstractEventLoop,
        tls: ssl.SSLContext | None = None,
        *,
        server_name: str | None = None,
        proxy: Proxy | None = None,
    ) -> None:
        """`server_name` is what the certificate must bear where it is not the host of `url`. Raises `Invalid`."""
        parts = split_url(url)
        self.url = url
        self.loop = loop
        self._proxy = proxy
        self.prefix = parts.path.rstrip("/").encode("ascii")
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self.host_header = parts.netloc.rpartition("@")[2].encode("ascii")
        self._tls = (tls or ssl.create_default_context()) if parts.scheme == "https" else None
        self._server_name = (server_name or self._host) if self._tls is not None else None
        self._retired = False
        self._apart_until = 0.0
        self._idle: list[Http1Connection] = []
        self._all: set[Http1Connection] = set()

    @property
    def open(self) -> int:
        return len(self._all)

    @property
    def tls(self) -> tuple[ssl.SSLContext | None, str | None]:
        """How its certificate is verified, and the name that it must bear."""
        return self._tls, self._server_name

    def idle(self) -> Http1Connection | None:
        """A pooled connection that nothing is known against, or None."""
        oldest = self.loop.time() - IDLE_SECONDS
        while self._idle:
            connection = self._idle.pop()
            transport = connection.transport
            if connection.lost or transport is None or transport.is_closing():
                continue
            if connection.idle_since < oldest:
                connection.abort()
                continue
            connection.take()
            return connection
        return None

    async def connect(self, seconds: float) -> Http1Connection:
        """A new connection. Raises `UpstreamFailure` (`sent` False) when none is there within `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                connection = await self._connected()
        except TimeoutError as error:
            raise UpstreamFailure("connect_timeout", "the upstream did not accept in time", sent=False) from error
        except ssl.SSLCertVerificationError as error:
            told = f"the upstream's certificate is not accepted: {error.verify_message}"
            raise UpstreamFailure("refused", told, sent=False) from error
        except TunnelRefused as error:
            raise UpstreamFailure("refused", str(error), sent=False) from error
        except (OSError, ssl.SSLError) as error:
            raise UpstreamFailure("refused", f"no connection: {_why(error)}", sent=False) from error
        if connection.lost:
            raise UpstreamFailure("refused", "the upstream closed the connection at once", sent=False)
        self._all.add(connection)
        connection.take()
        return connection

    async def _connected(self) -> Http1Connection:
        if self._proxy is not None:
            to = (self._host, self._port)
            return await open_tunnel(self._proxy, to, self._tls, self._server_name, lambda: Http1Connection(self))
        _, connection = await self.loop.create_connection(
            lambda: Http1Connection(self),
            self._host,
            self._port,
            ssl=self._tls,
            server_hostname=self._server_name,
        )
        return connection

    def retire(self) -> None:
        """Another pool takes over: what is in use ends in its own time, and nothing is kept."""
        self._retired = True
        self.drop_idle()

    def break_off(self, why: str) -> None:
        """Whoever waits for an answer is told that it was cut."""
        for connection in list(self._all):
            connection.break_off(why)

    def drop_idle(self) -> None:
        """One pooled connection was found dead, so the others may be: the next attempt makes a new one."""
        for connection in self._idle:
            connection.abort()
        self._idle.clear()

    def set_apart(self) -> None:
        """The upstream answered without being asked. What it sends next could be taken for the answer to a request that
        it has not even read, and nothing in HTTP/1.1 would tell: from now on none shares a connection with another."""
        now = self.loop.time()
        if now >= self._apart_until:
            _log.warning(
                "the upstream %s:%d sent an answer that nobody had asked for: for %d minutes every request to it has a "
                "connection of its own", self._host, self._port, APART_SECONDS // 60,
            )  # fmt: skip
        self._apart_until = now + APART_SECONDS
        self.drop_idle()

    def put(self, connection: Http1Connection) -> None:
        now = self.loop.time()
        if self._retired or now < self._apart_until or len(self._idle) >= MAX_IDLE:
            connection.abort()
            return
        connection.idle_since = now
        self._idle.append(connection)

    def forget(self, connection: Http1Connection) -> None:
        self._all.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    def close(self) -> None:
        for connection in list(self._all):
            connection.abort()
        self._idle.clear()


def _why(error: OSError) -> str:
    """A failed connection in words; never an address, which may hold the name of a host."""
    if isinstance(error, socket.gaierror):
        return "its name cannot be resolved"
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens at its address"
    if isinstance(error, ssl.SSLError):
        return f"no TLS: {error.reason or 'the handshake failed'}"
    return error.strerror or error.__class__.__name__
