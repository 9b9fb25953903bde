"""When a run of the solver stops: by a count of work, the same on every machine, or by a clock, which is not."""

from __future__ import annotations

import time

from groundplan.placement.problem import DEFAULT_WORK, WorkLimit

_USABLE_FRACTION = 0.95
"""of the seconds of a limit: the rest is for steps that overrun and for returning the answer"""
_WALL_PER_CPU_SECOND = (0.3, 30.0)
"""least and most wall seconds per CPU second: with all threads at work, and under much other load"""


class WorkBudget:
    """The remainder of a limit. One unit of work is one neighbourhood searched or one dive."""

    def __init__(self, limit: WorkLimit) -> None:
        self.limit = limit
        self._now = time.process_time if limit.use_cpu_time else time.monotonic
        self.started_at = self._now()
        self._wall_started_at = time.monotonic()
        self.work_done = 0
        unlimited = limit.seconds is None and limit.work is None
        self.max_work = DEFAULT_WORK if unlimited else limit.work
        self.stopped_by_clock = False

    def record_work(self, units: int = 1) -> None:
        """Count work."""
        self.work_done += units

    @property
    def elapsed_seconds(self) -> float:
        """Seconds since the run began: wall time, or CPU time if the limit says so."""
        return self._now() - self.started_at

    @property
    def seconds_left(self) -> float | None:
        """Seconds left, of wall or CPU time as the limit says; None: no clock."""
        return None if self.limit.seconds is None else self.limit.seconds * _USABLE_FRACTION - self.elapsed_seconds

    @property
    def wall_seconds_left(self) -> float | None:
        """Seconds of wall time left, for libraries that count only these; None: no clock."""
        left = self.seconds_left
        if left is None or not self.limit.use_cpu_time:
            return left
        ratio = (time.monotonic() - self._wall_started_at) / max(self.elapsed_seconds, 0.05)
        return left * min(max(ratio, _WALL_PER_CPU_SECOND[0]), _WALL_PER_CPU_SECOND[1])

    def is_exhausted(self, reserve: float = 0.0) -> bool:
        """Whether no further step may begin; `reserve` seconds are kept for later steps."""
        if self.max_work is not None and self.work_done >= self.max_work:
            return True
        left = self.seconds_left
        if left is not None and left <= reserve:
            self.stopped_by_clock = True
            return True
        return False

    def step_budget(self, fraction: float) -> WorkBudget:
        """A budget for one step that may take this fraction of the time left; its work is counted here, not there."""
        left = self.seconds_left
        seconds = None if left is None else max(0.05, left * fraction)
        return WorkBudget(WorkLimit(seconds=seconds, work=self.max_work, use_cpu_time=self.limit.use_cpu_time))
