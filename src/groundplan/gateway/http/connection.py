"""One client's connection in HTTP/1.1: its requests are read by `request_reader` and answered one after another.

Does not know what a request means (the server's handler does), does not speak HTTP/2 (a load balancer does), and leaves
TLS to the transport below it.
"""

from __future__ import annotations

import asyncio
import sys
from abc import abstractmethod
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import cast

import httptools

from groundplan.gateway.http import refusals
from groundplan.gateway.http.bounds import FOREVER, Refusal
from groundplan.gateway.http.head_cache import HeadCache
from groundplan.gateway.http.request import Request
from groundplan.gateway.http.request_reader import BODY, IDLE, RequestReader
from groundplan.gateway.http.response import HeadResponse, Response
from groundplan.gateway.http.server_state import ServerState
from groundplan.gateway.keepalive import is_gone

Handler = Callable[[Request, Response], Awaitable[None]]
RefusalBody = Callable[[Refusal, Request, Response], bytes]
"""Words what is refused, and may name the answer."""
_EAGERLY = sys.version_info >= (3, 12)
"""Whether a task can take its first steps as it is made."""
_NOBODYS = httptools.HttpRequestParser(object())


class Host(ServerState):
    """Whose connections they are; `server` has one."""

    handler: Handler
    refusal_body: RefusalBody
    connections: set[Connection]

    @abstractmethod
    def make_room(self, newest: Connection) -> bool:
        """Of too many connections close some besides `newest`; False where each is at work."""


