"""Delete documents: at once from everything that answers questions, then from the disk, with an audit entry.

A document under a legal hold is not deleted, whoever asks. A deleted path stays closed, even if its source still has
the document, until somebody readmits it. Documents deleted at their source are erased from the disk as well, and may
come back. Copies of the database elsewhere are not reached: a backup is cleaned by the tombstones when it is restored.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from psycopg import Connection

from groundplan.core.audit import SYSTEM, record
from groundplan.core.errors import Conflict, NotFound
from groundplan.core.ids import new_id
from groundplan.knowledge.deletion import deletion_store as store
from groundplan.knowledge.deletion import legal_hold_store, names_store, tombstones
from groundplan.knowledge.deletion.deletion_store import Tombstone
from groundplan.knowledge.intake import intake_store
from groundplan.knowledge.intake.concurrent_changes import inherit_replacements, store_inherited

RECEIPT_DOCUMENTS = 200
"""Most documents in one audit entry, which names each by its digest."""
SMALL_BYTES = 256 << 20
"""Tables up to this size are rewritten at once; larger ones when the first erasure is due within a day."""

ClearCaches = Callable[[Connection[Any], str, str], None]
"""Clears the cached answers of whatever may have used a source: (conn, source, actor), in the same transaction."""


@dataclass(frozen=True, slots=True)
class DeletionReason:
    """Who deletes, why and when, and the HOME that holds the tombstones."""

    by: str
    reason: str
    at: datetime
    home: Path


def delete(
    conn: Connection[Any], ids: Sequence[UUID], reason: DeletionReason, clear: ClearCaches | None = None
) -> list[Tombstone]:
    """Delete documents in a transaction of its own; returns their tombstones.

    They are gone from retrieval, index and caches when this returns. Raises `NotFound` (document_unknown) and
    `Conflict` (legal_hold); then nothing is deleted.
    """
    with conn.transaction():
        # taken before any document is locked, as ingestion does, and before answers are cleared, as a release does:
        # otherwise two transactions would deadlock
        intake_store.lock_changes(conn)
        documents = store.lock_deletable(conn, ids)
        if not documents:
            raise NotFound(
                "no such document", code="document_unknown", hint="`groundplan knowledge documents` lists them."
            )
        on_hold = [one.path for one in documents if one.legal_hold]
        if on_hold:
            raise Conflict(
                f"{', '.join(on_hold[:5])} may not be deleted: a legal hold keeps it", code="legal_hold",
                hint="Have the hold ended first: by a decision about the document, or in its source's declaration.",
            )  # fmt: skip
        stones = [
            Tombstone(
                new_id(), one.id, one.source, one.path, one.digest, reason.at, reason.by, reason.reason,
                reason.at + timedelta(days=one.erase_days),
            )
            for one in documents
        ]  # fmt: skip
        for stone in stones:
            store.put_tombstone(conn, stone)
        heirs = inherit_replacements(conn, [one.id for one in documents])
        intake_store.remove_documents(conn, [one.id for one in documents])
        store_inherited(conn, heirs)
        store.wipe_documents(conn, [one.id for one in documents])
        intake_store.notify_followers(conn)
        for source in sorted({one.source for one in documents}):
            source_stones = [stone for stone in stones if stone.source == source]
            if clear is not None:
                clear(conn, source, reason.by)
            record_deletion(conn, source, source_stones, reason, "documents")
    tombstones.append_tombstones(reason.home, stones)
    return stones


def record_deletion(
    conn: Connection[Any], source: str, stones: Sequence[Tombstone], reason: DeletionReason, kind: str
) -> None:
    """Record in the audit log that documents or versions (`kind`) of a source were deleted, in the caller's
    transaction. Each is named by its digest, since a path may reveal more than it should."""
    for some in _receipt_batches(stones):
        detail = {kind: len(some), "digests": [stone.digest for stone in some], "reason": reason.reason}
        record(
            conn, action="knowledge.deleted", actor=reason.by, subject=f"source/{source}", detail=detail, at=reason.at
        )


def _receipt_batches(stones: Sequence[Tombstone]) -> Iterator[Sequence[Tombstone]]:
    for start in range(0, len(stones), RECEIPT_DOCUMENTS):
        yield stones[start : start + RECEIPT_DOCUMENTS]


def readmit(conn: Connection[Any], source: str, path: str, reason: DeletionReason) -> None:
    """Reopen a deleted path: its document may be ingested again. Raises `NotFound` (tombstone_unknown)."""
    with conn.transaction():
        lifted = store.lift_tombstones(conn, source, path)
        if not lifted:
            raise NotFound(
                f"{path} of {source} was not deleted", code="tombstone_unknown",
                hint="`groundplan knowledge deletions` lists what was.",
            )  # fmt: skip
        record(
            conn, action="knowledge.readmitted", actor=reason.by, subject=f"source/{source}",
            detail={"tombstones": [str(stone.id) for stone in lifted], "reason": reason.reason}, at=reason.at,
        )  # fmt: skip
    tombstones.append_tombstones(reason.home, lifted)


def replay_tombstones(conn: Connection[Any], home: Path, at: datetime) -> int:
    """Reconcile the database with the list of tombstones in HOME, after a restore and at every start.

    Deletes what the database has again although it is on the list, even under a legal hold, since it was deleted
    before; and completes the list. Returns how many documents and versions were deleted.
    """
    listed = tombstones.read_tombstones(home)
    with conn.transaction():
        if listed:
            intake_store.lock_changes(conn)  # before any row, as in `delete`
        known = store.existing_ids(conn, listed)
        missing = [stone for id, stone in listed.items() if id not in known]
        for stone in sorted(missing, key=lambda one: one.at):
            store.put_tombstone(conn, stone)
        standing = [
            (one.source, one.path, one.salt) for one in store.tombstones(conn, limit=1_000_000) if one.lifted_at is None
        ]
        restored = store.live_documents_at(conn, standing)
        # these paths are open again: delete only documents that are exactly as they were when deleted
        lifted = [stone for stone in missing if stone.lifted_at is not None]
        restored += store.live_as_deleted(conn, [one for one in lifted if one.cause == "decided"])
        withdrawn = store.live_as_deleted(conn, [one for one in lifted if one.cause == "gone"])
        dropped = legal_hold_store.drop_versions(
            conn, [one.document_id for one in listed.values() if one.cause == "hold_ended"]
        )
        removed = [*restored, *withdrawn]
        if removed or dropped:
            intake_store.remove_documents(conn, removed)
            store.wipe_documents(conn, restored)
            store.withdraw_pushed(conn, withdrawn)
            intake_store.notify_followers(conn)
            detail = {"documents": len(removed), "versions": dropped, "reason": "the list of deletions was replayed"}
            record(conn, action="knowledge.deleted", actor=SYSTEM, subject="company", detail=detail, at=at)
        names_store.forget_names(conn, [stone for stone in listed.values() if stone.salt is not None])
        every = store.listed_tombstones(conn)
    tombstones.append_tombstones(home, [one for one in every if one.id not in listed])
    # a crash between erasing the names in the database and in the list left them in the list
    tombstones.replace_names(
        home, [one for one in every if one.salt is not None and one.id in listed and listed[one.id].salt is None]
    )
    return len(removed) + dropped


def forget_names(conn: Connection[Any], home: Path, documents: Sequence[UUID]) -> int:
    """Erase the paths of deleted documents from the database and the list; they stay closed by digests (`places`).
    Returns how many. Documents with versions under a legal hold keep their paths."""
    with conn.transaction():
        named = names_store.erase_names(conn, documents)
    tombstones.replace_names(home, named)
    return len({(stone.source, stone.path) for stone in named})


def delete_expired(conn: Connection[Any], reason: DeletionReason, clear: ClearCaches | None = None) -> int:
    """Delete documents whose retention has ended; returns how many."""
    ids = store.expired_documents(conn)
    return len(delete(conn, ids, reason, clear)) if ids else 0


def erase_from_disk(conn: Connection[Any], at: datetime) -> int:
    """Erase deleted documents from the disk, and record the receipt in the audit log; returns how many.

    `conn` is in autocommit. If no erasure is due within a day, nothing is done while the tables are large or only
    deletions at the source wait, since searches wait while tables are rewritten. The receipt says by which means, and
    what was not reached.
    """
    waiting = store.awaiting_erasure(conn)
    if not waiting:
        return 0
    due = min(stone.due for stone in waiting)
    asked = any(stone.cause != "gone" for stone in waiting)
    if due - at > timedelta(days=1) and (not asked or store.table_bytes(conn) > SMALL_BYTES):
        return 0
    remaining = store.remaining_texts(conn, [stone.document_id for stone in waiting])
    rewritten = store.rewrite_tables(conn)
    if remaining or not rewritten:
        return 0
    with conn.transaction():
        for some in _receipt_batches(waiting):
            store.mark_erased(conn, [stone.id for stone in some], _receipt(conn, some, at), at)
    return len(waiting)


def _receipt(conn: Connection[Any], stones: Sequence[Tombstone], at: datetime) -> UUID:
    """Record the receipt for these tombstones in the audit log; returns its id."""
    return record(
        conn, action="knowledge.erased", actor=SYSTEM, subject="company", at=at,
        detail={
            "documents": len(stones),
            "causes": dict(Counter(stone.cause for stone in stones)),
            "tombstones": [str(stone.id) for stone in stones],
            "digests": [stone.digest for stone in stones],
            "latest_due": min(stone.due for stone in stones).isoformat(),
            "means": "tables written anew",
            "not_reached": "numbers and words of it that search services keep, for up to an hour; write-ahead log "
            "until it is overwritten; backups until they are restored or destroyed; mirrors of repositories whose "
            "history has it",
        },
    )  # fmt: skip
