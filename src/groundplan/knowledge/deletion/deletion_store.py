"""The SQL of deletion, as role control: tombstones, what is left of a document, and writing tables anew."""

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

Conn = Connection[Any]
_log = logging.getLogger("groundplan.knowledge")

TABLES: tuple[LiteralString, ...] = (
    "chunk", "document", "document_version", "document_reader", "document_conflict", "pushed", "held_version",
    "finding",
)  # fmt: skip
_APART = re.compile(r"[\s|*_`]+")
"""What stands between two words of a text, of Markdown too."""
_APART_IN_PATHS = re.compile(r"[\s|*_`./-]+")
_SHORTEST = 3
"""Characters of a text that names somebody: without any, every document would."""
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
    """As a row of the table and a line of the file. `cause`: `decided`, `gone` (at its source), or `hold_ended`, which
    is of a version that a hold had kept; only the first closes its place."""

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


_COLUMNS = "id, document_id, source, path, digest, at, by, reason, due, erased_at, lifted_at, cause"


def doomed(conn: Conn, ids: Sequence[UUID]) -> list[Doomed]:
    """Those of the documents that are live, locked until the end of the transaction."""
    with conn.cursor(row_factory=class_row(Doomed)) as cursor:
        return cursor.execute(
            """SELECT d.id, d.source, d.path, d.digest, on_hold(d) AS legal_hold, s.erase_days
               FROM document d JOIN source s ON s.name = d.source
               WHERE d.id = ANY(%s) AND d.deleted_at IS NULL ORDER BY d.id FOR UPDATE OF d""",
            (list(ids),),
        ).fetchall()


def bury(conn: Conn, stone: Tombstone) -> None:
    """One that closes its place replaces what closed it before."""
    if stone.lifted_at is None:
        conn.execute(
            "UPDATE tombstone SET lifted_at = now() WHERE source = %s AND path = %s AND lifted_at IS NULL",
            (stone.source, stone.path),
        )
    conn.execute(
        f"""INSERT INTO tombstone ({_COLUMNS}) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
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
        ),
    )


def bury_gone(conn: Conn, documents: Sequence[UUID], by: str) -> list[UUID]:
    """Note that documents go at their source, before they do: those that were there and that no legal hold keeps. Their
    places stay open."""
    rows = conn.execute(
        f"""INSERT INTO tombstone ({_COLUMNS})
            SELECT gen_random_uuid(), d.id, d.source, d.path, d.digest, now(), %s::text, 'it went at its source',
              now() + make_interval(days => s.erase_days), NULL::timestamptz, now(), 'gone'
            FROM document d JOIN source s ON s.name = d.source
            WHERE d.id = ANY(%s) AND d.deleted_at IS NULL AND NOT on_hold(d) RETURNING document_id""",
        (by, list(documents)),
    ).fetchall()
    return [id for (id,) in rows]


def wipe(conn: Conn, documents: Sequence[UUID]) -> None:
    """What is kept of documents besides their rows and chunks: versions, titles, what was pushed, what was said and
    decided."""
    conn.execute("DELETE FROM document_version WHERE document_id = ANY(%s)", (list(documents),))
    conn.execute("DELETE FROM held_version WHERE document_id = ANY(%s)", (list(documents),))
    conn.execute(
        """DELETE FROM pushed p USING document d
           WHERE d.id = ANY(%s) AND p.source = d.source AND p.path = d.path""",
        (list(documents),),
    )
    conn.execute("UPDATE document SET decided = '{}' WHERE id = ANY(%s)", (list(documents),))
    forget(conn, documents)


def forget_gone(conn: Conn, documents: Sequence[UUID]) -> None:
    """As `forget`, those of the documents that are deleted and that no legal hold keeps any more."""
    rows = conn.execute(
        "SELECT d.id FROM document d WHERE d.id = ANY(%s) AND d.deleted_at IS NOT NULL AND NOT on_hold(d)",
        (list(documents),),
    ).fetchall()
    forget(conn, [id for (id,) in rows])


def forget(conn: Conn, documents: Sequence[UUID]) -> None:
    """What deleted documents said of themselves, and what findings say of them. What was decided about them stays, for
    when they come back, and so does which version there was when."""
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
             mark = finding.id::text, hint = '', detail = '{}', fix = NULL FROM document d
           WHERE d.id = ANY(%s) AND subject = 'source/' || d.source || '/' || d.path AND kind LIKE 'knowledge.%%'""",
        (list(documents),),
    )
    # of others, that name it
    conn.execute(
        """UPDATE finding SET closed_at = coalesce(closed_at, now()), message = 'the other document was deleted',
             closed_reason = coalesce(closed_reason, 'the other document was deleted'), mark = id::text, hint = '',
             detail = '{}', fix = NULL WHERE kind LIKE 'knowledge.%%' AND detail ->> 'other' = ANY(%s::text[])""",
        ([str(id) for id in documents],),
    )