class Connection(RequestReader):
    """One client connection."""

    __slots__ = ("_begun", "_known", "_task", "distrusted", "ends", "lost", "paused", "transport")

    server: Host

    def __init__(self, server: Host) -> None:
        super().__init__(server)
        self.transport: asyncio.Transport | None = None
        self.lost = self.distrusted = False
        self.ends = server.draining
        """It takes no more than one further request, whose answer says so."""
        self.paused: asyncio.Event | None = None
        self._task: asyncio.Task[None] | None = None
        self._begun: Request | None = None
        """Its task may be cancelled before it takes a step, and then lets go of nothing."""
        self._known = HeadCache()

    # -- transport ----------------------------------------------------------------------------------------------------
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=self.server.limits.write_buffer)
        self.server.connections.add(self)
        if self.server.subject is not None:
            self.client = self.server.subject(transport)
        if len(self.server.connections) > self.server.limits.connections and not self.server.make_room(self):
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 -- asyncio's signature
        self.lost = True
        self.server.connections.discard(self)
        if self.paused is not None:
            self.paused.set()
            self.paused = None
        if self._task is not None:
            self._task.cancel()
        for request in (self._request, self._begun, *self._queue):
            if request is not None:
                self.server.let_go(request)
        self._queue.clear()
        self._begun = None
        self._parser = _NOBODYS  # ours knows us: together we would stay until garbage is looked for, which is seldom

    def eof_received(self) -> bool:
        """A client that half-closes waits for no answer: the same as going away."""
        return False

    def pause_writing(self) -> None:
        self.paused = asyncio.Event()
        self.deadline = self.server.now() + self.server.limits.write_seconds

    def resume_writing(self) -> None:
        if self.paused is not None:
            self.paused.set()
            self.paused = None
        self.deadline = FOREVER if self.answering else self.server.now() + self.server.limits.idle_seconds
        if self._task is None and not self._closing and self.transport is not None:
            self._go_on(self.transport)

    def write(self, data: bytes | memoryview) -> None:
        if not self.lost and self.transport is not None:
            self.transport.write(data)

    def pass_on(self, chunk: bytes) -> bool:
        """Write a part of an answer as it came; False, with nothing written, where the client is gone or reads more
        slowly than we write."""
        transport = self.transport
        if self.lost or self.paused is not None or transport is None:
            return False
        transport.write(chunk)
        return True

    def pause_reading(self) -> None:
        """For a stream that has enough for now."""
        if self.transport is not None and not self.lost and self.transport.is_reading():
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        if self.transport is not None and not self.lost and not self.transport.is_reading():
            self.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        if self._refusal is not None or self._closing:
            self._aside(data)
            return
        alone = self._phase == IDLE and self._task is None and not self._queue
        if alone and self._again(data):
            return
        self._parse(data)
        if self._closing:
            return
        if alone:
            one = len(self._queue) == 1 and self._phase == IDLE and self._refusal is None
            self._known.look(data, self._queue[0] if one else None)
        if self._phase != IDLE and self._refusal is None and not self._queue:  # else it is of another request, too
            self._came_partly(len(data))
        if self._queue and self._task is None:
            self._begin(self._queue.popleft(), eagerly=True)
        if self._task is not None and (self._queue or self._refusal) and self.transport is not None:
            self.transport.pause_reading()
        elif self._refusal is not None and not self._busy:
            self._answer_refusal()

    def _again(self, data: bytes) -> bool:
        """Begin the request that came, where it has the head of the one before it, and nothing is to be asked of who
        sends it before its body is taken."""
        server = self.server
        request = self._known.again(data, server.now())
        if request is None or len(request.body) > server.at_once or not server.hold(request, len(request.body)):
            return False
        self._begin(request, eagerly=True)
        return True

    @property
    def answering(self) -> bool:
        """A request is being answered."""
        return self._task is not None

    @property
    def waits(self) -> bool:
        """There is nothing to do for its client: he has not sent a whole head, has been told why it ends, or sends a
        body without a key that is known."""
        transport = self.transport
        if transport is None or self._busy or transport.get_write_buffer_size():
            return False
        return self._closing or self._phase != BODY or not self.server.is_known(self._request)

    @property
    def sender(self) -> str:
        """The workload that a body is of which is still to come; empty where there is none."""
        server = self.server
        if self.transport is None or self._busy or self._closing or self._phase != BODY or server.whose is None:
            return ""
        return server.whose(self._request)

    @property
    def is_not_taken(self) -> bool:
        """All of an answer is made, and its client has not taken it."""
        return self.paused is not None and self._task is None

    @property
    def _busy(self) -> bool:
        """A request is being answered, or waits to be."""
        return self._task is not None or bool(self._queue)

    # -- answers ------------------------------------------------------------------------------------------------------
    def _begin(self, request: Request, *, eagerly: bool = False) -> None:
        """`eagerly`: up to its first wait at once, where Python can. Never for one that follows another: a thousand
        refused ones that came together would be a thousand frames deep."""
        self.deadline = FOREVER
        if eagerly and _EAGERLY:
            task = asyncio.Task(self._run(request), loop=self.server.loop, eager_start=True)
            if not task.done():
                self._task = task
        else:
            self._begun = request
            self._task = self.server.loop.create_task(self._run(request))

    async def _run(self, request: Request) -> None:
        kind = HeadResponse if request.method == b"HEAD" else Response
        response = kind(self, request.keep_alive and not self.ends)
        try:
            await self.server.handler(request, response)
        except asyncio.CancelledError:
            if not self.lost:
                raise
        finally:
            self._task = self._begun = None
            self.server.let_go(request)
            self._after(request, response)

    def _after(self, request: Request, response: Response) -> None:
        transport = self.transport
        if self.lost or transport is None:
            return
        server = self.server
        limits = server.limits
        self.waits_since = now = server.now()
        self.deadline = now + (limits.quiet_seconds if self.ends else limits.idle_seconds)
        if self.paused is not None:  # its client takes the answer more slowly than we wrote it
            self.deadline = now + self._seconds_for(transport)
        if not response.ended:
            transport.abort()
        elif self._request is request:
            self._closing = True  # answered before its body was there to its end
            self._linger(transport)
        elif not response.keep_alive:
            self._closing = True
            self.deadline = now + self._seconds_for(transport)
            transport.close()
        elif self.paused is not None:
            self.pause_reading()  # it takes this answer before it asks for more
        else:
            self._go_on(transport)

    def _go_on(self, transport: asyncio.Transport) -> None:
        """The next request, once its client has taken enough of the answers before."""
        if self._queue:
            self._begin(self._queue.popleft())
        elif self._refusal is not None:
            self._answer_refusal()
        elif not transport.is_reading():
            transport.resume_reading()

    def _seconds_for(self, transport: asyncio.Transport) -> float:
        """How long a client may need for what waits for it: as long as for a body of that size."""
        limits = self.server.limits
        return limits.write_seconds + transport.get_write_buffer_size() / limits.body_bytes_per_second

    def _answer_refusal(self) -> None:
        """Answer, keep nothing more, and close after the client had time to read (an early close would reset it
        away)."""
        refusal, transport = self._refusal, self.transport
        if refusal is None or transport is None or self.lost or self._closing:
            return
        self._closing = True
        self._parts.clear()
        self.server.let_go(self._request)
        lines = b"retry-after: %d\r\n" % refusal.retry_after if refusal.retry_after else b""
        if refusal.status == HTTPStatus.UPGRADE_REQUIRED:
            lines += b"upgrade: HTTP/1.1\r\n"  # it has to say what to go over to
        response = Response(self, keep_alive=False)
        response.send(refusal.status, self.server.refusal_body(refusal, self._request, response), lines)
        self._linger(transport)

    def _linger(self, transport: asyncio.Transport) -> None:
        self._size, self.deadline = 0, FOREVER
        if transport.can_write_eof():
            transport.write_eof()
        if not transport.is_reading():
            transport.resume_reading()
        self.server.loop.call_later(self.server.limits.linger_seconds, transport.abort)

    def _aside(self, data: bytes) -> None:
        if self._tunnel is not None and self._refusal is None:
            if data:
                self._tunnel.feed(data)
        else:
            self._throw_away(len(data))

    def _throw_away(self, size: int) -> None:
        self._size += size
        if self._closing and self._size > self.server.limits.linger_bytes and self.transport is not None:
            self.transport.abort()

    def expire(self) -> None:
        """The deadline of the current phase has passed."""
        transport = self.transport
        if transport is None:
            return
        if self._task is None and self._phase != IDLE and self._refusal is None and not self._closing:
            self._refuse(refusals.LATE)
            self._answer_refusal()
        elif self._task is None or self.paused is not None or is_gone(transport.get_extra_info("socket")):
            transport.abort()
        else:
            self.deadline = FOREVER

    def cut(self) -> None:
        """End it now, whatever it is doing."""
        if self.transport is not None:
            self.transport.abort()

    def begin_drain(self) -> None:
        """No more than one request: its answer will say that the connection ends. Without one, it ends soon."""
        self.ends = True
        if self._task is None and self._phase == IDLE and not self._closing:
            self.deadline = min(self.deadline, self.server.now() + self.server.limits.quiet_seconds)
