"""Facts about two answers to one call on their way to PostgreSQL, beside the calls; they hold no text.

Money and attempts are the journal's and exact. A comparison that was under way when a worker is killed is lost: the
second answer is in the ledger, and counts as not compared.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextlib import suppress
from uuid import UUID

import msgspec
import psycopg
from psycopg import AsyncConnection

from groundplan.core.money import to_decimal

SECONDS = 1.0
MOST = 10_000
"""That wait while PostgreSQL is away; then the oldest go."""
_log = logging.getLogger(__name__)
_ADD = """INSERT INTO experiment_pair (experiment, call_id, beside_call, segment, basis, score, contradicted, shown_ms,
      beside_ms, shown_usd, beside_usd, shown_tokens, beside_tokens, answered)
    VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING"""


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of a shown answer and another one. Amounts are picodollars."""

    experiment: str
    call: UUID
    beside: UUID
    segment: str
    basis: str
    score: float | None
    contradicted: bool
    shown_ms: float
    beside_ms: float
    shown_cost: int
    beside_cost: int
    shown_tokens: int
    beside_tokens: int
    answered: bool

    def row(self) -> tuple[object, ...]:
        return (
            self.experiment, self.call, self.beside, self.segment, self.basis, self.score, self.contradicted,
            self.shown_ms, self.beside_ms, to_decimal(self.shown_cost), to_decimal(self.beside_cost),
            self.shown_tokens, self.beside_tokens, self.answered,
        )  # fmt: skip


class Pairs:
    """Of one worker. `url` empty: they only wait."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.waiting: deque[Pair] = deque(maxlen=MOST)

    def add(self, pair: Pair) -> None:
        self.waiting.append(pair)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(SECONDS)
            await self.flush()

    async def flush(self) -> None:
        """Add what waits; what cannot be added waits on."""
        if not self.waiting or not self._url:
            return
        taken = list(self.waiting)
        try:
            async with asyncio.timeout(5.0):
                async with await AsyncConnection.connect(self._url, autocommit=True, connect_timeout=2) as connection:
                    async with connection.cursor() as cursor:
                        await cursor.executemany(_ADD, [pair.row() for pair in taken])
        except (psycopg.Error, OSError, TimeoutError) as error:
            _log.warning("facts about answers wait for PostgreSQL: %s", error.__class__.__name__)
            return
        for _ in taken:
            if self.waiting:
                self.waiting.popleft()

    async def close(self) -> None:
        with suppress(asyncio.CancelledError):
            await self.flush()
