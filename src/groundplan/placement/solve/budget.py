"""When a run stops: a count of work that is the same on every machine, and a clock that is not."""

from __future__ import annotations

import time

from groundplan.placement.problem import DEFAULT_WORK, WorkLimit

_KEPT = 0.95
"""of the clock: the rest is for what a step overruns and for handing the answer over"""


class Budget:
    """What is left of a limit. One unit of work is one neighbourhood searched or one dive."""

    def __init__(self, limit: WorkLimit) -> None:
        self.limit = limit
        self.begun = time.monotonic()
        self.done = 0
        unlimited = limit.seconds is None and limit.work is None
        self.work = DEFAULT_WORK if unlimited else limit.work
        self.clocked = False

    def spend(self, units: int = 1) -> None:
        """Count work."""
        self.done += units

    @property
    def elapsed(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self.begun

    @property
    def seconds_left(self) -> float | None:
        """None: no clock."""
        return None if self.limit.seconds is None else self.limit.seconds * _KEPT - self.elapsed

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
        return Budget(WorkLimit(seconds=seconds, work=self.work if self.work is not None else None))
