"""Connects to a host by its name: the name is looked up, and of its addresses whichever answers first is used.

An event loop looks all names up in a few threads (libuv in two): names whose servers say nothing, which takes half a
minute each, would hold up everybody else's. So each name has a thread of its own, one for all who wait for it. And
a loop tries one address after the other: behind one that says nothing none would be reached (RFC 8305 has the way out).

A name is looked up for each connection, as it may be of another machine the next moment. What was found last is for
when those who should know say nothing (RFC 8767): a resolver that is away or slow would be an outage of all upstreams.
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

from groundplan.gateway.keepalive import probe

NEXT_SECONDS = 0.25
"""How long one address may be silent before the next is tried beside it."""

SILENT_SECONDS = 0.5
"""How long nobody may say where a name is before it is taken to be where it was."""
KNOWN_SECONDS = 600.0
"""For how long it is: as long as a connection is used that was opened there."""
_NOWHERE = {getattr(socket, name) for name in ("EAI_NONAME", "EAI_NODATA") if hasattr(socket, name)}
"""Somebody answered, and it is not there."""

Place = tuple[socket.AddressFamily, Any]
"""Family and address of a socket."""
Found = list[Any]
"""What `socket.getaddrinfo` returns."""
P = TypeVar("P", bound=asyncio.Protocol)


class Names:
    """The names that are being looked up for one loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, way: Callable[..., Found] = socket.getaddrinfo) -> None:
        self._loop = loop
        self._way = way
        self._looks: dict[tuple[Any, ...], tuple[float, asyncio.Future[Found]]] = {}
        """Since when each is looked up."""
        self._known: dict[tuple[Any, ...], tuple[float, Found]] = {}
        """When and where each was found last."""

    async def getaddrinfo(
        self, host: Any, port: Any, *, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
    ) -> Found:
        """As a loop's own, also in its place. Raises OSError."""
        return await self._find((host, port, family, type, proto, flags), KNOWN_SECONDS)

    async def of_database(
        self, host: Any, port: Any, *, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
    ) -> Found:
        """The same, however long ago it was found: connections to PostgreSQL last for months, and whoever is there
        proves that it is. Raises OSError."""
        return await self._find((host, port, family, type, proto, flags), inf)

    async def _find(self, asked: tuple[Any, ...], seconds: float) -> Found:
        at, known = self._known.get(asked, (0.0, None))
        if known is None or at < self._loop.time() - seconds:
            return await asyncio.shield(self._look_up(asked)[1])
        try:
            began, look = self._look_up(asked)
            async with asyncio.timeout_at(began + SILENT_SECONDS):
                return await asyncio.shield(look)
        except OSError as error:
            if error.errno in _NOWHERE:
                raise
            return known

    def _look_up(self, asked: tuple[Any, ...]) -> tuple[float, asyncio.Future[Found]]:
        """The one for all who ask. Raises OSError."""
        found = self._looks.get(asked)
        if found is None:
            found = self._loop.time(), self._loop.create_future()
            try:
                threading.Thread(target=self._look, args=(asked, found[1]), name="name", daemon=True).start()
            except RuntimeError as error:  # this user may have no more threads now
                raise OSError("no thread to look its name up") from error
            self._looks[asked] = found
        return found

    async def of(self, host: str, port: int) -> list[Place]:
        """All addresses of a name, families by turns, the preferred one first. Raises OSError."""
        found = [(each[0], each[4]) for each in await self.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
        own = [each for each in found if each[0] == found[0][0]]
        pairs = zip_longest(own, [each for each in found if each[0] != found[0][0]])
        return [each for pair in pairs for each in pair if each is not None]

    def _look(self, asked: tuple[Any, ...], look: asyncio.Future[Found]) -> None:
        found: Found | OSError
        try:
            found = self._way(*asked)
        except OSError as error:
            found = error
        except UnicodeError:
            found = socket.gaierror(socket.EAI_NONAME, "it is no name")
        try:
            self._loop.call_soon_threadsafe(self._looked, asked, look, found)
        except RuntimeError:
            return  # the loop is closed: the process ends

    def _looked(self, asked: tuple[Any, ...], look: asyncio.Future[Found], found: Found | OSError) -> None:
        del self._looks[asked]
        if isinstance(found, OSError):
            look.set_exception(found)
            look.exception()  # whoever waited may have gone
            if found.errno in _NOWHERE:
                self._known.pop(asked, None)
        else:
            look.set_result(found)
            self._known[asked] = self._loop.time(), found


_known: WeakKeyDictionary[asyncio.AbstractEventLoop, Names] = WeakKeyDictionary()


def names_of(loop: asyncio.AbstractEventLoop) -> Names:
    """The names of this loop."""
    found = _known.get(loop)
    if found is None:
        found = _known[loop] = Names(loop)
    return found


async def connected(
    loop: asyncio.AbstractEventLoop,
    make: Callable[[], P],
    host: str,
    port: int,
    tls: ssl.SSLContext | None = None,
    server_name: str | None = None,
) -> tuple[asyncio.Transport, P]:
    """A connection with the protocol that `make` makes, inside TLS where a context is given. Raises OSError."""
    more: dict[str, Any] = (
        {"host": host, "port": port} if is_address(host) else {"sock": await opened(loop, host, port)}
    )
    transport, protocol = await loop.create_connection(make, **more, ssl=tls, server_hostname=server_name)
    probe(transport.get_extra_info("socket"))  # a model may think for longer than networks remember silent connections
    return transport, protocol


def is_address(host: str) -> bool:
    """Whether there is nothing to look up."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


async def opened(loop: asyncio.AbstractEventLoop, host: str, port: int) -> socket.socket:
    """A socket that is connected to the first address that took it. Raises OSError."""
    left = deque(await names_of(loop).of(host, port))
    trying: set[asyncio.Task[socket.socket]] = set()
    failed: BaseException | None = None
    try:
        while left or trying:
            if left:
                trying.add(loop.create_task(_open(loop, *left.popleft())))
            wait = NEXT_SECONDS if left else None
            done, _ = await asyncio.wait(trying, timeout=wait, return_when=asyncio.FIRST_COMPLETED)
            for each in done:
                error = each.exception()
                if error is None:
                    trying.discard(each)
                    return each.result()
                trying.discard(each)
                if failed is None or getattr(failed, "errno", None) == errno.EADDRNOTAVAIL:
                    failed = (
                        error  # `localhost` in a container without IPv6 has an address there, too, which says nothing
                    )
    finally:
        for each in trying:
            if not each.cancel() and each.exception() is None:
                each.result().close()  # it was there in the same turn
    raise failed or OSError("its name has no address")


async def _open(loop: asyncio.AbstractEventLoop, family: socket.AddressFamily, place: Any) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setblocking(False)
        await loop.sock_connect(made, place)
    except BaseException:
        made.close()
        raise
    return made
