"""The SQL of ingestion, as role control: many documents in few statements.

Every function runs in the caller's transaction. Change numbers become visible in order because of a lock that is held
from the first of them to the end of the transaction.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, LiteralString
from uuid import UUID

import msgspec
from psycopg import Connection
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from groundplan.core.ids import new_id
from groundplan.knowledge.halfvec import to_literal
from groundplan.knowledge.index import index_store
from groundplan.knowledge.intake.failures import restore_failure
from groundplan.knowledge.intake.tally import DocumentFailure
from groundplan.knowledge.model import Vectors
from groundplan.knowledge.parsing.model import Piece
from groundplan.knowledge.store import CHANGE_LOCK

CHANNEL = "groundplan_chunks"
_COLUMNS = """id uuid, source text, path text, title text, digest text, modified_at timestamptz, review_by date,
  state text, sensitivity text, owner text, steward text, purposes text[], workloads text[], residency text[],
  licence text, valid_from date, valid_until date, review_days int, retain_until date, legal_hold boolean,
  origins jsonb, declared jsonb, media text, bytes bigint, content text, sketch bytea, token text, settled text,
  chunked text, lines int, notes text[], supersedes text[], confined boolean, tables_by text"""
_NAMES = ", ".join(column.split()[0] for column in _COLUMNS.split(","))
_CONTENT_COLUMNS = (
    "title", "digest", "modified_at", "media", "bytes", "content", "sketch", "token", "chunked", "lines", "notes",
    "supersedes", "confined", "tables_by",
)  # fmt: skip
GOVERNANCE_COLUMNS = (
    "state",
    "sensitivity",
    "owner",
    "steward",
    "purposes",
    "workloads",
    "residency",
    "licence",
    "valid_from",
    "valid_until",
    "review_days",
    "retain_until",
    "legal_hold",
    "origins",
    "settled",
    "declared",
    "review_by",
)

Conn = Connection[Any]


def _json(rows: Sequence[Mapping[str, Any]]) -> Jsonb:
    return Jsonb(list(rows), dumps=lambda value: json.dumps(value, default=str))


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """A document as it is stored; `live`: not deleted, so that it may be found."""

    id: UUID
    path: str
    digest: str
    live: bool
    token: str | None
    settled: str
    chunked: str
    declared: Mapping[str, Any]
    decided: Mapping[str, Any]
    modified_at: Any
    review_by: Any
    media: str | None
    title: str
    content: str | None = None
    held_by: str | None = None
    """What put it under a legal hold, as named in its origins."""
    tables_by: str | None = None
    """Fingerprint of the checks that its tables were checked with."""
    superseded_by: UUID | None = None
    unreadable: bool = False
    """It is excluded because it could not be read; it may come back, so what it replaces stays replaced meanwhile."""


_STORED_COLUMNS: LiteralString = """id, path, digest, deleted_at IS NULL AS live, token, settled, chunked, declared,
    decided, modified_at, review_by, media, title, content, tables_by, superseded_by, unreadable,
    CASE WHEN legal_hold THEN origins #>> '{legal_hold,from}' END AS held_by"""


def stored_documents(conn: Conn, source: str) -> dict[str, StoredDocument]:
    """All documents of a source by path, deleted ones included."""
    with conn.cursor(row_factory=class_row(StoredDocument)) as cursor:
        rows = cursor.execute(f"SELECT {_STORED_COLUMNS} FROM document WHERE source = %s", (source,)).fetchall()
    return {row.path: row for row in rows}


def undeclared_documents(conn: Conn, source: str) -> list[StoredDocument]:
    """Documents with decisions, of sources that left the workspace: a source declared under another name is a new
    source, and may have the same documents."""
    with conn.cursor(row_factory=class_row(StoredDocument)) as cursor:
        return cursor.execute(
            f"""SELECT {_STORED_COLUMNS} FROM document WHERE source <> %s AND decided <> '{{}}'
                AND source IN (SELECT name FROM source WHERE health = 'undeclared')""",
            (source,),
        ).fetchall()


