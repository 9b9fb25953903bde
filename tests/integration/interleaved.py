"""Interleaves two transactions: one is halted before a statement while the other one continues."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg
from psycopg import Cursor

from groundplan.core.database import connect
from groundplan.testing.database import Database

Conn = psycopg.Connection[tuple[Any, ...]]
TIMEOUT_S = 60.0
Result = TypeVar("Result")


class Halt:
    """Halts a connection before its `nth` statement that contains these words, until `resume` is called."""

    def __init__(self, conn: Conn, words: str = "", nth: int = 1) -> None:
        self._words, self._remaining = words, nth
        self._reached, self._released = threading.Event(), threading.Event()
        halt = self

        class Halting(Cursor[Any]):
            def execute(self, *arguments: Any, **named: Any) -> Any:
                halt._before(str(arguments[0]))
                return super().execute(*arguments, **named)

        conn.cursor_factory = Halting

    def _before(self, statement: str) -> None:
        self._remaining -= self._words in statement
        if self._remaining == 0 and not self._reached.is_set():
            self._reached.set()
            assert self._released.wait(TIMEOUT_S)

    @property
    def is_reached(self) -> bool:
        return self._reached.is_set()

    def wait_until_reached(self) -> None:
        assert self._reached.wait(TIMEOUT_S)

    def resume(self) -> None:
        self._released.set()


@contextmanager
def connect_with_lock_timeout(database: Database) -> Iterator[Conn]:
    """A connection of role control whose lock timeout is 30 s, so that a failing test does not wait for ever."""
    with connect(database.urls["control"]) as conn:
        conn.execute("SET lock_timeout = '30s'")
        conn.commit()
        yield conn


@contextmanager
def run_concurrently(function: Callable[[], Result]) -> Iterator[Future[Result]]:
    """Run a function in another thread; yields its future."""
    with ThreadPoolExecutor(1) as threads:
        yield threads.submit(function)


def wait_until_blocked(database: Database, *others: Conn, unless: Callable[[], bool] = bool) -> None:
    """Wait until one of these connections (by default any connection) waits for a lock in this database, or until
    `unless` is true."""
    pids = [each.info.backend_pid for each in others]
    blocked_query = """SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()
        AND (pid = ANY(%s) OR %s)"""
    deadline = time.monotonic() + TIMEOUT_S
    with connect(database.superuser, autocommit=True) as admin:
        while not admin.execute(blocked_query, (pids, not pids)).fetchall():
            if unless():
                return
            assert time.monotonic() < deadline, "nobody waits"
            time.sleep(0.005)
