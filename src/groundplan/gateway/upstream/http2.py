"""Upstreams that are reached by HTTP/2, or through a proxy that itself speaks TLS: the same contract as `upstream`, on
`pyqwest`.

Loaded only where a deployment declares it, since it costs more for each call than the own client. Connections, their
multiplexing and their health are the library's; here each call is one stream. Does not follow redirects, decompress,
read proxies from the environment, or take a request in parts.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
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
    PLAIN,
    UNCOUNTED,
    Sink,
    Taker,
    UpstreamFailure,
    still,
)
from groundplan.gateway.upstream.http1 import HEAD_LIMIT
from groundplan.gateway.upstream.http1_pool import IDLE_SECONDS, split_url

_OURS = frozenset({b"host", b"content-length", b"connection"})
"""Headers that HTTP/2 has other means for."""
_BROKEN = (ConnectionError, RemoteProtocolError, ReadError, WriteError)
"""What the library raises where no answer comes, or not all of it."""
STANDS_SECONDS = 1.0
"""Who asks for nothing more of an answer for so long is slower than it. What he leaves fills the window that all
answers of a connection have together (5 MiB), and then nothing more comes to anybody."""
_STANDING = 2
"""So many that are not read do not fill it: each has 2 MiB at most that were sent and not read."""
_LITTLE = 64 << 10
"""Bytes that come through a window which is nearly full, a few at a time, and help nobody."""
_LATE = "deadline has elapsed"
"""What it says of TCP, of which its error is that of a refused connection."""
_NOWHERE = Proxy("http://127.0.0.1:1", no_proxy="*,0.0.0.0/0,::/0")
"""A proxy for nothing. Where none at all is named, the library takes one from the environment."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Far:
    """What a pool needs to know beyond the address. `connect_seconds` bounds name, TCP and TLS together."""

    tls: Tls | None = None
    proxy: str | None = None
    proxy_credentials: str = ""
    connect_seconds: float = 2.0
    version: int = 2
    """1: through a proxy that speaks TLS, to an upstream that does not speak HTTP/2."""


