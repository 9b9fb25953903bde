"""Statements that a worker waits for beside its calls: a few connections, made at the first use and used in threads.

The event loop never waits for a database here. What a failure means to a caller is said by whoever asks. Once none was
to be had nobody waits for one for a moment, and then one of them finds out: there are few threads, and all would wait
for each other.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Any, TypeVar

import psycopg
from psycopg.abc import RV, PQGen
from psycopg.errors import ReadOnlySqlTransaction
from psycopg.pq import TransactionStatus
from psycopg_pool import ConnectionPool, PoolTimeout

from groundplan.core.errors import Unavailable
from groundplan.core.last_known_address import LastKnownAddress
from groundplan.gateway.database import BRIEFLY

SECONDS = 2.0
"""Longest that a connection, or a statement, is waited for."""
UNHEARD_SECONDS = 1.0
"""After these more PostgreSQL, which ends a statement itself, stands still or is not reached any more."""
AWAY_SECONDS = 1.0
_Found = TypeVar("_Found")


class _Heard(LastKnownAddress):
    """One whose statements end also where PostgreSQL says nothing more, and which does not stay with a server that may
    write no more (`database`)."""

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        """Raises psycopg.Error; closed where there is no answer, or nothing can be written."""
        most = SECONDS + UNHEARD_SECONDS
        try:
            return super().wait(gen, interval, most if timeout is None else min(timeout, most))
        except (psycopg.OperationalError, ReadOnlySqlTransaction) as error:
            if isinstance(error, ReadOnlySqlTransaction) or self.pgconn.transaction_status == TransactionStatus.ACTIVE:
                self.pgconn.finish()
            raise


class ThreadConnections:
    """Of one use in one worker. `unreachable` makes what is raised while PostgreSQL is away."""

    def __init__(self, url: str, name: str, most: int, unreachable: Callable[[], Unavailable]) -> None:
        self._unreachable = unreachable
        self._away_until = 0.0
        """No connection was to be had; 0: that is not known."""
        self._opening = threading.Lock()
        self._make: Callable[[], ConnectionPool[Any]] = partial(
            ConnectionPool,
            url,
            connection_class=_Heard,
            kwargs={"autocommit": True, "connect_timeout": 2},
            configure=_configure,  # by a parameter of the address it would take the place of the role there
            min_size=0,
            max_size=most,
            timeout=SECONDS,
            check=ConnectionPool.check_connection,
            reconnect_timeout=1.0,
            num_workers=1,
            name=name,
            open=False,
        )
        self._pool = self._make()

    async def run(self, work: Callable[[Any], _Found]) -> _Found:
        """What `work` makes of a connection. Raises `Unavailable`, and what `work` raises of its own."""
        finds_out = self._finds_out()
        self._check(finds_out=finds_out)

        def run() -> _Found:
            self._check(finds_out=finds_out)  # it may have waited for a thread until that was known
            with self._opened().connection() as conn:
                self._away_until = 0.0
                return work(conn)

        try:
            working = asyncio.get_running_loop().run_in_executor(None, run)
        except RuntimeError as error:  # this user may have no more threads now
            raise self._unreachable() from error
        try:
            return await working
        except PoolTimeout as error:
            self._away_until = monotonic() + AWAY_SECONDS
            raise self._unreachable() from error
        except psycopg.Error as error:
            raise self._unreachable() from error

    def _opened(self) -> ConnectionPool[Any]:
        """Raises `PoolTimeout` where this user may have no more threads now."""
        with self._opening:
            pool = self._pool
            try:
                pool.open()
            except RuntimeError as error:
                self._pool = self._make()  # it takes itself for open, and nobody would ever connect for it
                pool.close(0)
                raise PoolTimeout("no thread for connections") from error
            return pool

    def _finds_out(self) -> bool:
        """Whether it was away a moment ago, and this one is to ask whether it still is."""
        if not self._away_until or monotonic() < self._away_until:
            return False
        self._away_until = monotonic() + SECONDS + AWAY_SECONDS
        return True

    def _check(self, *, finds_out: bool) -> None:
        """Raise what is raised while PostgreSQL is away, but for who is to find out."""
        if self._away_until and not finds_out:
            raise self._unreachable()

    async def close(self) -> None:
        await asyncio.to_thread(self._pool.close, 1.0)


def _configure(conn: psycopg.Connection[Any]) -> None:
    conn.execute(f"SET statement_timeout = {int(SECONDS * 1000)}; {BRIEFLY}".encode())
