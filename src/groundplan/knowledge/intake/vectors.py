"""Vectors for passages that have none yet, apart from taking documents over: words are searched before meaning is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from psycopg import Connection

from groundplan.knowledge.index import index_store
from groundplan.knowledge.index.model import serving
from groundplan.knowledge.intake import intake_store as store
from groundplan.knowledge.model import Embedder

BATCH = 256


def embed_pending(
    conn: Connection[Any], embedder: Embedder, edition: int | None = None, stop: Callable[[], bool] = lambda: False
) -> int:
    """Embed an edition (None: the one that serves) until nothing is left; how many.

    `conn` is in autocommit: each batch is a transaction of its own. Raises what the embedder does; what was done stays.
    """
    done = 0
    edition = serving(index_store.editions(conn)).id if edition is None else edition
    while not stop() and (rows := store.unembedded(conn, edition, BATCH)):
        vectors = embedder.embed([context(title, headings, text) for _, title, headings, text in rows])
        with conn.transaction():
            store.hold_changes(conn)
            store.put_vectors(conn, [id for id, *_ in rows], vectors)
            store.tell_followers(conn)
        done += len(rows)
    return done


def context(title: str, headings: list[str], text: str) -> str:
    """What is embedded for a passage: where it stands, then its text."""
    above = [name for name in (title, *headings) if name not in text]
    return "\n".join([*dict.fromkeys(above), text])
