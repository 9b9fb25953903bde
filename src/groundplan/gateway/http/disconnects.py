"""Notices a client that disconnects while nothing is read from its connection.

Reading is paused while a pipelined request waits for the answer before it, and while an upload is passed on more slowly
than it arrives. A loop that does not read a connection does not see its end, least of all behind unread data; the
kernel reports it all the same (`EPOLLRDHUP`), once it has received everything before it. It is seen only when reading
goes on where a client leaves more behind than the kernel takes, and on other systems than Linux.
"""

from __future__ import annotations

import asyncio
import select
from contextlib import suppress
from typing import Protocol


class Watched(Protocol):
    """A connection that is not read."""

    def on_disconnected(self) -> None:
        """The client has closed the connection, or its half of it."""
        ...


class DisconnectWatcher:
    """Watches connections of one server while they are not read."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._epoll: select.epoll | None = None
        """Made for the first connection: most workers never need it."""
        self._watched: dict[int, Watched] = {}
        """Connections by the descriptor of their socket."""

    def watch(self, connection: Watched, descriptor: int) -> None:
        """Call `on_disconnected` of the connection once its client disconnects, unless `unwatch` is called before. Does
        nothing where the system has no room to watch more."""
        if descriptor < 0 or not hasattr(select, "EPOLLRDHUP"):
            return
        with suppress(OSError):
            if self._epoll is None:
                self._epoll = select.epoll()
                self._loop.add_reader(self._epoll.fileno(), self._report)
            self._epoll.register(descriptor, select.EPOLLRDHUP)
            self._watched[descriptor] = connection

    def unwatch(self, connection: Watched, descriptor: int) -> None:
        """Stop watching a connection; its socket may be closed by now, and another one have its descriptor."""
        if self._epoll is not None and self._watched.get(descriptor) is connection:
            del self._watched[descriptor]
            with suppress(OSError):
                self._epoll.unregister(descriptor)

    def _report(self) -> None:
        if self._epoll is None:
            return
        for descriptor, _ in self._epoll.poll(0):
            connection = self._watched.pop(descriptor, None)
            with suppress(OSError):
                self._epoll.unregister(descriptor)
            if connection is not None:
                connection.on_disconnected()

    def close(self) -> None:
        """Watch nothing any more."""
        if self._epoll is not None:
            self._loop.remove_reader(self._epoll.fileno())
            self._epoll.close()
            self._epoll = None
        self._watched.clear()
