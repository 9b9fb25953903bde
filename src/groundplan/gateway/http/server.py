"""The HTTP/1.1 server of a worker: its connections, what they may hold together, and how they end.

How one connection is spoken is `connection`'s. Never serves a file. The listening socket belongs to whoever started the
process.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from email.utils import formatdate

from groundplan.gateway.awake import awake_of
from groundplan.gateway.http.bounds import Limits as Limits
from groundplan.gateway.http.bounds import Refusal as Refusal
from groundplan.gateway.http.connection import Connection as Connection
from groundplan.gateway.http.request import Request as Request
from groundplan.gateway.http.response import Response as Response

Handler = Callable[[Request, Response], Awaitable[None]]
RefusalBody = Callable[[Refusal], bytes]

_ARRIVING_SECONDS = 0.05
"""What was accepted just before a worker stopped listening is a connection within this."""
_ROOM = 16
"""A part of the connections that wait is closed at once, so that the next ones find room without a look at all."""
_FULL_SECONDS = 0.1
"""Where each of thousands is at work, nobody is looked for again so soon: to look at all takes milliseconds."""


def _since(connection: Connection) -> float:
    return connection.waits_since


class Server:
    """All connections of one worker. `handler` answers each request; `refusal_body` words what the protocol itself
    refuses."""

    def __init__(
        self,
        handler: Handler,
        refusal_body: RefusalBody,
        loop: asyncio.AbstractEventLoop,
        limits: Limits | None = None,
    ) -> None:
        self.handler = handler
        self.refusal_body = refusal_body
        self.loop = loop
        self.now = loop.time
        self.limits = limits or Limits()
        self._plenty = self.limits.held // 2
        """Bytes of bodies above which room is for callers who are known."""
        self.at_once = min(self.limits.body, self.limits.stranger)
        """Bytes of a body of which nothing is asked before it is taken."""
        self.connections: set[Connection] = set()
        self.subject: Callable[[asyncio.BaseTransport], str] | None = None
        """Reads who a client is from its certificate, where one is asked for."""
        self.streams: Callable[[Request], bool] | None = None
        """Tells from its head whether a request's body is read by its handler while it arrives."""
        self.share: Callable[[Request], float] | None = None
        """Tells from its head of how much that is held all together there may be for a request's body to be read, where
        that is more than half; 0: of nobody who is known."""
        self.upgrades: Callable[[Request], bool] | None = None
        """Tells from its head whether a request's handler speaks WebSocket."""
        self.held = 0
        """Bytes of bodies that are being read or answered."""
        self.refused = 0
        """Requests for whose bodies there was no room."""
        self._full_until = 0.0
        self.draining = False
        self._arrived_at = 0.0
        self.date_line = b""
        self._sweeper: asyncio.TimerHandle | None = None
        self._awake = awake_of(loop)
        self._swept = loop.time()
        self._sweep()

    def protocol(self) -> Connection:
        """For `loop.create_server`."""
        return Connection(self)

    def _sweep(self) -> None:
        self.date_line = f"date: {formatdate(time.time(), usegmt=True)}\r\n".encode("ascii")
        stood, self._swept = self._awake.stood(self._swept), self.now()
        if stood:
            for connection in self.connections:
                connection.deadline += stood  # what it sent meanwhile is not read yet
        now = self._swept
        for connection in [c for c in self.connections if c.deadline < now]:
            connection.expire()
        self._sweeper = self.loop.call_later(self.limits.sweep_seconds, self._sweep)

    @property
    def busy(self) -> int:
        """Requests being answered."""
        return sum(1 for connection in self.connections if connection.answering)

    def has_room(self, size: int) -> bool:
        """Whether `size` more bytes of a body may be held now."""
        return self.held + size <= self.limits.held

    def hold(self, request: Request, size: int) -> bool:
        """Count `size` more bytes of a body; False where all bodies together would be too many, or where the rest of
        the room is not for whoever sends it."""
        if self.held + size > self._plenty and not self.has_room_of(request, size):
            return False
        self.held += size
        request.held += size
        return True

    def has_room_of(self, request: Request, size: int) -> bool:
        """Whether `size` more bytes of the body of a request may be held where more than half is: the last of the room
        is for what matters most."""
        return self.held + size <= self.limits.held * (1.0 if self.share is None else self.share(request))

    def is_known(self, request: Request) -> bool:
        """Whether a request is of somebody whose body is read however many strangers there are."""
        return self.share is None or self.share(request) > 0

    def is_scarce(self, size: int) -> bool:
        """Whether there is room for `size` more bytes of a body of callers who are known alone."""
        return self.held + size > self._plenty

    def let_go(self, request: Request) -> None:
        """The body of a request is not needed any more."""
        self.held -= request.held
        request.held = 0

    def make_room(self, newest: Connection) -> bool:
        """Of too many connections close those besides `newest` that have waited longest for a request, or where there
        are none for their answer to be taken; False where each is at work. Whoever opens as many as there may be, and
        asks nothing with a key that is known, keeps nobody out."""
        if self.now() < self._full_until:
            return False
        others = [c for c in self.connections if c is not newest]
        waiting = [c for c in others if c.waits] or [c for c in others if c.is_not_taken]
        if not waiting:
            self._full_until = self.now() + _FULL_SECONDS
        waiting.sort(key=_since)
        for connection in waiting[: len(waiting) // _ROOM + 1]:
            self.connections.discard(connection)
            connection.cut()
        return bool(waiting)

    async def quiesce(self, seconds: float) -> None:
        """Let running answers end, for at most `seconds`. A kept-alive connection is not closed under a client's next
        request: that is answered, says that it is the last, and only silence ends it."""
        now = self.now()
        if not self.draining:
            self.draining, self._arrived_at = True, now + _ARRIVING_SECONDS
        end = now + seconds
        await asyncio.sleep(min(seconds, max(0.0, self._arrived_at - now)))
        for connection in list(self.connections):
            connection.begin_drain()
        while self.connections and self.now() < end:  # noqa: ASYNC110 -- it has a deadline, and is not hot
            await asyncio.sleep(0.02)

    async def drain(self, seconds: float) -> None:
        """`quiesce`, then cut what is left."""
        await self.quiesce(seconds)
        for connection in list(self.connections):
            connection.cut()
        if self._sweeper is not None:
            self._sweeper.cancel()
        await asyncio.sleep(0)
