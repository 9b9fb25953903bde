"""The HTTP/1.1 server of a worker: its connections, and how they end.

How one connection is spoken is `connection`'s, what all of them may hold together `server_state`'s. Never serves a
file. The listening socket belongs to whoever started the process.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from email.utils import formatdate
from operator import itemgetter

from groundplan.gateway.http.bounds import FOREVER
from groundplan.gateway.http.bounds import Limits as Limits
from groundplan.gateway.http.bounds import Refusal as Refusal
from groundplan.gateway.http.connection import Connection as Connection
from groundplan.gateway.http.connection import Handler, Host, RefusalBody
from groundplan.gateway.http.request import Request as Request
from groundplan.gateway.http.response import Response as Response
from groundplan.gateway.stalls import stall_monitor_of

_ARRIVING_SECONDS = 0.05
"""What was accepted just before a worker stopped listening is a connection within this."""
_ROOM = 16
"""A part of the connections that wait is closed at once, so that the next ones find room without a look at all."""
_FULL_SECONDS = 0.1
"""Where each of thousands is at work, nobody is looked for again so soon: to look at all takes milliseconds."""


def _since(connection: Connection) -> float:
    return connection.waits_since


def _of_one(connections: list[Connection]) -> list[Connection]:
    """Those that take their time for a body of the workload that has more than half of all connections so; none where
    no workload has."""
    senders = [connection.sender for connection in connections]
    one, many = max(Counter(filter(None, senders)).items(), key=itemgetter(1), default=("", 0))
    if many <= len(connections) // 2:
        return []
    return [connection for connection, sender in zip(connections, senders, strict=True) if sender == one]


class Server(Host):
    """All connections of one worker. `handler` answers each request; `refusal_body` words what the protocol itself
    refuses."""

    def __init__(
        self,
        handler: Handler,
        refusal_body: RefusalBody,
        loop: asyncio.AbstractEventLoop,
        limits: Limits | None = None,
    ) -> None:
        super().__init__(loop, limits or Limits())
        self.handler = handler
        self.refusal_body = refusal_body
        self.connections = set()
        self._full_until = 0.0
        self._arrived_at = 0.0
        self._sweeper: asyncio.TimerHandle | None = None
        self._stalls = stall_monitor_of(loop)
        self._swept = loop.time()
        self._sweep()

    def protocol(self) -> Connection:
        """For `loop.create_server`."""
        return Connection(self)

    def _sweep(self) -> None:
        self.date_line = f"date: {formatdate(time.time(), usegmt=True)}\r\n".encode("ascii")
        stood, self._swept = self._stalls.stood(self._swept), self.now()
        if stood:
            for connection in self.connections:
                connection.deadline += stood  # what it sent meanwhile is not read yet
        now = self._swept
        for connection in [c for c in self.connections if c.deadline < now]:
            connection.expire()
        for connection in [c for c in self.connections if c.deadline == FOREVER and c.answering]:
            connection.deadline = now + self.limits.look_seconds
        self._sweeper = self.loop.call_later(self.limits.sweep_seconds, self._sweep)

    @property
    def busy(self) -> int:
        """Requests being answered."""
        return sum(1 for connection in self.connections if connection.answering)

    def make_room(self, newest: Connection) -> bool:
        """Of too many connections close those besides `newest` that have waited longest for a request, where there are
        none for their answer to be taken, or else to send a body, of a workload that has most of them; False where each
        is at work. Whoever opens as many as there may be, with a key or without, keeps nobody out."""
        if self.now() < self._full_until:
            return False
        others = [c for c in self.connections if c is not newest]
        waiting = [c for c in others if c.waits] or [c for c in others if c.is_not_taken] or _of_one(others)
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
            for connection in self.connections:
                connection.ends = True
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