def tombstones(conn: Conn, limit: int = 500) -> list[Tombstone]:
    """Of what was deleted here, the newest first; what went at its source is none of it."""
    with conn.cursor(row_factory=class_row(Tombstone)) as cursor:
        return cursor.execute(
            f"SELECT {_COLUMNS} FROM tombstone WHERE cause <> 'gone' ORDER BY at DESC LIMIT %s", (limit,)
        ).fetchall()


def waiting(conn: Conn, limit: int = 100_000) -> list[Tombstone]:
    """Of everything whose bytes may still be on the disk, the oldest first."""
    with conn.cursor(row_factory=class_row(Tombstone)) as cursor:
        return cursor.execute(
            f"SELECT {_COLUMNS} FROM tombstone WHERE erased_at IS NULL ORDER BY at LIMIT %s", (limit,)
        ).fetchall()


def gone(conn: Conn) -> tuple[int, datetime | None, int]:
    """Of what went at its source: how many wait to be taken off the disk, when the first is due, how many are off."""
    row = conn.execute(
        """SELECT count(*) FILTER (WHERE erased_at IS NULL), min(due) FILTER (WHERE erased_at IS NULL),
             count(*) FILTER (WHERE erased_at IS NOT NULL) FROM tombstone WHERE cause = 'gone'"""
    ).fetchone()
    assert row is not None
    return int(row[0]), row[1], int(row[2])


def known(conn: Conn, ids: Iterable[UUID]) -> set[UUID]:
    """Those of the ids that are there."""
    return {id for (id,) in conn.execute("SELECT id FROM tombstone WHERE id = ANY(%s)", (list(ids),))}


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
        """SELECT d.id FROM document d
           WHERE d.deleted_at IS NULL AND d.retain_until < (now() AT TIME ZONE 'UTC')::date
             AND NOT on_hold(d) LIMIT %s""",
        (limit,),
    )
    return [id for (id,) in rows]


def left(conn: Conn, documents: Sequence[UUID]) -> int:
    """How many passages with a text are left of documents that did not come back, and of versions that a hold had kept:
    none, or a bug."""
    row = conn.execute(
        """SELECT (SELECT count(*) FROM chunk c JOIN document d ON d.id = c.document_id
               WHERE d.id = ANY(%(ids)s) AND d.deleted_at IS NOT NULL AND c.text <> '')
             + (SELECT count(*) FROM held_version WHERE id = ANY(%(ids)s))""",
        {"ids": list(documents)},
    ).fetchone()
    return 0 if row is None else int(row[0])


def rewrite(conn: Conn) -> bool:
    """Write the tables of documents anew, so that nothing deleted is left in their files, and have that on the disk.

    False where this server lets only the owner do that, and while somebody still reads a table as it was before: what
    they may see stays in its files. `conn` is in autocommit; readers wait meanwhile.
    """
    return all(_rewritten(conn, table) for table in TABLES)


