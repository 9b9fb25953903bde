"""The SQL of erasing a person's kept texts and files, of erasure requests, and of legal holds. Texts are sealed.

Every function runs in the caller's transaction, as role control.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg import Connection, sql
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from groundplan.core.ids import new_id
from groundplan.ledger.rollup_store import UNCOUNTED

Conn = Connection[Any]
_FETCH_SIZE = 8


@dataclass(frozen=True, slots=True)
class Hold:
    """A legal hold on a person's data."""

    person_id: UUID
    reason: str
    by: str
    at: datetime


@dataclass(frozen=True, slots=True)
class SealedTable:
    """A table of sealed texts: its name, key, columns with texts, and its label for people."""

    name: str
    key: str
    columns: tuple[str, ...]
    label: str


CONTENT = SealedTable("content", "call_id", ("sealed",), "prompts and answers of calls")
RESPONSES = SealedTable("stored_response", "id", ("sealed",), "stored responses")
BACKGROUND = SealedTable("background_response", "id", ("sealed", "failed"), "responses made in the background")
EVENTS = SealedTable("background_event", "place", ("sealed",), "events of such responses")
COMPLETIONS = SealedTable("stored_completion", "call_id", ("sealed",), "stored chat completions")
ANSWERS = SealedTable("answer", "call_id", ("sealed",), "cached answers")
REVIEWS = SealedTable("held_call", "id", ("asked", "said"), "texts in reviews")
QUESTIONS = SealedTable("knowledge_signal", "id", ("asked",), "questions to which nothing was found")
SEALED_TABLES = (CONTENT, RESPONSES, EVENTS, BACKGROUND, COMPLETIONS, ANSWERS, REVIEWS, QUESTIONS)


@dataclass(frozen=True, slots=True)
class Request:
    """A request to erase somebody: `asked` until it is decided, `receipt` once it is done."""

    id: UUID
    at: datetime
    by: str
    asked: dict[str, Any] | None
    state: str
    decided_at: datetime | None
    decided_by: str | None
    receipt: str | None


_REQUEST = "SELECT id, at, by, asked, state, decided_at, decided_by, receipt FROM erasure_request"


def insert_request(conn: Conn, asked: dict[str, Any], by: str) -> UUID:
    """Store a waiting request; returns its id."""
    id = new_id()
    conn.execute("INSERT INTO erasure_request (id, by, asked) VALUES (%s, %s, %s)", (id, by, Jsonb(asked)))
    return id


def find_request(conn: Conn, id: UUID) -> Request | None:
    with conn.cursor(row_factory=class_row(Request)) as cursor:
        return cursor.execute(f"{_REQUEST} WHERE id = %s", (id,)).fetchone()


def list_requests(conn: Conn, limit: int = 200) -> list[Request]:
    """Requests, waiting ones first, then the newest."""
    with conn.cursor(row_factory=class_row(Request)) as cursor:
        return cursor.execute(f"{_REQUEST} ORDER BY state <> 'waiting', at DESC LIMIT %s", (limit,)).fetchall()


def decide_request(conn: Conn, id: UUID, state: str, by: str, receipt: str | None) -> None:
    """Mark a request as decided, and delete from it what names the person."""
    conn.execute(
        """UPDATE erasure_request SET state = %s, decided_by = %s, decided_at = now(), receipt = %s, asked = NULL
           WHERE id = %s""",
        (state, by, receipt, id),
    )


def open_holds(conn: Conn) -> dict[str, Hold]:
    """Person id -> the legal hold that is in force."""
    with conn.cursor(row_factory=class_row(Hold)) as cursor:
        rows = cursor.execute("SELECT person_id, reason, by, at FROM person_hold WHERE ended_at IS NULL").fetchall()
    return {str(row.person_id): row for row in rows}


def insert_hold(conn: Conn, person: UUID, reason: str, by: str) -> bool:
    """Put a person under a legal hold; False if there is one already."""
    return (
        conn.execute(
            """INSERT INTO person_hold (id, person_id, reason, by) VALUES (%s, %s, %s, %s)
               ON CONFLICT (person_id) WHERE ended_at IS NULL DO NOTHING""",
            (new_id(), person, reason, by),
        ).rowcount
        == 1
    )


def end_hold(conn: Conn, person: UUID, by: str) -> bool:
    """End the legal hold of a person; False if there is none."""
    return (
        conn.execute(
            "UPDATE person_hold SET ended_at = now(), ended_by = %s WHERE person_id = %s AND ended_at IS NULL",
            (by, person),
        ).rowcount
        == 1
    )


