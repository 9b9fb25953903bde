"""What guardrails found, counted in the worker and added to PostgreSQL now and then, beside the calls.

Counts are for looking at, not for billing: those of the last seconds are lost with a worker that is killed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress
from datetime import date
from uuid import UUID

import psycopg

from groundplan.core.clock import Clock
from groundplan.gateway.database import insert
from groundplan.gateway.problem import Problem

SECONDS = 2.0
MOST_SEEN = 10_000
"""Calls of which is remembered what was told: a call may go on for minutes."""
_log = logging.getLogger(__name__)
Key = tuple[date, str, str, str, str, bool]
_ADD = """INSERT INTO guard_count AS g (day, workload, place, name, done, shadow, calls, finds, last_call, last_at)
    VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, now())
    ON CONFLICT (day, workload, place, name, done, shadow) DO UPDATE SET calls = g.calls + EXCLUDED.calls,
      finds = g.finds + EXCLUDED.finds, last_call = EXCLUDED.last_call, last_at = EXCLUDED.last_at"""


class Counts:
    """Of one worker."""

    def __init__(self, url: str, clock: Clock) -> None:
        self._url = url
        self._clock = clock
        self._problem = Problem(_log)
        self._waiting: dict[Key, tuple[int, int, UUID]] = {}
        self._seen: dict[UUID, dict[tuple[str, str, str], int]] = {}

    def add(self, call: UUID, workload: str, counted: Mapping[tuple[str, str, str], int], *, shadow: bool) -> None:
        """What was found in a call so far; told again, only what is new is added."""
        before = self._seen.pop(call, {})
        self._seen[call] = dict(counted)
        if len(self._seen) > MOST_SEEN:
            del self._seen[next(iter(self._seen))]
        day = self._clock.now().date()
        for (place, name, done), finds in counted.items():
            more = finds - before.get((place, name, done), 0)
            if more <= 0:
                continue
            key = (day, workload, place, name, done, shadow)
            calls, total, _ = self._waiting.get(key, (0, 0, call))
            first = (place, name, done) not in before
            self._waiting[key] = (calls + first, total + more, call)

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
        try:
            await insert(self._url, _ADD, [(*key, *value) for key, value in sorted(taken.items())])
        except (psycopg.Error, OSError, TimeoutError) as error:
            self._problem.tell("what guardrails found waits for PostgreSQL: %s", error.__class__.__name__)
            for key, (calls, finds, call) in taken.items():
                more_calls, more_finds, last = self._waiting.get(key, (0, 0, call))
                self._waiting[key] = (calls + more_calls, finds + more_finds, last)
            return
        self._problem.over()

    async def close(self) -> None:
        with suppress(asyncio.CancelledError):
            await self.flush()
