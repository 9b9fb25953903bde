"""Statements that a worker waits for beside its calls: a few connections, made at the first use and used in threads.

The event loop never waits for a database here. What a failure means to a caller is said by whoever asks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

import psycopg
from psycopg_pool import ConnectionPool, PoolTimeout

from groundplan.core.errors import Unavailable

SECONDS = 2.0
"""Longest that a connection, or a statement, is waited for."""
_Found = TypeVar("_Found")


class InThreads:
    """Of one use in one worker. `unreachable` makes what is raised while PostgreSQL is away."""

    def __init__(self, url: str, name: str, most: int, unreachable: Callable[[], Unavailable]) -> None:
        self._unreachable = unreachable
        self._pool: ConnectionPool[Any] = ConnectionPool(
            url,
            kwargs={"autocommit": True, "connect_timeout": 2, "options": f"-c statement_timeout={int(SECONDS * 1000)}"},
            min_size=0,
            max_size=most,
            timeout=SECONDS,
            check=ConnectionPool.check_connection,
            reconnect_timeout=1.0,
            num_workers=1,
            name=name,
            open=False,
        )

    async def run(self, work: Callable[[Any], _Found]) -> _Found:
        """What `work` makes of a connection. Raises `Unavailable`, and what `work` raises of its own."""

        def run() -> _Found:
            self._pool.open()
            with self._pool.connection() as conn:
                return work(conn)

        try:
            return await asyncio.to_thread(run)
        except (psycopg.Error, PoolTimeout) as error:
            raise self._unreachable() from error

    async def close(self) -> None:
        await asyncio.to_thread(self._pool.close, 1.0)
