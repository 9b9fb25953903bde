"""Writes what a run over a source has taken over: each batch, with the cursor behind it, in one transaction.

What one document says and PostgreSQL refuses costs that document. Nothing is read from the source here, and no vector
is made.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import psycopg
from psycopg import Connection
from psycopg.errors import CardinalityViolation, ProgramLimitExceeded

from groundplan.blueprint.model import Source
from groundplan.core.audit import SYSTEM
from groundplan.core.database import first_line
from groundplan.knowledge.deletion import deletion_store, legal_hold
from groundplan.knowledge.deletion.legal_hold_store import Cause
from groundplan.knowledge.index import index_store
from groundplan.knowledge.index.recut import recut
from groundplan.knowledge.intake import intake_store as store
from groundplan.knowledge.intake.batch import Batch
from groundplan.knowledge.intake.concurrent_changes import caught_up, check_declared, inherited, put_carried
from groundplan.knowledge.intake.failures import failures
from groundplan.knowledge.intake.tally import Tally
from groundplan.knowledge.sources.model import Cursor
from groundplan.knowledge.store import put_readers
from groundplan.ledger import finding_store

log = logging.getLogger("groundplan.knowledge.intake")
_DATA: Final = (psycopg.DataError, psycopg.IntegrityError, CardinalityViolation, ProgramLimitExceeded, ValueError)
"""How PostgreSQL, or the way to it, refuses what a document says."""


class Writer:
    """Of one run. `conn` is of role control and in autocommit; `known` are the documents as they were when it began,
    `limit` is how long passages are cut that it is given."""

    def __init__(
        self, conn: Connection[Any], source: Source, known: Mapping[str, store.Known], limit: int, tally: Tally
    ) -> None:
        self._conn, self._source, self._known, self._limit, self._tally = conn, source, known, limit, tally
        self._of = sum(one.live for one in known.values())
        self._told: set[str] = set()
        """Documents whose failure is written down."""

    def write(self, batch: Batch) -> None:
        """All of it, or each document by itself where one of them is refused. Raises `Redeclared`."""
        try:
            self._write(batch)
        except _DATA as error:
            log.warning("documents of source %s are written one by one: %s", self._source.name, first_line(error))
            self._write_apart(batch)

    def go_on(self, cursor: Cursor | None, *, running: bool) -> None:
        """Note how far the run is."""
        store.go_on(self._conn, self._source.name, cursor, self._progressed(running=running))

    def _write_apart(self, batch: Batch) -> None:
        """Each document by itself, so that one which PostgreSQL refuses costs that one; last what is left, and the
        cursor."""
        rest = Batch(tokens=batch.tokens, removed=batch.removed, cursor=batch.cursor)
        for row in (*batch.rows, *batch.held):
            self._write_one(row["path"], batch.part(row), rest)
        self._write(rest)

    def _write_one(self, key: str, part: Batch, rest: Batch) -> None:
        try:
            self._write(part)
        except _DATA as error:
            self._tally.tell(
                key, "document_refused", f"PostgreSQL does not take it: {first_line(error)[:200]}",
                "Look for unusual characters in its name, title and values, and save it anew.",
            )  # fmt: skip
            one = self._known.get(key)
            if one is not None and one.live:
                rest.removed[one.id] = "unreadable"
            if part.held:
                self._tally.readers_changed -= 1
            elif one is not None and one.live:
                self._tally.changed -= 1
            else:
                self._tally.added -= 1
            self._tally.chunks -= sum(map(len, part.chunks.values()))

    def _write(self, batch: Batch) -> None:
        kept = 0
        with self._conn.transaction():
            store.hold_changes(self._conn)  # before any row, and a cursor is of the place that was declared
            check_declared(self._conn, self._source)
            if batch.rows or batch.removed or batch.held:
                self._catch_up(batch)
            if batch.rows:
                kept += legal_hold.keep_changed(self._conn, batch.rows, batch.chunks)
                store.put_documents(self._conn, batch.rows)
                put_carried(self._conn, batch.carried)
                self._put_chunks(batch)
                written = {UUID(row["id"]): str(row["path"]) for row in batch.rows}
                store.supersede(self._conn, self._source.name, list(written), list(written.values()))
            if batch.held:
                store.put_held(self._conn, batch.held)
            if batch.tokens:
                store.put_tokens(self._conn, batch.tokens)
            if batch.readers:
                put_readers(self._conn, batch.readers)
            if batch.removed:
                kept += self._take_out(batch.removed)
            told = self._tell_failures()
            if batch.rows or batch.removed or batch.held:
                store.tell_followers(self._conn)
            self.go_on(batch.cursor, running=True)
        self._tally.kept += kept
        self._told |= told

    def _catch_up(self, batch: Batch) -> None:
        """What was deleted since this run began is none of its documents, and what was decided holds."""
        held = len(batch.held)
        added = {path for row in batch.rows if not (one := self._known.get(path := str(row["path"]))) or not one.live}
        written = {str(row["path"]) for row in batch.rows}
        closed = caught_up(self._conn, self._source.name, batch)
        self._tally.readers_changed -= held - len(batch.held)
        self._tally.added -= len(added & closed)
        self._tally.changed -= len((written - added) & closed)
        self._tally.blocked |= closed

    def _tell_failures(self) -> set[str]:
        """With what is written: behind its cursor nobody looks at these documents again, should this run be cut off."""
        bad = [each for each in self._tally.bad if each.key not in self._told]
        found = failures(self._source, bad, self._tally.blocked - self._told)
        for each in found:
            finding_store.tell(self._conn, each)
        return {each.key for each in bad} | self._tally.blocked

    def _take_out(self, removed: Mapping[UUID, Cause]) -> int:
        """Destroy what documents say, but what a legal hold keeps: how many of those. What goes at its source, and is
        not held, is noted for its receipt."""
        kept = legal_hold.keep_removed(self._conn, removed)
        gone = [id for id, cause in removed.items() if cause == "gone"]
        noted = deletion_store.bury_gone(self._conn, gone, SYSTEM)
        heirs = inherited(self._conn, gone)
        store.remove(self._conn, list(removed), removed.keys() - set(gone))
        put_carried(self._conn, heirs)
        deletion_store.forget(self._conn, noted)
        return kept

    def let_go(self, documents: Sequence[UUID]) -> None:
        """Forget what was kept of documents for when they can be read again: they are gone at their source since."""
        deletion_store.forget(self._conn, deletion_store.bury_gone(self._conn, documents, SYSTEM))
        store.let_go(self._conn, documents)

    def _put_chunks(self, batch: Batch) -> None:
        """Into every edition that there is, cut as that one is: none of them ever lacks what another has."""
        store.take_away(self._conn, batch.replaced)
        for edition in index_store.editions(self._conn):
            limit, chunks = edition.settings.limit(self._source.name), batch.chunks
            if limit != self._limit:
                chunks = {
                    id: recut(pieces, markdown=id not in batch.plain, limit=limit) for id, pieces in chunks.items()
                }
            store.put_chunks(self._conn, edition.id, chunks)

    def _progressed(self, *, running: bool) -> dict[str, Any]:
        """`of`: about how many there are, by the run before; None at the first."""
        tally = self._tally
        return {
            "read": tally.read, "of": self._of or None, "added": tally.added, "changed": tally.changed,
            "deleted": tally.deleted, "failed": len(tally.bad), "running": running,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
        }  # fmt: skip