class Http2Connection:
    """One call. Use: `send`, `await head(s)`, then `await chunk(s)` until None, or `await body(s)`; then `release`."""

    def __init__(self, pool: Http2Pool) -> None:
        self._pool = pool
        self.transport = pool.transport
        self._given_at = FOREVER
        """Of the loop's clock: since when whoever reads has not come back for more."""
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self._asked_at = FOREVER
        """Since when whoever reads has got no more than a little."""
        self._little = 0
        self._request: Request | None = None
        self._sending: asyncio.Future[Response] | None = None
        self._response: Response | None = None
        self._parts: AsyncIterator[bytes | memoryview | bytearray] | None = None
        self._reading: asyncio.Future[bytes | memoryview | bytearray] | None = None
        self._broken: UpstreamFailure | None = None
        self._total = 0
        self._got: list[bytes] = []
        """Of a whole body: whoever waited for it may have gone, and it be read on."""
        self._complete = False
        self.until = FOREVER

    def send(self, data: bytes) -> None:
        """Write one whole request. From here on it may be billed."""
        if self._pool.closed:
            raise UpstreamFailure("cut", "the connection was closed before anything was sent", sent=False)
        head, _, body = data.partition(b"\r\n\r\n")
        first, *lines = head.split(b"\r\n")
        method, path, _ = first.split(b" ", 2)
        headers = [(name.strip().lower(), value.strip()) for name, _, value in (line.partition(b":") for line in lines)]
        kept = [(n.decode("latin-1"), v.decode("latin-1")) for n, v in headers if n not in _OURS]
        url = self._pool.origin + path.decode("ascii")
        self._request = Request(method.decode("ascii"), url, Headers(kept), body)
        self._pool.calls.add(self)
        self._execute(self._request)

    def _execute(self, request: Request) -> asyncio.Future[Response]:
        self._sending = sending = asyncio.ensure_future(self.transport.execute(request))
        return sending

    async def head(self, seconds: float) -> int:
        """Status of the answer, within `seconds`."""
        if self._broken is not None:
            raise self._broken
        if self._response is not None:
            return self.status
        sending, began = self._sending, self._pool.loop.time()
        if sending is None:
            raise UpstreamFailure("cut", "nothing was sent", sent=False)
        try:
            # who waits may go while the call goes on: `release` ends it
            self._response = await self._within(seconds, asyncio.shield(sending))
        except UpstreamFailure as failure:
            if failure.kind != "connect_timeout" or not stall_monitor_of(self._pool.loop).stood(began):
                raise
            self._response = await self._connected_again(seconds)
        self._parts = aiter(self._response.content)
        self.status = self._response.status
        self._take_headers(self._response.headers)
        return self.status

    async def _connected_again(self, seconds: float) -> Response:
        """The library counts as silence that we stood still, and then nothing was sent."""
        if self._request is None:
            raise AssertionError("nothing was sent")
        return await self._within(seconds, asyncio.shield(self._execute(self._request)))

    async def _within(self, seconds: float, waited: asyncio.Future[_T]) -> _T:
        """What is waited for. Tells each way to fail."""
        try:
            async with patient(seconds, self.until):
                try:
                    return await waited
                except asyncio.CancelledError:
                    task = asyncio.current_task()
                    if self._broken is None or (task is not None and task.cancelling()):
                        raise
                    raise self._broken from None
        except _BROKEN as error:
            raise _failure(error, begun=self._response is not None) from error
        except TimeoutError as error:
            raise UpstreamFailure("timeout", "the upstream did not answer in time", sent=True) from error
        finally:
            del waited  # it keeps what it raised, which knows this frame: they would stay until garbage is looked for

    def _take_headers(self, headers: Headers) -> None:
        size = 0
        for name, value in headers.items():
            size += len(name) + len(value) + 4
            self.headers[name.lower().encode("latin-1")] = value.encode("utf-8", "replace")
        if size > HEAD_LIMIT:
            raise UpstreamFailure("malformed", "the head of the upstream's answer is too large", sent=True)
        if self.headers.get(b"content-encoding", b"").lower() not in PLAIN:
            told = "the upstream compressed its answer, which it was not asked to do"
            raise UpstreamFailure("malformed", told, sent=True)

    def pump(self, sink: Sink, seconds: float, through: Sink | None = None) -> None:
        """Nothing: `chunk` gives every piece."""

    async def chunk(self, seconds: float) -> bytes | None:
        """Next bytes of the body; None at its end."""
        self._given_at = FOREVER
        while self._parts is not None and not self._complete:
            if self._broken is not None:
                raise self._broken
            if self._reading is None:
                self._reading = asyncio.ensure_future(anext(self._parts))
                if self._asked_at == FOREVER:
                    self._asked_at = self._pool.loop.time()
            reading = self._reading
            try:
                # who waits may go while the answer is read on, to learn what it costs
                data = await self._within(seconds, asyncio.shield(reading))
            except StopAsyncIteration:
                self._complete = True
                self._check_length()
                return None
            finally:
                if reading.done():
                    self._reading = None
                del reading  # as `_within` does
            if data:
                self._total += len(data)
                self._little += len(data)
                if self._little >= _LITTLE:
                    self._little, self._asked_at = 0, FOREVER
                self._given_at = self._pool.loop.time()
                return bytes(data)
        return None

    def _check_length(self) -> None:
        """A stream that is reset without an error is at its end, to the library, also within a body."""
        told = self.headers.get(b"content-length", b"")
        if told.isdigit() and int(told[:20]) > self._total:
            raise UpstreamFailure("cut", "the upstream's answer is shorter than it said", sent=True)

    def stands(self, now: float) -> bool:
        """Whether more of its answer comes than is read."""
        return now - self._given_at > STANDS_SECONDS

    def _holds_up(self) -> bool:
        """Whether others fill the window of its connection with it, it stands longest of them, and somebody waits there
        for more of an answer. What trickles through a window that is nearly full counts for nothing."""
        now, mine = self._pool.loop.time(), [call for call in self._pool.calls if call.transport is self.transport]
        standing = [call for call in mine if call.stands(now)]
        if len(standing) <= _STANDING or any(call._given_at < self._given_at for call in standing):
            return False
        return any(call._reading is not None and now - call._asked_at > STANDS_SECONDS for call in mine)

    def whole(self) -> bytes | None:
        """None: a body is always waited for."""
        return None

    async def body(self, seconds: float, most: float = FOREVER, taker: Taker | None = None) -> bytes:
        """The whole body; `seconds` may pass between two arrivals, and `most` until its end. `taker` is asked for room
        for a large one."""
        parts = self._got
        room = BODY_LIMIT if taker is None else UNCOUNTED
        now = asyncio.get_running_loop().time
        end = now() + most
        while (data := await self.chunk(min(seconds, most))) is not None:
            parts.append(data)
            if self._total > BODY_LIMIT:
                raise UpstreamFailure("malformed", "the upstream's answer is too large", sent=True)
            if self._total > room and taker is not None:
                room = await taker.grown(self._total, end - now(), self._holds_up)
            most = still(end - now())
        return b"".join(parts)

    def release(self) -> None:
        """The end of this call; an answer that is not complete is reset, so that the upstream stops working for it,
        also where nothing of it has come."""
        self._pool.calls.discard(self)
        if self._reading is not None:
            self._reading.cancel()
        sending, self._sending = self._sending, None
        if sending is None:
            return
        if not sending.done():
            sending.cancel()
        elif not sending.cancelled() and sending.exception() is None and not self._complete:
            self._pool.end(sending.result().aclose())

    def abort(self) -> None:
        """As `release`; whoever waits for the answer is told that it ends here."""
        self._broken = self._broken or UpstreamFailure("cut", "the connection was closed", sent=True)
        self.release()

    def break_off(self, why: str) -> None:
        """End the answer here, as if the upstream had cut it."""
        if self._complete:
            return
        self._broken = UpstreamFailure("cut", why, sent=True)
        if self._reading is not None:
            self._reading.cancel()
        self.release()


