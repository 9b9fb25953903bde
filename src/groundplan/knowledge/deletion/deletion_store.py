"""The SQL of deletion, as role control: tombstones, remains of documents, and rewriting tables."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID

from psycopg import Connection
from psycopg.errors import Diagnostic
from psycopg.rows import class_row

from groundplan.knowledge.deletion.places import ClosedPlaces

Conn = Connection[Any]
_log = logging.getLogger("groundplan.knowledge")

TABLES: tuple[LiteralString, ...] = (
    "chunk", "document", "document_version", "document_reader", "document_conflict", "pushed", "held_version",
    "finding", "tombstone",
)  # fmt: skip
_PAUSES = (0.0, 0.2, 1.0, 3.0)
"""Seconds before each try to rewrite a table: old rows are mostly still read by the server itself, for a moment."""


@dataclass(frozen=True, slots=True)
class DeletableDocument:
    """A document about to be deleted."""

    id: UUID
    source: str
    path: str
    digest: str
    legal_hold: bool
    erase_days: int


@dataclass(frozen=True, slots=True)
class Tombstone:
    """The trace of a deletion: a row of the table and a line of the file. `cause`: `decided`, `gone` (deleted at its
    source), or `hold_ended` (a version that a hold had kept); only the first closes its path. With a `salt`, `path` is
    a digest (`places`): the name was erased with a person."""

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
    cause: str = "decided"
    salt: bytes | None = None


COLUMNS = "id, document_id, source, path, digest, at, by, reason, due, erased_at, lifted_at, cause, salt"
DIGEST: LiteralString = "encode(sha256({salt} || convert_to({path}, 'UTF8')), 'hex')"
_SAME_PLACE: LiteralString = f"""source = %(source)s AND CASE
  WHEN salt IS NOT DISTINCT FROM %(salt)s THEN path = %(path)s
  WHEN salt IS NULL THEN {DIGEST.format(salt="%(salt)s::bytea", path="path")} = %(path)s
  WHEN %(salt)s::bytea IS NULL THEN path = {DIGEST.format(salt="salt", path="%(path)s")} ELSE false END"""
"""Whether a row is about the same path as these values, each of which may be a name or a digest."""


def lock_deletable(conn: Conn, ids: Sequence[UUID]) -> list[DeletableDocument]:
    """Those of the documents that are live, or unreadable ones that may come back; locked until the end of the
    transaction."""
    with conn.cursor(row_factory=class_row(DeletableDocument)) as cursor:
        return cursor.execute(
            """SELECT d.id, d.source, d.path, d.digest, on_hold(d) AS legal_hold, s.erase_days
               FROM document d JOIN source s ON s.name = d.source
               WHERE d.id = ANY(%s) AND (d.deleted_at IS NULL OR d.unreadable) ORDER BY d.id FOR UPDATE OF d""",
            (list(ids),),
        ).fetchall()


def put_tombstone(conn: Conn, stone: Tombstone) -> None:
    """Insert a tombstone; if it closes its path, the tombstone that closed it before is lifted."""
    if stone.lifted_at is None:
        conn.execute(
            f"UPDATE tombstone SET lifted_at = now() WHERE {_SAME_PLACE} AND lifted_at IS NULL",
            {"source": stone.source, "path": stone.path, "salt": stone.salt},
        )
    conn.execute(
        f"""INSERT INTO tombstone ({COLUMNS}) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
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
            stone.cause,
            stone.salt,
        ),
    )


def put_source_tombstones(conn: Conn, documents: Sequence[UUID], by: str) -> list[UUID]:
    """Insert tombstones of documents that are deleted at their source, before they are removed: live and unreadable
    ones without a legal hold. Their paths stay open. Returns the ids of these documents."""
    rows = conn.execute(
        f"""INSERT INTO tombstone ({COLUMNS})
            SELECT gen_random_uuid(), d.id, d.source, d.path, d.digest, now(), %s::text, 'it went at its source',
              now() + make_interval(days => s.erase_days), NULL::timestamptz, now(), 'gone', NULL::bytea
            FROM document d JOIN source s ON s.name = d.source
            WHERE d.id = ANY(%s) AND (d.deleted_at IS NULL OR d.unreadable) AND NOT on_hold(d)
            RETURNING document_id""",
        (by, list(documents)),
    ).fetchall()
    return [id for (id,) in rows]