def sealed_texts(conn: Conn, table: SealedTable) -> Iterator[tuple[Any, list[str]]]:
    """Yield (key, sealed texts) of every row with texts, a few in memory at a time: one may be many megabytes."""
    query = sql.SQL("SELECT {key}, {columns} FROM {table} WHERE {any}").format(
        key=sql.Identifier(table.key),
        columns=sql.SQL(", ").join(map(sql.Identifier, table.columns)),
        table=sql.Identifier(table.name),
        any=sql.SQL(" OR ").join(sql.SQL("{} IS NOT NULL").format(sql.Identifier(c)) for c in table.columns),
    )
    with conn.cursor(name=f"texts_of_{table.name}") as cursor:
        cursor.itersize = _FETCH_SIZE
        for key, *texts in cursor.execute(query):
            yield key, [text for text in texts if text]


def delete_texts(conn: Conn, table: SealedTable, keys: Sequence[Any]) -> int:
    """Delete rows; of reviews and questions only the texts, since decisions stay and questions stay counted. Returns
    how many."""
    if not keys:
        return 0
    query: sql.Composable
    if table is REVIEWS:
        query = sql.SQL(
            """UPDATE held_call SET asked = NULL, said = NULL,
                 state = CASE WHEN state = 'waiting' THEN 'gone' ELSE state END WHERE id::text = ANY(%s)"""
        )
    elif table is QUESTIONS:
        query = sql.SQL(
            "UPDATE knowledge_signal SET asked = NULL, person_id = NULL, expires_at = NULL WHERE id::text = ANY(%s)"
        )
    else:
        query = sql.SQL("DELETE FROM {} WHERE {}::text = ANY(%s)").format(
            sql.Identifier(table.name), sql.Identifier(table.key)
        )
    return conn.execute(query, ([str(key) for key in keys],)).rowcount


def delete_links(conn: Conn, person: UUID) -> int:
    """Delete the person's opened links to documents; returns how many."""
    return conn.execute("DELETE FROM link_holder WHERE person_id = %s", (person,)).rowcount


def erasable_files(conn: Conn, person: UUID) -> tuple[list[UUID], int]:
    """(ids of files that the person's keys uploaded, or of batches ordered for the person, that no running batch uses;
    number of such files that a running batch uses)"""
    rows = conn.execute(
        """SELECT f.id, EXISTS (SELECT FROM batch b WHERE f.id IN (b.input_file, b.output_file, b.error_file)
             AND b.status IN ('validating', 'in_progress', 'cancelling'))
           FROM api_file f LEFT JOIN api_key k ON k.id = f.key_id WHERE f.deleted_at IS NULL AND (k.person_id = %s
             OR EXISTS (SELECT FROM batch b WHERE f.id IN (b.input_file, b.output_file, b.error_file)
               AND b.person = %s))""",
        (person, str(person)),
    ).fetchall()
    return [id for id, busy in rows if not busy], sum(busy for _, busy in rows)


def mark_files_deleted(conn: Conn, ids: Sequence[UUID]) -> None:
    """Mark files as deleted, and clear their names; the rows stay."""
    conn.execute("UPDATE api_file SET deleted_at = now(), filename = '' WHERE id = ANY(%s)", (list(ids),))


def delete_uploads(conn: Conn, person: UUID) -> int:
    """Delete uploads in parts that the person's keys announced, with their names; returns how many."""
    query = "DELETE FROM api_upload u USING api_key k WHERE k.id = u.key_id AND k.person_id = %s"
    return conn.execute(query, (person,)).rowcount


def count_calls(conn: Conn, person: UUID) -> int:
    """The number of the person's calls in the ledger, by stored sums: counting all calls would take too long."""
    row = conn.execute(
        f"""SELECT (SELECT count(*) FROM call WHERE person_id = %(person)s AND status = 'refused')
             + (SELECT count(*) FROM call WHERE person_id = %(person)s AND status <> 'refused' AND {UNCOUNTED})
             + (SELECT coalesce(sum(calls), 0) FROM (
                  SELECT hour, calls FROM person_whole WHERE person = %(person)s
                  UNION ALL SELECT hour, calls FROM person_delta WHERE person = %(person)s) d
                WHERE hour >= (SELECT date_trunc('day', min(at), 'UTC') FROM call))""",
        {"person": person},
    ).fetchone()
    return 0 if row is None else int(row[0])
