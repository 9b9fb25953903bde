"""What matching by meaning did, counted in the worker and added to PostgreSQL now and then, beside the calls.

Counts are for weighing what it saves against what it costs, not for billing: those of the last seconds are lost with a
worker that is killed.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from datetime import date

import psycopg

from groundplan.core.clock import Clock
from groundplan.core.money import to_decimal
from groundplan.gateway.database import insert
from groundplan.gateway.problem import Problem

SECONDS = 2.0
_log = logging.getLogger(__name__)
Key = tuple[date, str]
Row = tuple[int, int, int, int, int, int]
"""looked, given, checked, wrong, microseconds, picodollars saved"""
_NOTHING: Row = (0, 0, 0, 0, 0, 0)
_ADD = """INSERT INTO semantic_day AS s (day, workload, looked, given, checked, wrong, spent_us, saved_usd)
    VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
    ON CONFLICT (day, workload) DO UPDATE SET looked = s.looked + EXCLUDED.looked, given = s.given + EXCLUDED.given,
      checked = s.checked + EXCLUDED.checked, wrong = s.wrong + EXCLUDED.wrong,
      spent_us = s.spent_us + EXCLUDED.spent_us, saved_usd = s.saved_usd + EXCLUDED.saved_usd"""


class Tally:
    """Of one worker."""

    def __init__(self, url: str, clock: Clock) -> None:
        self._url = url
        self._clock = clock
        self._problem = Problem(_log)
        self._waiting: dict[Key, Row] = {}

    def looked(self, workload: str, microseconds: int) -> None:
        """One look-up that took so long, whatever came of it."""
        self._add(workload, (1, 0, 0, 0, microseconds, 0))

    def given(self, workload: str, saved: int) -> None:
        """What a look-up found was given; it had cost so many picodollars."""
        self._add(workload, (0, 1, 0, 0, 0, saved))

    def checked(self, workload: str, *, wrong: bool) -> None:
        """A match was compared with a fresh answer."""
        self._add(workload, (0, 0, 1, wrong, 0, 0))

    def _add(self, workload: str, row: Row) -> None:
        key = self._clock.now().date(), workload
        self._waiting[key] = _sum(self._waiting.get(key, _NOTHING), row)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(SECONDS)
            await self.flush()

    async def flush(self) -> None:
        """Add what waits; what cannot be added waits on."""
        if not self._waiting:
            return
        taken, self._waiting = self._waiting, {}
        rows = [(*key, *row[:5], to_decimal(row[5])) for key, row in sorted(taken.items())]
        try:
            await insert(self._url, _ADD, rows)
        except (psycopg.Error, OSError, TimeoutError) as error:
            self._problem.tell("counts of answers by meaning wait for PostgreSQL: %s", error.__class__.__name__)
            for key, row in taken.items():
                self._waiting[key] = _sum(self._waiting.get(key, _NOTHING), row)
            return
        self._problem.over()

    async def close(self) -> None:
        with suppress(asyncio.CancelledError):
            await self.flush()


def _sum(one: Row, other: Row) -> Row:
    a, b, c, d, e, f = (x + y for x, y in zip(one, other, strict=True))
    return a, b, c, d, e, f
