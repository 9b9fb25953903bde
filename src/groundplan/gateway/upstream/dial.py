"""Connects to a host by name: looks the name up and uses whichever of its addresses answers first.

An event loop looks up all names in a few threads (libuv in two): lookups whose servers do not answer take half a minute
each and would hold up all others. So each name has a thread of its own, shared by all that wait for it. A loop also
tries one address after the other, and would never get past one that does not answer (RFC 8305 describes the remedy).

A name is looked up for each connection, since it may move to another machine at any time. The last result is used while
the resolver does not answer (RFC 8767): otherwise an outage of the resolver would be an outage of all upstreams.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable
from ipaddress import ip_address
from itertools import zip_longest
from math import inf
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from groundplan.gateway.keepalive import enable_keepalive

NEXT_ADDRESS_SECONDS = 0.25
"""How long an address may be silent before the next one is tried in parallel."""

STALE_AFTER_SECONDS = 0.5
"""How long a lookup may take before the last result is used."""
MAX_STALE_SECONDS = 600.0
"""For how long the last result may be used: as long as a connection that was opened there."""
_NOT_FOUND_ERRNOS = {getattr(socket, name) for name in ("EAI_NONAME", "EAI_NODATA") if hasattr(socket, name)}
"""Errors that say that the name does not exist."""

SocketAddress = tuple[socket.AddressFamily, Any]
"""Family and address of a socket."""
AddressInfo = list[Any]
"""What `socket.getaddrinfo` returns."""
P = TypeVar("P", bound=asyncio.Protocol)


class Resolver:
    """Name lookups of one loop."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, getaddrinfo: Callable[..., AddressInfo] = socket.getaddrinfo
    ) -> None:
        self._loop = loop
        self._getaddrinfo = getaddrinfo
        self._lookups: dict[tuple[Any, ...], tuple[float, asyncio.Future[AddressInfo]]] = {}
        """Running lookups, with the time at which each began."""
        self._last_found: dict[tuple[Any, ...], tuple[float, AddressInfo]] = {}
        """The last result of each query, and when it was found."""

    async def getaddrinfo(
        self, host: Any, port: Any, *, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
    ) -> AddressInfo:
        """Same interface as a loop's own, which it may replace. Raises OSError."""
        return await self._resolve((host, port, family, type, proto, flags), MAX_STALE_SECONDS)

    async def getaddrinfo_of_database(
        self, host: Any, port: Any, *, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
    ) -> AddressInfo:
        """As `getaddrinfo`, with a last result of any age: connections to PostgreSQL last for months, and the server
        there proves its identity. Raises OSError."""
        return await self._resolve((host, port, family, type, proto, flags), inf)

    async def _resolve(self, query: tuple[Any, ...], max_age: float) -> AddressInfo:
        at, known = self._last_found.get(query, (0.0, None))
        if known is None or at < self._loop.time() - max_age:
            return await asyncio.shield(self._start_lookup(query)[1])
        try:
            began, future = self._start_lookup(query)
            async with asyncio.timeout_at(began + STALE_AFTER_SECONDS):
                return await asyncio.shield(future)
        except OSError as error:
            if error.errno in _NOT_FOUND_ERRNOS:
                raise
            return known

    def _start_lookup(self, query: tuple[Any, ...]) -> tuple[float, asyncio.Future[AddressInfo]]:
        """The running lookup for a query, started if there is none. Raises OSError."""
        found = self._lookups.get(query)
        if found is None:
            found = self._loop.time(), self._loop.create_future()
            try:
                threading.Thread(target=self._run_lookup, args=(query, found[1]), name="name", daemon=True).start()
            except RuntimeError as error:  # this user may have no more threads now
                raise OSError("no thread to look its name up") from error
            self._lookups[query] = found
        return found

    async def addresses(self, host: str, port: int) -> list[SocketAddress]:
        """All addresses of a name, families in turn, the preferred family first. Raises OSError."""
        found = [(each[0], each[4]) for each in await self.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
        own = [each for each in found if each[0] == found[0][0]]
        pairs = zip_longest(own, [each for each in found if each[0] != found[0][0]])
        return [each for pair in pairs for each in pair if each is not None]

    def _run_lookup(self, query: tuple[Any, ...], future: asyncio.Future[AddressInfo]) -> None:
        found: AddressInfo | OSError
        try:
            found = self._getaddrinfo(*query)
        except OSError as error:
            found = error
        except UnicodeError:
            found = socket.gaierror(socket.EAI_NONAME, "it is no name")
        try:
            self._loop.call_soon_threadsafe(self._finish_lookup, query, future, found)
        except RuntimeError:
            return  # the loop is closed: the process ends

    def _finish_lookup(
        self, query: tuple[Any, ...], future: asyncio.Future[AddressInfo], found: AddressInfo | OSError
    ) -> None:
        del self._lookups[query]
        if isinstance(found, OSError):
            future.set_exception(found)
            future.exception()  # the waiters may have been cancelled
            if found.errno in _NOT_FOUND_ERRNOS:
                self._last_found.pop(query, None)
        else:
            future.set_result(found)
            self._last_found[query] = self._loop.time(), found


_resolvers: WeakKeyDictionary[asyncio.AbstractEventLoop, Resolver] = WeakKeyDictionary()


def resolver_of(loop: asyncio.AbstractEventLoop) -> Resolver:
    """The resolver of this loop."""
    found = _resolvers.get(loop)
    if found is None:
        found = _resolvers[loop] = Resolver(loop)
    return found


async def open_connection(
    loop: asyncio.AbstractEventLoop,
    protocol_factory: Callable[[], P],
    host: str,
    port: int,
    tls: ssl.SSLContext | None = None,
    server_name: str | None = None,
) -> tuple[asyncio.Transport, P]:
    """A connection with a protocol from `protocol_factory`, inside TLS if a context is given. Raises OSError."""
    target: dict[str, Any] = (
        {"host": host, "port": port} if is_ip_address(host) else {"sock": await open_socket(loop, host, port)}
    )
    transport, protocol = await loop.create_connection(protocol_factory, **target, ssl=tls, server_hostname=server_name)
    # a model may think for longer than networks remember silent connections
    enable_keepalive(transport.get_extra_info("socket"))
    return transport, protocol


def is_ip_address(host: str) -> bool:
    """Whether `host` is an address, so that there is nothing to look up."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


async def open_socket(loop: asyncio.AbstractEventLoop, host: str, port: int) -> socket.socket:
    """A socket that is connected to the first address that accepted. Raises OSError."""
    remaining = deque(await resolver_of(loop).addresses(host, port))
    attempts: set[asyncio.Task[socket.socket]] = set()
    first_error: BaseException | None = None
    try:
        while remaining or attempts:
            if remaining:
                attempts.add(loop.create_task(_connect_socket(loop, *remaining.popleft())))
            wait = NEXT_ADDRESS_SECONDS if remaining else None
            done, _ = await asyncio.wait(attempts, timeout=wait, return_when=asyncio.FIRST_COMPLETED)
            for each in done:
                error = each.exception()
                if error is None:
                    attempts.discard(each)
                    return each.result()
                attempts.discard(each)
                if first_error is None or getattr(first_error, "errno", None) == errno.EADDRNOTAVAIL:
                    first_error = (
                        # in a container without IPv6, `localhost` has an address there as well, whose error says
                        # nothing
                        error
                    )
    finally:
        for each in attempts:
            if not each.cancel() and each.exception() is None:
                each.result().close()  # connected in the same turn of the loop
    raise first_error or OSError("its name has no address")


async def _connect_socket(loop: asyncio.AbstractEventLoop, family: socket.AddressFamily, address: Any) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        await loop.sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock
