"""Counts of the semantic cache by day and workload, added to PostgreSQL periodically.

They serve to weigh savings against costs, not to bill: a worker that is killed loses those of the last seconds.
"""

from __future__ import annotations

from datetime import date

from groundplan.core.clock import Clock
from groundplan.core.money import to_decimal
from groundplan.gateway.write_behind import WriteBehindCounts

Key = tuple[date, str]
Sums = tuple[int, int, int, int, int, int]
"""looked, given, checked, wrong, microseconds, picodollars saved"""
_ADD = """INSERT INTO semantic_day AS s (day, workload, looked, given, checked, wrong, spent_us, saved_usd)
    VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
    ON CONFLICT (day, workload) DO UPDATE SET looked = s.looked + EXCLUDED.looked, given = s.given + EXCLUDED.given,
      checked = s.checked + EXCLUDED.checked, wrong = s.wrong + EXCLUDED.wrong,
      spent_us = s.spent_us + EXCLUDED.spent_us, saved_usd = s.saved_usd + EXCLUDED.saved_usd"""


class SemanticCounts(WriteBehindCounts[Key, Sums]):
    """The counts of one worker."""

    def __init__(self, url: str, clock: Clock) -> None:
        super().__init__("counts of answers by meaning", url, _ADD)
        self._clock = clock

    def add_lookup(self, workload: str, microseconds: int) -> None:
        """Count a look-up and its duration, whatever its result."""
        self._count(workload, (1, 0, 0, 0, microseconds, 0))

    def add_hit(self, workload: str, saved: int) -> None:
        """Count an answer that was given. `saved`: picodollars that it had cost."""
        self._count(workload, (0, 1, 0, 0, 0, saved))

    def add_check(self, workload: str, *, wrong: bool) -> None:
        """Count a match that was compared with a fresh answer."""
        self._count(workload, (0, 0, 1, int(wrong), 0, 0))

    def _count(self, workload: str, more: Sums) -> None:
        self.count((self._clock.now().date(), workload), more)

    def row(self, key: Key, sums: Sums) -> tuple[object, ...]:
        return (*key, *sums[:5], to_decimal(sums[5]))

    def sum(self, one: Sums, other: Sums) -> Sums:
        a, b, c, d, e, f = (x + y for x, y in zip(one, other, strict=True))
        return a, b, c, d, e, f
