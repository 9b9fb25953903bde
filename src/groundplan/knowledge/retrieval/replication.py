"""Replicate PostgreSQL into the projections: a thread that waits for changes and applies them.

It reads as role control, in a read-only connection. It answers no search.
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
from groundplan.knowledge.retrieval.projection import DocumentEntry, Projection, Row
from groundplan.knowledge.retrieval.words import Analyzer

_BATCH = 2000
"""Changes (of chunks and documents) that are applied at once."""
_WAIT_SECONDS = 5.0
"""How long a change may go unnoticed where its notification was lost."""
_GATHER_SECONDS = 0.01
"""How long changes are gathered after the first notification before they are read."""
_RETRY_SECONDS = 1.0

_log = get_logger("groundplan.knowledge")


class Follower:
    """Applies the changes of one database to the projections of its editions until stopped."""

    def __init__(
        self, url: Callable[[], str], index: Editions, save: Callable[[Projection], None] | None = None
    ) -> None:
        """`url` returns the DSN of role control for each new connection, since an embedded server may change its port.
        `save` is called with the serving projection when all changes are applied."""
        self._url = url
        self._index = index
        self._save = save
        self._published_name = ""
        self._analyzer = Analyzer()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="knowledge-follower", daemon=True)
        self.lag = 0
        """Number of changed documents that the projection did not contain as of the last batch."""
        self.connected = False

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop after the current batch; returns at once."""
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
        store.listen_for_changes(conn)
        self._published_name = ""
        for index in self._index.projections:
            if not is_plausible(conn, index):
                self._index.mark_complete(index, is_complete=False)
                index.reset()
        while not self._stopping.is_set():
            self._index.update(index_store.editions(conn))
            for index in self._index.projections:
                self._catch_up(conn, index)
            self._publish_status(conn)
            for _ in conn.notifies(timeout=_WAIT_SECONDS, stop_after=1):
                self._stopping.wait(_GATHER_SECONDS)
            # drain: one pass applies all changes notified so far
            for _ in conn.notifies(timeout=0):
                pass

    def _catch_up(self, conn: Connection[Any], index: Projection) -> None:
        """Apply all new changes of an edition; between two batches of another, those of the serving edition."""
        is_serving = index.edition == self._index.serving
        while apply_next_changes(conn, index, self._analyzer):
            if self._stopping.is_set():
                return
            if is_serving:
                self.lag = search_store.count_pending(conn, index.cursor, index.edition)
            else:
                apply_next_changes(conn, self._index.serving_projection, self._analyzer)
        if is_serving:
            self.lag = 0
        self._index.mark_complete(index, is_complete=True)

    def _publish_status(self, conn: Connection[Any]) -> None:
        """Publish which editions are complete, for `index.switch`: in the application name of this connection."""
        name = index_store.FOLLOWER + " ".join(map(str, self._index.complete_editions))
        if name != self._published_name:
            conn.execute("SELECT set_config('application_name', %s, false)", (name,))
            self._published_name = name
        self.connected = self._index.find(self._index.serving) is not None
        if self.connected and self._save is not None:
            self._save(self._index.serving_projection)


def is_plausible(conn: Connection[Any], index: Projection) -> bool:
    """Whether the projection can be one of this database, which may have been restored or replaced."""
    if all(one.id != index.edition for one in index_store.editions(conn)):
        return False
    newest_change, last_assigned, chunks = search_store.change_counts(conn, index.edition)
    if index.cursor > last_assigned:
        return False
    return index.cursor < newest_change or index.count == chunks


def apply_next_changes(conn: Connection[Any], index: Projection, analyzer: Analyzer) -> bool:
    """Apply the next changes of a projection's edition; returns whether there may be more."""
    newest = search_store.newest_visible_change(conn)
    changes = search_store.next_changes(conn, index.cursor, _BATCH, index.edition)
    more = sum(change.change_count for change in changes) >= _BATCH
    rewritten = [change.document for change in changes if change.has_new_chunks]
    updated = [change.document for change in changes if not change.has_new_chunks]
    if updated:
        attributes = search_store.document_attributes(conn, updated)
        index.update_documents(
            [(change.document, change.source, change.acl) for change in attributes],
            changes[-1].number if not rewritten else index.cursor,
            {change.document: change.metadata for change in attributes},
        )
    if rewritten:
        index.replace_documents(
            document_entries(search_store.feed_chunks(conn, rewritten, index.edition), rewritten, analyzer),
            changes[-1].number,
        )
    if not more:
        # numbers up to this one that were not returned belong to other editions, or were rolled back
        index.advance_cursor(newest)
    return more


def document_entries(
    chunks: Sequence[search_store.FeedChunk], documents: Sequence[UUID], analyzer: Analyzer
) -> list[DocumentEntry]:
    """Entries of these documents for the projection; those without a chunk have no rows, which removes them."""
    found: dict[UUID, DocumentEntry] = {}
    for document, group in groupby(chunks, key=lambda chunk: chunk.document):
        own_chunks = list(group)
        rows = [
            Row(one.id, analyzer.terms(search_text(one.title, one.headings, one.text)), one.vector)
            for one in own_chunks
        ]
        found[document] = DocumentEntry(document, own_chunks[0].source, own_chunks[0].acl, rows, own_chunks[0].metadata)
    return [found.get(document, DocumentEntry(document, "", -1, ())) for document in documents]


def search_text(title: str, headings: Sequence[str], text: str) -> str:
    """The text that a chunk is indexed by: title and headings that its text lacks, then the text."""
    above = [name for name in dict.fromkeys((title, *headings)) if name not in text]
    return "\n".join([*above, text])
