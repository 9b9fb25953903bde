"""The clock by which windows of limits begin and end: PostgreSQL's, which replicas that share a limit have in common.

By their own clocks, a replica that is a minute behind would always find each minute used up by the others. A worker
learns only how far its clock is off; its own clock goes on without PostgreSQL. Does no I/O. Budgets, keys and all else
go by the worker's clock.
"""

from __future__ import annotations

from groundplan.core.clock import CATCH_UP_RATE

MAX_BEHIND_S = 600.0
"""Where PostgreSQL's clock is further behind, the worker's is not corrected: PostgreSQL's may be the wrong one."""
MAX_AHEAD_S = 86_400.0
"""The same where it is further ahead. Up to then it is followed: PostgreSQL lends nothing of windows that ended half an
hour ago by its clock, so a worker on another clock would be refused every window."""


class WindowClock:
    """The window clock of one worker."""

    __slots__ = ("_learned_at", "seconds_ahead")

    def __init__(self) -> None:
        self.seconds_ahead = 0.0
        """Seconds that PostgreSQL's clock is ahead of ours; negative: behind."""
        self._learned_at: float | None = None

    def learn(self, database_time: float, asked_at: float, answered_at: float) -> None:
        """Learn that PostgreSQL's clock was at `database_time` between `asked_at` and `answered_at` by ours, all in
        seconds since the epoch.

        The known offset stays while it may be right. Otherwise windows go a little slower, and so never back, or at
        most twice as fast, so that a clock which is wrong for a moment moves them little. The first offset is taken as
        it is, since nothing was taken of any window before.
        """
        wanted = min(max(self.seconds_ahead, database_time - answered_at), database_time - asked_at)
        if not -MAX_BEHIND_S <= wanted <= MAX_AHEAD_S:
            wanted = 0.0
        if self._learned_at is not None:
            passed = max(0.0, answered_at - self._learned_at)
            wanted = min(max(wanted, self.seconds_ahead - passed * (1 - CATCH_UP_RATE)), self.seconds_ahead + passed)
        self.seconds_ahead, self._learned_at = wanted, answered_at
