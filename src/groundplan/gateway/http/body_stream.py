"""A request's body that is handed on while it arrives, so that its size costs no memory.

The connection feeds it, one handler reads it. Unread bytes are bounded: a client that sends faster than the handler
reads is held up. Knows no HTTP and does not decide which bodies are streamed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

from groundplan.core.errors import Invalid, TooLarge
from groundplan.gateway.http.bounds import Limits, Refusal
from groundplan.gateway.stalls import patient, stall_monitor_of

HIGH_WATER = 256 << 10
"""Unread bytes above which the client is held up."""
_LOW_WATER = 64 << 10
_MIN_READ = 16 << 10
"""`read` returns at least so many bytes, if they are there, however small the received chunks are."""
_CHUNK_OVERHEAD = 64
"""Bytes of memory that a chunk takes besides its content."""
STREAM_MEMORY = HIGH_WATER + (1 << 20)
"""What each stream counts as: its unread bytes, and the beginning of a form that its handler may keep."""


def body_error(refusal: Refusal) -> Invalid:
    """The error for the reader of a body that does not arrive completely, or in time."""
    kind = TooLarge if refusal.status == 413 else Invalid
    return kind(refusal.message, code=refusal.code, hint=refusal.hint)


class Source(Protocol):
    """The connection that the bytes come from."""

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class BodyStream:
    """The body of one request."""

    __slots__ = (
        "_allows_silence",
        "_chunks",
        "_complete",
        "_failure",
        "_limits",
        "_loop",
        "_paused",
        "_send_continue",
        "_size",
        "_source",
        "_waited_seconds",
        "_waiter",
        "received_bytes",
    )  # fmt: skip

    def __init__(
        self,
        source: Source,
        loop: asyncio.AbstractEventLoop,
        limits: Limits,
        *,
        allows_silence: bool = False,
        send_continue: Callable[[], None] | None = None,
    ) -> None:
        """`allows_silence`: the client may pause, as in a conversation. `send_continue` is called before the first wait
        if no bytes have come."""
        self._allows_silence = allows_silence
        self._send_continue = send_continue
        self._source = source
        self._loop = loop
        self._limits = limits
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._complete = False
        self._paused = False
        self._failure: Invalid | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._waited_seconds = 0.0
        self.received_bytes = 0
        """Bytes received so far."""

    # called by the connection -----------------------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        self._chunks.append(data)
        self._size += len(data) + _CHUNK_OVERHEAD
        self.received_bytes += len(data)
        if self._size > HIGH_WATER and not self._paused:
            self._paused = True
            self._source.pause_reading()
        self._wake()

    def end(self) -> None:
        self._complete = True
        self._wake()

    def fail(self, refusal: Refusal) -> None:
        """Make the reader raise the error for `refusal`: no more bytes will come."""
        self._failure = self._failure or body_error(refusal)
        self._wake()

    # called by the handler --------------------------------------------------------------------------------------------

    async def read(self) -> bytes:
        """The next bytes; empty at the end. Raises `Invalid`."""
        while not self._chunks:
            if self._failure is not None:
                raise self._failure
            if self._complete:
                return b""
            await self._wait_for_data()
        data = self._chunks.popleft()
        self._size -= len(data) + _CHUNK_OVERHEAD
        if len(data) < _MIN_READ and self._chunks:
            data = self._join_small_chunks(data)
        if self._paused and self._size < _LOW_WATER:
            self._paused = False
            self._source.resume_reading()
        return data

    def _join_small_chunks(self, data: bytes) -> bytes:
        """`data` together with the next chunks, up to `_MIN_READ`."""
        pieces, size = [data], len(data)
        while self._chunks and size < _MIN_READ:
            pieces.append(self._chunks.popleft())
            size += len(pieces[-1])
        self._size -= size - len(data) + _CHUNK_OVERHEAD * (len(pieces) - 1)
        return b"".join(pieces)

    async def _wait_for_data(self) -> None:
        """Wait for more bytes, as long as the client keeps up the minimum rate."""
        limits = self._limits
        if self._send_continue is not None and not self.received_bytes:
            self._send_continue()
        self._send_continue = None
        if self._allows_silence:
            self.resume()
            self._waiter = self._loop.create_future()
            await self._waiter
            return
        remaining = limits.body_seconds + self.received_bytes / limits.body_bytes_per_second - self._waited_seconds
        began = self._loop.time()
        self.resume()
        self._waiter = self._loop.create_future()
        try:
            async with patient(remaining):
                await self._waiter
        except TimeoutError:
            self.fail(Refusal(408, "request_timeout", "the body did not arrive in time", "Send it without pauses."))
        finally:
            self._waiter = None
            self._waited_seconds += self._loop.time() - began - stall_monitor_of(self._loop).stalled_seconds(began)

    def resume(self) -> None:
        self._source.resume_reading()
        self._paused = False

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
