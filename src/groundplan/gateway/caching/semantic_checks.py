"""What checks of the semantic cache found by region of questions, added to PostgreSQL and read back by every worker.

So what one worker learned holds in all of them, and after a restart. Nothing waits for it: while PostgreSQL is away,
what is found here waits and what others find is not known. Of a question only the signs of its vector are kept.
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
"""After so many without a check a region is forgotten."""
_log = logging.getLogger(__name__)
Terms = tuple[str, str]
"""workload; the settings under which its matches were found"""
Key = tuple[str, str, bytes]
Row = tuple[int, int, float]
"""checked, wrong, least score"""
_NOTHING: Row = (0, 0, -inf)
_KNOWN = f"s.at > now() - interval '{DAYS} days'"
_ADD = f"""INSERT INTO semantic_region AS s (workload, terms, first, checked, wrong, raised)
    VALUES (%s, %s, %s, %s, %s, %s)
    ON CONFLICT (workload, terms, first) DO UPDATE SET
      checked = CASE WHEN {_KNOWN} THEN s.checked ELSE 0 END + EXCLUDED.checked,
      wrong = CASE WHEN {_KNOWN} THEN s.wrong ELSE 0 END + EXCLUDED.wrong,
      raised = CASE WHEN {_KNOWN} THEN greatest(s.raised, EXCLUDED.raised) ELSE EXCLUDED.raised END, at = now()"""
"""One that was forgotten begins anew."""
_READ = """SELECT workload, terms, first, checked, wrong, raised FROM semantic_region
    WHERE at > now() - make_interval(days => %s) ORDER BY workload, terms, checked DESC, first"""


class CheckStore:
    """Of one worker."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._problem = FailureLog(_log)
        self._waiting: dict[Key, Row] = {}
        self._read: dict[Key, Row] = {}
        self.version = 0
        """Another one whenever something new was read."""
        self._wanted = False
        """Whether a workload asked what is known; before that nothing is read."""

    def add(self, terms: Terms, first: bytes, *, wrong: bool, raised: float) -> None:
        """A match of this region was compared with a fresh answer."""
        key = (*terms, first)
        self._waiting[key] = _sum(self._waiting.get(key, _NOTHING), (1, int(wrong), raised))

    def learned(self, terms: Terms) -> list[Learned]:
        """What all workers are known to have found, with what waits here; the most checked regions first."""
        from groundplan.economics.semantic.regions import Learned  # noqa: PLC0415 -- numpy, only where it is used

        self._wanted = True
        keys = [key for key in {**self._read, **self._waiting} if key[:2] == terms]
        rows = {key: _sum(self._read.get(key, _NOTHING), self._waiting.get(key, _NOTHING)) for key in keys}
        return [Learned(key[2], *row) for key, row in rows.items()]

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(SECONDS)
            if self._wanted or self._waiting:
                await self.synchronize()

    async def synchronize(self) -> None:
        """Add what waits, and read what all have added. What cannot be added waits on, also where this is cut off."""
        taken, self._waiting = self._waiting, {}
        added, found = False, None
        try:
            async with asyncio.timeout(5.0):
                async with await connect(self._url) as connection:
                    async with connection.cursor() as cursor:
                        if taken:
                            async with connection.transaction():
                                await cursor.executemany(_ADD, [(*key, *row) for key, row in sorted(taken.items())])
                        added = True
                        await cursor.execute(_READ, (DAYS,))
                        found = await cursor.fetchall()
        except (psycopg.Error, OSError, TimeoutError) as error:
            self._problem.tell("checks of answers by meaning wait for PostgreSQL: %s", error.__class__.__name__)
        finally:
            if found is None:
                into = self._read if added else self._waiting
                for key, row in taken.items():
                    into[key] = _sum(into.get(key, _NOTHING), row)
        if found is not None:
            self._problem.over()
            self._take(found)

    def _take(self, rows: Sequence[Any]) -> None:
        read = {(row[0], row[1], bytes(row[2])): (int(row[3]), int(row[4]), float(row[5])) for row in rows}
        if read != self._read:
            self._read = read
            self.version += 1

    async def close(self) -> None:
        with suppress(asyncio.CancelledError):
            if self._waiting:
                await self.synchronize()


def _sum(one: Row, other: Row) -> Row:
    return one[0] + other[0], one[1] + other[1], max(one[2], other[2])