def readmitted_paths(conn: Conn, source: str) -> list[str]:
    """Paths of a source whose documents were deleted here and have been readmitted since."""
    rows = conn.execute(
        """SELECT path FROM tombstone
           WHERE source = %s AND cause = 'decided' AND salt IS NULL AND lifted_at IS NOT NULL""",
        (source,),
    )
    return [path for (path,) in rows]


def excluded_documents(conn: Conn, source: str, kinds: Sequence[str]) -> dict[str, DocumentFailure]:
    """Path -> failure of documents that the last run over them could not ingest, from their open findings of these
    kinds."""
    within = f"source/{source}/"
    rows = conn.execute(
        """SELECT substr(subject, length(%(within)s) + 1), coalesce(detail ->> 'code', ''), message, hint,
             coalesce(detail ->> 'version', ''), coalesce(detail ->> 'by', '')
           FROM finding WHERE closed_at IS NULL AND kind = ANY(%(kinds)s) AND starts_with(subject, %(within)s)""",
        {"within": within, "kinds": list(kinds)},
    )
    return {row[0]: restore_failure(*row) for row in rows}


def decisions(conn: Conn, documents: Sequence[UUID]) -> dict[UUID, tuple[Mapping[str, Any], str | None]]:
    """Document -> (decisions about it as of now, what put it under a legal hold)."""
    rows = conn.execute(
        """SELECT id, decided, CASE WHEN legal_hold THEN origins #>> '{legal_hold,from}' END
           FROM document WHERE id = ANY(%s)""",
        (list(documents),),
    )
    return {id: (said, held_by) for id, said, held_by in rows}


def lock_changes(conn: Conn) -> None:
    conn.execute("SELECT pg_advisory_xact_lock(%s)", (CHANGE_LOCK,))


def notify_followers(conn: Conn) -> None:
    conn.execute("SELECT pg_notify(%s, '')", (CHANNEL,))


