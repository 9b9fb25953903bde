"""Calls as they reach the ledger, for everybody who watches: one look at the database for all of them.

A thread asks for new calls four times a second while somebody watches, and not at all otherwise. What arrives faster
than it can be shown is counted, not queued. Who may see what is decided by the route.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
from psycopg import Connection
from psycopg_pool import ConnectionPool, PoolTimeout

from groundplan.core.errors import Exhausted
from groundplan.ledger import queries

LOOK_SECONDS = 0.25
MOST_WATCHERS = 50
KEPT = 2000
"""Newest calls that a watcher who is slow can still get."""
AT_ONCE = 500
"""Calls that one look takes; of more, the newest."""
OVERLAP = timedelta(seconds=2)
"""Transactions of several machines do not become visible in the order of their times: so far each look goes back."""
log = logging.getLogger(__name__)

Pool = ConnectionPool[Connection[tuple[Any, ...]]]


@dataclass(frozen=True, slots=True)
class Missed:
    """Over a break: the calls, the ids of them and of the one before it, and whether there were more of them."""

    rows: Sequence[dict[str, Any]]
    told: frozenset[str]
    skipped: bool


class Calls:
    """The newest calls, numbered as they were seen. `watch` before reading."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._watchers = 0
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._begun = 0.0
        """When somebody began to watch, by the monotonic clock: the thread's first look comes later."""
        self._calls: deque[tuple[int, dict[str, Any]]] = deque(maxlen=KEPT)
        self._number = 0
        self._before: tuple[int, frozenset[str]] = 0, frozenset()
        """When the thread began to look: the newest number then, and what had arrived just before."""
        self.skipped = 0
        """Calls that were too many to look at, at least."""
        self.stopping = False

    def check_room(self) -> None:
        """Raises `Exhausted` where too many watch already."""
        if self._watchers >= MOST_WATCHERS:
            raise Exhausted(
                f"{MOST_WATCHERS} others watch already", code="watchers", hint="Close one of them, or try again."
            )

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Look for calls until the end of the block."""
        with self._lock:
            if self._thread is None:
                self._begun = time.monotonic()
                looking = threading.Thread(target=self._run, name="live-calls", daemon=True)
                looking.start()
                self._thread = looking
            self._watchers += 1
        try:
            yield
        finally:
            with self._lock:
                self._watchers -= 1

    @property
    def number(self) -> int:
        """Of the newest call seen."""
        return self._number

    def after(self, number: int) -> list[tuple[int, dict[str, Any]]]:
        """What was seen since then, in order, as far as it is kept."""
        return [item for item in list(self._calls) if item[0] > number]

    def since(self, conn: Connection[tuple[Any, ...]], call: UUID) -> Missed:
        """What is there that was not before a watcher who saw that call last: what arrived after it, and what arrived
        just before and became visible only now. Where it was not told by this process nobody knows which of those just
        before had been, and all of them are told."""
        last = str(call)
        had = self._told_with(last)  # before it is looked: what is told meanwhile is told then
        at = queries.arrival(conn, call)
        found = [] if at is None else queries.arrived(conn, at - OVERLAP, AT_ONCE)
        seen = any(row["id"] == last for _, row in found)
        rows = [row for _, row in found if row["id"] not in had]
        return Missed(rows, frozenset({last, *(row["id"] for row in rows)}), skipped=len(found) == AT_ONCE and not seen)

    def _told_with(self, call: str) -> frozenset[str]:
        """That call, and what its watcher had been told or did not ask for: what had arrived when looking began."""
        told, (begun, before) = list(self._calls), self._before
        number = next((number for number, row in told if row["id"] == call), 0)
        earlier = before if number > begun else frozenset()
        return earlier.union([call], (row["id"] for each, row in told if each <= number))

    def stop(self) -> None:
        """End every watcher: the process is about to end."""
        self.stopping = True

    def _wanted(self) -> bool:
        with self._lock:
            if self._watchers and not self.stopping:
                return True
            self._thread = None
            return False

    def _run(self) -> None:
        pause = threading.Event()
        seen: dict[str, datetime] = {}
        last: datetime | None = None
        while self._wanted():
            try:
                with self._pool.connection() as conn:
                    if last is None:
                        last = queries.database_time(conn) - timedelta(seconds=time.monotonic() - self._begun)
                        before = queries.arrived(conn, last - OVERLAP, AT_ONCE)
                        seen = {row["id"]: at for at, row in before if at < last}
                        self._before = self._number, frozenset(seen)
                    last = min(self._look(conn, seen, last), queries.database_time(conn))  # which may be set back
            except (psycopg.Error, PoolTimeout) as error:
                log.warning("cannot look for calls: %s", error.__class__.__name__)
            pause.wait(LOOK_SECONDS)

    def _look(self, conn: Connection[tuple[Any, ...]], seen: dict[str, datetime], last: datetime) -> datetime:
        began = last - OVERLAP
        rows = queries.arrived(conn, began, AT_ONCE)
        new = [(at, row) for at, row in rows if row["id"] not in seen and at >= began]
        if len(rows) == AT_ONCE and len(new) == AT_ONCE:
            self.skipped += 1
        for at, row in new:
            seen[row["id"]] = at
            self._number += 1
            self._calls.append((self._number, row))
            last = max(last, at)
        for call in [call for call, at in seen.items() if at < last - 2 * OVERLAP]:
            del seen[call]
        return last
