"""Counts what guardrails found, in the worker, and adds it to PostgreSQL periodically, besides the calls.

Counts are for information, not for billing: those of the last seconds are lost with a worker that is killed.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from uuid import UUID

from groundplan.core.clock import Clock
from groundplan.gateway.write_behind import WriteBehindCounts

MAX_REMEMBERED_CALLS = 10_000
"""Calls whose counted findings are remembered: a call may go on for minutes."""
Key = tuple[date, str, str, str, str, bool]
Sums = tuple[int, int, UUID]
"""(calls, findings, id of the newest of these calls)"""
_ADD = """INSERT INTO guard_count AS g (day, workload, place, name, done, shadow, calls, finds, last_call, last_at)
    VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, now())
    ON CONFLICT (day, workload, place, name, done, shadow) DO UPDATE SET calls = g.calls + EXCLUDED.calls,
      finds = g.finds + EXCLUDED.finds, last_call = EXCLUDED.last_call, last_at = EXCLUDED.last_at"""


class GuardCounts(WriteBehindCounts[Key, Sums]):
    """The counts of one worker."""

    def __init__(self, url: str, clock: Clock) -> None:
        super().__init__("counts of what guardrails found", url, _ADD)
        self._clock = clock
        self._counted: dict[UUID, dict[tuple[str, str, str], int]] = {}

    def add(self, call: UUID, workload: str, counted: Mapping[tuple[str, str, str], int], *, shadow: bool) -> None:
        """Record all findings of a call so far; of repeated reports only what is new is added."""
        before = self._counted.pop(call, {})
        self._counted[call] = dict(counted)
        if len(self._counted) > MAX_REMEMBERED_CALLS:
            del self._counted[next(iter(self._counted))]
        day = self._clock.now().date()
        for (place, name, done), finds in counted.items():
            more = finds - before.get((place, name, done), 0)
            if more > 0:
                first = (place, name, done) not in before
                self.count((day, workload, place, name, done, shadow), (int(first), more, call))

    def sum(self, one: Sums, other: Sums) -> Sums:
        return one[0] + other[0], one[1] + other[1], other[2]
