"""Two transactions of which one stands still before a statement while the other one goes on."""

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
PATIENCE_S = 60.0
Found = TypeVar("Found")


class Halt:
    """Where a connection stands still until it is told to `go`: before its `nth` statement that has these words."""

    def __init__(self, conn: Conn, words: str = "", nth: int = 1) -> None:
        self._words, self._left = words, nth
        self._there, self._go = threading.Event(), threading.Event()
        halt = self

        class Halting(Cursor[Any]):
            def execute(self, *arguments: Any, **named: Any) -> Any:
                halt._before(str(arguments[0]))
                return super().execute(*arguments, **named)

        conn.cursor_factory = Halting

    def _before(self, statement: str) -> None:
        self._left -= self._words in statement
        if self._left == 0 and not self._there.is_set():
            self._there.set()
            assert self._go.wait(PATIENCE_S)

    @property
    def is_reached(self) -> bool:
        return self._there.is_set()

    def reached(self) -> None:
        assert self._there.wait(PATIENCE_S)

    def go(self) -> None:
        self._go.set()


@contextmanager
def patient(database: Database) -> Iterator[Conn]:
    """A connection that waits for others, and not for ever where a test fails."""
    with connect(database.urls["control"]) as conn:
        conn.execute("SET lock_timeout = '30s'")
        conn.commit()
        yield conn


@contextmanager
def beside(act: Callable[[], Found]) -> Iterator[Future[Found]]:
    """What another one does meanwhile."""
    with ThreadPoolExecutor(1) as threads:
        yield threads.submit(act)


def until_it_waits(database: Database, *others: Conn, unless: Callable[[], bool] = bool) -> None:
    """Until one of these connections, or where none is named anybody, waits for a lock in this database; or until
    `unless`."""
    pids = [each.info.backend_pid for each in others]
    asked = """SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()
        AND (pid = ANY(%s) OR %s)"""
    until = time.monotonic() + PATIENCE_S
    with connect(database.superuser, autocommit=True) as looking:
        while not looking.execute(asked, (pids, not pids)).fetchall():
            if unless():
                return
            assert time.monotonic() < until, "nobody waits"
            time.sleep(0.005)
