"""One client's HTTP/1.1 connection: `request_reader` reads its requests, and they are answered one after another.

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
from groundplan.gateway.keepalive import is_peer_gone

Handler = Callable[[Request, Response], Awaitable[None]]
RefusalFormatter = Callable[[Refusal, Request, Response], bytes]
"""Returns the body for a refusal, and may set the response's request id."""
_EAGER_TASKS = sys.version_info >= (3, 12)
"""Whether a task can run its first steps while it is created."""
_DETACHED_PARSER = httptools.HttpRequestParser(object())


class ConnectionOwner(ServerState):
    """What a connection needs of the server it belongs to; implemented by `server`."""

    handler: Handler
    refusal_body: RefusalFormatter
    connections: set[Connection]

    @abstractmethod
    def evict_idle(self, newest: Connection) -> bool:
        """Close some evictable connections other than `newest`; False if each of them is at work."""


class Connection(RequestReader):
    """One client connection."""

    __slots__ = (
        "_head_cache",
        "_starting_request",
        "_task",
        "_watched_descriptor",
        "client_ca_changed",
        "is_draining",
        "lost",
        "paused",
        "transport",
    )

    server: ConnectionOwner

    def __init__(self, server: ConnectionOwner) -> None:
        super().__init__(server)
        self.transport: asyncio.Transport | None = None
        self.lost = self.client_ca_changed = False
        self.is_draining = server.draining
        """It accepts at most one further request, whose answer closes the connection."""
        self.paused: asyncio.Event | None = None
        self._task: asyncio.Task[None] | None = None
        self._starting_request: Request | None = None
        """The request whose task has not taken a step yet: if the task is cancelled before, it does not release the
        body."""
        self._head_cache = HeadCache()
        self._watched_descriptor = -1
        """Descriptor of its socket while a client that disconnects is to be reported; else -1."""

    # -- transport ----------------------------------------------------------------------------------------------------
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=self.server.limits.write_buffer_bytes)
        self.server.connections.add(self)
        if self.server.draining:
            self.begin_drain()  # draining began during its TLS handshake
        if self.server.read_client_subject is not None:
            subject = self.server.read_client_subject(transport)
            if subject is None:
                self._closing = True
                self.transport.abort()
                return
            self.client_subject = subject
        if len(self.server.connections) > self.server.limits.connections and not self.server.evict_idle(self):
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 -- asyncio's signature
        self.lost = True
        self.server.connections.discard(self)
        self._unwatch()
        if self.paused is not None:
            self.paused.set()
            self.paused = None
        if self._task is not None:
            self._task.cancel()
        for request in (self._request, self._starting_request, *self._queue):
            if request is not None:
                self.server.release_body(request)
        self._queue.clear()
        self._starting_request = None
        # the parser refers to this connection: the cycle would stay until a garbage collection, which is rare
        self._parser = _DETACHED_PARSER

    def eof_received(self) -> bool:
        """A client that half-closes does not wait for an answer: treat it as closed."""
        return False

    def pause_writing(self) -> None:
        self.paused = asyncio.Event()
        self.deadline = self.server.now() + self.server.limits.write_seconds

    def resume_writing(self) -> None:
        if self.paused is not None:
            self.paused.set()
            self.paused = None
        self.deadline = FOREVER if self.is_answering else self.server.now() + self.server.limits.idle_seconds
        if self._task is None and not self._closing and self.transport is not None:
            self._start_next(self.transport)

    def write(self, data: bytes | memoryview) -> None:
        if not self.lost and self.transport is not None:
            self.transport.write(data)

    def try_write(self, chunk: bytes) -> bool:
        """Write a part of an answer; False, with nothing written, if the client is gone or reads more slowly than the
        server writes."""
        transport = self.transport
        if self.lost or self.paused is not None or transport is None:
            return False
        transport.write(chunk)
        return True

    def pause_reading(self) -> None:
        """Stop reading: a body stream has enough for now, or a pipelined request has to wait."""
        if self.transport is not None and not self.lost and self.transport.is_reading():
            self.transport.pause_reading()
            self._watch()

    def resume_reading(self) -> None:
        if self.transport is not None and not self.lost and not self.transport.is_reading():
            self._unwatch()
            self.transport.resume_reading()

    def _watch(self) -> None:
        """While a request is answered and nothing is read, have a client that disconnects reported."""
        if self._task is not None and self._watched_descriptor < 0 and self.transport is not None:
            sock = self.transport.get_extra_info("socket")
            self._watched_descriptor = -1 if sock is None else sock.fileno()
            self.server.disconnects.watch(self, self._watched_descriptor)

    def _unwatch(self) -> None:
        if self._watched_descriptor >= 0:
            self.server.disconnects.unwatch(self, self._watched_descriptor)
            self._watched_descriptor = -1

    def on_disconnected(self) -> None:
        """As `eof_received`, while nothing is read. An answer that is complete may still be read."""
        self._watched_descriptor = -1
        if self._task is not None:
            self.abort()

    def data_received(self, data: bytes) -> None:
        if self._refusal is not None or self._closing:
            self._receive_other(data)
            return
        alone = self._phase == IDLE and self._task is None and not self._queue
        if alone and self._start_from_cached_head(data):
            return
        self._parse(data)
        if self._closing:
            return
        if alone:
            is_single = len(self._queue) == 1 and self._phase == IDLE and self._refusal is None
            self._head_cache.remember(data, self._queue[0] if is_single else None)
        # otherwise the bytes are also of another request
        if self._phase != IDLE and self._refusal is None and not self._queue:
            self._check_partial_request(len(data))
        if self._queue and self._task is None:
            self._start_request(self._queue.popleft(), eagerly=True)
        if self._task is not None and (self._queue or self._refusal) and self.transport is not None:
            self.pause_reading()
        elif self._refusal is not None and not self._is_busy:
            self._answer_refusal()

    def _start_from_cached_head(self, data: bytes) -> bool:
        """Start the request in `data` if its head is the cached one, and its body is small enough to be taken without
        further checks."""
        server = self.server
        request = self._head_cache.match(data, server.now())
        if (
            request is None
            or len(request.body) > server.unchecked_body_bytes
            or not server.reserve_body(request, len(request.body))
        ):
            return False
        self._start_request(request, eagerly=True)
        return True

    @property
    def is_answering(self) -> bool:
        """Whether a request is being answered."""
        return self._task is not None

    @property
    def is_evictable(self) -> bool:
        """Whether the connection may be closed to make room: its client has not sent a complete head, has been told why
        the connection ends, or is sending a body without a known key."""
        transport = self.transport
        if transport is None or self._is_busy or transport.get_write_buffer_size():
            return False
        return self._closing or self._phase != BODY or not self.server.is_known_caller(self._request)

    @property
    def pending_body_workload(self) -> str:
        """The workload whose request body this connection is still receiving; empty if it is receiving none."""
        server = self.server
        if (
            self.transport is None
            or self._is_busy
            or self._closing
            or self._phase != BODY
            or server.workload_name is None
        ):
            return ""
        return server.workload_name(self._request)

    @property
    def has_unread_answer(self) -> bool:
        """Whether an answer is complete and its client has not read all of it, however little is left."""
        transport = self.transport
        return self._task is None and transport is not None and transport.get_write_buffer_size() > 0

    @property
    def _is_busy(self) -> bool:
        """Whether a request is being answered or waits to be."""
        return self._task is not None or bool(self._queue)

    # -- answers ------------------------------------------------------------------------------------------------------
    def _start_request(self, request: Request, *, eagerly: bool = False) -> None:
        """Start answering a request. `eagerly`: run it up to its first wait at once, where Python can; never for a
        request that follows another one: a thousand refused ones that came together would be a thousand frames deep."""
        self.deadline = FOREVER
        if eagerly and _EAGER_TASKS:
            task = asyncio.Task(self._run(request), loop=self.server.loop, eager_start=True)
            if not task.done():
                self._task = task
        else:
            self._starting_request = request
            self._task = self.server.loop.create_task(self._run(request))

    async def _run(self, request: Request) -> None:
        kind = HeadResponse if request.method == b"HEAD" else Response
        response = kind(self, request.keep_alive and not self.is_draining)
        try:
            await self.server.handler(request, response)
        except asyncio.CancelledError:
            if not self.lost:
                raise
        finally:
            self._task = self._starting_request = None
            self.server.release_body(request)
            self._finish_request(request, response)

    def _finish_request(self, request: Request, response: Response) -> None:
        transport = self.transport
        if self.lost or transport is None:
            return
        server = self.server
        limits = server.limits
        self.waiting_since = now = server.now()
        self.deadline = now + (limits.drain_idle_seconds if self.is_draining else limits.idle_seconds)
        if self.paused is not None:  # the client reads the answer more slowly than it was written
            self.deadline = now + self._flush_seconds(transport)
        if not response.ended:
            transport.abort()
        elif self._request is request:
            self._closing = True  # answered before the body was complete
            self._linger(transport)
        elif not response.keep_alive:
            self._closing = True
            self.deadline = now + self._flush_seconds(transport)
            transport.close()
        elif self.paused is not None:
            self.pause_reading()  # the client has to read this answer before it sends another request
        else:
            self._start_next(transport)

    def _start_next(self, transport: asyncio.Transport) -> None:
        """Start the next request, once the client has read enough of the previous answers."""
        if self._queue:
            self._start_request(self._queue.popleft())
            if not transport.is_reading():
                self._watch()  # its client may have disconnected meanwhile
        elif self._refusal is not None:
            self._answer_refusal()
        else:
            if self._phase != IDLE:
                self._await_rest()
            self.resume_reading()

    def _flush_seconds(self, transport: asyncio.Transport) -> float:
        """How long a client may take to read the bytes that wait for it: as long as for a request body of that size."""
        limits = self.server.limits
        return limits.write_seconds + transport.get_write_buffer_size() / limits.body_bytes_per_second

    def _answer_refusal(self) -> None:
        """Send the refusal, keep nothing more, and close once the client had time to read it (an early close would
        reset the connection and lose it)."""
        refusal, transport = self._refusal, self.transport
        if refusal is None or transport is None or self.lost or self._closing:
            return
        self._closing = True
        self._parts.clear()
        self.server.release_body(self._request)
        lines = b"retry-after: %d\r\n" % refusal.retry_after if refusal.retry_after else b""
        if refusal.status == HTTPStatus.UPGRADE_REQUIRED:
            lines += b"upgrade: HTTP/1.1\r\n"  # required with this status
        response = Response(self, keep_alive=False)
        response.send(refusal.status, self.server.refusal_body(refusal, self._request, response), lines)
        self._linger(transport)

    def _linger(self, transport: asyncio.Transport) -> None:
        self._size, self.deadline = 0, FOREVER
        if transport.can_write_eof():
            transport.write_eof()
        self.resume_reading()
        self.server.loop.call_later(self.server.limits.linger_seconds, transport.abort)

    def _receive_other(self, data: bytes) -> None:
        if self._tunnel is not None and self._refusal is None:
            if data:
                self._tunnel.feed(data)
        else:
            self._discard(len(data))

    def _discard(self, size: int) -> None:
        self._size += size
        if self._closing and self._size > self.server.limits.linger_bytes and self.transport is not None:
            self.transport.abort()

    def expire(self) -> None:
        """End the connection, or give it more time, when its current deadline has passed."""
        transport = self.transport
        if transport is None:
            return
        if self._task is None and self._phase != IDLE and self._refusal is None and not self._closing:
            self._refuse(refusals.TIMEOUT)
            self._answer_refusal()
        elif self._task is None or self.paused is not None or is_peer_gone(transport.get_extra_info("socket")):
            transport.abort()
        else:
            self.deadline = FOREVER

    def abort(self) -> None:
        """Close the connection now, whatever it is doing."""
        if self.transport is not None:
            self.transport.abort()

    def begin_drain(self) -> None:
        """Accept at most one more request, whose answer closes the connection. Without one, the connection ends
        soon."""
        self.is_draining = True
        if self._task is None and self._phase == IDLE and not self._closing:
            self.deadline = min(self.deadline, self.server.now() + self.server.limits.drain_idle_seconds)
