"""Database statements that a worker awaits beside its calls: a few connections, opened at first use, used in threads.

The event loop never blocks on a database here. The user decides what a failure means to a client. After no connection
could be had, requests fail at once for a moment, and then one of them tries again: there are few threads, and all would
wait for each other.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Any, Self, TypeVar

import psycopg
from psycopg.abc import RV, PQGen
from psycopg.errors import UndefinedTable
from psycopg_pool import ConnectionPool, PoolTimeout

from groundplan.core.errors import Unavailable
from groundplan.core.last_known_address import LastKnownAddress
from groundplan.gateway.database import BRIEFLY, connect_timeout, emptied_error, leaving_lost_server

TIMEOUT_SECONDS = 2.0
"""The longest wait for a connection, or for a statement."""
UNANSWERED_SECONDS = 1.0
"""PostgreSQL ends a statement itself; after this much longer it is unreachable or stands still."""
AWAY_SECONDS = 1.0
_Found = TypeVar("_Found")


class _TimedConnection(LastKnownAddress):
    """A connection whose statements end even where PostgreSQL does not answer, and which leaves a lost server."""

    @classmethod
    def connect(cls, conninfo: str = "", **more: Any) -> Self:
        """As psycopg's, within the time of `connect_timeout`. Raises psycopg.Error."""
        with connect_timeout(conninfo) as seconds:
            return super().connect(conninfo, **{**more, "connect_timeout": seconds})

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        """As psycopg's, for a limited time. Raises psycopg.Error."""
        most = TIMEOUT_SECONDS + UNANSWERED_SECONDS
        with leaving_lost_server(self.pgconn):
            return super().wait(gen, interval, most if timeout is None else min(timeout, most))


class ThreadConnections:
    """The connections of one use in one worker. `unreachable` creates the error raised while PostgreSQL is away."""

    def __init__(self, url: str, name: str, most: int, unreachable: Callable[[], Unavailable]) -> None:
        self._unreachable = unreachable
        self._away_until = 0.0
        """Until when PostgreSQL counts as away; 0: not known to be."""
        self._opening = threading.Lock()
        self._make: Callable[[], ConnectionPool[Any]] = partial(
            ConnectionPool,
            url,
            connection_class=_TimedConnection,
            kwargs={"autocommit": True},
            configure=_configure,  # a parameter of the address would replace the role set there
            min_size=0,
            max_size=most,
            timeout=TIMEOUT_SECONDS,
            check=ConnectionPool.check_connection,
            reconnect_timeout=1.0,
            num_workers=1,
            name=name,
            open=False,
        )
        self._pool = self._make()

    async def run(self, work: Callable[[Any], _Found]) -> _Found:
        """Run `work` with a connection and return its result. Raises `Unavailable`, `Misconfigured`
        (`database_emptied`) where there are no tables any more, and what `work` raises itself."""
        is_probe = self._is_probe()
        self._check_available(is_probe=is_probe)

        def run() -> _Found:
            self._check_available(is_probe=is_probe)  # PostgreSQL may have gone away while this waited for a thread
            with self._open_pool().connection() as conn:
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
        except UndefinedTable as error:
            raise emptied_error() from error
        except psycopg.Error as error:
            raise self._unreachable() from error

    def _open_pool(self) -> ConnectionPool[Any]:
        """Return the open pool. Raises `PoolTimeout` where this user may have no more threads now."""
        with self._opening:
            pool = self._pool
            try:
                pool.open()
            except RuntimeError as error:
                self._pool = self._make()  # the old one counts as open, but nothing would ever connect for it
                pool.close(0)
                raise PoolTimeout("no thread for connections") from error
            return pool

    def _is_probe(self) -> bool:
        """Whether PostgreSQL was away a moment ago and this request is the one that tries again."""
        if not self._away_until or monotonic() < self._away_until:
            return False
        self._away_until = monotonic() + TIMEOUT_SECONDS + AWAY_SECONDS
        return True

    def _check_available(self, *, is_probe: bool) -> None:
        """Raise the error of an unreachable database, unless this request tries again."""
        if self._away_until and not is_probe:
            raise self._unreachable()

    async def close(self) -> None:
        await asyncio.to_thread(self._pool.close, 1.0)


def _configure(conn: psycopg.Connection[Any]) -> None:
    conn.execute(f"SET statement_timeout = {int(TIMEOUT_SECONDS * 1000)}; {BRIEFLY}".encode())
