"""Which pool of connections leads to a deployment: its address, TLS, HTTP version and proxy together make one.

A pool is replaced when a certificate file behind it has changed; calls in flight end on the old one. The client for
HTTP/2 is loaded only where a deployment asks for it. Knows no secrets of the upstream itself, and chooses nothing.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import ssl
from dataclasses import dataclass, replace
from urllib.parse import urlsplit
from weakref import WeakSet

from groundplan.blueprint.model import Deployment, Tls
from groundplan.core.errors import Invalid
from groundplan.core.settings import resolve_secret
from groundplan.gateway.http.tls import ClientContexts, Stamp, file_path, file_stamp, has_revocation_list
from groundplan.gateway.upstream.connection import Pool
from groundplan.gateway.upstream.http1_pool import UpstreamPool
from groundplan.gateway.upstream.tunnel import Proxy

AGAIN_S = 1.0
"""For how long files that could not be used are not tried again where they are as they were: reading the authorities of
a system takes 20 ms of the loop."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Wire:
    """How to get to an upstream. `proxy_key` is a secret reference; `connect_ms` matters where it is `far` only."""

    url: str
    tls: Tls | None = None
    http: int = 1
    proxy: str | None = None
    proxy_key: str | None = None
    connect_ms: int = 2000

    @property
    def far(self) -> bool:
        """Whether it needs more than HTTP/1.1 over TCP, TLS and a plain proxy."""
        return self.http == 2 or (self.proxy is not None and self.proxy.startswith("https:"))

    def credentials(self) -> str:
        """`user:password` for its proxy; empty: none. Raises `Invalid`."""
        return "" if self.proxy_key is None else resolve_secret(self.proxy_key)


def wire_of(deployment: Deployment, url: str) -> Wire:
    """The way to a deployment that is at `url` now."""
    wire = Wire(url, deployment.tls, deployment.http, deployment.proxy, deployment.proxy_key)
    return replace(wire, connect_ms=deployment.connect_ms) if wire.far else wire


class Pools:
    """All pools of one worker."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._contexts = ClientContexts()
        self._plain: dict[str, UpstreamPool] = {}
        self._made: dict[Wire, tuple[object, Pool]] = {}
        self._refused: dict[Wire, tuple[Stamp, float, Invalid]] = {}
        """Files that could not be used, until when (loop time) they are not tried again, and why."""
        self._told: set[Wire] = set()
        """Whose files cannot be used now, which was logged."""
        self._before: WeakSet[Pool] = WeakSet()
        """Those that others were made for, as long as anybody is answered by them."""

    def of(self, wire: Wire) -> Pool:
        """The pool for a way. Raises `Invalid` where its files, secret or client cannot be used and never could; files
        that cannot be used any more, such as a certificate whose key is not there yet, change nothing."""
        if wire.url.startswith("http:") and wire.proxy is None and wire.http == 1:
            return self._direct(wire.url)
        known = self._made.get(wire)
        try:
            pool = self._renewed(wire, known)
        except Invalid as error:
            if known is None:
                raise
            if wire not in self._told:
                self._told.add(wire)
                _log.warning("%s is reached as before: %s", wire.url, error.message)
            return known[1]
        self._told.discard(wire)
        return pool

    def _renewed(self, wire: Wire, known: tuple[object, Pool] | None) -> Pool:
        """The pool that is known, where nothing has changed behind it. Raises `Invalid`."""
        refused = self._refused.pop(wire, None)
        if refused is not None and self._loop.time() < refused[1] and _files(wire) == refused[0]:
            self._refused[wire] = refused
            raise refused[2].with_traceback(None)
        try:
            basis = self._basis(wire)
            if known is not None and known[0] == basis:
                return known[1]
            pool = self._far(wire) if wire.far else self._near(wire)
        except Invalid as error:
            self._refused[wire] = (_files(wire), self._loop.time() + AGAIN_S, error)
            raise
        self._made[wire] = (basis, pool)
        if known is not None:
            known[1].retire()
            self._before.add(known[1])
        return pool

    def _direct(self, url: str) -> UpstreamPool:
        pool = self._plain.get(url)
        if pool is None:
            pool = self._plain[url] = UpstreamPool(url, self._loop)
        return pool

    def _basis(self, wire: Wire) -> object:
        """Equal as long as a pool for the way need not be made anew."""
        credentials = wire.credentials()
        if not wire.far:
            return self._context(wire), credentials
        return _files(wire), credentials

    def _context(self, wire: Wire) -> ssl.SSLContext | None:
        return self._contexts.context(wire.tls) if wire.url.startswith("https:") else None

    def _far(self, wire: Wire) -> Pool:
        # the context tells what the library takes in silence
        if wire.tls is not None and has_revocation_list(self._contexts.context(wire.tls)):
            raise Invalid(
                f"{wire.url} is reached in a way that looks at no list of revoked certificates, and its ca has one",
                code="tls_unreadable",
                hint="Use http: 1 without a proxy that is reached by https, or take the list out of ca.",
            )
        return _far(wire, self._loop)

    def _near(self, wire: Wire) -> UpstreamPool:
        name = wire.tls.server_name if wire.tls is not None else None
        return UpstreamPool(wire.url, self._loop, self._context(wire), server_name=name, proxy=_proxy(wire))

    def _every(self) -> list[Pool]:
        return [*self._plain.values(), *(made for _, made in self._made.values()), *self._before]

    def break_off(self, why: str) -> None:
        """Every answer that is waited for is cut."""
        for pool in self._every():
            pool.break_off(why)

    def withhold(self, why: str) -> None:
        """No request goes out that waits for the end of this turn of the loop, as those without HTTP/2 do."""
        for pool in self._every():
            if isinstance(pool, UpstreamPool):
                pool.withhold(why)

    def close(self) -> None:
        for pool in self._every():
            pool.close()


def _files(wire: Wire) -> Stamp:
    """Of its certificates and key as they are now. Raises `Invalid`."""
    named = () if wire.tls is None else (wire.tls.ca, wire.tls.cert, wire.tls.key)
    return file_stamp(tuple(file_path(reference) for reference in named if reference is not None))


def _proxy(wire: Wire) -> Proxy | None:
    if wire.proxy is None:
        return None
    parts = urlsplit(wire.proxy)
    return Proxy(parts.hostname or "", parts.port or 80, wire.credentials())


def _far(wire: Wire, loop: asyncio.AbstractEventLoop) -> Pool:
    try:
        http2 = importlib.import_module("groundplan.gateway.upstream.http2")
    except ImportError as error:
        raise Invalid(
            "HTTP/2 to an upstream, or a proxy by https, needs a package that is not installed",
            code="extra_missing",
            hint="Install groundplan[http2].",
        ) from error
    far = http2.Far(wire.tls, wire.proxy, wire.credentials(), wire.connect_ms / 1000, wire.http)
    pool: Pool = http2.Http2Pool(wire.url, loop, far)
    return pool
