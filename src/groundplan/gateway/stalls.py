"""How long a worker stood still: stopped, on a machine that stalled, or held up by its own work.

What comes meanwhile lies in sockets, and when it goes on, timers that were due meanwhile ring before any of it is
read. So whoever is waited for is silent only for as long as it could have been heard, and what lies there is read
before its time is taken to be over. What a caller was promised (`until`) is over when it is over.

It measures, and waits. What is held against whom is elsewhere; nothing here is asked by a call for which nothing rang.
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
"""Whoever comes later than this did not run. What is not counted of that, and of the time since the tick before, is
what a worker that is always late still takes for silence."""
READ_SECONDS = 0.002
"""In which a loop reads what lies in its sockets."""
_STOPS = 32
"""Of so many it is remembered when they were: far more than there are in any time that is waited."""


class Resumed(Protocol):
    """What looks at what it has once its worker goes on."""

    def woken(self) -> None: ...


class StallMonitor:
    """Of one loop. Before `start`, and after `stop`, it notices nothing. Times are the loop's, in seconds."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._stops: deque[tuple[float, float]] = deque(maxlen=_STOPS)
        self._expected = math.inf
        self._timer: asyncio.TimerHandle | None = None
        self.tell: WeakSet[Resumed] = WeakSet()

    def start(self) -> None:
        """Notice from now on."""
        self._expected = next_tick(self._loop.time(), TICK_SECONDS)
        self._timer = self._loop.call_at(self._expected, self._tick)

    def stop(self) -> None:
        self._expected = math.inf
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        self._look(self._loop.time())
        self.start()

    def _look(self, now: float) -> None:
        if now - self._expected <= LATE_SECONDS:
            return
        self._stops.append((self._expected, now))
        self._expected = now
        for each in list(self.tell):
            each.woken()

    def stood(self, since: float) -> float:
        """Seconds that it stood still since then."""
        self._look(self._loop.time())
        return sum(end - max(begin, since) for begin, end in self._stops if end > since)

    def left(self, since: float, seconds: float, until: float = math.inf) -> float:
        """How much longer to wait for somebody who has `seconds` since then, and never longer than until then; 0 or
        less: what lies in sockets is to be read, and then its time is over."""
        now = self._loop.time()
        return min(since + seconds + self.stood(since), until) - now


_known: WeakKeyDictionary[asyncio.AbstractEventLoop, StallMonitor] = WeakKeyDictionary()


def stall_monitor_of(loop: asyncio.AbstractEventLoop) -> StallMonitor:
    """The one of this loop."""
    found = _known.get(loop)
    if found is None:
        found = _known[loop] = StallMonitor(loop)
    return found


class Alarm:
    """Calls `ring` once, when somebody was silent for `seconds`, as `StallMonitor.left` says, unless cancelled."""

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
        # whoever it rings for mostly knows it: together they would stay until garbage is looked for
        self._ring = _nothing

    def _due(self, *, was_read: bool = False) -> None:
        left = self._stalls.left(self._since, self._seconds, self._until)
        if left > 0:
            self._handle = self._loop.call_later(left, self._due)
        elif not was_read:
            self._handle = self._loop.call_later(READ_SECONDS, lambda: self._due(was_read=True))
        else:
            self._ring()


def _nothing() -> None:
    """Nobody is waited for."""


class patient:  # noqa: N801 -- used as `asyncio.timeout` is, which is the other kind
    """`async with patient(seconds):` as `asyncio.timeout`, for what somebody else is to say: raises TimeoutError."""

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
