"""Making an edition beside the one that serves, from what is stored: killed at any point, it is gone on with.

Where it stands is in the rows themselves: a document is in the edition or it is not, a passage has a vector or it has
not. Documents that change meanwhile are written to every edition by `intake`, so it never falls behind. What was
declared and whether it may serve is not decided here.
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
    """Nobody asks for an end."""
    return False


def build(conn: Connection[Any], edition: Edition, embedder: Embedder, stop: Stop = never_stop) -> bool:
    """Bring an edition to where it can be compared; True when it is whole and is `ready`.

    `conn` is in autocommit. Raises what the embedder does; what was done stays. False where `stop` said so, or where
    documents came in its midst: then it is called again.
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
    """Cut every document for the edition that is not in it yet, a hundred in a transaction; how many."""
    after, done = _FIRST, 0
    while not stop():
        with conn.transaction():
            # whoever changes a document holds this too: what is read here is what is there when it is written
            intake_store.lock_changes(conn)
            rows = store.uncut_documents(conn, edition.id, after, BATCH)
            if rows:
                _cut_some(conn, edition, rows)
                intake_store.notify_followers(conn)
        if not rows:
            return done
        after, done = rows[-1][0], done + len(rows)
    return done


def _cut_some(conn: Connection[Any], edition: Edition, rows: list[tuple[UUID, str, str | None]]) -> None:
    own, now = edition.settings, serving_edition(store.editions(conn)).settings
    same = [id for id, source, _ in rows if own.limit(source) == now.limit(source)]
    if same:
        store.copy_passages(conn, edition.id, same, vectors=own.embedding == now.embedding)
    others = [row for row in rows if own.limit(row[1]) != now.limit(row[1])]
    if others:
        pieces = store.pieces_of(conn, [id for id, _, _ in others])
        intake_store.put_chunks(
            conn,
            edition.id,
            {
                id: recut_passages(pieces[id], markdown=is_markdown(media), limit=own.limit(source))
                for id, source, media in others
            },
        )
