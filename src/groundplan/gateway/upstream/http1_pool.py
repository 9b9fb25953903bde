"""Pools of connections in HTTP/1.1 to an upstream, one for each base URL: TLS, and a proxy where declared."""

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
from groundplan.gateway.upstream.dial import connected
from groundplan.gateway.upstream.http1 import Http1Connection
from groundplan.gateway.upstream.tunnel import Proxy, TunnelRefused, open_tunnel

IDLE_SECONDS = 20.0
MAX_IDLE = 256
APART_SECONDS = 3600.0
"""An upstream that answered without being asked gets a connection for every request, for so long."""
_OURS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""What this gateway, or its machine, has no more of: it says nothing of the upstream."""
_RAISE = "Try again. This gateway has no room for more connections: raise its limit of open files, or add another one."
_PORTS = (
    "Try again. Every local port has a connection to this upstream, or had one a minute ago: let it keep connections "
    "open, widen net.ipv4.ip_local_port_range, or add a gateway on another machine."
)
_log = logging.getLogger(__name__)


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
        """Those that were used last come last."""
        self._looks: asyncio.TimerHandle | None = None
        self._all: set[Http1Connection] = set()
        self.stalls = stall_monitor_of(loop)
        self.stalls.tell.add(self)

    @property
    def open(self) -> int:
        return len(self._all)

    @property
    def place(self) -> tuple[str, int]:
        """Host and port."""
        return self._host, self._port

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

    async def connect(self, seconds: float, until: float = FOREVER) -> Http1Connection:
        """A new connection. Raises `UpstreamFailure` (`sent` False) when none is there within `seconds`, nor `until`
        then by the loop's clock."""
        try:
            async with patient(seconds, until):
                connection = await self._connected()
        except TimeoutError as error:
            raise UpstreamFailure("connect_timeout", "the upstream did not accept in time", sent=False) from error
        except ssl.SSLCertVerificationError as error:
            told = f"the upstream's certificate is not accepted: {error.verify_message}"
            raise UpstreamFailure("refused", told, sent=False) from error
        except TunnelRefused as error:
            raise UpstreamFailure("refused", str(error), sent=False) from error
        except (OSError, ssl.SSLError) as error:
            hint = _RAISE if error.errno in _OURS else _PORTS if self._lacks_ports(error) else ""
            kind, told = CROWDED if hint else "refused", "no local port is free" if hint is _PORTS else _why(error)
            raise UpstreamFailure(kind, f"no connection: {told}", sent=False, hint=hint) from error
        if connection.lost:
            raise UpstreamFailure("refused", "the upstream closed the connection at once", sent=False)
        self._all.add(connection)
        connection.take()
        return connection

    async def _connected(self) -> Http1Connection:
        if self._proxy is not None:
            to = (self._host, self._port)
            return await open_tunnel(self._proxy, to, self._tls, self._server_name, lambda: Http1Connection(self))
        to, tls, name = (self._host, self._port), self._tls, self._server_name
        _, connection = await connected(self.loop, lambda: Http1Connection(self), *to, tls, name)
        return connection

    def _lacks_ports(self, error: OSError) -> bool:
        """Whether no local port was free. The same number says that a machine has no IPv6, as most containers: that is
        told of `localhost` only where its other address was not there either."""
        return error.errno == errno.EADDRNOTAVAIL and ":" not in self._host

    def retire(self) -> None:
        """Another pool takes over: what is in use ends in its own time, and nothing is kept."""
        self._retired = True
        self.drop_idle()

    def break_off(self, why: str) -> None:
        """Whoever waits for an answer is told that it was cut."""
        for connection in list(self._all):
            connection.break_off(why)

    def withhold(self, why: str) -> None:
        """No request goes out that has not yet."""
        for connection in list(self._all):
            connection.withhold(why)

    def drop_idle(self) -> None:
        """One pooled connection was found dead, so the others may be: the next attempt makes a new one."""
        for connection in self._idle:
            connection.abort()
        self._idle.clear()

    def woken(self) -> None:
        """The worker stood still: what was closed meanwhile is found out before a request is sent there."""
        for connection in [each for each in self._idle if each.has_news]:
            self._idle.remove(connection)
            connection.abort()

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
        if now > connection.kept_until or self._retired or now < self._apart_until or len(self._idle) >= MAX_IDLE:
            connection.abort()
            return
        connection.idle_since = now
        self._idle.append(connection)
        if self._looks is None:
            self._looks = self.loop.call_later(IDLE_SECONDS, self._drop_old)

    def _drop_old(self) -> None:
        """Close those that nobody used for so long: after a crowd of calls there are hundreds, and each takes a file of
        the few that this process may have open."""
        oldest, idle = self.loop.time() - IDLE_SECONDS, self._idle
        old = next((place for place, each in enumerate(idle) if each.idle_since > oldest), len(idle))
        self._idle = idle[old:]
        for connection in idle[:old]:
            connection.abort()
        first = self._idle[0].idle_since if self._idle else 0.0
        self._looks = self.loop.call_at(first + IDLE_SECONDS, self._drop_old) if self._idle else None

    def forget(self, connection: Http1Connection) -> None:
        self._all.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    def close(self) -> None:
        if self._looks is not None:
            self._looks.cancel()
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
