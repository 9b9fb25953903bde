"""The SQL of erasing what is kept of a person's calls, of requests for it, and of legal holds. Texts are sealed.

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
_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Hold:
    """A legal hold on a person's own."""

    person_id: UUID
    reason: str
    by: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Kept:
    """A table of sealed texts: its name, its key, the columns with texts, and how it is called for people."""

    name: str
    key: str
    columns: tuple[str, ...]
    told: str


CONTENT = Kept("content", "call_id", ("sealed",), "prompts and answers of calls")
RESPONSES = Kept("stored_response", "id", ("sealed",), "stored responses")
BACKGROUND = Kept("background_response", "id", ("sealed", "failed"), "responses made in the background")
EVENTS = Kept("background_event", "place", ("sealed",), "events of such responses")
COMPLETIONS = Kept("stored_completion", "call_id", ("sealed",), "stored chat completions")
ANSWERS = Kept("answer", "call_id", ("sealed",), "cached answers")
REVIEWS = Kept("held_call", "id", ("asked", "said"), "texts in reviews")
QUESTIONS = Kept("knowledge_signal", "id", ("asked",), "questions to which nothing was found")
EVERY = (CONTENT, RESPONSES, EVENTS, BACKGROUND, COMPLETIONS, ANSWERS, REVIEWS, QUESTIONS)


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


def put_request(conn: Conn, asked: dict[str, Any], by: str) -> UUID:
    """A request that waits; its id."""
    id = new_id()
    conn.execute("INSERT INTO erasure_request (id, by, asked) VALUES (%s, %s, %s)", (id, by, Jsonb(asked)))
    return id


def request(conn: Conn, id: UUID) -> Request | None:
    with conn.cursor(row_factory=class_row(Request)) as cursor:
        return cursor.execute(f"{_REQUEST} WHERE id = %s", (id,)).fetchone()


def requests(conn: Conn, limit: int = 200) -> list[Request]:
    """Those that wait first, then the newest."""
    with conn.cursor(row_factory=class_row(Request)) as cursor:
        return cursor.execute(f"{_REQUEST} ORDER BY state <> 'waiting', at DESC LIMIT %s", (limit,)).fetchall()


def decide(conn: Conn, id: UUID, state: str, by: str, receipt: str | None) -> None:
    """It is decided: what named somebody goes."""
    conn.execute(
        """UPDATE erasure_request SET state = %s, decided_by = %s, decided_at = now(), receipt = %s, asked = NULL
           WHERE id = %s""",
        (state, by, receipt, id),
    )


def holds(conn: Conn) -> dict[str, Hold]:
    """Person -> the hold that stands."""
    with conn.cursor(row_factory=class_row(Hold)) as cursor:
        rows = cursor.execute("SELECT person_id, reason, by, at FROM person_hold WHERE ended_at IS NULL").fetchall()
    return {str(row.person_id): row for row in rows}


def put_hold(conn: Conn, person: UUID, reason: str, by: str) -> bool:
    """Put somebody under a hold; False where one stands."""
    return (
        conn.execute(
            """INSERT INTO person_hold (id, person_id, reason, by) VALUES (%s, %s, %s, %s)
               ON CONFLICT (person_id) WHERE ended_at IS NULL DO NOTHING""",
            (new_id(), person, reason, by),
        ).rowcount
        == 1
    )


def end_hold(conn: Conn, person: UUID, by: str) -> bool:
    """End it; False where none stands."""
    return (
        conn.execute(
            "UPDATE person_hold SET ended_at = now(), ended_by = %s WHERE person_id = %s AND ended_at IS NULL",
            (by, person),
        ).rowcount
        == 1
    )


def texts(conn: Conn, kept: Kept) -> Iterator[tuple[Any, list[str]]]:
    """(key, sealed texts) of every row that has any; a few are in memory at a time, since one may be many megabytes."""
    query = sql.SQL("SELECT {key}, {columns} FROM {table} WHERE {any}").format(
        key=sql.Identifier(kept.key),
        columns=sql.SQL(", ").join(map(sql.Identifier, kept.columns)),
        table=sql.Identifier(kept.name),
        any=sql.SQL(" OR ").join(sql.SQL("{} IS NOT NULL").format(sql.Identifier(c)) for c in kept.columns),
    )
    with conn.cursor(name=f"texts_of_{kept.name}") as cursor:
        cursor.itersize = _AT_ONCE
        for key, *found in cursor.execute(query):
            yield key, [text for text in found if text]


def delete(conn: Conn, kept: Kept, keys: Sequence[Any]) -> int:
    """Delete rows, or the texts alone: of reviews, whose decision stays, and of questions, which stay counted; how
    many."""
    if not keys:
        return 0
    query: sql.Composable
    if kept is REVIEWS:
        query = sql.SQL(
            """UPDATE held_call SET asked = NULL, said = NULL,
                 state = CASE WHEN state = 'waiting' THEN 'gone' ELSE state END WHERE id::text = ANY(%s)"""
        )
    elif kept is QUESTIONS:
        query = sql.SQL(
            "UPDATE knowledge_signal SET asked = NULL, person_id = NULL, expires_at = NULL WHERE id::text = ANY(%s)"
        )
    else:
        query = sql.SQL("DELETE FROM {} WHERE {}::text = ANY(%s)").format(
            sql.Identifier(kept.name), sql.Identifier(kept.key)
        )
    return conn.execute(query, ([str(key) for key in keys],)).rowcount


def delete_links(conn: Conn, person: UUID) -> int:
    """Links to documents that they opened."""
    return conn.execute("DELETE FROM link_holder WHERE person_id = %s", (person,)).rowcount


def files(conn: Conn, person: UUID) -> tuple[list[UUID], int]:
    """(files that their keys uploaded or that belong to a batch which was ordered for them, and that no running batch
    reads or writes, how many of those that one does)."""
    rows = conn.execute(
        """SELECT f.id, EXISTS (SELECT FROM batch b WHERE f.id IN (b.input_file, b.output_file, b.error_file)
             AND b.status IN ('validating', 'in_progress', 'cancelling'))
           FROM api_file f LEFT JOIN api_key k ON k.id = f.key_id WHERE f.deleted_at IS NULL AND (k.person_id = %s
             OR EXISTS (SELECT FROM batch b WHERE f.id IN (b.input_file, b.output_file, b.error_file)
               AND b.person = %s))""",
        (person, str(person)),
    ).fetchall()
    return [id for id, busy in rows if not busy], sum(busy for _, busy in rows)


def mark_files(conn: Conn, ids: Sequence[UUID]) -> None:
    """As deleted, with their names, which their rows outlive them by."""
    conn.execute("UPDATE api_file SET deleted_at = now(), filename = '' WHERE id = ANY(%s)", (list(ids),))


def delete_uploads(conn: Conn, person: UUID) -> int:
    """Files that their keys announced to send in parts, and how they are called."""
    query = "DELETE FROM api_upload u USING api_key k WHERE k.id = u.key_id AND k.person_id = %s"
    return conn.execute(query, (person,)).rowcount


def calls_of(conn: Conn, person: UUID) -> int:
    """How many calls the ledger has under their id, by the sums: nobody waits for a look at everybody's."""
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
