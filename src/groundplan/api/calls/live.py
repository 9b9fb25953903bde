"""Live calls as they reach the ledger, with one query for all watchers.

A thread queries for new calls four times a second while anybody watches, and not at all otherwise. Calls that arrive
faster than they can be shown are counted, not queued. The route decides who may see which calls.
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
MAX_WATCHERS = 50
MAX_KEPT = 2000
"""How many of the newest calls are kept for slow watchers."""
MAX_PER_LOOK = 500
"""The most calls of one query; of more, only the newest."""
OVERLAP = timedelta(seconds=2)
"""How far each query goes back: transactions of several machines do not become visible in the order of their times."""
log = logging.getLogger(__name__)

Pool = ConnectionPool[Connection[tuple[Any, ...]]]


@dataclass(frozen=True, slots=True)
class MissedCalls:
    """The calls that a watcher missed during a break; `ids` of these and of the last one that it saw; `skipped`:
    whether there were more."""

    rows: Sequence[dict[str, Any]]
    ids: frozenset[str]
    skipped: bool


class LiveCalls:
    """The newest calls, numbered in the order in which they were seen. Read only inside `watch`."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._watchers = 0
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._watching_since = 0.0
        """Monotonic time when watching began: the first query of the thread comes later."""
        self._calls: deque[tuple[int, dict[str, Any]]] = deque(maxlen=MAX_KEPT)
        self._number = 0
        self._arrived_before: tuple[int, frozenset[str]] = 0, frozenset()
        """(newest number when the thread started, ids of the calls that had arrived just before)"""
        self.skipped = 0
        """How often there were more calls than one query takes."""
        self.stopping = False

    def require_room(self) -> None:
        """Raise `Exhausted` if there are too many watchers."""
        if self._watchers >= MAX_WATCHERS:
            raise Exhausted(
                f"there are {MAX_WATCHERS} live views already", code="watchers", hint="Close one, or try again later."
            )

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Keep querying for calls until the end of the block."""
        with self._lock:
            if self._thread is None:
                self._watching_since = time.monotonic()
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
        """The number of the newest call."""
        return self._number

    def newer_than(self, number: int) -> list[tuple[int, dict[str, Any]]]:
        """(number, call) of the calls in memory with a higher number, in order."""
        return [item for item in list(self._calls) if item[0] > number]

    def missed_since(self, conn: Connection[tuple[Any, ...]], call: UUID) -> MissedCalls:
        """The calls that a watcher missed after `call`, the last one it saw: those that arrived later, and those that
        arrived shortly before it but became visible later. If another process served that watcher, it is unknown which
        of the latter were shown, and all of them are returned."""
        last = str(call)
        # read before the query: calls that arrive in between are sent as live calls
        seen_ids = self._seen_by_watcher(last)
        at = queries.arrival_time(conn, call)
        arrived = [] if at is None else queries.arrived_calls(conn, at - OVERLAP, MAX_PER_LOOK)
        last_is_included = any(row["id"] == last for _, row in arrived)
        rows = [row for _, row in arrived if row["id"] not in seen_ids]
        return MissedCalls(
            rows,
            frozenset({last, *(row["id"] for row in rows)}),
            skipped=len(arrived) == MAX_PER_LOOK and not last_is_included,
        )

    def _seen_by_watcher(self, call: str) -> frozenset[str]:
        """Ids of `call` and of all calls up to it that its watcher has seen or does not need: those that had arrived
        when watching began."""
        calls, (number_at_start, arrived_before) = list(self._calls), self._arrived_before
        number = next((number for number, row in calls if row["id"] == call), 0)
        earlier = arrived_before if number > number_at_start else frozenset()
        return earlier.union([call], (row["id"] for number_, row in calls if number_ <= number))

    def stop(self) -> None:
        """End all watchers, since the process is about to end."""
        self.stopping = True

    def _is_needed(self) -> bool:
        with self._lock:
            if self._watchers and not self.stopping:
                return True
            self._thread = None
            return False

    def _run(self) -> None:
        """Query for new calls until nobody watches any more."""
        pause = threading.Event()
        seen: dict[str, datetime] = {}
        last: datetime | None = None
        while self._is_needed():
            try:
                with self._pool.connection() as conn:
                    if last is None:
                        last = queries.database_time(conn) - timedelta(seconds=time.monotonic() - self._watching_since)
                        before = queries.arrived_calls(conn, last - OVERLAP, MAX_PER_LOOK)
                        seen = {row["id"]: at for at, row in before if at < last}
                        self._arrived_before = self._number, frozenset(seen)
                    # the database's clock may have been set back
                    last = min(self._take_new(conn, seen, last), queries.database_time(conn))
            except (psycopg.Error, PoolTimeout) as error:
                log.warning("cannot look for calls: %s", error.__class__.__name__)
            pause.wait(LOOK_SECONDS)

    def _take_new(self, conn: Connection[tuple[Any, ...]], seen: dict[str, datetime], last: datetime) -> datetime:
        """Number the calls that arrived since `last` and are not in `seen`; returns the time of the newest call."""
        began = last - OVERLAP
        rows = queries.arrived_calls(conn, began, MAX_PER_LOOK)
        new = [(at, row) for at, row in rows if row["id"] not in seen and at >= began]
        if len(rows) == MAX_PER_LOOK and len(new) == MAX_PER_LOOK:
            self.skipped += 1
        for at, row in new:
            seen[row["id"]] = at
            self._number += 1
            self._calls.append((self._number, row))
            last = max(last, at)
        for call in [call for call, at in seen.items() if at < last - 2 * OVERLAP]:
            del seen[call]
        return last
