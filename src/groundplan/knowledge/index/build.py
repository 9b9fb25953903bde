"""Builds an edition beside the serving one, from stored passages; after a crash at any point it continues.

The progress is in the rows themselves: a document is in the edition or not, a passage has a vector or not. Documents
that change meanwhile are written to every edition by `intake`, so it never falls behind. The settings, and whether the
edition may serve, are not decided here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

from psycopg import Connection

from groundplan.knowledge.index import index_store as store
from groundplan.knowledge.index.model import Edition, serving_edition
from groundplan.knowledge.index.recut import is_markdown, recut_passages
from groundplan.knowledge.intake import intake_store
from groundplan.knowledge.intake.vectors import embed_pending
from groundplan.knowledge.model import Embedder

BATCH = 100
_FIRST = UUID(int=0)

Stop = Callable[[], bool]


def never_stop() -> bool:
    """A stop condition that never holds."""
    return False


def build(conn: Connection[Any], edition: Edition, embedder: Embedder, stop: Stop = never_stop) -> bool:
    """Complete an edition and mark it as `ready`; returns True if that was done.

    `conn` is in autocommit. Raises what the embedder raises; finished work stays. Returns False if `stop` asked for it,
    or if documents were added meanwhile: then call it again.
    """
    cut_documents(conn, edition, stop)
    embed_pending(conn, embedder, edition.id, stop)
    with conn.transaction():
        intake_store.lock_changes(conn)
        if store.count_missing(conn, edition.id) != (0, 0):
            return False
        store.put_state(conn, edition.id, "ready")
        intake_store.notify_followers(conn)
    return True


def cut_documents(conn: Connection[Any], edition: Edition, stop: Stop = never_stop) -> int:
    """Cut every document that is not in the edition yet, `BATCH` per transaction; returns their number."""
    after, done = _FIRST, 0
    while not stop():
        with conn.transaction():
            # every writer of documents holds this lock too: what is read here is still true when it is written
            intake_store.lock_changes(conn)
            rows = store.uncut_documents(conn, edition.id, after, BATCH)
            if rows:
                _cut_batch(conn, edition, rows)
                intake_store.notify_followers(conn)
        if not rows:
            return done
        after, done = rows[-1][0], done + len(rows)
    return done


def _cut_batch(conn: Connection[Any], edition: Edition, rows: list[tuple[UUID, str, str | None]]) -> None:
    settings, serving = edition.settings, serving_edition(store.editions(conn)).settings
    unchanged = [id for id, source, _ in rows if settings.limit(source) == serving.limit(source)]
    if unchanged:
        store.copy_passages(conn, edition.id, unchanged, vectors=settings.embedding == serving.embedding)
    recut = [row for row in rows if settings.limit(row[1]) != serving.limit(row[1])]
    if recut:
        pieces = store.pieces_of(conn, [id for id, _, _ in recut])
        intake_store.put_chunks(
            conn,
            edition.id,
            {
                id: recut_passages(pieces[id], markdown=is_markdown(media), limit=settings.limit(source))
                for id, source, media in recut
            },
        )
