"""Upstreams that are reached by HTTP/2, or through a proxy that itself speaks TLS: the same contract as `upstream`, on
`pyreqwest`.

Loaded only where a deployment declares it, since it costs more for each call than the own client. Connections, their
multiplexing and their health are the library's; here each call is one stream. Does not follow redirects, decompress, or
read proxies from the environment.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from pyreqwest.client import Client, ClientBuilder
from pyreqwest.exceptions import PyreqwestError, RequestTimeoutError
from pyreqwest.proxy import ProxyBuilder

from groundplan.blueprint.model import Tls
from groundplan.core.errors import Invalid
from groundplan.gateway.http.tls import path_of
from groundplan.gateway.upstream.http1 import (
    BODY_LIMIT,
    FOREVER,
    HEAD_LIMIT,
    IDLE_SECONDS,
    LEAST,
    Sink,
    UpstreamFailure,
    split_url,
)

_WINDOW = 2 << 20
"""Bytes of one answer, and of all answers of a connection, that may wait for us."""
_OURS = frozenset({b"host", b"content-length", b"connection"})
"""Headers that HTTP/2 has other means for."""


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
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self._body: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._missing = -1
        self._stream: Any = None
        self._response: Any = None
        self._sending: asyncio.Task[Any] | None = None
        self._total = 0
        self._complete = False

    def send(self, data: bytes) -> None:
        """Write one request, or more of its body. From here on it may be billed."""
        if self._missing >= 0:
            self._more(data)
            return
        head, _, body = data.partition(b"\r\n\r\n")
        first, *lines = head.split(b"\r\n")
        method, path, _ = first.split(b" ", 2)
        headers = [(name.strip().lower(), value.strip()) for name, _, value in (line.partition(b":") for line in lines)]
        length = next((int(value) for name, value in headers if name == b"content-length"), 0)
        kept = [(n.decode("latin-1"), v.decode("latin-1")) for n, v in headers if n not in _OURS]
        request = self._pool.client.request(method.decode("ascii"), self._pool.origin + path.decode("ascii"))
        request = request.headers(kept)
        self._missing = length - len(body)
        if self._missing > 0:
            self._body.put_nowait(body)
            request = request.headers([*kept, ("content-length", str(length))]).body_stream(self._rest())
        else:
            request = request.body_bytes(body)
        # none of the answer is waited for with its head: a stream is passed on as it comes
        self._stream = request.streamed_read_buffer_limit(0).build_streamed()
        self._sending = self._pool.loop.create_task(self._stream.__aenter__())

    def _more(self, data: bytes) -> None:
        self._missing -= len(data)
        self._body.put_nowait(data)
        if self._missing <= 0:
            self._body.put_nowait(None)

    async def _rest(self) -> AsyncIterator[bytes]:
        while (part := await self._body.get()) is not None:
            yield part

    async def head(self, seconds: float) -> int:
        """Status of the answer, within `seconds`."""
        if self._sending is None:
            raise UpstreamFailure("cut", "nothing was sent", sent=False)
        try:
            async with asyncio.timeout(seconds):
                self._response = await asyncio.shield(self._sending)
        except PyreqwestError as error:
            raise _failure(error) from error
        except TimeoutError as error:
            raise UpstreamFailure("timeout", "the upstream did not answer in time", sent=True) from error
        self.status = int(self._response.status)
        self._take_headers(self._response.headers.items())
        return self.status

    def _take_headers(self, headers: Any) -> None:
        size = 0
        for name, value in headers:
            size += len(name) + len(value) + 4
            self.headers[name.lower().encode("latin-1")] = value.encode("utf-8", "replace")
        if size > HEAD_LIMIT:
            raise UpstreamFailure("malformed", "the head of the upstream's answer is too large", sent=True)
        if self.headers.get(b"content-encoding", b"identity").lower() != b"identity":
            told = "the upstream compressed its answer, which it was not asked to do"
            raise UpstreamFailure("malformed", told, sent=True)

    def pump(self, sink: Sink, seconds: float) -> None:
        """Nothing: `chunk` gives every piece."""

    async def chunk(self, seconds: float) -> bytes | None:
        """Next bytes of the body; None at its end."""
        if self._complete:
            return None
        try:
            async with asyncio.timeout(seconds):
                data = await self._response.body_reader.read_chunk()
        except PyreqwestError as error:
            raise _failure(error) from error
        except TimeoutError as error:
            raise UpstreamFailure("timeout", "the upstream did not answer in time", sent=True) from error
        if data is None:
            self._complete = True
            return None
        self._total += len(data)
        return bytes(data)

    async def body(self, seconds: float, most: float = FOREVER) -> bytes:
        """The whole body; `seconds` may pass between two arrivals, and `most` until its end."""
        parts: list[bytes] = []
        now = asyncio.get_running_loop().time
        end = now() + most
        while (data := await self.chunk(min(seconds, most))) is not None:
            parts.append(data)
            most = max(LEAST, end - now())
            if self._total > BODY_LIMIT:
                raise UpstreamFailure("malformed", "the upstream's answer is too large", sent=True)
        return b"".join(parts)

    def release(self) -> None:
        """The end of this call; an answer that is not complete is reset, so that the upstream stops working for it."""
        if self._sending is not None:
            self._pool.end(self._close())

    abort = release

    async def _close(self) -> None:
        sending, self._sending = self._sending, None
        if sending is None:
            return
        if not sending.done():
            sending.cancel()
        # what it ends with was told by `head` already, or nobody asks
        with suppress(PyreqwestError, asyncio.CancelledError, OSError):
            await sending
            await self._stream.__aexit__(None, None, None)


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
        self.client = _client(parts.scheme, far or Far())
        self._ending: set[asyncio.Task[None]] = set()

    def idle(self) -> Http2Connection | None:
        """Never one: the library keeps connections itself."""
        return None

    async def connect(self, seconds: float) -> Http2Connection:  # noqa: ARG002 -- the pools' contract
        """One call's place. It connects when the request is sent, which `head` tells with `sent` False where it
        fails."""
        return Http2Connection(self)

    def end(self, closing: Any) -> None:
        """Run the end of a call to its end."""
        task = self.loop.create_task(closing)
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    def drop_idle(self) -> None:
        """Nothing of ours is pooled."""

    def retire(self) -> None:
        """Another pool takes over; connections end by themselves once they are idle."""

    def break_off(self, why: str) -> None:  # noqa: ARG002 -- the library words it
        """Whoever waits for an answer is told that it was cut."""
        self.end(self.client.close())

    def close(self) -> None:
        self.end(self.client.close())


def _client(scheme: str, far: Far) -> Client:
    builder = ClientBuilder()
    if far.version == 1:
        builder = builder.http1_only()
    else:  # in the clear there is nothing to agree upon the version with
        builder = builder.http2_prior_knowledge() if scheme == "http" else builder.http2(True)
    builder = (
        builder.follow_redirects(False)
        .gzip(False)
        .brotli(False)
        .zstd(False)
        .deflate(False)
        .referer(False)
        .no_proxy()
        .user_agent("groundplan")
        .connect_timeout(timedelta(seconds=far.connect_seconds))
        .pool_idle_timeout(timedelta(seconds=IDLE_SECONDS))
        .http2_initial_stream_window_size(_WINDOW)
        .http2_initial_connection_window_size(_WINDOW)
        .http2_keep_alive_interval(timedelta(seconds=10))
        .http2_keep_alive_timeout(timedelta(seconds=5))
        .tcp_nodelay(True)
    )
    try:
        if far.tls is not None:
            builder = _trusting(builder, far.tls)
        if far.proxy is not None:
            builder = builder.proxy(_proxy(far))
        return builder.build()
    except (PyreqwestError, OSError, ValueError) as error:
        raise Invalid(
            f"the way to the upstream cannot be prepared: {error.__class__.__name__}",
            code="tls_unreadable",
            hint="CA, certificate and key must be PEM, readable by this user, without a passphrase.",
        ) from error


def _trusting(builder: ClientBuilder, tls: Tls) -> ClientBuilder:
    if tls.ca is not None:
        for one in path_of(tls.ca).read_bytes().split(b"-----END CERTIFICATE-----")[:-1]:
            builder = builder.add_root_certificate_pem(one + b"-----END CERTIFICATE-----\n")
    if tls.cert is not None:
        identity = path_of(tls.cert).read_bytes()
        if tls.key is not None:
            identity += b"\n" + path_of(tls.key).read_bytes()
        builder = builder.identity_pem(identity)
    return builder


def _proxy(far: Far) -> ProxyBuilder:
    proxy = ProxyBuilder.all(far.proxy or "")
    name, _, password = far.proxy_credentials.partition(":")
    return proxy.basic_auth(name, password) if name else proxy


def _failure(error: PyreqwestError) -> UpstreamFailure:
    """Only a failure to connect is certainly not billed. The class of an error does not tell: the library also calls it
    a `ConnectError` when a connection breaks after the request went out; its chain of causes does."""
    causes = _causes(error)
    told = "".join(c if c.isprintable() else "?" for c in causes[-1])[:160]
    if "client error (Connect)" in causes:
        kind = "connect_timeout" if isinstance(error, RequestTimeoutError) else "refused"
        return UpstreamFailure(kind, f"no connection: {told}", sent=False)
    if isinstance(error, RequestTimeoutError):
        return UpstreamFailure("timeout", "the upstream did not answer in time", sent=True)
    kind = "malformed" if "parse" in told or "invalid" in told or "PROTOCOL_ERROR" in told else "cut"
    return UpstreamFailure(kind, f"the upstream broke off: {told}", sent=True)


def _causes(error: PyreqwestError) -> list[str]:
    """From the outermost to the innermost; the class's name where there is none."""
    details = getattr(error, "details", None)
    causes = details.get("causes") if isinstance(details, dict) else None
    return [str(cause.get("message", "")) for cause in causes or ()] or [error.__class__.__name__]
