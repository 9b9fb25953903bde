"""The SQL that erases the names of deleted documents, as role control: in documents, findings, tombstones and calls.

Every function runs in the caller's transaction.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, LiteralString
from uuid import UUID

from psycopg import Connection
from psycopg.rows import class_row

from groundplan.knowledge.deletion.deletion_store import COLUMNS, DIGEST, Tombstone, documents_at_digests
from groundplan.knowledge.deletion.places import path_digest

Conn = Connection[Any]
_SALT_BYTES = 16
_BLANKED: LiteralString = "message = 'deleted', quote = NULL, hint = '', detail = '{}', fix = NULL, mark = f.id::text"


def deleted_names(conn: Conn) -> list[tuple[UUID, str, str]]:
    """(document, source, path) of deleted documents and tombstones whose names are not erased yet, except those with
    versions kept by a legal hold."""
    return conn.execute(
        """SELECT d.id, d.source, d.path FROM document d
             WHERE d.deleted_at IS NOT NULL AND d.path <> d.id::text
               AND NOT EXISTS (SELECT FROM held_version h WHERE h.document_id = d.id)
           UNION SELECT t.document_id, t.source, t.path FROM tombstone t
             WHERE t.salt IS NULL AND NOT EXISTS (SELECT FROM document d WHERE d.id = t.document_id
               AND (d.deleted_at IS NULL OR EXISTS (SELECT FROM held_version h WHERE h.document_id = d.id)))
           ORDER BY 2, 3"""
    ).fetchall()


def erase_names(conn: Conn, documents: Sequence[UUID]) -> list[Tombstone]:
    """Replace the names of these deleted documents by digests; returns their tombstones."""
    salt = _shared_salt(conn)
    with conn.cursor(row_factory=class_row(Tombstone)) as cursor:
        stones = cursor.execute(
            f"SELECT {COLUMNS} FROM tombstone WHERE document_id = ANY(%s) AND salt IS NULL FOR UPDATE",
            (list(documents),),
        ).fetchall()
    hidden = [replace(stone, path=path_digest(stone.path, salt), salt=salt) for stone in stones]
    _put_names(conn, hidden)
    _erase_document_names(conn, documents)
    return hidden


def forget_names(conn: Conn, stones: Sequence[Tombstone]) -> None:
    """Erase names again that a restored database still has; `stones` are the tombstones of the list without names."""
    known = conn.execute(
        "SELECT id FROM tombstone WHERE id = ANY(%s) AND salt IS NULL", ([stone.id for stone in stones],)
    ).fetchall()
    named = {id for (id,) in known}
    _put_names(conn, [stone for stone in stones if stone.id in named])
    places = [(stone.source, stone.path, stone.salt) for stone in stones if stone.salt is not None]
    _erase_document_names(
        conn, [*(stone.document_id for stone in stones), *documents_at_digests(conn, places, live=False)]
    )


def forget_closed_findings(conn: Conn, source: str) -> None:
    """Erase the contents of closed findings about documents whose names were erased. Open ones keep the name as long as
    a file of that name is at its source, for the people who have to remove it."""
    conn.execute(
        f"""UPDATE finding f SET subject = %(within)s || t.document_id, {_BLANKED}
            FROM tombstone t WHERE t.source = %(source)s AND t.salt IS NOT NULL AND f.closed_at IS NOT NULL
              AND starts_with(f.subject, %(within)s) AND f.kind LIKE 'knowledge.%%'
              AND {DIGEST.format(salt="t.salt", path="substr(f.subject, length(%(within)s) + 1)")} = t.path""",
        {"source": source, "within": f"source/{source}/"},
    )


def _shared_salt(conn: Conn) -> bytes:
    """The salt of this database, or a new one. There is only one, since a search for live documents computes a digest
    of each name with each salt."""
    row = conn.execute("SELECT salt FROM tombstone WHERE salt IS NOT NULL LIMIT 1").fetchone()
    return secrets.token_bytes(_SALT_BYTES) if row is None else bytes(row[0])


def _put_names(conn: Conn, stones: Sequence[Tombstone]) -> None:
    if stones:
        conn.execute(
            """UPDATE tombstone t SET path = n.path, salt = n.salt
               FROM unnest(%s::uuid[], %s::text[], %s::bytea[]) AS n(id, path, salt) WHERE t.id = n.id""",
            ([one.id for one in stones], [one.path for one in stones], [one.salt for one in stones]),
        )


def _erase_document_names(conn: Conn, documents: Sequence[UUID]) -> None:
    """Replace the names of deleted documents by their ids: in their rows, findings, pushed rows, versions and calls."""
    rows = conn.execute(
        """SELECT id, source, path FROM document
           WHERE id = ANY(%s) AND deleted_at IS NOT NULL AND path <> id::text""",
        (list(documents),),
    ).fetchall()
    if not rows:
        return
    ids, sources, paths = (list(column) for column in zip(*rows, strict=True))
    conn.execute(
        f"""UPDATE finding f SET subject = 'source/' || n.source || '/' || n.id, {_BLANKED},
             closed_at = coalesce(closed_at, now()),
             closed_reason = coalesce(closed_reason, 'the document was deleted')
           FROM unnest(%s::uuid[], %s::text[], %s::text[]) AS n(id, source, path)
           WHERE f.subject = 'source/' || n.source || '/' || n.path AND f.kind LIKE 'knowledge.%%'""",
        (ids, sources, paths),
    )
    conn.execute(
        """DELETE FROM pushed p USING unnest(%s::text[], %s::text[]) AS n(source, path)
           WHERE p.source = n.source AND p.path = n.path AND p.gone""",
        (sources, paths),
    )
    conn.execute("UPDATE document_version SET title = '' WHERE document_id = ANY(%s)", (ids,))
    conn.execute("UPDATE document SET path = id::text, title = id::text WHERE id = ANY(%s)", (ids,))
    conn.execute("SELECT forget_passages(%s)", (ids,))
