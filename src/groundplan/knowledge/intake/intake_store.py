"""The SQL of taking documents over, as role control: many documents in few statements.

Every function runs in the caller's transaction. Numbers of changes become visible in their order because of a lock that
is held from the first of them to the end of the transaction.
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
from groundplan.knowledge.halfvec import literal
from groundplan.knowledge.index import index_store
from groundplan.knowledge.intake.failures import told_before
from groundplan.knowledge.intake.tally import Bad
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
_CONTENT = ("title", "digest", "modified_at", "media", "bytes", "content", "sketch", "token", "chunked", "lines",
            "notes", "supersedes", "confined", "tables_by")  # fmt: skip
HELD = (
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
class Known:
    """A document as it is stored; `live` is whether it may be found."""

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
    """What put it under a legal hold, as its origins name it."""
    tables_by: str | None = None
    """By which checks its tables were looked at."""
    superseded_by: UUID | None = None
    unreadable: bool = False
    """It is no more found because it could not be read; it may come back, and what it replaces does not meanwhile."""


_KNOWN: LiteralString = """id, path, digest, deleted_at IS NULL AS live, token, settled, chunked, declared, decided,
    modified_at, review_by, media, title, content, tables_by, superseded_by, unreadable,
    CASE WHEN legal_hold THEN origins #>> '{legal_hold,from}' END AS held_by"""


def known(conn: Conn, source: str) -> dict[str, Known]:
    """All documents of a source by path, deleted ones included."""
    with conn.cursor(row_factory=class_row(Known)) as cursor:
        rows = cursor.execute(f"SELECT {_KNOWN} FROM document WHERE source = %s", (source,)).fetchall()
    return {row.path: row for row in rows}


def left(conn: Conn, source: str) -> list[Known]:
    """Documents of other sources, which left the workspace, about which something was decided: a source that is
    declared under another name is another one."""
    with conn.cursor(row_factory=class_row(Known)) as cursor:
        return cursor.execute(
            f"""SELECT {_KNOWN} FROM document WHERE source <> %s AND decided <> '{{}}'
                AND source IN (SELECT name FROM source WHERE health = 'undeclared')""",
            (source,),
        ).fetchall()


def let_in_again(conn: Conn, source: str) -> list[str]:
    """Places of a source whose documents were deleted here, and may come in again since."""
    rows = conn.execute(
        """SELECT path FROM tombstone
           WHERE source = %s AND cause = 'decided' AND salt IS NULL AND lifted_at IS NOT NULL""",
        (source,),
    )
    return [path for (path,) in rows]


def left_out(conn: Conn, source: str, kinds: Sequence[str]) -> dict[str, Bad]:
    """Documents of a source that were not taken over the last time that they were told, by place, with what their
    findings of these kinds say."""
    within = f"source/{source}/"
    rows = conn.execute(
        """SELECT substr(subject, length(%(within)s) + 1), coalesce(detail ->> 'code', ''), message, hint,
             coalesce(detail ->> 'version', ''), coalesce(detail ->> 'by', '')
           FROM finding WHERE closed_at IS NULL AND kind = ANY(%(kinds)s) AND starts_with(subject, %(within)s)""",
        {"within": within, "kinds": list(kinds)},
    )
    return {row[0]: told_before(*row) for row in rows}


def decided(conn: Conn, documents: Sequence[UUID]) -> dict[UUID, tuple[Mapping[str, Any], str | None]]:
    """What was decided about documents until now, and what put each under a legal hold."""
    rows = conn.execute(
        """SELECT id, decided, CASE WHEN legal_hold THEN origins #>> '{legal_hold,from}' END
           FROM document WHERE id = ANY(%s)""",
        (list(documents),),
    )
    return {id: (said, held_by) for id, said, held_by in rows}


def hold_changes(conn: Conn) -> None:
    conn.execute("SELECT pg_advisory_xact_lock(%s)", (CHANGE_LOCK,))


def tell_followers(conn: Conn) -> None:
    conn.execute("SELECT pg_notify(%s, '')", (CHANNEL,))


