"""Upstream connections over HTTP/2, or through a proxy that itself speaks TLS: the interface of `connection`, on
`pyqwest`.

Loaded only if a deployment declares it, since it costs more per call than our own client. Connections, their
multiplexing and their health are the library's; here each call is one stream. Does not follow redirects, decompress,
read proxies from the environment, or take a request in parts.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from pyqwest import (
    ConnectTimeout,
    Headers,
    HTTPTransport,
    HTTPVersion,
    Proxy,
    ReadError,
    RemoteProtocolError,
    Request,
    Response,
    StreamError,
    StreamErrorCode,
    WriteError,
)

from groundplan.blueprint.model import Tls
from groundplan.core.errors import Invalid
from groundplan.gateway.http.tls import file_path
from groundplan.gateway.stalls import patient, stall_monitor_of
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
from groundplan.gateway.upstream.http1 import HEAD_LIMIT
from groundplan.gateway.upstream.http1_pool import IDLE_SECONDS, parse_upstream_url

_SKIPPED_HEADERS = frozenset({b"host", b"content-length", b"connection"})
"""Headers that HTTP/2 expresses differently."""
_CONNECTION_ERRORS = (ConnectionError, RemoteProtocolError, ReadError, WriteError)
"""Raised by the library if no answer comes, or not all of it."""
STALL_SECONDS = 1.0
"""A caller that has not asked for more of an answer for so long is slower than the upstream. What it leaves unread
fills the window that all answers of a connection share (5 MiB), and then nothing more comes to anybody."""
CONNECTED_SECONDS = 1.0
"""A connection over which an answer began so lately is taken to be open; the library does not say."""
_HARMLESS_STALLS = 2
"""So many stalled answers do not fill the window: each has at most 2 MiB that were sent and not read."""
_TRICKLE_BYTES = 64 << 10
"""Fewer bytes than this since a wait began are the trickle of a window that is nearly full, and help nobody."""
_TCP_TIMEOUT_TEXT = "deadline has elapsed"
"""How the library words a timeout of TCP, for which it raises the error of a refused connection."""
_NO_PROXY = Proxy("http://127.0.0.1:1", no_proxy="*,0.0.0.0/0,::/0")
"""A proxy that applies to nothing: without any, the library takes one from the environment."""

_T = TypeVar("_T")


class RequestNotTaken(UpstreamFailure):
    """The upstream said that it has not looked at the request."""


@dataclass(frozen=True, slots=True)
class Http2Options:
    """What a pool needs besides the address. `connect_seconds` bounds name lookup, TCP and TLS together."""

    tls: Tls | None = None
    proxy: str | None = None
    proxy_credentials: str = ""
    connect_seconds: float = 2.0
    version: int = 2
    """1: through a proxy that speaks TLS, to an upstream that does not speak HTTP/2."""


class Http2Connection:
    """One call. Use: `send`, `await read_head(s)`, then `await read_chunk(s)` until None, or `await read_body(s)`; then
    `release`."""

    def __init__(self, pool: Http2Pool) -> None:
        self._pool = pool
        self.transport = pool.transport
        self._unread_since = FOREVER
        """Loop time since which the caller has not come back for more."""
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self._starved_since = FOREVER
        """Loop time since which the caller waits and has got no more than a trickle."""
        self._trickled_bytes = 0
        self._request: tuple[str, str, Headers, bytes] | None = None
        """Method, address, headers and body."""
        self._check: Callable[[], Awaitable[None]] | None = None
        self._check_error: BaseException | None = None
        """Why the body was not sent."""
        self._is_body_requested = False
        """The library has asked for the body that is sent after the check: it is connected."""
        self._was_sent_again = False
        self._sending: asyncio.Future[Response] | None = None
        self._response: Response | None = None
        self._chunks: AsyncIterator[bytes | memoryview | bytearray] | None = None
        self._reading: asyncio.Future[bytes | memoryview | bytearray] | None = None
        self._interruption: UpstreamFailure | None = None
        self._read_bytes = 0
        self._body_parts: list[bytes] = []
        """The body so far: its waiter may be cancelled, and the body be read on later."""
        self._is_complete = False
        self.call_deadline = FOREVER

    @property
    def is_sent(self) -> bool:
        """False while the library connects, where that shows: no model works on a head without its body."""
        return self._check is None or self._is_body_requested

    def check_when_connected(self, check: Callable[[], Awaitable[None]]) -> bool:
        """See `UpstreamConnection`. True: the library may have to connect when the request is sent. A body that it asks
        for then takes a good part of a millisecond, so the check is made at once where answers keep coming."""
        if self._pool.is_connected:
            return False
        self._check = check
        return True

    def send(self, data: bytes) -> None:
        """Send one complete request. From here on it may be billed."""
        if self._pool.closed:
            raise UpstreamFailure("cut", "the connection was closed before anything was sent", sent=False)
        head, _, body = data.partition(b"\r\n\r\n")
        first, *lines = head.split(b"\r\n")
        method, path, _ = first.split(b" ", 2)
        headers = [(name.strip().lower(), value.strip()) for name, _, value in (line.partition(b":") for line in lines)]
        kept = [(n.decode("latin-1"), v.decode("latin-1")) for n, v in headers if n not in _SKIPPED_HEADERS]
        url = self._pool.origin + path.decode("ascii")
        if self._check is not None:
            kept.append(("content-length", str(len(body))))
        self._request = method.decode("ascii"), url, Headers(kept), body
        self._pool.calls.add(self)
        self._execute(self._request)

    def _execute(self, request: tuple[str, str, Headers, bytes]) -> asyncio.Future[Response]:
        method, url, headers, body = request
        self._is_body_requested = False
        content = body if self._check is None else self._checked_body(self._check, body)
        self._sending = sending = asyncio.ensure_future(self.transport.execute(Request(method, url, headers, content)))
        return sending

    async def _checked_body(self, check: Callable[[], Awaitable[None]], body: bytes) -> AsyncIterator[bytes]:
        """The body, which the library asks for once it is connected."""
        try:
            await check()
        except Exception as error:
            self._check_error = error
            raise
        self._is_body_requested = True
        yield body

    async def read_head(self, seconds: float) -> int:
        """Status of the answer, which must come within `seconds`."""
        if self._interruption is not None:
            raise self._interruption
        if self._response is not None:
            return self.status
        sending, began = self._sending, self._pool.loop.time()
        if sending is None:
            raise UpstreamFailure("cut", "nothing was sent", sent=False)
        try:
            # the waiter may be cancelled while the call goes on: `release` ends it
            self._response = await self._wait_for(seconds, asyncio.shield(sending))
        except UpstreamFailure as failure:
            if not (sending.done() and self._may_send_again(failure, began)):
                raise
            self._response = await self._send_again(seconds)
        self._pool.note_answer(self.transport)
        self._chunks = aiter(self._response.content)
        self.status = self._response.status
        self._take_headers(self._response.headers)
        return self.status

    def _may_send_again(self, failure: UpstreamFailure, began: float) -> bool:
        """Whether the request is sent once more: after a connect timeout that only counted a stall of this process,
        when nothing was sent; and where the upstream did not look at it, as one that closes its connection just then.
        The library repeats the latter itself, unless the body is checked."""
        if failure.kind == "connect_timeout":
            return bool(stall_monitor_of(self._pool.loop).stalled_seconds(began))
        return isinstance(failure, RequestNotTaken) and self._check is not None and not self._was_sent_again

    async def _send_again(self, seconds: float) -> Response:
        if self._request is None:
            raise AssertionError("nothing was sent")
        self._was_sent_again = True
        return await self._wait_for(seconds, asyncio.shield(self._execute(self._request)))

    async def _wait_for(self, seconds: float, waited: asyncio.Future[_T]) -> _T:
        """The result of `waited`, with every failure as an `UpstreamFailure`."""
        try:
            async with patient(seconds, self.call_deadline):
                try:
                    return await waited
                except asyncio.CancelledError:
                    task = asyncio.current_task()
                    if self._interruption is None or (task is not None and task.cancelling()):
                        raise
                    raise self._interruption from None
        except _CONNECTION_ERRORS as error:
            if self._check_error is not None:
                raise self._check_error from None
            raise _upstream_failure(error, has_answer=self._response is not None) from error
        except TimeoutError as error:
            if not self.is_sent:
                message = "the upstream did not accept in time"
                raise UpstreamFailure("connect_timeout", message, sent=False) from error
            raise UpstreamFailure("timeout", "the upstream did not answer in time", sent=True) from error
        finally:
            # the future keeps its exception, which refers to this frame: the cycle would stay until a garbage
            # collection
            del waited

    def _take_headers(self, headers: Headers) -> None:
        size = 0
        for name, value in headers.items():
            size += len(name) + len(value) + 4
            self.headers[name.lower().encode("latin-1")] = value.encode("utf-8", "replace")
        if size > HEAD_LIMIT:
            raise UpstreamFailure("malformed", "the head of the upstream's answer is too large", sent=True)
        if self.headers.get(b"content-encoding", b"").lower() not in IDENTITY_ENCODINGS:
            message = "the upstream compressed its answer, which it was not asked to do"
            raise UpstreamFailure("malformed", message, sent=True)

    def pump(self, sink: Sink, seconds: float, raw_sink: Sink | None = None) -> None:
        """Does nothing: `read_chunk` returns every piece."""

    async def read_chunk(self, seconds: float) -> bytes | None:
        """Next bytes of the body; None at its end."""
        self._unread_since = FOREVER
        while self._chunks is not None and not self._is_complete:
            if self._interruption is not None:
                raise self._interruption
            if self._reading is None:
                self._reading = asyncio.ensure_future(anext(self._chunks))
                if self._starved_since == FOREVER:
                    self._starved_since = self._pool.loop.time()
            reading = self._reading
            is_left = False
            try:
                # the waiter may be cancelled while the answer is read on, to learn what it costs
                data = await self._wait_for(seconds, asyncio.shield(reading))
            except asyncio.CancelledError:
                is_left = True  # a piece that came just then is for whoever reads on
                raise
            except StopAsyncIteration:
                self._is_complete = True
                self._check_length()
                return None
            finally:
                if reading.done() and not is_left:
                    self._reading = None
                del reading  # as in `_wait_for`
            if data:
                self._read_bytes += len(data)
                self._trickled_bytes += len(data)
                if self._trickled_bytes >= _TRICKLE_BYTES:
                    self._trickled_bytes, self._starved_since = 0, FOREVER
                self._unread_since = self._pool.loop.time()
                return bytes(data)
        return None

    def _check_length(self) -> None:
        """Raise if the body is shorter than announced: to the library, a stream that is reset without an error has
        ended, also within a body."""
        length = self.headers.get(b"content-length", b"")
        if length.isdigit() and int(length[:20]) > self._read_bytes:
            raise UpstreamFailure("cut", "the upstream's answer is shorter than it said", sent=True)

    def is_stalled(self, now: float) -> bool:
        """Whether the caller reads the answer more slowly than it comes."""
        return now - self._unread_since > STALL_SECONDS

    def blocks_others(self) -> bool:
        """Whether stalled answers fill the window of the connection, this one has been stalled longest, and another
        call there waits for more. A trickle through a window that is nearly full does not count as progress."""
        now, mine = self._pool.loop.time(), [call for call in self._pool.calls if call.transport is self.transport]
        stalled = [call for call in mine if call.is_stalled(now)]
        if len(stalled) <= _HARMLESS_STALLS or any(call._unread_since < self._unread_since for call in stalled):
            return False
        return any(call._reading is not None and now - call._starved_since > STALL_SECONDS for call in mine)

    def take_buffered_body(self) -> bytes | None:
        """None: bodies always have to be awaited."""
        return None

    async def read_body(self, seconds: float, max_seconds: float = FOREVER, memory: BodyMemory | None = None) -> bytes:
        """The complete body; `seconds` may pass between two arrivals, and `max_seconds` until its end. `memory` is
        asked for room for a large body."""
        parts = self._body_parts
        unreserved = BODY_LIMIT if memory is None else UNRESERVED_BYTES
        now = asyncio.get_running_loop().time
        end = now() + max_seconds
        while (data := await self.read_chunk(min(seconds, max_seconds))) is not None:
            parts.append(data)
            if self._read_bytes > BODY_LIMIT:
                raise UpstreamFailure("malformed", "the upstream's answer is too large", sent=True)
            if self._read_bytes > unreserved and memory is not None:
                unreserved = await memory.grow(self._read_bytes, end - now(), self.blocks_others)
            max_seconds = remaining_wait(end - now())
        return b"".join(parts)

    def release(self) -> None:
        """End this call; an incomplete answer is reset, so that the upstream stops working on it, also if nothing of it
        has come."""
        self._pool.calls.discard(self)
        if self._reading is not None:
            self._reading.cancel()
        sending, self._sending = self._sending, None
        if sending is None:
            return
        if not sending.done():
            sending.cancel()
        elif not sending.cancelled() and sending.exception() is None and not self._is_complete:
            self._pool.finish_in_background(sending.result().aclose())

    def abort(self) -> None:
        """As `release`; a caller that waits for the answer gets a failure."""
        self._interruption = self._interruption or UpstreamFailure("cut", "the connection was closed", sent=True)
        self.release()

    def interrupt(self, reason: str) -> None:
        """End the answer here, as if the upstream had cut it."""
        if self._is_complete:
            return
        self._interruption = UpstreamFailure("cut", reason, sent=True)
        if self._reading is not None:
            self._reading.cancel()
        self.release()


class Http2Pool:
    """Calls to one base URL, such as `https://host/v1`. Raises `Invalid` if address, CA or certificate cannot be
    used."""

    def __init__(self, url: str, loop: asyncio.AbstractEventLoop, options: Http2Options | None = None) -> None:
        parts = parse_upstream_url(url)
        self.url = url
        self.loop = loop
        self.prefix = parts.path.rstrip("/").encode("ascii")
        authority = parts.netloc.rpartition("@")[2]
        self.host_header = authority.encode("ascii")
        self.origin = f"{parts.scheme}://{authority}"
        self._transport_options = parts.scheme, options or Http2Options()
        self.transport = _make_transport(*self._transport_options)
        """For new calls; earlier ones keep theirs until they end."""
        self._answered_at = -FOREVER
        """Loop time at which the last answer began over `transport`."""
        self.closed = False
        self.calls: set[Http2Connection] = set()
        self._ending: set[asyncio.Future[None]] = set()

    def take_idle(self) -> Http2Connection | None:
        """Always None: the library keeps connections itself."""
        return None

    async def connect(self, seconds: float, until: float = FOREVER) -> Http2Connection:  # noqa: ARG002 -- the pools' contract
        """A handle for one call. It connects when the request is sent; if that fails, `read_head` raises with `sent`
        False."""
        now, used = self.loop.time(), self.transport
        if any(call.is_stalled(now) and call.transport is used for call in self.calls):
            with suppress(Invalid):  # the files are gone: the pool goes on with the transport that it has
                self.transport, self._answered_at = _make_transport(*self._transport_options), -FOREVER
        return Http2Connection(self)

    @property
    def is_connected(self) -> bool:
        """Whether a connection for new calls was open a moment ago."""
        return self.loop.time() - self._answered_at < CONNECTED_SECONDS

    def note_answer(self, transport: HTTPTransport) -> None:
        """Note that an answer has begun over this transport."""
        if transport is self.transport:
            self._answered_at = self.loop.time()

    def finish_in_background(self, closing: Awaitable[None]) -> None:
        """Run the end of a call, or of all of them, to completion."""
        task = asyncio.ensure_future(closing, loop=self.loop)
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    def drop_idle(self) -> None:
        """Does nothing: the library pools connections."""

    def retire(self) -> None:
        """Another pool takes over; connections end by themselves once they are idle."""

    def interrupt(self, reason: str) -> None:
        """End all running answers, as if the upstream had cut them."""
        for call in list(self.calls):
            call.interrupt(reason)

    def close(self) -> None:
        self.closed = True
        self.interrupt("the gateway closed the connection")
        self.finish_in_background(self.transport.aclose())


def _make_transport(scheme: str, options: Http2Options) -> HTTPTransport:
    version: HTTPVersion | None = HTTPVersion.HTTP1
    if options.version == 2:  # without TLS there is no negotiation of the version
        version = HTTPVersion.HTTP2 if scheme == "http" else None
    tls = options.tls or Tls()
    try:
        ca = file_path(tls.ca).read_bytes() if tls.ca is not None else None
        cert = file_path(tls.cert).read_bytes() if tls.cert is not None else None
        key = file_path(tls.key).read_bytes() if tls.key is not None else b""
        return HTTPTransport(
            tls_ca_cert=ca,
            # a proxy's certificate may be issued by another authority than the upstream's
            tls_include_system_certs=ca is None or (options.proxy or "").startswith("https:"),
            tls_cert=cert,
            tls_key=key if cert is not None else None,
            http_version=version,
            proxy=_NO_PROXY if options.proxy is None else _proxy(options.proxy, options.proxy_credentials),
            connect_timeout=options.connect_seconds,
            pool_idle_timeout=IDLE_SECONDS,
            tcp_keepalive_interval=5.0,
            enable_gzip=False,
            enable_brotli=False,
            enable_zstd=False,
            use_system_dns=True,
            follow_redirects=False,
            enable_otel=False,
        )
    except (RuntimeError, OSError, ValueError) as error:
        raise Invalid(
            f"the way to the upstream cannot be prepared: {error.__class__.__name__}",
            code="tls_unreadable",
            hint="CA, certificate and key must be PEM, readable by this user, without a passphrase.",
        ) from error


def _proxy(url: str, credentials: str) -> Proxy:
    name, _, password = credentials.partition(":")
    return Proxy(url, auth=(name, password) if name else None)


def _upstream_failure(error: Exception, *, has_answer: bool) -> UpstreamFailure:
    """The failure for a library error. Only a failure to connect, and a request that the server says it has not looked
    at, is certainly not billed; once an answer has begun, nothing is. The class of the error does not tell: the library
    also raises a `ConnectionError` when a connection breaks after the request went out, and a `RemoteProtocolError`
    when one ends without a last word; the chain of causes in its text does."""
    _, connecting, causes = str(error).partition("client error (Connect): ")
    if connecting:
        late = isinstance(error, ConnectTimeout) or _TCP_TIMEOUT_TEXT in causes
        kind = "connect_timeout" if late else "refused"
        return UpstreamFailure(kind, f"no connection: {_printable(causes)}", sent=False)
    # the innermost cause, without the page about it that the library may name
    reason = _printable(str(error).partition(": https://")[0].rpartition(": ")[2])
    malformed = "parse" in reason or "invalid" in reason
    if isinstance(error, StreamError):
        if error.code == StreamErrorCode.REFUSED_STREAM and not has_answer:  # RFC 9113, 8.7; also said by a GOAWAY
            return RequestNotTaken("refused", f"the upstream did not take the request: {reason}", sent=False)
        malformed = error.code == StreamErrorCode.PROTOCOL_ERROR
    return UpstreamFailure("malformed" if malformed else "cut", f"the upstream broke off: {reason}", sent=True)


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)[:160]