def wipe_documents(conn: Conn, documents: Sequence[UUID]) -> None:
    """Delete what is stored of documents besides their rows and chunks: versions, titles, pushed documents,
    declarations and decisions."""
    conn.execute("DELETE FROM document_version WHERE document_id = ANY(%s)", (list(documents),))
    conn.execute("DELETE FROM held_version WHERE document_id = ANY(%s)", (list(documents),))
    conn.execute(
        """DELETE FROM pushed p USING document d
           WHERE d.id = ANY(%s) AND p.source = d.source AND p.path = d.path""",
        (list(documents),),
    )
    conn.execute("UPDATE document SET decided = '{}' WHERE id = ANY(%s)", (list(documents),))
    forget_declared(conn, documents)


def withdraw_pushed(conn: Conn, documents: Sequence[UUID]) -> None:
    """Delete pushed documents and the declarations of documents; decisions about them stay."""
    conn.execute(
        """DELETE FROM pushed p USING document d
           WHERE d.id = ANY(%s) AND p.source = d.source AND p.path = d.path""",
        (list(documents),),
    )
    forget_declared(conn, documents)


def forget_deleted(conn: Conn, documents: Sequence[UUID]) -> None:
    """As `forget_declared`, those of the documents that are deleted and that no legal hold keeps any more."""
    rows = conn.execute(
        "SELECT d.id FROM document d WHERE d.id = ANY(%s) AND d.deleted_at IS NOT NULL AND NOT on_hold(d)",
        (list(documents),),
    ).fetchall()
    forget_declared(conn, [id for (id,) in rows])


def forget_declared(conn: Conn, documents: Sequence[UUID]) -> None:
    """Erase the declarations of deleted documents, and the texts of findings about them. Decisions and the dates of
    versions stay, in case the documents come back."""
    if not documents:
        return
    conn.execute("UPDATE document_version SET title = '' WHERE document_id = ANY(%s)", (list(documents),))
    conn.execute(
        """UPDATE document SET title = path, declared = '{}', origins = '{}', notes = '{}', owner = NULL,
             steward = NULL, settled = '', supersedes = '{}', bytes = NULL, legal_hold = false WHERE id = ANY(%s)""",
        (list(documents),),
    )
    conn.execute(
        """UPDATE finding SET closed_at = now(), closed_reason = 'the document was deleted', message = 'deleted',
             mark = finding.id::text, quote = NULL, hint = '', detail = '{}', fix = NULL FROM document d
           WHERE d.id = ANY(%s) AND subject = 'source/' || d.source || '/' || d.path AND kind LIKE 'knowledge.%%'""",
        (list(documents),),
    )
    # findings about other documents that name it
    conn.execute(
        """UPDATE finding SET closed_at = coalesce(closed_at, now()), message = 'the other document was deleted',
             closed_reason = coalesce(closed_reason, 'the other document was deleted'), mark = id::text, quote = NULL,
             hint = '', detail = '{}', fix = NULL
           WHERE kind LIKE 'knowledge.%%' AND detail ->> 'other' = ANY(%s::text[])""",
        ([str(id) for id in documents],),
    )


def closed_places(conn: Conn, source: str, paths: Sequence[str] | None = None) -> ClosedPlaces:
    """The closed paths of a source, deleted by decision; `paths`: only those among these."""
    return ClosedPlaces(
        conn.execute(
            """SELECT path, salt FROM tombstone WHERE source = %s AND lifted_at IS NULL
                 AND (%s::text[] IS NULL OR salt IS NOT NULL OR path = ANY(%s::text[]))""",
            (source, paths, paths),
        ).fetchall()
    )


def deleted_digests(conn: Conn, source: str) -> dict[str, list[str | None]]:
    """Digest of a document deleted by decision -> its paths; None for an erased name, and for documents of a source
    that left the workspace, since that may be this one under another name."""
    found: dict[str, list[str | None]] = {}
    rows = conn.execute(
        """SELECT digest, CASE WHEN salt IS NULL AND source = %(source)s THEN path END FROM tombstone
           WHERE lifted_at IS NULL AND cause <> 'gone' AND digest <> '' AND (source = %(source)s
             OR source IN (SELECT name FROM source WHERE health = 'undeclared'))""",
        {"source": source},
    )
    for digest, path in rows:
        found.setdefault(digest, []).append(path)
    return found


