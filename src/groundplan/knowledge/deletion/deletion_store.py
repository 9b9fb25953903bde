"""The SQL of deletion, as role control: tombstones, what is left of a document, and writing tables anew."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID

from psycopg import Connection
from psycopg.errors import Diagnostic, InsufficientPrivilege
from psycopg.rows import class_row

Conn = Connection[Any]

TABLES: tuple[LiteralString, ...] = (
    "chunk", "document", "document_version", "document_reader", "document_conflict", "pushed",
)  # fmt: skip
_PAUSES = (0.0, 0.2, 1.0, 3.0)
"""Seconds before each try to write a table anew: who reads it as it was is mostly the server itself, for a moment."""


@dataclass(frozen=True, slots=True)
class Doomed:
    """A live document that is to be deleted."""

    id: UUID
    source: str
    path: str
    digest: str
    legal_hold: bool
    erase_days: int


@dataclass(frozen=True, slots=True)
class Tombstone:
    """As a row of the table and a line of the file."""

    id: UUID
    document_id: UUID
    source: str
    path: str
    digest: str
    at: datetime
    by: str
    reason: str
    due: datetime
    erased_at: datetime | None = None
    lifted_at: datetime | None = None


_COLUMNS = "id, document_id, source, path, digest, at, by, reason, due, erased_at, lifted_at"


def doomed(conn: Conn, ids: Sequence[UUID]) -> list[Doomed]:
    """Those of the documents that are live, locked until the end of the transaction."""
    with conn.cursor(row_factory=class_row(Doomed)) as cursor:
        return cursor.execute(
            """SELECT d.id, d.source, d.path, d.digest, d.legal_hold OR s.legal_hold AS legal_hold, s.erase_days
               FROM document d JOIN source s ON s.name = d.source
               WHERE d.id = ANY(%s) AND d.deleted_at IS NULL ORDER BY d.id FOR UPDATE OF d""",
            (list(ids),),
        ).fetchall()


def bury(conn: Conn, stone: Tombstone) -> None:
    """One that stands for the place already is replaced."""
    conn.execute(
        "UPDATE tombstone SET lifted_at = now() WHERE source = %s AND path = %s AND lifted_at IS NULL",
        (stone.source, stone.path),
    )
    conn.execute(
        f"""INSERT INTO tombstone ({_COLUMNS}) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
            ON CONFLICT (id) DO NOTHING""",
        (
            stone.id,
            stone.document_id,
            stone.source,
            stone.path,
            stone.digest,
            stone.at,
            stone.by,
            stone.reason,
            stone.due,
            stone.erased_at,
            stone.lifted_at,
        ),
    )


def wipe(conn: Conn, documents: Sequence[UUID]) -> None:
    """What is kept of documents besides their rows and chunks: versions, titles, what was pushed, what was said."""
    conn.execute("DELETE FROM document_version WHERE document_id = ANY(%s)", (list(documents),))
    conn.execute(
        """DELETE FROM pushed p USING document d
           WHERE d.id = ANY(%s) AND p.source = d.source AND p.path = d.path""",
        (list(documents),),
    )
    conn.execute(
        """UPDATE document SET title = path, declared = '{}', decided = '{}', origins = '{}', notes = '{}',
             owner = NULL, steward = NULL, settled = '', supersedes = '{}', bytes = NULL WHERE id = ANY(%s)""",
        (list(documents),),
    )
    conn.execute(
        """UPDATE finding SET closed_at = now(), closed_reason = 'the document was deleted', message = 'deleted',
             detail = '{}' FROM document d
           WHERE d.id = ANY(%s) AND subject = 'source/' || d.source || '/' || d.path AND kind LIKE 'knowledge.%%'""",
        (list(documents),),
    )
    # of others, that name it
    conn.execute(
        """UPDATE finding SET closed_at = coalesce(closed_at, now()), message = 'the other document was deleted',
             closed_reason = coalesce(closed_reason, 'the other document was deleted'), detail = '{}', fix = NULL
           WHERE kind LIKE 'knowledge.%%' AND detail ->> 'other' = ANY(%s::text[])""",
        ([str(id) for id in documents],),
    )


def tombstones(conn: Conn, *, open_only: bool = False, limit: int = 500) -> list[Tombstone]:
    """The newest first; `open_only`: those whose bytes may still be on the disk."""
    with conn.cursor(row_factory=class_row(Tombstone)) as cursor:
        return cursor.execute(
            f"SELECT {_COLUMNS} FROM tombstone WHERE NOT %s OR erased_at IS NULL ORDER BY at DESC LIMIT %s",
            (open_only, limit),
        ).fetchall()


def all_ids(conn: Conn) -> set[UUID]:
    return {id for (id,) in conn.execute("SELECT id FROM tombstone")}


def live_at(conn: Conn, places: Sequence[tuple[str, str]]) -> list[UUID]:
    """Documents that are live at these (source, path)."""
    rows = conn.execute(
        """SELECT d.id FROM document d JOIN unnest(%s::text[], %s::text[]) AS p(source, path)
             ON p.source = d.source AND p.path = d.path WHERE d.deleted_at IS NULL""",
        ([source for source, _ in places], [path for _, path in places]),
    )
    return [id for (id,) in rows]


def lift(conn: Conn, source: str, path: str) -> bool:
    """Let a deleted place be a document again; False where none stands."""
    done = conn.execute(
        "UPDATE tombstone SET lifted_at = now() WHERE source = %s AND path = %s AND lifted_at IS NULL", (source, path)
    )
    return done.rowcount == 1


def expired(conn: Conn, limit: int = 500) -> list[UUID]:
    """Live documents whose retention is over and that no legal hold keeps."""
    rows = conn.execute(
        """SELECT d.id FROM document d JOIN source s ON s.name = d.source
           WHERE d.deleted_at IS NULL AND d.retain_until < (now() AT TIME ZONE 'UTC')::date
             AND NOT d.legal_hold AND NOT s.legal_hold LIMIT %s""",
        (limit,),
    )
    return [id for (id,) in rows]


def left(conn: Conn, documents: Sequence[UUID]) -> int:
    """How many passages with a text are left of documents: none, or a bug."""
    row = conn.execute(
        "SELECT count(*) FROM chunk WHERE document_id = ANY(%s) AND text <> ''", (list(documents),)
    ).fetchone()
    return 0 if row is None else int(row[0])


def rewrite(conn: Conn) -> bool:
    """Write the tables of documents anew, so that nothing deleted is left in their files, and have that on the disk.

    False where this server lets only the owner do that, and while somebody still reads a table as it was before: what
    they may see stays in its files. `conn` is in autocommit; readers wait meanwhile.
    """
    try:
        return all(_rewritten(conn, table) for table in TABLES)
    except InsufficientPrivilege:
        return False


def _rewritten(conn: Conn, table: LiteralString) -> bool:
    for pause in _PAUSES:
        time.sleep(pause)
        kept: list[int] = []

        def note(said: Diagnostic, kept: list[int] = kept) -> None:
            # "N dead row versions cannot be removed yet", in the server's language
            if count := re.search(r"\d+", said.message_detail or ""):
                kept.append(int(count[0]))

        conn.add_notice_handler(note)
        try:
            conn.execute(f"VACUUM (FULL, VERBOSE) {table}")
        finally:
            conn.remove_notice_handler(note)
        if not any(kept):
            return True
    return False


def size(conn: Conn) -> int:
    """Bytes of these tables."""
    row = conn.execute(
        "SELECT sum(pg_total_relation_size(name::regclass)) FROM unnest(%s::text[]) AS name", (list(TABLES),)
    )
    found = row.fetchone()
    return 0 if found is None else int(found[0])


def mark_erased(conn: Conn, ids: Sequence[UUID], receipt: UUID, at: datetime) -> None:
    conn.execute("UPDATE tombstone SET erased_at = %s, receipt = %s WHERE id = ANY(%s)", (at, receipt, list(ids)))


def mentioning(conn: Conn, words: Sequence[str], limit: int = 1000) -> list[tuple[UUID, str, str, bool]]:
    """(document, source, path, on hold) of live documents with one of these texts in them, in any case."""
    patterns = ["%" + re.sub(r"([\\%_])", r"\\\1", word) + "%" for word in words]
    rows = conn.execute(
        """SELECT d.id, d.source, d.path, d.legal_hold OR s.legal_hold
           FROM document d JOIN source s ON s.name = d.source
           WHERE d.deleted_at IS NULL AND (EXISTS (
               SELECT 1 FROM chunk c WHERE c.document_id = d.id AND c.text ILIKE ANY(%s)) OR d.title ILIKE ANY(%s))
           ORDER BY d.source, d.path LIMIT %s""",
        (patterns, patterns, limit),
    )
    return rows.fetchall()
