"""Documents written and read row by row, for tests and benchmarks of search and permissions.

The product takes documents over in batches (`knowledge.intake`) and searches in its projection; here one document is
one call, and `nearest` is an exact scan. Everything runs in the caller's transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from uuid import UUID

from groundplan.core.ids import new_id
from groundplan.knowledge.halfvec import Halfvec
from groundplan.knowledge.model import Chunk, Readers, StoredChunk, Vectors
from groundplan.knowledge.store import CHANGE_LOCK, CHANNEL, COLUMNS, Conn, put_readers


@dataclass(frozen=True, slots=True)
class Document:
    """A document as read from its source: `path` is relative to the source's folder, with forward slashes."""

    path: str
    title: str
    text: str
    digest: str
    """SHA-256 of the content and of the version of its processing: with an equal digest nothing has to be done
    again."""
    readers: Readers
    markdown: bool
    modified_at: datetime | None = None
    review_by: date | None = None


def put_document(conn: Conn, source: str, document: Document, chunks: Sequence[Chunk], vectors: Vectors) -> UUID:
    """Insert a document or replace its content and readers; `vectors` has a row per chunk. Returns its id."""
    conn.execute("SELECT pg_advisory_xact_lock(%s)", (CHANGE_LOCK,))
    (id,) = _one(
        conn,
        """INSERT INTO document (id, source, path, title, digest, modified_at, review_by)
           VALUES (%s, %s, %s, %s, %s, %s, %s)
           ON CONFLICT (source, path) DO UPDATE SET title = excluded.title, digest = excluded.digest,
             modified_at = excluded.modified_at, review_by = excluded.review_by, version = document.version + 1,
             deleted_at = NULL, noted = nextval('chunk_change')
           RETURNING id""",
        (new_id(), source, document.path, document.title, document.digest, document.modified_at, document.review_by),
    )
    set_readers(conn, id, document.readers)
    _replace_chunks(conn, id, chunks, vectors)
    return UUID(str(id))


def set_readers(conn: Conn, document: UUID, readers: Readers) -> None:
    """Replace who may read a document; holds from the next search."""
    put_readers(conn, {document: readers})


def delete_document(conn: Conn, document: UUID) -> None:
    """Mark a document as deleted; its text and vectors are destroyed, its row stays as the trace that it existed."""
    conn.execute("UPDATE document SET deleted_at = now(), digest = '' WHERE id = %s", (document,))
    conn.execute("DELETE FROM document_reader WHERE document_id = %s", (document,))
    _replace_chunks(conn, document, [], None)


def act_for(conn: Conn, person: UUID, workload: str = "", *, explain: bool = False) -> None:
    """Until the end of the transaction, see what this person may read and this workload may be given.

    `explain`: also what is kept back from the workload, only to say why; see 014_documents.sql.
    """
    conn.execute(
        """SELECT set_config('groundplan.person', %s, true), set_config('groundplan.workload', %s, true),
             set_config('groundplan.explain', %s, true)""",
        (str(person), workload, "on" if explain else ""),
    )


def nearest(conn: Conn, vector: Sequence[float], sources: Sequence[str], limit: int) -> list[tuple[StoredChunk, float]]:
    """The readable chunks nearest to a unit vector with their cosine similarity, best first; an exact scan."""
    half = Halfvec(vector)
    rows = conn.execute(
        f"""SELECT {COLUMNS}, 1 - (c.embedding <=> %s::halfvec) FROM chunk c JOIN document d ON d.id = c.document_id
            WHERE d.source = ANY(%s) AND c.embedding IS NOT NULL
            ORDER BY c.embedding <=> %s::halfvec, length(d.path), c.id LIMIT %s""",
        (half, list(sources), half, limit),
    )
    return [(StoredChunk(*row[:-1]), float(row[-1])) for row in rows]


def _replace_chunks(conn: Conn, document: UUID, chunks: Sequence[Chunk], vectors: Vectors | None) -> None:
    """New rows with new ids, so that a citation of the old text never quotes the new.

    A document without text keeps one empty chunk: it tells followers that the old ones are gone. The lock makes numbers
    of changes visible in their order.
    """
    conn.execute("SELECT pg_advisory_xact_lock(%s)", (CHANGE_LOCK,))
    conn.execute("DELETE FROM chunk WHERE document_id = %s", (document,))
    rows = [
        (
            new_id(),
            document,
            part.number,
            part.text,
            part.start_char,
            part.end_char,
            part.start_line,
            part.end_line,
            vector,
        )
        for part, vector in zip(chunks, _halves(vectors, len(chunks)), strict=True)
    ]
    with conn.cursor() as cursor:
        cursor.executemany(
            """INSERT INTO chunk
                 (id, document_id, number, text, start_char, end_char, start_line, end_line, embedding, edition,
                  changed)
               VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s::halfvec, serving_edition(), nextval('chunk_change'))""",
            rows or [(new_id(), document, 0, "", 0, 0, 1, 1, None)],
        )
    conn.execute("SELECT pg_notify(%s, '')", (CHANNEL,))


def _one(conn: Conn, query: Any, parameters: Sequence[Any]) -> tuple[Any, ...]:
    row: tuple[Any, ...] | None = conn.execute(query, parameters).fetchone()
    if row is None:
        raise AssertionError("an aggregate or RETURNING always gives a row")
    return row


def _halves(vectors: Vectors | None, count: int) -> list[Halfvec | None]:
    return [None] * count if vectors is None else [Halfvec(row) for row in vectors]
