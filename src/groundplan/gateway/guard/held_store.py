"""The SQL of calls that wait for a reviewer, as a gateway sees them. Deciding is the control process's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from psycopg import Connection
from psycopg.rows import tuple_row


@dataclass(frozen=True, slots=True)
class HeldCall:
    """A call that is put into the queue. `asked` and `said` are sealed."""

    id: UUID
    kind: str
    """answer | tool"""
    workload: str
    key: UUID
    person: UUID | None
    gateway: UUID
    subject: str
    asked: str
    said: str
    within: timedelta
    """How long it may wait. The deadline is computed by PostgreSQL's clock, which also decides for the reviewer."""
    reviewers: Sequence[str] = ()
    release_after: bool = False
    digest: str = ""


def add_held(conn: Connection[Any], waiting: HeldCall) -> None:
    conn.execute(
        """INSERT INTO held_call (id, kind, workload, key_id, person_id, gateway, subject, asked, said, due_at,
             reviewers, release_after, digest) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, now() + %s, %s, %s, %s)""",
        (
            waiting.id, waiting.kind, waiting.workload, waiting.key, waiting.person, waiting.gateway, waiting.subject,
            waiting.asked, waiting.said, waiting.within, list(waiting.reviewers), waiting.release_after, waiting.digest,
        ),
    )  # fmt: skip


def load_decisions(conn: Connection[Any], ids: Sequence[UUID]) -> list[tuple[UUID, str, str]]:
    """(id, state, reason) of those of `ids` that no longer wait."""
    with conn.cursor(row_factory=tuple_row) as cursor:
        query = "SELECT id, state, coalesce(reason, '') FROM held_call WHERE id = ANY(%s) AND state <> 'waiting'"
        return cursor.execute(query, (list(ids),)).fetchall()


def close_held(conn: Connection[Any], id: UUID, state: str) -> tuple[str, str]:
    """End the wait of one call without a decision; returns (state, reason) as stored, which may be a decision made
    before."""
    conn.execute(
        """UPDATE held_call SET state = %s, decided_at = now(), asked = NULL, said = NULL
           WHERE id = %s AND state = 'waiting'""",
        (state, id),
    )
    with conn.cursor(row_factory=tuple_row) as cursor:
        row = cursor.execute("SELECT state, coalesce(reason, '') FROM held_call WHERE id = %s", (id,)).fetchone()
    return (row[0], row[1]) if row is not None else (state, "")


def load_held_tool_call(
    conn: Connection[Any], id: UUID, keys: Sequence[UUID], person: UUID | None
) -> tuple[str, str, str, datetime] | None:
    """(state, digest, reason, due) of a tool call that one of these keys requested for this person (None: nobody)."""
    with conn.cursor(row_factory=tuple_row) as cursor:
        query = """SELECT state, digest, coalesce(reason, ''), due_at FROM held_call
            WHERE id = %s AND key_id = ANY(%s) AND person_id IS NOT DISTINCT FROM %s AND kind = 'tool'"""
        return cursor.execute(query, (id, list(keys), person)).fetchone()


def use_approval(conn: Connection[Any], id: UUID) -> bool:
    """Use up an approval, which allows one call; returns whether there was one."""
    with conn.cursor() as cursor:
        cursor.execute(
            "UPDATE held_call SET state = 'used' WHERE id = %s AND state = 'released' AND due_at > now()", (id,)
        )
        return cursor.rowcount == 1
