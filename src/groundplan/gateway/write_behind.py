"""Write-behind from a worker to PostgreSQL: facts wait in a bounded queue, counts are summed, and both are written
every second or two.

No call waits for it. It is for facts that may be lost: those that wait in a killed worker are, and a full queue drops
its oldest ones, which are counted. Everything about money goes to the journal instead.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Generic, LiteralString, TypeVar

import psycopg
from psycopg.errors import CheckViolation, NotNullViolation

from groundplan.core.errors import GroundplanError
from groundplan.gateway.database import insert
from groundplan.gateway.failure_log import ExceptionLog, FailureLog

_log = logging.getLogger(__name__)
_DATABASE_ERRORS = (GroundplanError, psycopg.Error, OSError, TimeoutError)
_INVALID_ROW_ERRORS = (psycopg.DataError, CheckViolation, NotNullViolation)
Fact = TypeVar("Fact")
Key = TypeVar("Key", bound=tuple[object, ...])
Sums = TypeVar("Sums", bound=tuple[object, ...])


class WriteBehind(ABC):
    """What one worker writes behind. `what` names it in the log, in the plural."""

    interval_seconds = 1.0
    """Seconds between two flushes."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._failure_log = FailureLog(_log)
        self._exceptions = ExceptionLog(_log)

    async def run(self) -> None:
        """Flush again and again, until cancelled."""
        while True:
            await asyncio.sleep(self.interval_seconds)
            try:
                await self.flush()
            except Exception:  # noqa: BLE001 -- the boundary of this task: what comes later is written all the same
                self._exceptions.record(f"{self._what} are not written")

    @abstractmethod
    async def flush(self) -> None:
        """Write what waits. What cannot be written now keeps waiting, also when this is cancelled."""

    def _log_failure(self, error: Exception) -> None:
        self._failure_log.record_failure("%s wait for PostgreSQL: %s", self._what, error.__class__.__name__)

    async def close(self) -> None:
        with suppress(asyncio.CancelledError):
            await self.flush()


class WriteBehindQueue(WriteBehind, Generic[Fact]):
    """Facts, of which `max_waiting` may wait."""

    def __init__(self, what: str, max_waiting: int) -> None:
        super().__init__(what)
        self._max_waiting = max_waiting
        self._lost = 0
        self.waiting: deque[Fact] = deque()

    @abstractmethod
    async def put(self, facts: Sequence[Fact]) -> None:
        """Write the facts, each once however often it is tried. Raises what PostgreSQL raises, or `GroundplanError` for
        it."""

    def add(self, *facts: Fact) -> None:
        """Queue facts; never blocks."""
        self.waiting.extend(facts)
        self._drop_surplus()

    async def flush(self) -> None:
        """As `WriteBehind.flush`; facts that PostgreSQL will never take are dropped, so that they hold nothing up."""
        if self._lost:
            _log.warning("%d %s were not kept", self._lost, self._what)
            self._lost = 0
        if not self.waiting:
            return
        unwritten: Sequence[Fact] = list(self.waiting)
        self.waiting.clear()
        try:
            unwritten = await self._put(unwritten)
        finally:
            self.waiting.extendleft(reversed(unwritten))
            self._drop_surplus()

    async def _put(self, facts: Sequence[Fact]) -> Sequence[Fact]:
        """Write the facts; returns those that could not be written now."""
        try:
            await self.put(facts)
        except _DATABASE_ERRORS as error:
            if not _is_permanent(error):
                self._log_failure(error)
                return facts
            if len(facts) == 1:
                self._lost += 1
                return ()
            middle = len(facts) // 2
            return [*await self._put(facts[:middle]), *await self._put(facts[middle:])]
        self._failure_log.record_success()
        return ()

    def _drop_surplus(self) -> None:
        for _ in range(len(self.waiting) - self._max_waiting):
            self.waiting.popleft()
            self._lost += 1


class WriteBehindCounts(WriteBehind, Generic[Key, Sums]):
    """Counts by key, added to a table of sums by `statement`, whose parameters `row` returns."""

    interval_seconds = 2.0

    def __init__(self, what: str, url: str, statement: LiteralString) -> None:
        super().__init__(what)
        self._url = url
        self._statement = statement
        self.waiting: dict[Key, Sums] = {}

    @abstractmethod
    def sum(self, earlier: Sums, later: Sums) -> Sums:
        """The sum of earlier and later counts."""

    def row(self, key: Key, sums: Sums) -> tuple[object, ...]:
        return (*key, *sums)

    def count(self, key: Key, more: Sums) -> None:
        """Add to the counts of a key; never blocks."""
        known = self.waiting.get(key)
        self.waiting[key] = more if known is None else self.sum(known, more)

    async def flush(self) -> None:
        if not self.waiting:
            return
        unwritten, self.waiting = self.waiting, {}
        try:
            await insert(self._url, self._statement, [self.row(*each) for each in sorted(unwritten.items())])
            unwritten = {}
            self._failure_log.record_success()
        except _DATABASE_ERRORS as error:
            self._log_failure(error)
        finally:
            newer, self.waiting = self.waiting, unwritten
            for key, more in newer.items():
                self.count(key, more)


def _is_permanent(error: BaseException) -> bool:
    """Whether PostgreSQL will refuse the facts each time."""
    cause = error.__cause__ if isinstance(error, GroundplanError) else error
    return isinstance(cause, _INVALID_ROW_ERRORS)
