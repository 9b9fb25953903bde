"""Stalls of a worker: times in which it did not run, because it or its machine was stopped, or long work blocked it.

Data that arrives during a stall waits in sockets, and afterwards the timers that are due fire before any of it is read.
So a timeout for a peer does not count stalls, and sockets are read once more before it expires. Deadlines promised to
a client (`until`) are not extended.

Measures and waits only; does not judge who is at fault. A call whose timers never fire uses nothing of it.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Protocol
from weakref import WeakKeyDictionary, WeakSet

from groundplan.gateway.ticks import next_tick

TICK_SECONDS = 0.1
LATE_SECONDS = 0.1
"""A tick later than this is a stall. Shorter delays, and the time since the tick before, count as silence of a peer."""
READ_SECONDS = 0.002
"""Time in which a loop reads what waits in its sockets."""
_MAX_STALLS = 32
"""Stalls that are remembered: far more than occur within any timeout."""


class StallObserver(Protocol):
    """Is called when its worker runs again after a stall."""

    def on_resumed(self) -> None: ...


class StallMonitor:
    """Detects the stalls of one event loop, between `start` and `stop`. Times are the loop's, in seconds."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._stalls: deque[tuple[float, float]] = deque(maxlen=_MAX_STALLS)
        self._expected = math.inf
        self._timer: asyncio.TimerHandle | None = None
        self.observers: WeakSet[StallObserver] = WeakSet()

    def start(self) -> None:
        """Detect stalls from now on."""
        self._expected = next_tick(self._loop.time(), TICK_SECONDS)
        self._timer = self._loop.call_at(self._expected, self._tick)

    def stop(self) -> None:
        self._expected = math.inf
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        self._detect(self._loop.time())
        self.start()

    def _detect(self, now: float) -> None:
        if now - self._expected <= LATE_SECONDS:
            return
        self._stalls.append((self._expected, now))
        self._expected = now
        for each in list(self.observers):
            each.on_resumed()

    def stalled_seconds(self, since: float) -> float:
        """Seconds of stalls after `since`."""
        self._detect(self._loop.time())
        return sum(end - max(begin, since) for begin, end in self._stalls if end > since)

    def remaining(self, since: float, seconds: float, until: float = math.inf) -> float:
        """How much longer to wait for a peer that has `seconds` after `since`, extended by stalls but not beyond
        `until`; 0 or less: read what waits in sockets, then its time is over."""
        now = self._loop.time()
        return min(since + seconds + self.stalled_seconds(since), until) - now


_monitors: WeakKeyDictionary[asyncio.AbstractEventLoop, StallMonitor] = WeakKeyDictionary()


def stall_monitor_of(loop: asyncio.AbstractEventLoop) -> StallMonitor:
    """The monitor of this loop."""
    found = _monitors.get(loop)
    if found is None:
        found = _monitors[loop] = StallMonitor(loop)
    return found


class Alarm:
    """A timer that calls `ring` once after `seconds` without counting stalls (`StallMonitor.remaining`), unless
    cancelled."""

    __slots__ = ("_handle", "_loop", "_ring", "_seconds", "_since", "_stalls", "_until")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, seconds: float, ring: Callable[[], object], until: float = math.inf
    ) -> None:
        self._loop, self._stalls = loop, stall_monitor_of(loop)
        self._since, self._seconds, self._until = loop.time(), seconds, until
        self._ring = ring
        self._handle = loop.call_later(max(0.0, min(seconds, until - self._since)), self._due)

    def cancel(self) -> None:
        self._handle.cancel()
        # breaks the cycle with the owner of `ring`, which would otherwise stay until a garbage collection
        self._ring = _do_nothing

    def _due(self, *, was_read: bool = False) -> None:
        left = self._stalls.remaining(self._since, self._seconds, self._until)
        if left > 0:
            self._handle = self._loop.call_later(left, self._due)
        elif not was_read:
            self._handle = self._loop.call_later(READ_SECONDS, lambda: self._due(was_read=True))
        else:
            self._ring()


def _do_nothing() -> None:
    """The callback of a cancelled alarm."""


class patient:  # noqa: N801 -- used like `asyncio.timeout`
    """`async with patient(seconds):` like `asyncio.timeout`, but without counting stalls: for waiting on a peer. Raises
    TimeoutError."""

    __slots__ = ("_alarm", "_seconds", "_timeout", "_until")

    def __init__(self, seconds: float, until: float = math.inf) -> None:
        self._seconds, self._until = seconds, until
        self._timeout = asyncio.timeout(None)

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()
        self._alarm = Alarm(asyncio.get_running_loop(), self._seconds, self._over, self._until)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._alarm.cancel()
        await self._timeout.__aexit__(kind, error, trace)

    def _over(self) -> None:
        self._timeout.reschedule(asyncio.get_running_loop().time())
