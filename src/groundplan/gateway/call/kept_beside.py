"""Facts that calls leave behind, on their way from a worker to PostgreSQL: kept in a bounded list, added now and then.

No call waits for it. It is for what may be lost: what waits in a worker that is killed is gone, and of more than fits
the oldest go, counted. Facts about money are the journal's.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Generic, TypeVar

import psycopg
from psycopg.errors import CheckViolation, NotNullViolation

from groundplan.core.errors import GroundplanError
from groundplan.gateway.problem import Problem

SECONDS = 1.0
"""Between two flushes."""
_log = logging.getLogger(__name__)
_NEVER = (psycopg.DataError, CheckViolation, NotNullViolation)
Fact = TypeVar("Fact")


class KeptBeside(ABC, Generic[Fact]):
    """Of one worker. `what` names the facts in the log; `most` may wait."""

    def __init__(self, what: str, most: int) -> None:
        self._what = what
        self._most = most
        self._lost = 0
        self._problem = Problem(_log)
        self.waiting: deque[Fact] = deque()

    @abstractmethod
    async def put(self, facts: Sequence[Fact]) -> None:
        """Add them, each once however often it is tried. Raises what PostgreSQL raises, or `GroundplanError` for it."""

    def add(self, *facts: Fact) -> None:
        """Never waits."""
        self.waiting.extend(facts)
        self._bound()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(SECONDS)
            await self.flush()

    async def flush(self) -> None:
        """Add what waits. What cannot be added now waits on; what can never be is left out, so that it holds nothing
        up."""
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
        except (GroundplanError, psycopg.Error, OSError, TimeoutError) as error:
            if not _hopeless(error):
                self._problem.tell("%s wait for PostgreSQL: %s", self._what, error.__class__.__name__)
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

    async def close(self) -> None:
        with suppress(asyncio.CancelledError):
            await self.flush()


def _hopeless(error: BaseException) -> bool:
    """Whether PostgreSQL said that it will never take this."""
    cause = error.__cause__ if isinstance(error, GroundplanError) else error
    return isinstance(cause, _NEVER)
