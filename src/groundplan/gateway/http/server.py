"""The HTTP/1.1 server of a worker: its connections, and how they end.

How one connection works is `connection`'s, what all of them may hold together `server_state`'s. Never serves a file.
The listening socket belongs to the process that started the worker.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sized
from email.utils import formatdate
from operator import itemgetter

from groundplan.gateway.http.bounds import FOREVER
from groundplan.gateway.http.bounds import Limits as Limits
from groundplan.gateway.http.bounds import Refusal as Refusal
from groundplan.gateway.http.connection import Connection as Connection
from groundplan.gateway.http.connection import ConnectionOwner, Handler, RefusalFormatter
from groundplan.gateway.http.request import Request as Request
from groundplan.gateway.http.response import Response as Response
from groundplan.gateway.stalls import stall_monitor_of

_ARRIVING_SECONDS = 0.05
"""A client that was accepted just before a worker stopped listening has become a connection within this time."""
_EVICT_FRACTION = 16
"""One in so many of the evictable connections is closed at once, so that the next clients find room without another
search."""
_EVICT_RETRY_SECONDS = 0.1
"""When every connection is at work, the next search waits this long: searching thousands takes milliseconds."""


def _waiting_since(connection: Connection) -> float:
    return connection.waiting_since


def _uploads_of_dominant_workload(connections: list[Connection]) -> list[Connection]:
    """The connections that are sending a request body for the same workload, if it is more than half of `connections`;
    else none."""
    senders = [connection.pending_body_workload for connection in connections]
    dominant, count = max(Counter(filter(None, senders)).items(), key=itemgetter(1), default=("", 0))
    if count <= len(connections) // 2:
        return []
    return [connection for connection, sender in zip(connections, senders, strict=True) if sender == dominant]


class Server(ConnectionOwner):
    """All connections of one worker. `handler` answers each request; `refusal_body` returns the body of what the
    protocol itself refuses."""

    def __init__(
        self,
        handler: Handler,
        refusal_body: RefusalFormatter,
        loop: asyncio.AbstractEventLoop,
        limits: Limits | None = None,
    ) -> None:
        super().__init__(loop, limits or Limits())
        self.handler = handler
        self.refusal_body = refusal_body
        self.connections = set()
        self._evict_retry_at = 0.0
        self._accepts_end = self._handshakes_end = 0.0
        self.handshakes: Sized = ()
        """TLS handshakes in progress, of clients that are not connections yet."""
        self._sweeper: asyncio.TimerHandle | None = None
        self._stalls = stall_monitor_of(loop)
        self._last_sweep = loop.time()
        self._sweep()

    def create_connection(self) -> Connection:
        """A new connection, for `loop.create_server`."""
        return Connection(self)

    def _sweep(self) -> None:
        self.date_line = f"date: {formatdate(time.time(), usegmt=True)}\r\n".encode("ascii")
        stood, self._last_sweep = self._stalls.stalled_seconds(self._last_sweep), self.now()
        if stood:
            for connection in self.connections:
                connection.deadline += stood  # bytes that came meanwhile have not been read yet
        now = self._last_sweep
        for connection in [c for c in self.connections if c.deadline < now]:
            connection.expire()
        for connection in [c for c in self.connections if c.deadline == FOREVER and c.is_answering]:
            connection.deadline = now + self.limits.client_check_seconds
        self._sweeper = self.loop.call_later(self.limits.sweep_seconds, self._sweep)

    def evict_idle(self, newest: Connection) -> bool:
        """Close some connections other than `newest`: those that have waited longest for a request; if there are none,
        those whose answers have not been read; else those that are sending a body, of the workload that has most of all
        connections. False if each is at work. So a client that opens as many connections as it can, with a key or
        without, keeps nobody out."""
        if self.now() < self._evict_retry_at:
            return False
        others = [c for c in self.connections if c is not newest]
        waiting = (
            [c for c in others if c.is_evictable]
            or [c for c in others if c.has_unread_answer]
            or _uploads_of_dominant_workload(others)
        )
        if not waiting:
            self._evict_retry_at = self.now() + _EVICT_RETRY_SECONDS
        waiting.sort(key=_waiting_since)
        for connection in waiting[: len(waiting) // _EVICT_FRACTION + 1]:
            self.connections.discard(connection)
            connection.abort()
        return bool(waiting)

    async def quiesce(self, seconds: float) -> None:
        """Let running answers end, for at most `seconds`. A kept-alive connection is not closed under a client's next
        request: that request is answered, its answer says that it is the last, and only silence ends the connection."""
        now = self.now()
        if not self.draining:
            self.draining, self._accepts_end = True, now + _ARRIVING_SECONDS
            self._handshakes_end = now + self.limits.drain_idle_seconds
            for connection in self.connections:
                connection.is_draining = True
        end = now + seconds
        await asyncio.sleep(min(seconds, max(0.0, self._accepts_end - now)))
        for connection in list(self.connections):
            connection.begin_drain()
        while self._is_occupied and self.now() < end:  # noqa: ASYNC110 -- it has a deadline, and is not hot
            await asyncio.sleep(0.02)

    @property
    def _is_occupied(self) -> bool:
        """Whether there are clients: a handshake with one that is far away takes some of a second."""
        return bool(self.connections or (self.handshakes and self.now() < self._handshakes_end))

    async def drain(self, seconds: float) -> None:
        """`quiesce`, then close the remaining connections."""
        await self.quiesce(seconds)
        for connection in list(self.connections):
            connection.abort()
        if self._sweeper is not None:
            self._sweeper.cancel()
        await asyncio.sleep(0)
        self.disconnects.close()
