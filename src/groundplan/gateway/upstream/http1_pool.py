"""A pool of HTTP/1.1 connections to one upstream base URL, with TLS, and through a proxy if one is declared."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
from urllib.parse import SplitResult, urlsplit

from groundplan.core.errors import Invalid
from groundplan.gateway.stalls import patient, stall_monitor_of
from groundplan.gateway.upstream.answer_memory import CROWDED
from groundplan.gateway.upstream.connection import FOREVER, UpstreamFailure
from groundplan.gateway.upstream.dial import open_connection
from groundplan.gateway.upstream.http1 import Http1Connection
from groundplan.gateway.upstream.tunnel import Proxy, TunnelRefused, open_tunnel

IDLE_SECONDS = 20.0
MAX_IDLE = 1024
"""Idle connections that are kept, for `IDLE_SECONDS`. A worker that catches up has more calls open than at other times,
in waves: with 256, a third of its calls then opened a connection, which took a sixth of its time."""
NO_REUSE_SECONDS = 3600.0
"""How long an upstream that sent an unrequested answer gets a connection of its own for every request."""
_LOCAL_ERRNOS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""This gateway, or its machine, is out of a resource: says nothing about the upstream."""
_RESOURCES_HINT = (
    "Try again. This gateway has no room for more connections: raise its limit of open files, or add another one."
)
_PORTS_HINT = (
    "Try again. Every local port has a connection to this upstream, or had one a minute ago: let it keep connections "
    "open, widen net.ipv4.ip_local_port_range, or add a gateway on another machine."
)
_log = logging.getLogger(__name__)


