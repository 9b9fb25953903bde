"""Keeps the word index close behind PostgreSQL: a thread that waits for changes and takes them over.

It reads as role control, in a connection that cannot write. It answers no search.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing
from typing import Any

import psycopg
import structlog
from psycopg import Connection

from groundplan.core.database import connect, first_line
from groundplan.core.errors import Unavailable
from groundplan.knowledge import store
from groundplan.knowledge.retrieval.words import WordIndex

_BATCH = 200
_WAIT_SECONDS = 5.0
"""How long a change may go unnoticed where its notification was lost."""
_RETRY_SECONDS = 1.0

_log = structlog.get_logger("groundplan.knowledge")


class Follower:
    """Follows one database into one word index until stopped."""

    def __init__(self, url: Callable[[], str], index: WordIndex) -> None:
        """`url` gives the DSN of role control at each new connection, since an embedded server may change its port."""
        self._url = url
        self._index = index
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="knowledge-follower", daemon=True)
        self.lag = 0
        """Changed documents that the index does not know yet, as of the last look."""
        self.connected = False

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End after the current batch; returns at once."""
        self._stopping.set()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                with closing(connect(self._url(), autocommit=True)) as conn:
                    self._follow(conn)
            except (Unavailable, psycopg.Error) as error:
                self.connected = False
                _log.warning("knowledge.feed_lost", reason=first_line(error))
                self._stopping.wait(_RETRY_SECONDS)

    def _follow(self, conn: Connection[Any]) -> None:
        store.listen(conn)
        if not is_plausible(conn, self._index):
            self._index.reset()
        while not self._stopping.is_set():
            self.lag = store.waiting_documents(conn, self._index.cursor)
            while not self._stopping.is_set() and take_batch(conn, self._index):
                self.lag = store.waiting_documents(conn, self._index.cursor)
            self.connected = True
            for _ in conn.notifies(timeout=_WAIT_SECONDS, stop_after=1):
                pass


def is_plausible(conn: Connection[Any], index: WordIndex) -> bool:
    """Whether the index can be a projection of this database, and not of one that was restored or replaced."""
    newest = store.newest_change(conn)
    if index.cursor > newest:
        return False
    return index.cursor < newest or index.count == store.filled_chunks(conn)


def take_batch(conn: Connection[Any], index: WordIndex) -> bool:
    """Take over the next changed documents; False where there were none."""
    changed = store.changed_documents(conn, index.cursor, _BATCH)
    if not changed:
        return False
    documents = [document for document, _ in changed]
    index.take(documents, store.chunks_of(conn, documents), changed[-1][1])
    return True
