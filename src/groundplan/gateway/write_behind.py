"""Write-behind from a worker to PostgreSQL: facts wait in a bounded queue, counts are summed, and both are written
every second or two.

No call waits for it. It is for what may be lost: what waits in a worker that is killed is gone, and of more facts than
fit the oldest go, counted. What is about money is the journal's.
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
from groundplan.gateway.failure_log import FailureLog

_log = logging.getLogger(__name__)
_AWAY = (GroundplanError, psycopg.Error, OSError, TimeoutError)
_NEVER = (psycopg.DataError, CheckViolation, NotNullViolation)
Fact = TypeVar("Fact")
Key = TypeVar("Key", bound=tuple[object, ...])
Sums = TypeVar("Sums", bound=tuple[object, ...])


class WriteBehind(ABC):
    """Of one worker. `what` names it in the log."""

    every = 1.0
    """Seconds between two flushes."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._problem = FailureLog(_log)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(self.every)
            await self.flush()

    @abstractmethod
    async def flush(self) -> None:
        """Add what waits. What cannot be added now waits on, also where this is cut off."""

    def _wait_on(self, error: Exception) -> None:
        self._problem.tell("%s wait for PostgreSQL: %s", self._what, error.__class__.__name__)

    async def close(self) -> None:
        with suppress(asyncio.CancelledError):
            await self.flush()


class WriteBehindQueue(WriteBehind, Generic[Fact]):
    """Facts, of which `most` may wait."""

    def __init__(self, what: str, most: int) -> None:
        super().__init__(what)
        self._most = most
        self._lost = 0
        self.waiting: deque[Fact] = deque()

    @abstractmethod
    async def put(self, facts: Sequence[Fact]) -> None:
        """Add them, each once however often it is tried. Raises what PostgreSQL raises, or `GroundplanError` for it."""

    def add(self, *facts: Fact) -> None:
        """Never waits."""
        self.waiting.extend(facts)
        self._bound()

    async def flush(self) -> None:
        """As `WriteBehind` says; what can never be added is left out, so that it holds nothing up."""
        if self._lost:
            _log.warning("%d %s were not kept", self._lost, self._what)
            self._lost = 0
        if not self.waiting:
            return
        left: Sequence[Fact] = list(self.waiting)
        self.waiting.clear()
        try:
            left = await self._put(left)
        finally:
            self.waiting.extendleft(reversed(left))
            self._bound()

    async def _put(self, facts: Sequence[Fact]) -> Sequence[Fact]:
        """Add them; returns those that could not be added now."""
        try:
            await self.put(facts)
        except _AWAY as error:
            if not _hopeless(error):
                self._wait_on(error)
                return facts
            if len(facts) == 1:
                self._lost += 1
                return ()
            middle = len(facts) // 2
            return [*await self._put(facts[:middle]), *await self._put(facts[middle:])]
        self._problem.over()
        return ()

    def _bound(self) -> None:
        for _ in range(len(self.waiting) - self._most):
            self.waiting.popleft()
            self._lost += 1


class WriteBehindCounts(WriteBehind, Generic[Key, Sums]):
    """Counts by key, added to a table of sums by `statement`, whose parameters `row` has."""

    every = 2.0

    def __init__(self, what: str, url: str, statement: LiteralString) -> None:
        super().__init__(what)
        self._url = url
        self._statement = statement
        self.waiting: dict[Key, Sums] = {}

    @abstractmethod
    def sum(self, one: Sums, other: Sums) -> Sums:
        """Of what came first, and what came later."""

    def row(self, key: Key, sums: Sums) -> tuple[object, ...]:
        return (*key, *sums)

    def count(self, key: Key, more: Sums) -> None:
        """Never waits."""
        known = self.waiting.get(key)
        self.waiting[key] = more if known is None else self.sum(known, more)

    async def flush(self) -> None:
        if not self.waiting:
            return
        left, self.waiting = self.waiting, {}
        try:
            await insert(self._url, self._statement, [self.row(*each) for each in sorted(left.items())])
            left = {}
            self._problem.over()
        except _AWAY as error:
            self._wait_on(error)
        finally:
            newer, self.waiting = self.waiting, left
            for key, more in newer.items():
                self.count(key, more)


def _hopeless(error: BaseException) -> bool:
    """Whether PostgreSQL said that it will never take this."""
    cause = error.__cause__ if isinstance(error, GroundplanError) else error
    return isinstance(cause, _NEVER)
