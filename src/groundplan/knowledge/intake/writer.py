"""Write the batches of a run over a source, each with the cursor after it in one transaction.

A document whose values PostgreSQL refuses fails by itself. This module reads nothing from the source and computes no
vectors.
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
from groundplan.knowledge.index.recut import recut_passages
from groundplan.knowledge.intake import intake_store as store
from groundplan.knowledge.intake.batch import Batch
from groundplan.knowledge.intake.concurrent_changes import (
    check_declared,
    inherit_replacements,
    reconcile_batch,
    store_inherited,
)
from groundplan.knowledge.intake.failures import failure_findings
from groundplan.knowledge.intake.tally import Tally
from groundplan.knowledge.sources.model import Cursor
from groundplan.knowledge.store import put_readers
from groundplan.ledger import finding_store

log = logging.getLogger("groundplan.knowledge.intake")
_DATA_ERRORS: Final = (
    psycopg.DataError,
    psycopg.IntegrityError,
    CardinalityViolation,
    ProgramLimitExceeded,
    ValueError,
)
"""Errors with which PostgreSQL or the driver refuses the values of a document."""


class BatchWriter:
    """Writes the batches of one run. `conn` has role control and is in autocommit; `known` are the documents as they
    were when the run began, `limit` is the maximum length of the passages in its batches."""

    def __init__(
        self, conn: Connection[Any], source: Source, known: Mapping[str, store.StoredDocument], limit: int, tally: Tally
    ) -> None:
        self._conn, self._source, self._known, self._limit, self._tally = conn, source, known, limit, tally
        self._expected_count = sum(one.live for one in known.values())
        self._reported: set[str] = set()
        """Keys of documents whose failure is stored."""

    def write(self, batch: Batch) -> None:
        """Write a batch; document by document where PostgreSQL refuses one of them. Raises `Redeclared`."""
        try:
            self._write(batch)
        except _DATA_ERRORS as error:
            log.warning("documents of source %s are written one by one: %s", self._source.name, first_line(error))
            self._write_one_by_one(batch)

    def save_progress(self, cursor: Cursor | None, *, running: bool) -> None:
        """Store how far the run is."""
        store.put_progress(self._conn, self._source.name, cursor, self._progress(running=running))

    def _write_one_by_one(self, batch: Batch) -> None:
        """Write each document by itself, so that only a refused one fails; finally the remainder and the cursor."""
        remainder = Batch(tokens=batch.tokens, removed=batch.removed, cursor=batch.cursor)
        for row in (*batch.rows, *batch.governance_rows):
            self._write_document(row["path"], batch.extract(row), remainder)
        self._write(remainder)

    def _write_document(self, key: str, part: Batch, remainder: Batch) -> None:
        try:
            self._write(part)
        except _DATA_ERRORS as error:
            self._tally.record_failure(
                key, "document_refused", f"PostgreSQL does not take it: {first_line(error)[:200]}",
                "Look for unusual characters in its name, title and values, and save it anew.",
            )  # fmt: skip
            document = self._known.get(key)
            if document is not None and document.live:
                remainder.removed[document.id] = "unreadable"
            if part.governance_rows:
                self._tally.readers_changed -= 1
            elif document is not None and document.live:
                self._tally.changed -= 1
            else:
                self._tally.added -= 1
            self._tally.chunks -= sum(map(len, part.chunks.values()))

    def _write(self, batch: Batch) -> None:
        held_versions = 0
        with self._conn.transaction():
            store.lock_changes(self._conn)  # before any row, and a cursor is of the place that was declared
            check_declared(self._conn, self._source)
            if batch.rows or batch.removed or batch.governance_rows:
                self._reconcile(batch)
            if batch.rows:
                held_versions += legal_hold.keep_versions_before_change(self._conn, batch.rows, batch.chunks)
                store.put_documents(self._conn, batch.rows)
                store_inherited(self._conn, batch.inherited)
                self._put_chunks(batch)
                written = {UUID(row["id"]): str(row["path"]) for row in batch.rows}
                store.supersede_replaced(self._conn, self._source.name, list(written), list(written.values()))
            if batch.governance_rows:
                store.put_governance(self._conn, batch.governance_rows)
            if batch.tokens:
                store.put_tokens(self._conn, batch.tokens)
            if batch.readers:
                put_readers(self._conn, batch.readers)
            if batch.removed:
                held_versions += self._remove_documents(batch.removed)
            reported = self._report_failures()
            if batch.rows or batch.removed or batch.governance_rows:
                store.notify_followers(self._conn)
            self.save_progress(batch.cursor, running=True)
        self._tally.held_versions += held_versions
        self._reported |= reported

    def _reconcile(self, batch: Batch) -> None:
        """Drop documents deleted since the run began, and apply decisions made since then."""
        held = len(batch.governance_rows)
        added = {path for row in batch.rows if not (one := self._known.get(path := str(row["path"]))) or not one.live}
        written = {str(row["path"]) for row in batch.rows}
        closed = reconcile_batch(self._conn, self._source.name, batch)
        self._tally.readers_changed -= held - len(batch.governance_rows)
        self._tally.added -= len(added & closed)
        self._tally.changed -= len((written - added) & closed)
        self._tally.blocked_keys |= closed

    def _report_failures(self) -> set[str]:
        """Store findings together with the batch: if the run is cut off, nobody reads documents before the cursor
        again. Returns the keys that were reported."""
        failures = [failure for failure in self._tally.failures if failure.key not in self._reported]
        found = failure_findings(self._source, failures, self._tally.blocked_keys - self._reported)
        for failure in found:
            finding_store.report(self._conn, failure)
        return {failure.key for failure in failures} | self._tally.blocked_keys

    def _remove_documents(self, removed: Mapping[UUID, Cause]) -> int:
        """Remove documents and destroy their text, except versions under a legal hold; returns how many of those are
        kept. Documents deleted at their source without a hold are noted for a receipt of erasure."""
        kept = legal_hold.keep_versions_before_removal(self._conn, removed)
        deleted = [id for id, cause in removed.items() if cause == "gone"]
        noted = deletion_store.put_source_tombstones(self._conn, deleted, SYSTEM)
        heirs = inherit_replacements(self._conn, deleted)
        store.remove_documents(self._conn, list(removed), removed.keys() - set(deleted))
        store_inherited(self._conn, heirs)
        deletion_store.forget_declared(self._conn, noted)
        return kept

    def forget_lost(self, documents: Sequence[UUID]) -> None:
        """Forget unreadable documents that are deleted at their source since: they will not be readable again."""
        deletion_store.forget_declared(self._conn, deletion_store.put_source_tombstones(self._conn, documents, SYSTEM))
        store.clear_unreadable(self._conn, documents)

    def _put_chunks(self, batch: Batch) -> None:
        """Write chunks into every edition, cut to its limit, so that no edition lacks what another has."""
        store.delete_chunks(self._conn, batch.replaced)
        for edition in index_store.editions(self._conn):
            limit, chunks = edition.settings.limit(self._source.name), batch.chunks
            if limit != self._limit:
                chunks = {
                    id: recut_passages(pieces, markdown=id not in batch.plain_documents, limit=limit)
                    for id, pieces in chunks.items()
                }
            store.put_chunks(self._conn, edition.id, chunks)

    def _progress(self, *, running: bool) -> dict[str, Any]:
        """Progress as stored with the source. `of`: the number of documents after the previous run; None at first."""
        tally = self._tally
        return {
            "read": tally.read, "of": self._expected_count or None, "added": tally.added, "changed": tally.changed,
            "deleted": tally.deleted, "failed": len(tally.failures), "running": running,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
        }  # fmt: skip
