"""When a run of the solver stops: a count of work that is the same on every machine, and a clock that is not."""

from __future__ import annotations

import time

from groundplan.placement.problem import DEFAULT_WORK, WorkLimit

_KEPT = 0.95
"""of the clock: the rest is for what a step overruns and for handing the answer over"""
_SLOWEST = (0.3, 30.0)
"""seconds of the clock for one of computing, between all threads at work and much other load"""


class Budget:
    """What is left of a limit. One unit of work is one neighbourhood searched or one dive."""

    def __init__(self, limit: WorkLimit) -> None:
        self.limit = limit
        self._now = time.process_time if limit.use_cpu_time else time.monotonic
        self.begun = self._now()
        self._clock_begun = time.monotonic()
        self.done = 0
        unlimited = limit.seconds is None and limit.work is None
        self.work = DEFAULT_WORK if unlimited else limit.work
        self.clocked = False

    def spend(self, units: int = 1) -> None:
        """Count work."""
        self.done += units

    @property
    def elapsed(self) -> float:
        """Seconds since the run began, of the clock or of computing as the limit says."""
        return self._now() - self.begun

    @property
    def seconds_left(self) -> float | None:
        """None: no clock."""
        return None if self.limit.seconds is None else self.limit.seconds * _KEPT - self.elapsed

    @property
    def clock_left(self) -> float | None:
        """What is left in seconds of the clock, which is what libraries understand; None: no clock."""
        left = self.seconds_left
        if left is None or not self.limit.use_cpu_time:
            return left
        ratio = (time.monotonic() - self._clock_begun) / max(self.elapsed, 0.05)
        return left * min(max(ratio, _SLOWEST[0]), _SLOWEST[1])

    def over(self, reserve: float = 0.0) -> bool:
        """Nothing more may be begun; `reserve` seconds are kept for what comes after."""
        if self.work is not None and self.done >= self.work:
            return True
        left = self.seconds_left
        if left is not None and left <= reserve:
            self.clocked = True
            return True
        return False

    def share(self, fraction: float) -> Budget:
        """A clock for a step that may take this much of what is left; the work is counted here."""
        left = self.seconds_left
        seconds = None if left is None else max(0.05, left * fraction)
        return Budget(WorkLimit(seconds=seconds, work=self.work, use_cpu_time=self.limit.use_cpu_time))
