"""Stores the results of checks of the semantic cache by region in PostgreSQL, and reads those of all workers.

So all workers share what one has learned, also after a restart. No call waits for it: while PostgreSQL is unavailable,
new results are kept here and those of others are not known. Of a question only the signs of its vector are stored.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, Any

import psycopg

from groundplan.gateway.database import connect
from groundplan.gateway.failure_log import FailureLog

if TYPE_CHECKING:
    from groundplan.economics.semantic.regions import Learned

SECONDS = 10.0
DAYS = 180
"""A region without a check for so many days is forgotten."""
_log = logging.getLogger(__name__)
Terms = tuple[str, str]
"""workload; the settings under which its matches were found"""
Key = tuple[str, str, bytes]
Row = tuple[int, int, float]
"""checked, wrong, raised score"""
_NO_CHECKS: Row = (0, 0, -inf)
_IS_CURRENT = f"s.at > now() - interval '{DAYS} days'"
_ADD = f"""INSERT INTO semantic_region AS s (workload, terms, first, checked, wrong, raised)
    VALUES (%s, %s, %s, %s, %s, %s)
    ON CONFLICT (workload, terms, first) DO UPDATE SET
      checked = CASE WHEN {_IS_CURRENT} THEN s.checked ELSE 0 END + EXCLUDED.checked,
      wrong = CASE WHEN {_IS_CURRENT} THEN s.wrong ELSE 0 END + EXCLUDED.wrong,
      raised = CASE WHEN {_IS_CURRENT} THEN greatest(s.raised, EXCLUDED.raised) ELSE EXCLUDED.raised END, at = now()"""
"""A forgotten region starts from zero."""
_READ = """SELECT workload, terms, first, checked, wrong, raised FROM semantic_region
    WHERE at > now() - make_interval(days => %s) ORDER BY workload, terms, checked DESC, first"""


class CheckStore:
    """The exchange of results of checks of one worker with PostgreSQL."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._failure_log = FailureLog(_log)
        self._unsent: dict[Key, Row] = {}
        self._stored: dict[Key, Row] = {}
        self.version = 0
        """Increased whenever rows read from PostgreSQL differ from those known."""
        self._is_needed = False
        """Whether a workload has asked for results; before that nothing is read."""

    def add(self, terms: Terms, first: bytes, *, wrong: bool, raised: float) -> None:
        """Record that a match of a region or kind was compared with a fresh answer."""
        key = (*terms, first)
        self._unsent[key] = _sum(self._unsent.get(key, _NO_CHECKS), (1, int(wrong), raised))

    def learned(self, terms: Terms) -> list[Learned]:
        """Results of all workers, with those not yet sent; the most checked regions first."""
        from groundplan.economics.semantic.regions import Learned  # noqa: PLC0415 -- numpy, only where it is used

        self._is_needed = True
        keys = [key for key in {**self._stored, **self._unsent} if key[:2] == terms]
        rows = {key: _sum(self._stored.get(key, _NO_CHECKS), self._unsent.get(key, _NO_CHECKS)) for key in keys}
        return [Learned(key[2], *row) for key, row in rows.items()]

    async def run(self) -> None:
        """Synchronize periodically until cancelled."""
        while True:
            await asyncio.sleep(SECONDS)
            if self._is_needed or self._unsent:
                await self.synchronize()

    async def synchronize(self) -> None:
        """Send new results, and read those of all workers. What could not be sent is kept, also on cancellation."""
        sending, self._unsent = self._unsent, {}
        added, rows = False, None
        try:
            async with asyncio.timeout(5.0):
                async with await connect(self._url) as connection:
                    async with connection.cursor() as cursor:
                        if sending:
                            async with connection.transaction():
                                await cursor.executemany(_ADD, [(*key, *row) for key, row in sorted(sending.items())])
                        added = True
                        await cursor.execute(_READ, (DAYS,))
                        rows = await cursor.fetchall()
        except (psycopg.Error, OSError, TimeoutError) as error:
            self._failure_log.record_failure(
                "checks of answers by meaning wait for PostgreSQL: %s", error.__class__.__name__
            )
        finally:
            if rows is None:
                target = self._stored if added else self._unsent
                for key, row in sending.items():
                    target[key] = _sum(target.get(key, _NO_CHECKS), row)
        if rows is not None:
            self._failure_log.record_success()
            self._update(rows)

    def _update(self, rows: Sequence[Any]) -> None:
        read = {(row[0], row[1], bytes(row[2])): (int(row[3]), int(row[4]), float(row[5])) for row in rows}
        if read != self._stored:
            self._stored = read
            self.version += 1

    async def close(self) -> None:
        with suppress(asyncio.CancelledError):
            if self._unsent:
                await self.synchronize()


def _sum(one: Row, other: Row) -> Row:
    return one[0] + other[0], one[1] + other[1], max(one[2], other[2])
