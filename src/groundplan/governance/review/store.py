"""The SQL of the review queue in the control process. No rules and no audit."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any, LiteralString
from uuid import UUID

from psycopg import Connection
from psycopg.rows import class_row, tuple_row

from groundplan.governance.review.model import HeldCall

_SELECT: LiteralString = """SELECT h.id, h.kind, h.workload, h.subject, coalesce(p.email, '') AS person, h.at, h.due_at,
      h.state, h.reviewers, h.release_after, h.opened_at, h.opened_by, h.decided_by, h.decided_at, h.reason, h.minutes,
      h.minutes_said, h.asked, h.said
    FROM held_call h LEFT JOIN person p ON p.id = h.person_id"""


def queue(conn: Connection[Any], *, waiting: bool, limit: int = 200) -> list[HeldCall]:
    """Held calls: those that wait, the most urgent first; or all, the newest first."""
    with conn.cursor(row_factory=class_row(HeldCall)) as cursor:
        if waiting:
            query: LiteralString = (
                _SELECT + " WHERE h.state = 'waiting' AND h.due_at > now() ORDER BY h.due_at LIMIT %s"
            )
        else:
            query = _SELECT + " ORDER BY h.at DESC LIMIT %s"
        return cursor.execute(query, (limit,)).fetchall()


def find(conn: Connection[Any], id: UUID) -> HeldCall | None:
    """The held call, locked until the transaction ends."""
    with conn.cursor(row_factory=class_row(HeldCall)) as cursor:
        return cursor.execute(_SELECT + " WHERE h.id = %s FOR UPDATE OF h", (id,)).fetchone()


def mark_opened(conn: Connection[Any], id: UUID, by: str) -> None:
    conn.execute("UPDATE held_call SET opened_at = now(), opened_by = %s WHERE id = %s AND opened_at IS NULL", (by, id))


def decide(
    conn: Connection[Any], id: UUID, state: str, by: str, reason: str, minutes: Decimal, *, said: bool = False
) -> bool:
    """Store a decision and delete the texts; False where the call no longer waited. `said`: the reviewer stated the
    minutes."""
    with conn.cursor() as cursor:
        cursor.execute(
            """UPDATE held_call SET state = %s, decided_by = %s, decided_at = now(), reason = %s, minutes = %s,
                 minutes_said = %s, asked = NULL, said = NULL
               WHERE id = %s AND state = 'waiting' AND due_at > now()""",
            (state, by, reason, minutes, said, id),
        )
        return cursor.rowcount == 1


def extend(conn: Connection[Any], id: UUID, until: datetime) -> None:
    """Let the approval of a tool call be used until this time."""
    conn.execute("UPDATE held_call SET due_at = %s WHERE id = %s", (until, id))


def expire_unanswered(conn: Connection[Any]) -> int:
    """Lapse the calls that lost their worker or ran out of time, and delete their texts; returns how many."""
    with conn.cursor() as cursor:
        cursor.execute(
            """UPDATE held_call SET state = 'lapsed', decided_at = now(), asked = NULL, said = NULL
               WHERE state = 'waiting' AND due_at < now() - interval '1 minute'"""
        )
        return cursor.rowcount


def minutes_by_workload(conn: Connection[Any], since: datetime) -> list[tuple[str, int, Decimal]]:
    """(workload, decisions, minutes) since a time."""
    query: LiteralString = """SELECT workload, count(*), coalesce(sum(minutes), 0) FROM held_call
        WHERE decided_at >= %s AND decided_by IS NOT NULL GROUP BY workload ORDER BY workload"""
    with conn.cursor(row_factory=tuple_row) as cursor:
        return cursor.execute(query, (since,)).fetchall()
