"""Compute vectors for chunks that have none yet, separately from ingestion: words can be searched before vectors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from psycopg import Connection

from groundplan.knowledge.index import index_store
from groundplan.knowledge.index.model import serving_edition
from groundplan.knowledge.intake import intake_store as store
from groundplan.knowledge.model import Embedder

BATCH = 256


def embed_pending(
    conn: Connection[Any], embedder: Embedder, edition: int | None = None, stop: Callable[[], bool] = lambda: False
) -> int:
    """Embed all chunks of an edition (None: the serving one) that have no vector; returns how many.

    `conn` is in autocommit: each batch is a transaction of its own. Raises the embedder's errors; written batches stay.
    """
    done = 0
    edition = serving_edition(index_store.editions(conn)).id if edition is None else edition
    while not stop() and (rows := store.chunks_without_vector(conn, edition, BATCH)):
        vectors = embedder.embed([embedding_text(title, headings, text) for _, title, headings, text in rows])
        with conn.transaction():
            store.lock_changes(conn)
            store.put_vectors(conn, [id for id, *_ in rows], vectors)
            store.notify_followers(conn)
        done += len(rows)
    return done


def embedding_text(title: str, headings: list[str], text: str) -> str:
    """The text to embed for a chunk: title and headings that its text lacks, then the text."""
    above = [name for name in (title, *headings) if name not in text]
    return "\n".join([*dict.fromkeys(above), text])
