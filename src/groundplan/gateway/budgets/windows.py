"""By which time the windows of limits begin and end: PostgreSQL's, which replicas that share a limit have in common.

By clocks of their own one that is a minute behind would find each minute used up by the others, for good. What is
learned is only how far a worker's clock is apart; its own one goes on without PostgreSQL. Asks nobody. Budgets, keys
and all else go by the worker's clock.
"""

from __future__ import annotations

from groundplan.core.clock import PACE

BEHIND_S = 600.0
"""Where PostgreSQL's clock is further behind, a worker's is left as it is: the other may be the one that is wrong."""
AHEAD_S = 86_400.0
"""The same where it is further ahead. Until then it is followed: of windows that are over by it for half an hour it
lends nothing, so whoever went by another clock would be refused all of them."""


class Windows:
    """Of one worker."""

    __slots__ = ("_learned", "ahead")

    def __init__(self) -> None:
        self.ahead = 0.0
        """Seconds that PostgreSQL's clock is ahead of ours; less than 0: behind it."""
        self._learned: float | None = None

    def learn(self, told: float, asked: float, heard: float) -> None:
        """PostgreSQL's clock was at `told` between `asked` and `heard` by ours, all in seconds since the epoch.

        What is known holds while it may be right. Else windows go a little slower, and so never back, or at most as
        fast again, so that a clock which is wrong for a moment moves them little. At first nothing was taken of any.
        """
        wanted = min(max(self.ahead, told - heard), told - asked)
        if not -BEHIND_S <= wanted <= AHEAD_S:
            wanted = 0.0
        if self._learned is not None:
            passed = max(0.0, heard - self._learned)
            wanted = min(max(wanted, self.ahead - passed * (1 - PACE)), self.ahead + passed)
        self.ahead, self._learned = wanted, heard
