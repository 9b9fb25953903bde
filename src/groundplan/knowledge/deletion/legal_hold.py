"""Keeps versions of documents under a legal hold that change, disappear or become unreadable at their source, until the
hold ends.

The text stays as it was read, for people who may decide about the document, and no search finds it. The route decides
who may read it; the database decides whether a hold applies (`on_hold`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from psycopg import Connection

from groundplan.core.ids import new_id
from groundplan.knowledge.deletion import deletion_store, tombstones
from groundplan.knowledge.deletion import legal_hold_store as store
from groundplan.knowledge.deletion.delete import DeletionReason, record_deletion
from groundplan.knowledge.deletion.deletion_store import Tombstone
from groundplan.knowledge.deletion.legal_hold_store import Cause
from groundplan.knowledge.index import index_store
from groundplan.knowledge.index.recut import join_passages
from groundplan.knowledge.parsing.model import Piece

_OWN_DECLARATIONS = ("front", "beside")
"""The parts of `declared` that come from the document itself and its sidecar."""


def keep_versions_before_change(
    conn: Connection[Any], rows: Sequence[Mapping[str, Any]], chunks: Mapping[UUID, Sequence[Piece]]
) -> int:
    """Before `rows` replace documents, keep the versions of those under a legal hold whose text, title or declarations
    change; returns their number. In the caller's transaction."""
    new = {UUID(str(row["id"])): row for row in rows}
    held = store.held_documents(conn, list(new))
    texts = _texts(conn, [one.id for one in held])
    kept: dict[UUID, tuple[str, Cause]] = {
        one.id: (texts[one.id], "changed")
        for one in held
        if _without_spaces(texts[one.id]) != _without_spaces("".join(piece.text for piece in chunks.get(one.id, ())))
        or _declared_values(one.title, one.declared) != _declared_values(new[one.id]["title"], new[one.id]["declared"])
    }
    return store.keep_versions(conn, kept) if kept else 0


def keep_versions_before_removal(conn: Connection[Any], removed: Mapping[UUID, Cause]) -> int:
    """Before documents are removed, keep the versions of those under a legal hold; returns their number. In the
    caller's transaction."""
    texts = _texts(conn, [one.id for one in store.held_documents(conn, list(removed))])
    return store.keep_versions(conn, {id: (text, removed[id]) for id, text in texts.items()}) if texts else 0


def release_ended_holds(conn: Connection[Any], reason: DeletionReason) -> int:
    """Destroy versions kept by holds that have ended; returns their number. They are erased from the disk, with a
    receipt, like all deleted documents."""
    with conn.transaction():
        ended = store.ended_versions(conn)
        if not ended:
            return 0
        stones = [
            Tombstone(
                new_id(), one.id, one.source, one.path, one.digest, reason.at, reason.by, reason.reason,
                reason.at + timedelta(days=one.erase_days), lifted_at=reason.at, cause="hold_ended",
            )
            for one in ended
        ]  # fmt: skip
        for stone in stones:
            deletion_store.put_tombstone(conn, stone)
        store.drop_versions(conn, [one.id for one in ended])
        deletion_store.forget_deleted(conn, [one.document_id for one in ended if one.document_id is not None])
        for source in sorted({one.source for one in ended}):
            source_stones = [stone for stone in stones if stone.source == source]
            record_deletion(conn, source, source_stones, reason, "versions")
    tombstones.append_tombstones(reason.home, stones)
    return len(stones)


def _texts(conn: Connection[Any], documents: Sequence[UUID]) -> dict[UUID, str]:
    if not documents:
        return {}
    return {id: join_passages(pieces).strip() for id, pieces in index_store.pieces_of(conn, documents).items()}


def _without_spaces(text: str) -> str:
    """The text without white space, since passages leave out some of it."""
    return "".join(text.split())


def _declared_values(title: str, declared: Mapping[str, Any]) -> str:
    return json.dumps([title, *(declared.get(name) or {} for name in _OWN_DECLARATIONS)], default=str, sort_keys=True)