def tombstones(conn: Conn, limit: int = 500) -> list[Tombstone]:
    """The tombstones of documents deleted here, newest first; without those removed at their source."""
    with conn.cursor(row_factory=class_row(Tombstone)) as cursor:
        return cursor.execute(
            f"SELECT {COLUMNS} FROM tombstone WHERE cause <> 'gone' ORDER BY at DESC LIMIT %s", (limit,)
        ).fetchall()


def listed_tombstones(conn: Conn) -> list[Tombstone]:
    """The tombstones of documents that must not come back with an older database: those deleted here, and those
    withdrawn by the application that pushed them, since no source reports that again."""
    with conn.cursor(row_factory=class_row(Tombstone)) as cursor:
        return cursor.execute(
            f"""SELECT {COLUMNS} FROM tombstone
                WHERE cause <> 'gone' OR source IN (SELECT name FROM source WHERE type = 'push')
                ORDER BY at DESC LIMIT 1000000"""
        ).fetchall()


def awaiting_erasure(conn: Conn, limit: int = 100_000) -> list[Tombstone]:
    """The tombstones of all documents whose bytes may still be on the disk, oldest first."""
    with conn.cursor(row_factory=class_row(Tombstone)) as cursor:
        return cursor.execute(
            f"SELECT {COLUMNS} FROM tombstone WHERE erased_at IS NULL ORDER BY at LIMIT %s", (limit,)
        ).fetchall()


def source_deletions(conn: Conn) -> tuple[int, datetime | None, int]:
    """(number waiting for erasure from the disk, when the first is due, number erased) of documents that were removed
    at their source."""
    row = conn.execute(
        """SELECT count(*) FILTER (WHERE erased_at IS NULL), min(due) FILTER (WHERE erased_at IS NULL),
             count(*) FILTER (WHERE erased_at IS NOT NULL) FROM tombstone WHERE cause = 'gone'"""
    ).fetchone()
    assert row is not None
    return int(row[0]), row[1], int(row[2])


def existing_ids(conn: Conn, ids: Iterable[UUID]) -> set[UUID]:
    """Those of the ids that exist."""
    return {id for (id,) in conn.execute("SELECT id FROM tombstone WHERE id = ANY(%s)", (list(ids),))}


def live_documents_at(conn: Conn, places: Sequence[tuple[str, str, bytes | None]]) -> list[UUID]:
    """Live documents at these (source, path or its digest, salt)."""
    named = [(source, path) for source, path, salt in places if salt is None]
    rows = conn.execute(
        """SELECT d.id FROM document d JOIN unnest(%s::text[], %s::text[]) AS p(source, path)
             ON p.source = d.source AND p.path = d.path WHERE d.deleted_at IS NULL""",
        ([source for source, _ in named], [path for _, path in named]),
    ).fetchall()
    digests = [(source, path, salt) for source, path, salt in places if salt is not None]
    return [id for (id,) in rows] + documents_at_digests(conn, digests, live=True)


def live_as_deleted(conn: Conn, stones: Sequence[Tombstone]) -> list[UUID]:
    """Live documents with the same content as when they were deleted."""
    rows = conn.execute(
        """SELECT DISTINCT d.id FROM document d JOIN unnest(%s::uuid[], %s::text[]) AS t(id, digest)
             ON t.id = d.id AND t.digest = d.digest WHERE d.deleted_at IS NULL AND d.digest <> ''""",
        ([one.document_id for one in stones], [one.digest for one in stones]),
    ).fetchall()
    return [id for (id,) in rows]