def parse_upstream_url(url: str) -> SplitResult:
    """The parts of an upstream's URL. Raises `Invalid` (`upstream_url`)."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or not url.isascii() or not url.isprintable():
        raise Invalid(f"{url!r} is not an upstream's address", code="upstream_url", hint="Write http(s)://host/v1.")
    return parts


class Http1Pool:
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
        """`server_name` is the name that the certificate must contain if it is not the host of `url`. Raises
        `Invalid`."""
        parts = parse_upstream_url(url)
        self.url = url
        self.loop = loop
        self.proxy = proxy
        self.prefix = parts.path.rstrip("/").encode("ascii")
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self.host_header = parts.netloc.rpartition("@")[2].encode("ascii")
        self._tls = (tls or ssl.create_default_context()) if parts.scheme == "https" else None
        self._server_name = (server_name or self._host) if self._tls is not None else None
        self._retired = False
        self._no_reuse_until = 0.0
        self._idle_connections: list[Http1Connection] = []
        """The most recently used last."""
        self._cleanup_timer: asyncio.TimerHandle | None = None
        self._connections: set[Http1Connection] = set()
        self.stalls = stall_monitor_of(loop)
        self.stalls.observers.add(self)

    @property
    def address(self) -> tuple[str, int]:
        """(host, port)."""
        return self._host, self._port

    @property
    def tls_settings(self) -> tuple[ssl.SSLContext | None, str | None]:
        """(context, name that the certificate must contain); both None without TLS."""
        return self._tls, self._server_name

    def take_idle(self) -> Http1Connection | None:
        """An idle connection that seems usable, or None."""
        oldest = self.loop.time() - IDLE_SECONDS
        while self._idle_connections:
            connection = self._idle_connections.pop()
            transport = connection.transport
            if connection.lost or transport is None or transport.is_closing():
                continue
            if connection.idle_since < oldest:
                connection.abort()
                continue
            connection.mark_in_use()
            return connection
        return None

    async def connect(self, seconds: float, until: float = FOREVER) -> Http1Connection:
        """A new connection. Raises `UpstreamFailure` (`sent` False) if there is none within `seconds`, or by `until`
        (loop time)."""
        try:
            async with patient(seconds, until):
                connection = await self._open_connection()
        except TimeoutError as error:
            raise UpstreamFailure("connect_timeout", "the upstream did not accept in time", sent=False) from error
        except ssl.SSLCertVerificationError as error:
            message = f"the upstream's certificate is not accepted: {error.verify_message}"
            raise UpstreamFailure("refused", message, sent=False) from error
        except TunnelRefused as error:
            raise UpstreamFailure("refused", str(error), sent=False) from error
        except (OSError, ssl.SSLError) as error:
            hint = (
                _RESOURCES_HINT if error.errno in _LOCAL_ERRNOS else _PORTS_HINT if self._is_out_of_ports(error) else ""
            )
            kind, message = (
                CROWDED if hint else "refused",
                "no local port is free" if hint is _PORTS_HINT else _describe_error(error),
            )
            raise UpstreamFailure(kind, f"no connection: {message}", sent=False, hint=hint) from error
        if connection.lost:
            raise UpstreamFailure("refused", "the upstream closed the connection at once", sent=False)
        self._connections.add(connection)
        connection.mark_in_use()
        return connection

    async def _open_connection(self) -> Http1Connection:
        if self.proxy is not None:
            to = (self._host, self._port)
            return await open_tunnel(self.proxy, to, self._tls, self._server_name, lambda: Http1Connection(self))
        to, tls, name = (self._host, self._port), self._tls, self._server_name
        _, connection = await open_connection(self.loop, lambda: Http1Connection(self), *to, tls, name)
        return connection

    def _is_out_of_ports(self, error: OSError) -> bool:
        """Whether no local port was free. The same errno says that a machine has no IPv6, as in most containers:
        `localhost` reports that only if its other address failed, too."""
        return error.errno == errno.EADDRNOTAVAIL and ":" not in self._host

    def retire(self) -> None:
        """Another pool takes over: connections in use end in their own time, and none is kept."""
        self._retired = True
        self.drop_idle()

    def interrupt(self, reason: str) -> None:
        """End all running answers, as if the upstream had cut them."""
        for connection in list(self._connections):
            connection.interrupt(reason)

    def cancel_unsent(self, reason: str) -> None:
        """Do not send the requests that have not gone out yet."""
        for connection in list(self._connections):
            connection.cancel_unsent(reason)

    def drop_idle(self) -> None:
        """Close all idle connections. One of them was found dead, so the others may be: the next attempt makes a new
        one."""
        for connection in self._idle_connections:
            connection.abort()
        self._idle_connections.clear()

    def on_resumed(self) -> None:
        """Called after the worker stood still: close idle connections that were closed meanwhile, before a request is
        sent there."""
        for connection in [each for each in self._idle_connections if each.has_unread_data]:
            self._idle_connections.remove(connection)
            connection.abort()

    def disable_reuse(self) -> None:
        """Give each request its own connection from now on, since the upstream sent an answer without a request. What
        it sends next could be taken for the answer to a request that it has not even read, and nothing in HTTP/1.1
        would tell."""
        now = self.loop.time()
        if now >= self._no_reuse_until:
            _log.warning(
                "the upstream %s:%d sent an answer that nobody had asked for: for %d minutes every request to it has a "
                "connection of its own", self._host, self._port, NO_REUSE_SECONDS // 60,
            )  # fmt: skip
        self._no_reuse_until = now + NO_REUSE_SECONDS
        self.drop_idle()

    def release(self, connection: Http1Connection) -> None:
        now = self.loop.time()
        if (
            now > connection.reusable_until
            or self._retired
            or now < self._no_reuse_until
            or len(self._idle_connections) >= MAX_IDLE
        ):
            connection.abort()
            return
        connection.idle_since = now
        self._idle_connections.append(connection)
        if self._cleanup_timer is None:
            self._cleanup_timer = self.loop.call_later(IDLE_SECONDS, self._close_expired)

    def _close_expired(self) -> None:
        """Close connections that were idle for too long: after a burst of calls there are hundreds, and each takes one
        of the few files that this process may have open."""
        oldest, idle = self.loop.time() - IDLE_SECONDS, self._idle_connections
        old = next((place for place, each in enumerate(idle) if each.idle_since > oldest), len(idle))
        self._idle_connections = idle[old:]
        for connection in idle[:old]:
            connection.abort()
        first = self._idle_connections[0].idle_since if self._idle_connections else 0.0
        self._cleanup_timer = (
            self.loop.call_at(first + IDLE_SECONDS, self._close_expired) if self._idle_connections else None
        )

    def discard(self, connection: Http1Connection) -> None:
        self._connections.discard(connection)
        if connection in self._idle_connections:
            self._idle_connections.remove(connection)

    def close(self) -> None:
        if self._cleanup_timer is not None:
            self._cleanup_timer.cancel()
        for connection in list(self._connections):
            connection.abort()
        self._idle_connections.clear()


def _describe_error(error: OSError) -> str:
    """A connection error in words; never an address, which may contain a host name."""
    if isinstance(error, socket.gaierror):
        return "its name cannot be resolved"
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens at its address"
    if isinstance(error, ssl.SSLError):
        return f"no TLS: {error.reason or 'the handshake failed'}"
    return error.strerror or error.__class__.__name__
