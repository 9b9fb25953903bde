"""Replicates PostgreSQL into the projection: a thread that waits for changes and takes them over.

It reads as role control, in a connection that cannot write. It answers no search.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from itertools import groupby
from typing import Any
from uuid import UUID

import psycopg
from psycopg import Connection

from groundplan.core.database import connect, first_line
from groundplan.core.errors import GroundplanError
from groundplan.core.logger import get_logger
from groundplan.knowledge import store
from groundplan.knowledge.index import index_store
from groundplan.knowledge.retrieval import search_store
from groundplan.knowledge.retrieval.editions import Editions
from groundplan.knowledge.retrieval.projection import Entry, Projection, Row
from groundplan.knowledge.retrieval.words import Analyzer

_BATCH = 2000
"""Changes (chunks and documents) that are taken over at once."""
_WAIT_SECONDS = 5.0
"""How long a change may go unnoticed where its notification was lost."""
_GATHER_SECONDS = 0.01
"""How long changes are gathered after the first that is told, before they are looked at."""
_RETRY_SECONDS = 1.0

_log = get_logger("groundplan.knowledge")


class Follower:
    """Follows one database into the projections of its editions until stopped."""

    def __init__(
        self, url: Callable[[], str], index: Editions, keep: Callable[[Projection], None] | None = None
    ) -> None:
        """`url` gives the DSN of role control at each new connection, since an embedded server may change its port.
        `keep` is called with what serves when nothing is left to do."""
        self._url = url
        self._index = index
        self._keep = keep
        self._told = ""
        self._analyzer = Analyzer()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="knowledge-follower", daemon=True)
        self.lag = 0
        """Changed documents that the projection does not know yet, as of the last look."""
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
            except (GroundplanError, psycopg.Error, OSError) as error:
                self.connected = False
                _log.warning("knowledge.feed_lost", reason=first_line(error))
                self._stopping.wait(_RETRY_SECONDS)

    def _follow(self, conn: Connection[Any]) -> None:
        store.listen(conn)
        self._told = ""
        for index in self._index.held:
            if not is_plausible(conn, index):
                self._index.note(index, whole=False)
                index.reset()
        while not self._stopping.is_set():
            self._index.follow(index_store.editions(conn))
            for index in self._index.held:
                self._take(conn, index)
            self._tell(conn)
            for _ in conn.notifies(timeout=_WAIT_SECONDS, stop_after=1):
                self._stopping.wait(_GATHER_SECONDS)
            # one look takes over whatever was told until now: many changes must not cost a look each
            for _ in conn.notifies(timeout=0):
                pass

    def _take(self, conn: Connection[Any], index: Projection) -> None:
        """Everything that is new in an edition; between two batches of another, what is new in the one that serves."""
        own = index.edition == self._index.serving
        while take_batch(conn, index, self._analyzer):
            if self._stopping.is_set():
                return
            if own:
                self.lag = search_store.waiting(conn, index.cursor, index.edition)
            else:
                take_batch(conn, self._index.current, self._analyzer)
        if own:
            self.lag = 0
        self._index.note(index, whole=True)

    def _tell(self, conn: Connection[Any]) -> None:
        """Let whoever switches know what is held whole: it is part of the name of this connection."""
        name = index_store.FOLLOWER + " ".join(map(str, self._index.whole))
        if name != self._told:
            conn.execute("SELECT set_config('application_name', %s, false)", (name,))
            self._told = name
        self.connected = self._index.of(self._index.serving) is not None
        if self.connected and self._keep is not None:
            self._keep(self._index.current)


def is_plausible(conn: Connection[Any], index: Projection) -> bool:
    """Whether the projection can be of this database, and not of one that was restored or replaced."""
    if all(one.id != index.edition for one in index_store.editions(conn)):
        return False
    newest, given, chunks = search_store.counts(conn, index.edition)
    if index.cursor > given:
        return False
    return index.cursor < newest or index.count == chunks


def take_batch(conn: Connection[Any], index: Projection, analyzer: Analyzer) -> bool:
    """Take over the next changes of its edition; whether there may be more of them."""
    newest = search_store.newest(conn)
    changes = search_store.changes(conn, index.cursor, _BATCH, index.edition)
    more = sum(one.count for one in changes) >= _BATCH
    whole = [one.document for one in changes if one.chunks]
    moved = [one.document for one in changes if not one.chunks]
    if moved:
        noted = search_store.noted(conn, moved)
        index.note(
            [(one.document, one.source, one.acl) for one in noted],
            changes[-1].number if not whole else index.cursor,
            {one.document: one.metadata for one in noted},
        )
    if whole:
        index.take(entries(search_store.fed(conn, whole, index.edition), whole, analyzer), changes[-1].number)
    if not more:
        # whatever has a number up to that one and was not told is of another edition, or was given up
        index.skip(newest)
    return more


def entries(fed: Sequence[search_store.Fed], documents: Sequence[UUID], analyzer: Analyzer) -> list[Entry]:
    """What is to be held of some documents; those without a chunk are to be forgotten."""
    found: dict[UUID, Entry] = {}
    for document, chunks in groupby(fed, key=lambda chunk: chunk.document):
        own = list(chunks)
        rows = [Row(one.id, analyzer.terms(worded(one.title, one.headings, one.text)), one.vector) for one in own]
        found[document] = Entry(document, own[0].source, own[0].acl, rows, own[0].metadata)
    return [found.get(document, Entry(document, "", -1, ())) for document in documents]


def worded(title: str, headings: Sequence[str], text: str) -> str:
    """What a chunk is found by: where it stands, then its text; a title that is in the text is not counted twice."""
    above = [name for name in dict.fromkeys((title, *headings)) if name not in text]
    return "\n".join([*above, text])