def documents_at_digests(conn: Conn, places: Sequence[tuple[str, str, bytes]], *, live: bool) -> list[UUID]:
    """Documents, live or deleted ones, whose paths have these (source, digest, salt)."""
    if not places:
        return []
    rows = conn.execute(
        # one digest per document and salt
        f"""WITH p AS (SELECT * FROM unnest(%s::text[], %s::text[], %s::bytea[]) AS p(source, path, salt)),
              named AS MATERIALIZED (
                SELECT d.id, s.source, s.salt, {DIGEST.format(salt="s.salt", path="d.path")} AS path
                FROM (SELECT DISTINCT source, salt FROM p) s JOIN document d
                  ON d.source = s.source AND (d.deleted_at IS NULL) = %s)
            SELECT id FROM named JOIN p USING (source, salt, path)""",
        (*(list(column) for column in zip(*places, strict=True)), live),
    )
    return [id for (id,) in rows]


def lift_tombstones(conn: Conn, source: str, path: str) -> list[Tombstone]:
    """Lift the tombstones that close a path; returns them as they are now."""
    with conn.cursor(row_factory=class_row(Tombstone)) as cursor:
        return cursor.execute(
            f"""UPDATE tombstone SET lifted_at = now() WHERE {_SAME_PLACE} AND lifted_at IS NULL
                RETURNING {COLUMNS}""",
            {"source": source, "path": path, "salt": None},
        ).fetchall()


def expired_documents(conn: Conn, limit: int = 500) -> list[UUID]:
    """Live documents whose retention is over and that are not under a legal hold."""
    rows = conn.execute(
        """SELECT d.id FROM document d
           WHERE d.deleted_at IS NULL AND d.retain_until < (now() AT TIME ZONE 'UTC')::date
             AND NOT on_hold(d) LIMIT %s""",
        (limit,),
    )
    return [id for (id,) in rows]


def remaining_texts(conn: Conn, documents: Sequence[UUID]) -> int:
    """The number of remaining texts of deleted documents that did not come back, and of versions that a hold had kept:
    anything but 0 is a bug."""
    row = conn.execute(
        """SELECT (SELECT count(*) FROM chunk c JOIN document d ON d.id = c.document_id
               WHERE d.id = ANY(%(ids)s) AND d.deleted_at IS NOT NULL AND c.text <> '')
             + (SELECT count(*) FROM held_version WHERE id = ANY(%(ids)s))""",
        {"ids": list(documents)},
    ).fetchone()
    return 0 if row is None else int(row[0])


def rewrite_tables(conn: Conn) -> bool:
    """Rewrite the tables of documents on the disk, so that no deleted rows are left in their files.

    Returns False if the server lets only the owner do that, or while an older transaction can still see deleted rows,
    which then stay in the files. `conn` is in autocommit; readers wait meanwhile.
    """
    return all(_rewrite_table(conn, table) for table in TABLES)


def _rewrite_table(conn: Conn, table: LiteralString) -> bool:
    for pause in _PAUSES:
        time.sleep(pause)
        unremoved: list[int] = []
        warnings: list[str] = []

        def collect_notice(
            notice: Diagnostic, unremoved: list[int] = unremoved, warnings: list[str] = warnings
        ) -> None:
            # without the right to rewrite a table PostgreSQL only warns
            if notice.severity_nonlocalized == "WARNING":
                warnings.append(notice.message_primary or "")
            # "N dead row versions cannot be removed yet", in the server's language
            if count := re.search(r"\d+", notice.message_detail or ""):
                unremoved.append(int(count[0]))

        conn.add_notice_handler(collect_notice)
        try:
            conn.execute(f"VACUUM (FULL, VERBOSE) {table}")
        finally:
            conn.remove_notice_handler(collect_notice)
        if warnings:
            _log.warning("what was deleted cannot be taken off the disk: %s", "; ".join(warnings))
            return False
        if not any(unremoved):
            return True
    return False


def table_bytes(conn: Conn) -> int:
    """The total size of these tables in bytes."""
    row = conn.execute(
        "SELECT sum(pg_total_relation_size(name::regclass)) FROM unnest(%s::text[]) AS name", (list(TABLES),)
    )
    found = row.fetchone()
    return 0 if found is None else int(found[0])


def mark_erased(conn: Conn, ids: Sequence[UUID], receipt: UUID, at: datetime) -> None:
    conn.execute("UPDATE tombstone SET erased_at = %s, receipt = %s WHERE id = ANY(%s)", (at, receipt, list(ids)))