def _rewritten(conn: Conn, table: LiteralString) -> bool:
    for pause in _PAUSES:
        time.sleep(pause)
        kept: list[int] = []
        passed_over: list[str] = []

        def note(said: Diagnostic, kept: list[int] = kept, passed_over: list[str] = passed_over) -> None:
            # whoever may not write a table anew is warned, and nothing fails
            if said.severity_nonlocalized == "WARNING":
                passed_over.append(said.message_primary or "")
            # "N dead row versions cannot be removed yet", in the server's language
            if count := re.search(r"\d+", said.message_detail or ""):
                kept.append(int(count[0]))

        conn.add_notice_handler(note)
        try:
            conn.execute(f"VACUUM (FULL, VERBOSE) {table}")
        finally:
            conn.remove_notice_handler(note)
        if passed_over:
            _log.warning("what was deleted cannot be taken off the disk: %s", "; ".join(passed_over))
            return False
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


def mentioning(conn: Conn, words: Sequence[str]) -> list[tuple[UUID, str, str, bool]]:
    """(document, source, path, on hold) of live documents with one of these texts in them, in any case, also across
    the ends of lines, passages and cells, and of what a legal hold keeps of others."""
    plain = [word for each in words if len(word := _APART.sub(" ", each).strip()) >= _SHORTEST]
    spellings = dict.fromkeys(each for word in plain for each in (word, word.lower(), word.upper()))
    like = [_within(word) for word in plain]
    # a passage has at least the beginning: what is put together of a document costs more
    first = [_within(word.split(" ")[0]) for word in plain]
    rows = conn.execute(
        """SELECT d.id, d.source, d.path, on_hold(d) FROM document d
           WHERE d.deleted_at IS NULL AND (regexp_replace(d.title, %(apart)s, ' ', 'g') ILIKE ANY(%(like)s)
             OR regexp_replace(d.path, %(apart_in_paths)s, ' ', 'g') ILIKE ANY(%(paths)s) OR (
             EXISTS (SELECT 1 FROM chunk c WHERE c.document_id = d.id AND c.text ILIKE ANY(%(first)s))
             AND (SELECT regexp_replace(string_agg(c.text, ' ' ORDER BY c.number), %(apart)s, ' ', 'g') FROM chunk c
               WHERE c.document_id = d.id AND c.edition = serving_edition()) ILIKE ANY(%(like)s)))
           UNION
           SELECT coalesce(h.document_id, h.id), h.source, h.path, true
           FROM held_version h LEFT JOIN document d ON d.id = h.document_id LEFT JOIN source s ON s.name = h.source
           WHERE (regexp_replace(concat_ws(' . ', h.text, h.title, h.declared), %(apart)s, ' ', 'g')
                 ILIKE ANY(%(like)s)
               OR regexp_replace(h.path, %(apart_in_paths)s, ' ', 'g') ILIKE ANY(%(paths)s)
               OR regexp_replace(encode(h.data, 'escape'), %(apart)s, ' ', 'g') ILIKE ANY(%(bytes)s))
             AND (coalesce(s.legal_hold, false) OR (d.id IS NOT NULL AND on_hold(d)))
           ORDER BY 2, 3""",
        {
            "like": like, "first": first, "bytes": [_within(_escaped(word)) for word in spellings],
            "apart": _APART.pattern, "apart_in_paths": _APART_IN_PATHS.pattern,
            "paths": [_within(_APART_IN_PATHS.sub(" ", word)) for word in plain],
        },
    )  # fmt: skip
    return rows.fetchall()


def named_in(path: str, words: Sequence[str]) -> bool:
    """Whether a path has one of these texts in it, as `mentioning` looks for them."""
    told = _APART_IN_PATHS.sub(" ", path).casefold()
    return any(_APART_IN_PATHS.sub(" ", word.strip()).casefold() in told for word in words)


def _within(text: str) -> str:
    """A pattern of what has the text in it."""
    return "%" + re.sub(r"([\\%_])", r"\\\1", text) + "%"


def _escaped(text: str) -> str:
    """As PostgreSQL writes its bytes (`encode(..., 'escape')`), which knows no upper and lower case beyond ASCII."""
    return "".join(
        "\\\\" if byte == 0x5C else chr(byte) if 0 < byte < 0x80 else f"\\{byte:03o}" for byte in text.encode()
    )
