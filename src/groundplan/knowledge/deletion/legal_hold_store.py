"""The SQL of versions that legal holds keep of changed, removed or unreadable documents, as role control.

Every function runs in the caller's transaction. Versions are not searchable: role search has no right to the table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal
from uuid import UUID

from psycopg import Connection
from psycopg.rows import class_row, dict_row

from groundplan.core.ids import new_id

Conn = Connection[Any]
Cause = Literal["changed", "gone", "unreadable"]
FINDING: Final = "knowledge.legal_hold"


@dataclass(frozen=True, slots=True)
class HeldDocument:
    """A live document under a legal hold, with what is compared with its next version."""

    id: UUID
    title: str
    declared: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Version:
    """A kept version of a document, without its text. `bytes`: the size of a pushed document."""

    id: UUID
    document_id: UUID | None
    source: str
    path: str
    version: int | None
    title: str
    digest: str
    modified_at: datetime | None
    media: str
    cause: Cause
    at: datetime
    characters: int | None
    bytes: int | None


_SHOWN: Final = """id, document_id, source, path, version, title, digest, modified_at, media, cause, at,
  length(text) AS characters, length(data) AS bytes"""


def held_documents(conn: Conn, documents: Sequence[UUID]) -> list[HeldDocument]:
    """Those of the documents that are live and under a legal hold. All are locked against decisions until the
    transaction ends, since it may destroy those that are not kept now."""
    conn.execute("SELECT FROM document WHERE id = ANY(%s) ORDER BY id FOR UPDATE", (list(documents),))
    with conn.cursor(row_factory=class_row(HeldDocument)) as cursor:
        return cursor.execute(
            "SELECT id, title, declared FROM document d WHERE id = ANY(%s) AND deleted_at IS NULL AND on_hold(d)",
            (list(documents),),
        ).fetchall()


def keep_versions(conn: Conn, texts: Mapping[UUID, tuple[str, Cause]]) -> int:
    """Keep the present versions of these documents; returns their number. Identical versions are not kept twice."""
    found = [(new_id(), document, text, cause) for document, (text, cause) in texts.items()]
    ids, documents, said, causes = ([row[at] for row in found] for at in range(4))
    return conn.execute(
        """INSERT INTO held_version (id, document_id, source, path, version, title, digest, modified_at, media,
             declared, text, cause)
           SELECT n.id, d.id, d.source, d.path, d.version, d.title, d.digest, d.modified_at, coalesce(d.media, ''),
             d.declared, n.text, n.cause
           FROM unnest(%s::uuid[], %s::uuid[], %s::text[], %s::text[]) AS n(id, document, text, cause)
             JOIN document d ON d.id = n.document
           WHERE NOT EXISTS (SELECT FROM held_version h WHERE h.document_id = d.id AND h.text = n.text
             AND h.title = d.title AND h.declared = d.declared)""",
        (ids, documents, said, causes),
    ).rowcount


def keep_pushed_bytes(conn: Conn, source: str, path: str, cause: Cause, data: bytes | None) -> None:
    """Keep the bytes of a pushed document under a legal hold, before `data` replaces them (None: they are
    withdrawn)."""
    conn.execute("SELECT FROM document WHERE source = %s AND path = %s FOR UPDATE", (source, path))
    conn.execute(
        """INSERT INTO held_version (id, document_id, source, path, title, media, declared, data, cause)
           SELECT %s, d.id, p.source, p.path, p.path, p.media, jsonb_build_object('pushed', p.told), p.data, %s
           FROM pushed p LEFT JOIN document d ON d.source = p.source AND d.path = p.path
             LEFT JOIN source s ON s.name = p.source
           WHERE p.source = %s AND p.path = %s AND NOT p.gone AND p.data IS DISTINCT FROM %s
             AND (coalesce(s.legal_hold, false) OR (d.id IS NOT NULL AND on_hold(d)))""",
        (new_id(), cause, source, path, data),
    )


def versions(conn: Conn, source: str | None = None, document: UUID | None = None, limit: int = 1000) -> list[Version]:
    """The kept versions, newest first; optionally of one source or document."""
    with conn.cursor(row_factory=class_row(Version)) as cursor:
        return cursor.execute(
            f"""SELECT {_SHOWN} FROM held_version
                WHERE (%(source)s::text IS NULL OR source = %(source)s)
                  AND (%(document)s::uuid IS NULL OR document_id = %(document)s)
                ORDER BY at DESC, id DESC LIMIT %(limit)s""",
            {"source": source, "document": document, "limit": limit},
        ).fetchall()


def read_version(conn: Conn, id: UUID) -> dict[str, Any] | None:
    """A version with its text, declarations and pushed bytes; None if there is none."""
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            f"SELECT {_SHOWN}, declared, text, data FROM held_version WHERE id = %s", (id,)
        ).fetchone()


def kept_places(conn: Conn, source: str) -> list[tuple[str, list[str], UUID | None]]:
    """(path, causes, document) for each path of a source with kept versions."""
    return conn.execute(
        """SELECT path, array_agg(DISTINCT cause ORDER BY cause), (array_agg(document_id))[1] FROM held_version
           WHERE source = %s GROUP BY path ORDER BY path""",
        (source,),
    ).fetchall()


@dataclass(frozen=True, slots=True)
class EndedVersion:
    """A version whose hold has ended."""

    id: UUID
    document_id: UUID | None
    source: str
    path: str
    digest: str
    erase_days: int


def ended_versions(conn: Conn) -> list[EndedVersion]:
    """The versions that no legal hold keeps any more; their documents are locked against decisions until the end of the
    transaction."""
    conn.execute("SELECT FROM document WHERE id IN (SELECT document_id FROM held_version) ORDER BY id FOR UPDATE")
    with conn.cursor(row_factory=class_row(EndedVersion)) as cursor:
        return cursor.execute(
            """SELECT h.id, h.document_id, h.source, h.path, h.digest, coalesce(s.erase_days, 30) AS erase_days
               FROM held_version h LEFT JOIN document d ON d.id = h.document_id LEFT JOIN source s ON s.name = h.source
               WHERE NOT coalesce(s.legal_hold, false) AND NOT (d.id IS NOT NULL AND on_hold(d)) ORDER BY h.at""",
        ).fetchall()


def drop_versions(conn: Conn, ids: Sequence[UUID]) -> int:
    """Destroy versions, and close findings about paths without further ones; returns the number of versions."""
    gone = conn.execute("DELETE FROM held_version WHERE id = ANY(%s)", (list(ids),)).rowcount
    if gone:
        conn.execute(
            """UPDATE finding f SET closed_at = now(), closed_reason = 'the hold has ended' WHERE kind = %s
                 AND closed_at IS NULL AND NOT EXISTS (
                   SELECT FROM held_version h WHERE f.subject = 'source/' || h.source || '/' || h.path)""",
            (FINDING,),
        )
    return gone