def put_documents(conn: Conn, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert or update documents; each is a new version, not scanned and not scored yet."""
    sets = ", ".join(f"{name} = excluded.{name}" for name in (*_CONTENT_COLUMNS, *GOVERNANCE_COLUMNS))
    conn.execute(
        f"""INSERT INTO document ({_NAMES}, noted)
            SELECT {_NAMES}, nextval('chunk_change') FROM jsonb_to_recordset(%s) AS r({_COLUMNS})
            ON CONFLICT (source, path) DO UPDATE SET {sets}, noted = excluded.noted, version = document.version + 1,
              deleted_at = NULL, unreadable = false,
              scanned_at = NULL, personal = NULL, checked = NULL, quality = NULL""",
        (_json(rows),),
    )
    conn.execute(
        """INSERT INTO document_version (document_id, version, title, digest, characters)
           SELECT d.id, d.version, d.title, d.digest, 0 FROM document d WHERE d.id = ANY(%s)
           ON CONFLICT (document_id, version) DO NOTHING""",
        ([row["id"] for row in rows],),
    )


def put_governance(conn: Conn, rows: Sequence[Mapping[str, Any]]) -> None:
    """Update the governance and the token of documents whose content did not change."""
    names = (*GOVERNANCE_COLUMNS, "token")
    sets = ", ".join(f"{name} = r.{name}" for name in names)
    conn.execute(
        f"""UPDATE document d SET {sets}, noted = nextval('chunk_change')
            FROM jsonb_to_recordset(%s) AS r({_COLUMNS}) WHERE d.id = r.id""",
        (_json(rows),),
    )


def put_tokens(conn: Conn, tokens: Mapping[UUID, str]) -> None:
    """Update the tokens of documents where nothing else changed."""
    conn.execute(
        "UPDATE document d SET token = t.token FROM unnest(%s::uuid[], %s::text[]) AS t(id, token) WHERE d.id = t.id",
        (list(tokens), list(tokens.values())),
    )


def add_decisions(conn: Conn, decided: Mapping[UUID, Mapping[str, Any]]) -> None:
    """Add decisions about documents; a decision about the same field replaces the existing one."""
    conn.execute(
        """UPDATE document d SET decided = d.decided || n.decided,
             superseded_by = coalesce((SELECT y.id FROM document y
               WHERE y.id::text = n.decided #>> '{superseded_by,value}' AND (y.deleted_at IS NULL OR y.unreadable)),
               d.superseded_by)
           FROM unnest(%s::uuid[], %s::jsonb[]) AS n(id, decided) WHERE d.id = n.id""",
        (list(decided), [Jsonb(dict(each)) for each in decided.values()]),
    )


def mark_tables_checked(conn: Conn, documents: Collection[UUID], checks: str) -> None:
    """Note the fingerprint of the checks that the tables of documents were checked with."""
    conn.execute("UPDATE document SET tables_by = %s WHERE id = ANY(%s)", (checks, list(documents)))


def delete_chunks(conn: Conn, documents: Iterable[UUID]) -> None:
    """Delete all chunks of documents, in every edition."""
    conn.execute("DELETE FROM chunk WHERE document_id = ANY(%s)", (list(documents),))


def put_chunks(conn: Conn, edition: int, chunks: Mapping[UUID, Sequence[Piece]]) -> None:
    """Insert chunks with new ids, so that a citation of the old text never quotes the new. Vectors follow later.

    A document without text gets one empty chunk, which tells followers that the old ones are gone.
    """
    rows = [
        {
            "id": str(new_id()), "document_id": str(id), "number": piece.number, "text": piece.text,
            "start_char": piece.start_char, "end_char": piece.end_char, "start_line": piece.start_line,
            "end_line": piece.end_line, "headings": piece.headings, "head": piece.head,
        }
        for id, pieces in chunks.items()
        for piece in pieces or [Piece(0, "", 0, 0, 1, 1, [])]
    ]  # fmt: skip
    conn.execute(
        """INSERT INTO chunk (id, document_id, number, text, start_char, end_char, start_line, end_line, headings,
             head, edition, changed)
           SELECT r.*, %s, nextval('chunk_change') FROM jsonb_to_recordset(%s) AS r(id uuid,
             document_id uuid, number int, text text, start_char int, end_char int, start_line int, end_line int,
             headings text[], head text)""",
        (edition, Jsonb(rows, dumps=msgspec.json.encode)),
    )


def remove_documents(conn: Conn, ids: Sequence[UUID], unreadable: Collection[UUID] = ()) -> None:
    """Mark documents as deleted; their text and vectors are destroyed, their rows stay as a trace. Documents that they
    replaced may be found again, except those replaced by documents that are only `unreadable`."""
    conn.execute(
        """UPDATE document SET deleted_at = now(), digest = '', token = NULL, content = NULL, sketch = NULL,
             personal = NULL, checked = NULL, superseded_by = NULL, noted = nextval('chunk_change'),
             unreadable = id = ANY(%s)
           WHERE id = ANY(%s)""",
        (list(unreadable), list(ids)),
    )
    conn.execute("DELETE FROM document_reader WHERE document_id = ANY(%s)", (list(ids),))
    gone = [id for id in ids if id not in unreadable]
    conn.execute(
        "UPDATE document SET superseded_by = NULL, noted = nextval('chunk_change') WHERE superseded_by = ANY(%s)",
        (gone,),
    )
    delete_chunks(conn, ids)
    for edition in index_store.editions(conn):
        put_chunks(conn, edition.id, {id: () for id in ids})


def clear_unreadable(conn: Conn, ids: Sequence[UUID]) -> None:
    """Note that unreadable documents have been deleted at their source."""
    conn.execute("UPDATE document SET unreadable = false WHERE id = ANY(%s)", (list(ids),))


def put_progress(conn: Conn, source: str, cursor: Mapping[str, Any] | None, progress: Mapping[str, Any]) -> None:
    """Store progress and the cursor to continue from, in the transaction of the documents written up to there."""
    conn.execute(
        "UPDATE source SET cursor = coalesce(%s, cursor), progress = %s WHERE name = %s",
        (None if cursor is None else Jsonb(dict(cursor)), Jsonb(dict(progress)), source),
    )


def read_cursor(conn: Conn, source: str) -> Mapping[str, Any] | None:
    row = conn.execute("SELECT cursor FROM source WHERE name = %s", (source,)).fetchone()
    return None if row is None else row[0]


def unknown_denied_names(conn: Conn, source: str) -> dict[str, list[str]]:
    """Names that live documents deny and nobody has -> the first twenty paths of these documents."""
    rows = conn.execute(
        """SELECT n.name, (array_agg(d.path ORDER BY d.path))[1:20] FROM document d,
             jsonb_array_elements_text(d.declared -> 'strangers') AS n(name)
           WHERE d.source = %s AND d.deleted_at IS NULL GROUP BY n.name""",
        (source,),
    )
    return {name: paths for name, paths in rows}


def count_unconfined(conn: Conn, source: str) -> int:
    """How many live documents were read by a parser that the kernel did not confine."""
    row = conn.execute(
        "SELECT count(*) FROM document WHERE source = %s AND deleted_at IS NULL AND NOT confined", (source,)
    ).fetchone()
    return int(row[0]) if row else 0


def set_health(conn: Conn, source: str, health: str, reason: str | None) -> None:
    """Set the health: `ok`, `failing` (some documents), `down` (unavailable). `declared_store` sets `undeclared`."""
    conn.execute("UPDATE source SET health = %s, health_reason = %s WHERE name = %s", (health, reason, source))


_REPLACES_SQL: Final = """old.source = d.source AND old.path = ANY (d.supersedes) AND old.id <> d.id
  AND (d.deleted_at IS NULL OR d.unreadable) AND d.state IN ('approved', 'retired', 'superseded')
  AND (d.valid_from IS NULL OR d.valid_from <= (now() AT TIME ZONE 'UTC')::date)
  AND NOT (d.path = ANY (old.supersedes) AND (coalesce(old.modified_at, '-infinity'), old.path)
    > (coalesce(d.modified_at, '-infinity'), d.path))"""
"""Whether a document `d` replaces the document `old`, as it says itself."""


def supersede_replaced(conn: Conn, source: str, documents: Sequence[UUID], paths: Sequence[str]) -> None:
    """Mark documents as superseded by, or because of, the documents just written at these paths. What is no longer
    superseded is found by `refresh_superseded` once the whole source was read."""
    conn.execute(
        f"""UPDATE document o SET superseded_by = n.by, noted = nextval('chunk_change')
            FROM (SELECT DISTINCT ON (old.id) old.id, d.id AS by FROM document d JOIN document old ON {_REPLACES_SQL}
              WHERE d.source = %(source)s AND d.supersedes <> '{{}}'
                AND (d.id = ANY(%(ids)s) OR d.supersedes && %(paths)s)
                AND (d.id = ANY(%(ids)s) OR old.id = ANY(%(ids)s))
                AND old.deleted_at IS NULL AND old.superseded_by IS NULL
              ORDER BY old.id, d.modified_at DESC NULLS LAST, d.path) n
            WHERE o.id = n.id""",
        {"source": source, "ids": list(documents), "paths": list(paths)},
    )


def refresh_superseded(conn: Conn, source: str) -> int:
    """Recompute which documents of a source are superseded; returns how many rows changed.

    A live, approved document supersedes what it says it replaces, from its first valid day on. It still does when it
    expires, is retired or superseded itself, or becomes unreadable: nobody said that the older one is valid again.
    Where documents replace each other in a circle, the newest is valid, unless somebody decided otherwise."""
    return conn.execute(
        f"""WITH RECURSIVE newer AS (
             SELECT DISTINCT ON (old.id) old.id, d.id AS by FROM document d JOIN document old ON {_REPLACES_SQL}
               WHERE d.source = %(source)s
               ORDER BY old.id, d.modified_at DESC NULLS LAST, d.path),
           meant AS (
             SELECT x.id, coalesce(y.id, n.by) AS by, y.id IS NOT NULL AS decided, x.path,
               coalesce(x.modified_at, '-infinity') AS at FROM document x
             LEFT JOIN newer n ON n.id = x.id
             LEFT JOIN document y ON y.id::text = x.decided -> 'superseded_by' ->> 'value'
               AND (y.deleted_at IS NULL OR y.unreadable)
             WHERE x.source = %(source)s AND x.deleted_at IS NULL),
           way AS (
             SELECT o.id, o.at, o.path, n.id AS reached FROM meant o JOIN meant n ON n.id = o.by
               WHERE NOT o.decided AND (o.at, o.path) > (n.at, n.path)
             UNION
             SELECT w.id, w.at, w.path, m.by FROM way w JOIN meant m ON m.id = w.reached
               WHERE m.by IS NOT NULL AND (m.at, m.path) < (w.at, w.path)),
           w AS (
             SELECT id, CASE WHEN id NOT IN (SELECT id FROM way WHERE reached = id) THEN by END AS by FROM meant)
           UPDATE document o SET superseded_by = w.by, noted = nextval('chunk_change') FROM w
             WHERE o.id = w.id AND o.superseded_by IS DISTINCT FROM w.by""",
        {"source": source},
    ).rowcount


def replacements_of_replaced(conn: Conn, removed: Sequence[UUID]) -> dict[UUID, tuple[UUID, UUID]]:
    """Document -> (the one of `removed` that replaced it, what replaces that one), for each where there is such a
    replacement."""
    rows = conn.execute(
        """WITH RECURSIVE way AS (
             SELECT o.id, d.id AS of, d.superseded_by AS by FROM document o JOIN document d ON d.id = o.superseded_by
               WHERE d.id = ANY(%(gone)s) AND o.deleted_at IS NULL AND o.id <> ALL(%(gone)s)
             UNION
             SELECT w.id, w.of, d.superseded_by FROM way w JOIN document d ON d.id = w.by WHERE d.id = ANY(%(gone)s))
           SELECT w.id, w.of, w.by FROM way w JOIN document d ON d.id = w.by
           WHERE d.id <> ALL(%(gone)s) AND d.id <> w.id AND (d.deleted_at IS NULL OR d.unreadable)""",
        {"gone": list(removed)},
    )
    return {id: (of, by) for id, of, by in rows}


# --- vectors


def chunks_without_vector(conn: Conn, edition: int, limit: int) -> list[tuple[UUID, str, list[str], str]]:
    """(chunk, document title, headings and table head, text) of chunks without a vector, grouped by document."""
    return list(
        conn.execute(
            """SELECT c.id, d.title, array_remove(c.headings || c.head, ''), c.text
               FROM chunk c JOIN document d ON d.id = c.document_id
               WHERE c.embedding IS NULL AND c.text <> '' AND c.edition = %s
               ORDER BY c.document_id, c.number LIMIT %s""",
            (edition, limit),
        )
    )


def put_vectors(conn: Conn, ids: Sequence[UUID], vectors: Vectors) -> None:
    """Store vectors of chunks; chunks deleted meanwhile are skipped."""
    texts = [to_literal(row) for row in vectors]
    conn.execute(
        """UPDATE chunk c SET embedding = v.vector::halfvec, changed = nextval('chunk_change')
           FROM unnest(%s::uuid[], %s::text[]) AS v(id, vector) WHERE c.id = v.id""",
        (list(ids), texts),
    )
