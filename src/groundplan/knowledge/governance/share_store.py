"""The SQL of links to documents, as role control."""

from __future__ import annotations

from datetime import date
from typing import Any
from uuid import UUID

from psycopg import Connection

from groundplan.core.database import select

Conn = Connection[Any]

_IS_VALID = "l.withdrawn_at IS NULL AND (l.until IS NULL OR l.until >= (now() AT TIME ZONE 'UTC')::date)"
"""Condition on a link `l`: it is valid. The same rule as in the SQL function `reading_names`, which decides."""
_GRANTS_ACCESS = (
    "EXISTS (SELECT FROM link_reader r WHERE r.document_id = t.document_id AND r.reader = 'link/' || t.link)"
)
"""Condition on a `document_link` `t`: it grants access, which none does while its document is restricted."""


def put_link(conn: Conn, document: UUID, name: str, digest: bytes, until: date, by: UUID | None, reason: str) -> None:
    """Insert a link to a document."""
    conn.execute(
        "INSERT INTO shared_link (name, digest, made_by, until, reason) VALUES (%s, %s, %s, %s, %s)",
        (name, digest, by, until, reason),
    )
    conn.execute("INSERT INTO document_link (document_id, link) VALUES (%s, %s)", (document, name))


def find_link(conn: Conn, digest: bytes) -> tuple[str, UUID] | None:
    """(name, document) of the valid link with this digest, to a live document."""
    row = conn.execute(
        f"""SELECT l.name, d.id FROM shared_link l JOIN document_link t ON t.link = l.name
              JOIN document d ON d.id = t.document_id AND d.deleted_at IS NULL
            WHERE l.digest = %s AND {_IS_VALID} AND {_GRANTS_ACCESS}""",
        (digest,),
    ).fetchone()
    return None if row is None else (row[0], row[1])


def add_holder(conn: Conn, name: str, person: UUID) -> bool:
    """Record that a person opened the link; False if they had before."""
    return (
        conn.execute(
            "INSERT INTO link_holder (link, person_id) VALUES (%s, %s) ON CONFLICT DO NOTHING", (name, person)
        ).rowcount
        == 1
    )


def end_link(conn: Conn, document: UUID, name: str) -> bool:
    """Withdraw a link of the document; False if it was not valid."""
    found = conn.execute(
        f"""UPDATE shared_link l SET withdrawn_at = now() FROM document_link t
            WHERE t.link = l.name AND t.document_id = %s AND l.name = %s AND {_IS_VALID}""",
        (document, name),
    )
    return found.rowcount == 1


def list_links(conn: Conn, document: UUID) -> list[dict[str, Any]]:
    """The links of a document, newest first, with the people who opened each."""
    return select(
        conn,
        f"""SELECT l.name, l.made_at, m.email AS made_by, l.until, l.withdrawn_at, l.reason,
                  {_IS_VALID} AND {_GRANTS_ACCESS} AS holds,
                  ARRAY(SELECT p.email FROM link_holder h JOIN person p ON p.id = h.person_id
                        WHERE h.link = l.name ORDER BY h.opened_at) AS opened_by
                FROM document_link t JOIN shared_link l ON l.name = t.link LEFT JOIN person m ON m.id = l.made_by
                WHERE t.document_id = %s ORDER BY l.made_at DESC LIMIT 100""",
        (document,),
    )
