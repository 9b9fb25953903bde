"""The SQL of knowledge, for two roles: `control` writes and follows all documents, `search` reads as one person.

Every function runs in the caller's transaction. What the search role sees is decided by row-level security alone, from
the person set by `retrieval.search_store.assume_reader`; no statement here repeats or relaxes that rule.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from psycopg import Connection, sql
from psycopg.rows import class_row

from groundplan.knowledge.model import Readers, StoredChunk

CHANNEL = "groundplan_chunks"
"""NOTIFY channel for changes of chunks."""

CHANGE_LOCK = 0x6B6E6F77
"""Advisory lock of transactions that number changes, or create or remove sets of readers, until they commit."""
COLUMNS = (
    """c.id, c.document_id AS document, d.source, d.path, d.title, c.text, c.start_line, c.end_line, d.review_by"""
)

Conn = Connection[Any]


# --- written by control


def put_source(conn: Conn, name: str, *, path: str, sensitivity: str, owner: str) -> None:
    """Insert or update a source; its documents stay."""
    conn.execute(
        """INSERT INTO source (name, path, sensitivity, owner) VALUES (%s, %s, %s, %s)
           ON CONFLICT (name) DO UPDATE SET path = excluded.path, sensitivity = excluded.sensitivity,
             owner = excluded.owner""",
        (name, path, sensitivity, owner),
    )


def put_source_rule(conn: Conn, name: str, rule: Mapping[str, Any]) -> None:
    """Store the declared rules of a source: columns of `source` by name."""
    sets = sql.SQL(", ").join(sql.SQL("{} = {}").format(sql.Identifier(key), sql.Placeholder(key)) for key in rule)
    statement = sql.SQL("UPDATE source SET {} WHERE name = {}").format(sets, sql.Placeholder("name_"))
    conn.execute(statement, {**rule, "name_": name})


def reader_subjects(conn: Conn, subject: str) -> set[str]:
    """Subjects of open findings about names among the readers of a source."""
    rows = conn.execute(
        """SELECT subject FROM finding WHERE closed_at IS NULL AND kind = 'knowledge.reader_unknown'
             AND starts_with(subject, %s)""",
        (f"{subject}/reader:",),
    )
    return {row for (row,) in rows}


def finish_source(conn: Conn, name: str) -> None:
    """Record that the source was read completely just now, and how many documents it has."""
    conn.execute(
        """UPDATE source SET indexed_at = now(),
             documents = (SELECT count(*) FROM document WHERE source = %s AND deleted_at IS NULL) WHERE name = %s""",
        (name, name),
    )


def analyze_if_new(conn: Conn) -> None:
    """Analyze the tables of documents and passages if they never were: until PostgreSQL does so itself, within minutes,
    a search costs fifty times as much."""
    # by the catalogue: the activity counters come up to a second later
    row = conn.execute(
        """SELECT bool_or(reltuples <= 0) AND EXISTS (SELECT FROM chunk) FROM pg_class
           WHERE oid IN ('document'::regclass, 'chunk'::regclass)"""
    ).fetchone()
    if row is not None and row[0]:
        conn.execute("ANALYZE document, chunk")


def lock_source(conn: Conn, name: str) -> None:
    """Take the session lock of a source, waiting for it, so that only one ingestion of it runs; released by
    `unlock_source`."""
    conn.execute("SELECT pg_advisory_lock(%s, hashtext(%s))", (CHANGE_LOCK, name))


def unlock_source(conn: Conn, name: str) -> None:
    conn.execute("SELECT pg_advisory_unlock(%s, hashtext(%s))", (CHANGE_LOCK, name))


def put_readers(conn: Conn, readers: Mapping[UUID, Readers]) -> None:
    """Replace the readers of these documents; it applies from the next search. One statement, because the database
    computes the effects for each document at its end. In the caller's transaction."""
    rows = [(id, name, False) for id, each in readers.items() for name in sorted(each.allow)]
    rows += [(id, name, True) for id, each in readers.items() for name in sorted(each.deny)]
    columns = [list(column) for column in zip(*rows, strict=True)] or [[], [], []]
    # else two concurrent calls would leave the readers of both
    conn.execute("SELECT pg_advisory_xact_lock(%s)", (CHANGE_LOCK,))
    conn.execute(
        """WITH wanted AS (SELECT * FROM unnest(%s::uuid[], %s::text[], %s::boolean[]) AS w(document_id, reader, deny)),
             gone AS (DELETE FROM document_reader r WHERE r.document_id = ANY(%s) AND NOT EXISTS (
               SELECT FROM wanted w WHERE w.document_id = r.document_id AND w.reader = r.reader AND w.deny = r.deny))
           INSERT INTO document_reader (document_id, reader, deny) SELECT * FROM wanted ON CONFLICT DO NOTHING""",
        (*columns, list(readers)),
    )


def unknown_readers(conn: Conn, names: Iterable[str]) -> set[str]:
    """Those of the names that are no group, team or person and not `everyone`."""
    rows = conn.execute(
        """SELECT name FROM unnest(%s::text[]) AS name WHERE name <> 'everyone'
             AND NOT EXISTS (SELECT 1 FROM people_group g WHERE g.name = name.name)
             AND NOT EXISTS (SELECT 1 FROM person p WHERE p.email = name.name)""",
        (sorted(names),),
    )
    return {name for (name,) in rows}


# --- followed by the word index, as control


def listen_for_changes(conn: Conn) -> None:
    """Listen for changes, on a connection that becomes read-only (it must be in autocommit)."""
    conn.execute("SET default_transaction_read_only = on")
    conn.execute(f"LISTEN {CHANNEL}")


# --- read by search, as one person


def readable_chunks(conn: Conn, ids: Sequence[UUID], sources: Sequence[str]) -> dict[UUID, StoredChunk]:
    """Those of the chunks that the person may read now, by id."""
    with conn.cursor(row_factory=class_row(StoredChunk)) as cursor:
        found = cursor.execute(
            f"""SELECT {COLUMNS} FROM chunk c JOIN document d ON d.id = c.document_id
                WHERE c.id = ANY(%s) AND d.source = ANY(%s) AND c.text <> ''""",
            (list(ids), list(sources)),
        ).fetchall()
    return {chunk.id: chunk for chunk in found}
