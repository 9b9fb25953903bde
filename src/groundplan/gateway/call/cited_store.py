"""What the look at citations found, on its way to PostgreSQL: kept in the worker, added now and then, beside the calls.

It is for receipts, not for billing: what waits in a worker that is killed is lost, and more than `MOST` waiting is not
kept. No word of an answer is in it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass
from uuid import UUID

import psycopg
from psycopg import AsyncConnection

SECONDS = 1.0
MOST = 5_000
_log = logging.getLogger(__name__)
_ADD = """INSERT INTO call_citation (call_id, number, passage, document, version, start_char, end_char, answer_start,
    answer_end, supported) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING"""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One citation of one call: which characters of the answer, which of the document in which version."""

    call: UUID
    number: int
    passage: int
    document: str | None
    version: int
    start_char: int
    end_char: int
    answer_start: int
    answer_end: int
    supported: bool | None


class Citations:
    """Of one worker."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._waiting: list[Verdict] = []
        self._lost = 0

    def add(self, found: Sequence[Verdict]) -> None:
        """Never waits."""
        if len(self._waiting) + len(found) > MOST:
            self._lost += len(found)
            return
        self._waiting += found

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(SECONDS)
            await self.flush()

    async def flush(self) -> None:
        """Add what waits; what cannot be added waits on."""
        if self._lost:
            _log.warning("%d citations were looked at and not kept", self._lost)
            self._lost = 0
        if not self._waiting:
            return
        taken, self._waiting = self._waiting, []
        try:
            async with asyncio.timeout(5.0):
                async with await AsyncConnection.connect(self._url, autocommit=True, connect_timeout=2) as connection:
                    async with connection.cursor() as cursor:
                        await cursor.executemany(_ADD, [astuple(one) for one in taken])
        except (psycopg.Error, OSError, TimeoutError) as error:
            _log.warning("citations wait for PostgreSQL: %s", error.__class__.__name__)
            self._waiting = [*taken, *self._waiting][:MOST]

    async def close(self) -> None:
        with suppress(asyncio.CancelledError):
            await self.flush()
