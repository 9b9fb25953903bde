"""Chooses the connection pool for a deployment: address, TLS, HTTP version and proxy together make one pool.

A pool is replaced when a certificate file behind it has changed; calls in flight end on the old one. The client for
HTTP/2 is loaded only if a deployment needs it. Knows no secrets of the upstream itself, and makes no choice of
deployments.
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
from groundplan.gateway.upstream.http1_pool import Http1Pool
from groundplan.gateway.upstream.tunnel import Proxy

RETRY_S = 1.0
"""How long unchanged files that could not be used are not tried again: reading the system's authorities takes 20 ms of
the loop."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ConnectionSettings:
    """How to connect to an upstream. `proxy_key` is a secret reference; `connect_ms` is set only if `needs_library`."""

    url: str
    tls: Tls | None = None
    http: int = 1
    proxy: str | None = None
    proxy_key: str | None = None
    connect_ms: int = 2000

    @property
    def needs_library(self) -> bool:
        """Whether it needs more than HTTP/1.1 over TCP, TLS and a plain proxy."""
        return self.http == 2 or (self.proxy is not None and self.proxy.startswith("https:"))

    def proxy_credentials(self) -> str:
        """`user:password` for the proxy; empty: none. Raises `Invalid`."""
        return "" if self.proxy_key is None else resolve_secret(self.proxy_key)


def connection_settings(deployment: Deployment, url: str) -> ConnectionSettings:
    """The settings for a deployment that is at `url` now."""
    settings = ConnectionSettings(url, deployment.tls, deployment.http, deployment.proxy, deployment.proxy_key)
    return replace(settings, connect_ms=deployment.connect_ms) if settings.needs_library else settings


class Pools:
    """All pools of one worker."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._contexts = ClientContexts()
        self._plain_pools: dict[str, Http1Pool] = {}
        self._pools: dict[ConnectionSettings, tuple[object, Pool]] = {}
        self._refused: dict[ConnectionSettings, tuple[Stamp, float, Invalid]] = {}
        """Files that could not be used, until when (loop time) they are not tried again, and the error."""
        self._logged: set[ConnectionSettings] = set()
        """Settings whose files cannot be used now, which was logged."""
        self._retired: WeakSet[Pool] = WeakSet()
        """Replaced pools, as long as a call uses them."""

    def of(self, settings: ConnectionSettings) -> Pool:
        """The pool for these settings. Raises `Invalid` if files, secret or client cannot be used and never could;
        files that can no longer be used, such as a certificate whose key is not there yet, change nothing."""
        if settings.url.startswith("http:") and settings.proxy is None and settings.http == 1:
            return self._plain_pool(settings.url)
        known = self._pools.get(settings)
        try:
            pool = self._current_pool(settings, known)
        except Invalid as error:
            if known is None:
                raise
            if settings not in self._logged:
                self._logged.add(settings)
                _log.warning("%s is reached as before: %s", settings.url, error.message)
            return known[1]
        self._logged.discard(settings)
        return pool

    def _current_pool(self, settings: ConnectionSettings, known: tuple[object, Pool] | None) -> Pool:
        """The known pool if nothing behind it has changed, else a new one. Raises `Invalid`."""
        refused = self._refused.pop(settings, None)
        if refused is not None and self._loop.time() < refused[1] and _tls_file_stamp(settings) == refused[0]:
            self._refused[settings] = refused
            raise refused[2].with_traceback(None)
        try:
            fingerprint = self._fingerprint(settings)
            if known is not None and known[0] == fingerprint:
                return known[1]
            pool = self._library_pool(settings) if settings.needs_library else self._http1_pool(settings)
        except Invalid as error:
            self._refused[settings] = (_tls_file_stamp(settings), self._loop.time() + RETRY_S, error)
            raise
        self._pools[settings] = (fingerprint, pool)
        if known is not None:
            known[1].retire()
            self._retired.add(known[1])
        return pool

    def _plain_pool(self, url: str) -> Http1Pool:
        pool = self._plain_pools.get(url)
        if pool is None:
            pool = self._plain_pools[url] = Http1Pool(url, self._loop)
        return pool

    def _fingerprint(self, settings: ConnectionSettings) -> object:
        """A value that stays equal as long as the pool need not be made anew."""
        credentials = settings.proxy_credentials()
        if not settings.needs_library:
            return self._context(settings), credentials
        return _tls_file_stamp(settings), credentials

    def _context(self, settings: ConnectionSettings) -> ssl.SSLContext | None:
        return self._contexts.context(settings.tls) if settings.url.startswith("https:") else None

    def _library_pool(self, settings: ConnectionSettings) -> Pool:
        # the context shows a revocation list that the library would silently ignore
        if settings.tls is not None and has_revocation_list(self._contexts.context(settings.tls)):
            raise Invalid(
                f"{settings.url} is reached in a way that looks at no list of revoked certificates, and its ca has one",
                code="tls_unreadable",
                hint="Use http: 1 without a proxy that is reached by https, or take the list out of ca.",
            )
        return _http2_pool(settings, self._loop)

    def _http1_pool(self, settings: ConnectionSettings) -> Http1Pool:
        name = settings.tls.server_name if settings.tls is not None else None
        return Http1Pool(settings.url, self._loop, self._context(settings), server_name=name, proxy=_proxy(settings))

    def _all_pools(self) -> list[Pool]:
        return [*self._plain_pools.values(), *(pool for _, pool in self._pools.values()), *self._retired]

    def interrupt(self, reason: str) -> None:
        """End all running answers, as if the upstreams had cut them."""
        for pool in self._all_pools():
            pool.interrupt(reason)

    def cancel_unsent(self, reason: str) -> None:
        """Do not send the requests that wait for the end of this turn of the loop, as those over HTTP/1.1 do."""
        for pool in self._all_pools():
            if isinstance(pool, Http1Pool):
                pool.cancel_unsent(reason)

    def close(self) -> None:
        for pool in self._all_pools():
            pool.close()


def _tls_file_stamp(settings: ConnectionSettings) -> Stamp:
    """Stamp of the certificates and key as they are now. Raises `Invalid`."""
    named = () if settings.tls is None else (settings.tls.ca, settings.tls.cert, settings.tls.key)
    return file_stamp(tuple(file_path(reference) for reference in named if reference is not None))


def _proxy(settings: ConnectionSettings) -> Proxy | None:
    if settings.proxy is None:
        return None
    parts = urlsplit(settings.proxy)
    return Proxy(parts.hostname or "", parts.port or 80, settings.proxy_credentials())


def _http2_pool(settings: ConnectionSettings, loop: asyncio.AbstractEventLoop) -> Pool:
    try:
        http2 = importlib.import_module("groundplan.gateway.upstream.http2")
    except ImportError as error:
        raise Invalid(
            "HTTP/2 to an upstream, or a proxy by https, needs a package that is not installed",
            code="extra_missing",
            hint="Install groundplan[http2].",
        ) from error
    options = http2.Http2Options(
        settings.tls, settings.proxy, settings.proxy_credentials(), settings.connect_ms / 1000, settings.http
    )
    pool: Pool = http2.Http2Pool(settings.url, loop, options)
    return pool