def put_documents(conn: Conn, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert documents or replace what they are; a new content is a new version, not scanned and not scored yet."""
    sets = ", ".join(f"{name} = excluded.{name}" for name in (*_CONTENT, *HELD))
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


def put_held(conn: Conn, rows: Sequence[Mapping[str, Any]]) -> None:
    """Of documents whose content did not change: what holds for them, and their token."""
    names = (*HELD, "token")
    sets = ", ".join(f"{name} = r.{name}" for name in names)
    conn.execute(
        f"""UPDATE document d SET {sets}, noted = nextval('chunk_change')
            FROM jsonb_to_recordset(%s) AS r({_COLUMNS}) WHERE d.id = r.id""",
        (_json(rows),),
    )


def put_tokens(conn: Conn, tokens: Mapping[UUID, str]) -> None:
    """Of documents where nothing that matters changed."""
    conn.execute(
        "UPDATE document d SET token = t.token FROM unnest(%s::uuid[], %s::text[]) AS t(id, token) WHERE d.id = t.id",
        (list(tokens), list(tokens.values())),
    )


def put_decided(conn: Conn, decided: Mapping[UUID, Mapping[str, Any]]) -> None:
    """Decisions about documents besides those that there are, of which they take the place."""
    conn.execute(
        """UPDATE document d SET decided = d.decided || n.decided,
             superseded_by = coalesce((SELECT y.id FROM document y
               WHERE y.id::text = n.decided #>> '{superseded_by,value}' AND (y.deleted_at IS NULL OR y.unreadable)),
               d.superseded_by)
           FROM unnest(%s::uuid[], %s::jsonb[]) AS n(id, decided) WHERE d.id = n.id""",
        (list(decided), [Jsonb(dict(each)) for each in decided.values()]),
    )


def put_checked(conn: Conn, documents: Collection[UUID], checks: str) -> None:
    """By which checks the tables of documents were looked at."""
    conn.execute("UPDATE document SET tables_by = %s WHERE id = ANY(%s)", (checks, list(documents)))


def take_away(conn: Conn, documents: Iterable[UUID]) -> None:
    """Delete all chunks of documents, in every edition."""
    conn.execute("DELETE FROM chunk WHERE document_id = ANY(%s)", (list(documents),))


def put_chunks(conn: Conn, edition: int, chunks: Mapping[UUID, Sequence[Piece]]) -> None:
    """New rows with new ids, so that a citation of the old text never quotes the new. Vectors follow later.

    A document without text keeps one empty chunk: it tells followers that the old ones are gone.
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


def remove(conn: Conn, ids: Sequence[UUID], unreadable: Collection[UUID] = ()) -> None:
    """Mark documents as deleted; their text and vectors are destroyed, the rows stay as the trace that they existed.
    What they replace may be found again, but for what those replace that are only `unreadable`."""
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
    take_away(conn, ids)
    for edition in index_store.editions(conn):
        put_chunks(conn, edition.id, {id: () for id in ids})


def let_go(conn: Conn, ids: Sequence[UUID]) -> None:
    """Of documents that could not be read any more, and are gone since."""
    conn.execute("UPDATE document SET unreadable = false WHERE id = ANY(%s)", (list(ids),))


def go_on(conn: Conn, source: str, cursor: Mapping[str, Any] | None, progress: Mapping[str, Any]) -> None:
    """Note where the source is gone on with, in the transaction of what was taken over until there."""
    conn.execute(
        "UPDATE source SET cursor = coalesce(%s, cursor), progress = %s WHERE name = %s",
        (None if cursor is None else Jsonb(dict(cursor)), Jsonb(dict(progress)), source),
    )


def cursor_of(conn: Conn, source: str) -> Mapping[str, Any] | None:
    row = conn.execute("SELECT cursor FROM source WHERE name = %s", (source,)).fetchone()
    return None if row is None else row[0]


def strangers(conn: Conn, source: str) -> dict[str, list[str]]:
    """Names that live documents refuse and nobody has, each with the first of these documents."""
    rows = conn.execute(
        """SELECT n.name, (array_agg(d.path ORDER BY d.path))[1:20] FROM document d,
             jsonb_array_elements_text(d.declared -> 'strangers') AS n(name)
           WHERE d.source = %s AND d.deleted_at IS NULL GROUP BY n.name""",
        (source,),
    )
    return {name: paths for name, paths in rows}


def unconfined(conn: Conn, source: str) -> int:
    """How many live documents were read by a parser that the kernel did not confine."""
    row = conn.execute(
        "SELECT count(*) FROM document WHERE source = %s AND deleted_at IS NULL AND NOT confined", (source,)
    ).fetchone()
    return int(row[0]) if row else 0


def set_health(conn: Conn, source: str, health: str, reason: str | None) -> None:
    """`ok`, `failing` (some documents), `down` (cannot be read); `undeclared` sets `declared_store`."""
    conn.execute("UPDATE source SET health = %s, health_reason = %s WHERE name = %s", (health, reason, source))


_REPLACES: Final = """old.source = d.source AND old.path = ANY (d.supersedes) AND old.id <> d.id
  AND (d.deleted_at IS NULL OR d.unreadable) AND d.state IN ('approved', 'retired', 'superseded')
  AND (d.valid_from IS NULL OR d.valid_from <= (now() AT TIME ZONE 'UTC')::date)
  AND NOT (d.path = ANY (old.supersedes) AND (coalesce(old.modified_at, '-infinity'), old.path)
    > (coalesce(d.modified_at, '-infinity'), d.path))"""
"""Whether a document `d` replaces the document `old`, as it says itself."""


def supersede(conn: Conn, source: str, documents: Sequence[UUID], paths: Sequence[str]) -> None:
    """What was just written, at these paths, and what it replaces is superseded from now on; what is superseded no
    more, `set_superseded` tells once all of the source was read."""
    conn.execute(
        f"""UPDATE document o SET superseded_by = n.by, noted = nextval('chunk_change')
            FROM (SELECT DISTINCT ON (old.id) old.id, d.id AS by FROM document d JOIN document old ON {_REPLACES}
              WHERE d.source = %(source)s AND d.supersedes <> '{{}}'
                AND (d.id = ANY(%(ids)s) OR d.supersedes && %(paths)s)
                AND (d.id = ANY(%(ids)s) OR old.id = ANY(%(ids)s))
                AND old.deleted_at IS NULL AND old.superseded_by IS NULL
              ORDER BY old.id, d.modified_at DESC NULLS LAST, d.path) n
            WHERE o.id = n.id""",
        {"source": source, "ids": list(documents), "paths": list(paths)},
    )


def set_superseded(conn: Conn, source: str) -> int:
    """Whatever a live, approved document says it replaces is superseded by it from its first day on, nothing else; how
    many rows. It stays so when that one expires, is retired or superseded itself, or cannot be read: nobody said that
    the older one holds again. Where documents say in a circle that they replace each other, the newest of them holds,
    unless somebody decided that it does not."""
    return conn.execute(
        f"""WITH RECURSIVE newer AS (
             SELECT DISTINCT ON (old.id) old.id, d.id AS by FROM document d JOIN document old ON {_REPLACES}
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


def heirs(conn: Conn, gone: Sequence[UUID]) -> dict[UUID, tuple[UUID, UUID]]:
    """Documents that are replaced by those which go: by which of them, and by what stands in its place."""
    rows = conn.execute(
        """WITH RECURSIVE way AS (
             SELECT o.id, d.id AS of, d.superseded_by AS by FROM document o JOIN document d ON d.id = o.superseded_by
               WHERE d.id = ANY(%(gone)s) AND o.deleted_at IS NULL AND o.id <> ALL(%(gone)s)
             UNION
             SELECT w.id, w.of, d.superseded_by FROM way w JOIN document d ON d.id = w.by WHERE d.id = ANY(%(gone)s))
           SELECT w.id, w.of, w.by FROM way w JOIN document d ON d.id = w.by
           WHERE d.id <> ALL(%(gone)s) AND d.id <> w.id AND (d.deleted_at IS NULL OR d.unreadable)""",
        {"gone": list(gone)},
    )
    return {id: (of, by) for id, of, by in rows}


# --- vectors


def unembedded(conn: Conn, edition: int, limit: int) -> list[tuple[UUID, str, list[str], str]]:
    """(chunk, title of its document, headings and head of its table, text) without a vector, those of one document
    together."""
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
    """A chunk that went away meanwhile is left out."""
    texts = [literal(row) for row in vectors]
    conn.execute(
        """UPDATE chunk c SET embedding = v.vector::halfvec, changed = nextval('chunk_change')
           FROM unnest(%s::uuid[], %s::text[]) AS v(id, vector) WHERE c.id = v.id""",
        (list(ids), texts),
    )
