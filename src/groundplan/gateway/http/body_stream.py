"""A request's body that is handed on while it arrives, so that its size costs no memory.

The protocol feeds it, one handler reads it. What is not read yet is bounded: a client that sends faster than the
handler reads is held up. Knows no HTTP and does not decide which bodies are read like this.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

from groundplan.core.errors import Invalid, TooLarge
from groundplan.gateway.http.bounds import Limits, Refusal
from groundplan.gateway.stalls import patient, stall_monitor_of

HIGH = 256 << 10
"""Bytes that wait for the handler, above which the client is held up."""
_LOW = 64 << 10
_PIECE = 16 << 10
"""Bytes of which at least so many are read at once, where they are here, however small the pieces are that came."""
_EACH = 64
"""Bytes that a piece takes beside its own."""
HELD = HIGH + (1 << 20)
"""What counts as held for each: what waits, and the beginning of a form that its handler may keep."""


def broken(refusal: Refusal) -> Invalid:
    """What whoever reads is told of a body that does not arrive whole, or not in time."""
    kind = TooLarge if refusal.status == 413 else Invalid
    return kind(refusal.message, code=refusal.code, hint=refusal.hint)


class Source(Protocol):
    """Where the bytes come from."""

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class BodyStream:
    """See the module."""

    __slots__ = ("_ask", "_chunks", "_complete", "_failure", "_limits", "_loop", "_patient", "_paused", "_size",
                 "_source", "_waited", "_waiter", "received")  # fmt: skip

    def __init__(
        self,
        source: Source,
        loop: asyncio.AbstractEventLoop,
        limits: Limits,
        *,
        patient: bool = False,
        ask: Callable[[], None] | None = None,
    ) -> None:
        """`patient`: silence is no failure, as in a conversation. `ask`: is called before anything is waited for, where
        nothing came."""
        self._patient = patient
        self._ask = ask
        self._source = source
        self._loop = loop
        self._limits = limits
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._complete = False
        self._paused = False
        self._failure: Invalid | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._waited = 0.0
        self.received = 0
        """Bytes so far."""

    # the protocol's side ---------------------------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        self._chunks.append(data)
        self._size += len(data) + _EACH
        self.received += len(data)
        if self._size > HIGH and not self._paused:
            self._paused = True
            self._source.pause_reading()
        self._wake()

    def end(self) -> None:
        self._complete = True
        self._wake()

    def fail(self, refusal: Refusal) -> None:
        """What comes no more is told to whoever reads."""
        self._failure = self._failure or broken(refusal)
        self._wake()

    # the handler's side ----------------------------------------------------------------------------------------------

    async def read(self) -> bytes:
        """The next bytes; empty at the end. Raises `Invalid`."""
        while not self._chunks:
            if self._failure is not None:
                raise self._failure
            if self._complete:
                return b""
            await self._arrival()
        data = self._chunks.popleft()
        self._size -= len(data) + _EACH
        if len(data) < _PIECE and self._chunks:
            data = self._more(data)
        if self._paused and self._size < _LOW:
            self._paused = False
            self._source.resume_reading()
        return data

    def _more(self, data: bytes) -> bytes:
        """With the next ones."""
        pieces, size = [data], len(data)
        while self._chunks and size < _PIECE:
            pieces.append(self._chunks.popleft())
            size += len(pieces[-1])
        self._size -= size - len(data) + _EACH * (len(pieces) - 1)
        return b"".join(pieces)

    async def _arrival(self) -> None:
        """Wait for more, as long as the client keeps up the least rate."""
        limits = self._limits
        if self._ask is not None and not self.received:
            self._ask()
        self._ask = None
        if self._patient:
            self.resume()
            self._waiter = self._loop.create_future()
            await self._waiter
            return
        left = limits.body_seconds + self.received / limits.body_bytes_per_second - self._waited
        began = self._loop.time()
        self.resume()
        self._waiter = self._loop.create_future()
        try:
            async with patient(left):
                await self._waiter
        except TimeoutError:
            self.fail(Refusal(408, "request_timeout", "the body did not arrive in time", "Send it without pauses."))
        finally:
            self._waiter = None
            self._waited += self._loop.time() - began - stall_monitor_of(self._loop).stood(began)

    def resume(self) -> None:
        self._source.resume_reading()
        self._paused = False

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
