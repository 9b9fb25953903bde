"""The SQL of a trial, in a database of its own: one source, one document and one passage for each item of a corpus."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from psycopg import Connection

from groundplan.core.ids import new_id
from groundplan.knowledge.halfvec import Halfvec
from groundplan.knowledge.model import Vectors

SOURCE = "corpus"

Conn = Connection[Any]


def is_complete(conn: Conn, digest: str) -> bool:
    """Whether this corpus was taken over to its end."""
    row = conn.execute("SELECT path FROM source WHERE name = %s AND indexed_at IS NOT NULL", (SOURCE,)).fetchone()
    return row is not None and row[0] == digest


def reset(conn: Conn) -> None:
    """Throw away what is there."""
    conn.execute("DELETE FROM source WHERE name = %s", (SOURCE,))
    conn.execute(
        "INSERT INTO source (name, sensitivity, owner, path) VALUES (%s, 'public', '', '')",
        (SOURCE,),
    )


def add_documents(conn: Conn, items: Sequence[tuple[str, str, str]], vectors: Vectors) -> None:
    """(id, title, text without what PostgreSQL cannot store), each as a document that everybody may read."""
    ids = [new_id() for _ in items]
    with conn.cursor() as cursor:
        cursor.executemany(
            """INSERT INTO document (id, source, path, title, digest, sensitivity, acl)
               VALUES (%s, %s, %s, %s, '', 'public', acl_of('{public}', '{}'))""",
            [(id, SOURCE, name, title) for id, (name, title, _) in zip(ids, items, strict=True)],
        )
        cursor.executemany(
            """INSERT INTO chunk (id, document_id, number, text, start_char, end_char, start_line, end_line, embedding,
                 changed) VALUES (%s, %s, 0, %s, 0, %s, 1, 1, %s::halfvec, nextval('chunk_change'))""",
            [
                (new_id(), id, text, len(text), Halfvec(vector))
                for id, (_, _, text), vector in zip(ids, items, vectors, strict=True)
            ],
        )


def mark_complete(conn: Conn, digest: str) -> None:
    """Note that everything is there."""
    conn.execute("UPDATE source SET indexed_at = now(), path = %s WHERE name = %s", (digest, SOURCE))
    conn.execute("ANALYZE document, chunk")