class Http2Pool:
    """Calls to one base URL, such as `https://host/v1`. Raises `Invalid` where address, CA or certificate are not
    usable."""

    def __init__(self, url: str, loop: asyncio.AbstractEventLoop, far: Far | None = None) -> None:
        parts = split_url(url)
        self.url = url
        self.loop = loop
        self.prefix = parts.path.rstrip("/").encode("ascii")
        authority = parts.netloc.rpartition("@")[2]
        self.host_header = authority.encode("ascii")
        self.origin = f"{parts.scheme}://{authority}"
        self._made_of = parts.scheme, far or Far()
        self.transport = _transport(*self._made_of)
        """Of calls that begin now; those before have theirs until they end."""
        self.closed = False
        self.calls: set[Http2Connection] = set()
        self._ending: set[asyncio.Future[None]] = set()

    def idle(self) -> Http2Connection | None:
        """Never one: the library keeps connections itself."""
        return None

    async def connect(self, seconds: float, until: float = FOREVER) -> Http2Connection:  # noqa: ARG002 -- the pools' contract
        """One call's place. It connects when the request is sent, which `head` tells with `sent` False where it
        fails."""
        now, used = self.loop.time(), self.transport
        if any(call.stands(now) and call.transport is used for call in self.calls):
            with suppress(Invalid):  # its files are not there any more: the pool goes on with what it has
                self.transport = _transport(*self._made_of)
        return Http2Connection(self)

    def end(self, closing: Awaitable[None]) -> None:
        """Run the end of a call, or of all, to its end."""
        task = asyncio.ensure_future(closing, loop=self.loop)
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    def drop_idle(self) -> None:
        """Nothing of ours is pooled."""

    def retire(self) -> None:
        """Another pool takes over; connections end by themselves once they are idle."""

    def break_off(self, why: str) -> None:
        """Whoever waits for an answer is told that it was cut."""
        for call in list(self.calls):
            call.break_off(why)

    def close(self) -> None:
        self.closed = True
        self.break_off("the gateway closed the connection")
        self.end(self.transport.aclose())


def _transport(scheme: str, far: Far) -> HTTPTransport:
    version: HTTPVersion | None = HTTPVersion.HTTP1
    if far.version == 2:  # in the clear there is nothing to agree upon the version with
        version = HTTPVersion.HTTP2 if scheme == "http" else None
    tls = far.tls or Tls()
    try:
        ca = file_path(tls.ca).read_bytes() if tls.ca is not None else None
        cert = file_path(tls.cert).read_bytes() if tls.cert is not None else None
        key = file_path(tls.key).read_bytes() if tls.key is not None else b""
        return HTTPTransport(
            tls_ca_cert=ca,
            # a proxy's certificate may be of another authority than the upstream's
            tls_include_system_certs=ca is None or (far.proxy or "").startswith("https:"),
            tls_cert=cert,
            tls_key=key if cert is not None else None,
            http_version=version,
            proxy=_NOWHERE if far.proxy is None else _proxy(far.proxy, far.proxy_credentials),
            connect_timeout=far.connect_seconds,
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


def _failure(error: Exception, *, begun: bool) -> UpstreamFailure:
    """Only a failure to connect, and a request that its server says it has not looked at, is certainly not billed; once
    an answer has `begun`, nothing is. The class of an error does not tell: the library also calls it
    a `ConnectionError` when a connection breaks after the request went out, and a `RemoteProtocolError` when one ends
    without a last word; its chain of causes does."""
    _, connecting, causes = str(error).partition("client error (Connect): ")
    if connecting:
        late = isinstance(error, ConnectTimeout) or _LATE in causes
        kind = "connect_timeout" if late else "refused"
        return UpstreamFailure(kind, f"no connection: {_printable(causes)}", sent=False)
    # the innermost cause, without the page about it that the library may name
    told = _printable(str(error).partition(": https://")[0].rpartition(": ")[2])
    malformed = "parse" in told or "invalid" in told
    if isinstance(error, StreamError):
        if error.code == StreamErrorCode.REFUSED_STREAM and not begun:  # RFC 9113, 8.7; a GOAWAY tells it, too
            return UpstreamFailure("refused", f"the upstream did not take the request: {told}", sent=False)
        malformed = error.code == StreamErrorCode.PROTOCOL_ERROR
    return UpstreamFailure("malformed" if malformed else "cut", f"the upstream broke off: {told}", sent=True)


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)[:160]
