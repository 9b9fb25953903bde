"""The SQL of exceptions from company rules, and of the recorded calls that policies are tried against. No rules."""

from __future__ import annotations

from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID

from psycopg import Connection
from psycopg.rows import class_row, tuple_row

from groundplan.governance.policy.exceptions_model import Exempted
from groundplan.governance.policy.shadow import Made

_COLUMNS: LiteralString = """id, rule, workload, person, until, reason, asked_by, asked_at, state, decided_by,
    decided_at, decided_reason, ended_by, ended_at"""


def insert(conn: Connection[Any], made: Exempted) -> None:
    conn.execute(
        """INSERT INTO policy_exception (id, rule, workload, person, until, reason, asked_by)
           VALUES (%s, %s, %s, %s, %s, %s, %s)""",
        (made.id, made.rule, made.workload, made.person, made.until, made.reason, made.asked_by),
    )


def find(conn: Connection[Any], id: UUID) -> Exempted | None:
    """Locked until the transaction ends."""
    with conn.cursor(row_factory=class_row(Exempted)) as cursor:
        query: LiteralString = f"SELECT {_COLUMNS} FROM policy_exception WHERE id = %s FOR UPDATE"
        return cursor.execute(query, (id,)).fetchone()


def every(conn: Connection[Any], limit: int = 500) -> list[Exempted]:
    """The newest first."""
    with conn.cursor(row_factory=class_row(Exempted)) as cursor:
        query: LiteralString = f"SELECT {_COLUMNS} FROM policy_exception ORDER BY id DESC LIMIT %s"
        return cursor.execute(query, (limit,)).fetchall()


def decide(conn: Connection[Any], id: UUID, state: str, by: str, reason: str) -> None:
    conn.execute(
        """UPDATE policy_exception SET state = %s, decided_by = %s, decided_at = now(), decided_reason = %s
           WHERE id = %s""",
        (state, by, reason, id),
    )


def end(conn: Connection[Any], id: UUID, by: str) -> None:
    conn.execute("UPDATE policy_exception SET state = 'ended', ended_by = %s, ended_at = now() WHERE id = %s", (by, id))


def recorded(conn: Connection[Any], since: datetime, until: datetime, limit: int) -> list[Made]:
    """Calls that a deployment was asked for, the newest first."""
    query: LiteralString = """SELECT c.id, c.at, c.workload, coalesce(p.email, ''), coalesce(c.key_id::text, ''),
          c.deployment, c.endpoint
        FROM call c LEFT JOIN person p ON p.id = c.person_id
        WHERE c.at >= %s AND c.at < %s AND c.deployment IS NOT NULL AND c.status <> 'refused'
        ORDER BY c.at DESC LIMIT %s"""
    with conn.cursor(row_factory=tuple_row) as cursor:
        return [Made(*row) for row in cursor.execute(query, (since, until, limit)).fetchall()]


def groups_of_everybody(conn: Connection[Any], names: list[str]) -> dict[str, tuple[str, ...]]:
    """E-mail address -> those of the named groups and teams that the person is in, directly or not."""
    query: LiteralString = """WITH RECURSIVE inside(name, id) AS (
            SELECT name, id FROM people_group WHERE name = ANY(%s)
            UNION SELECT inside.name, m.member_group_id FROM membership m JOIN inside ON m.group_id = inside.id
              WHERE m.member_group_id IS NOT NULL)
        SELECT p.email, array_agg(DISTINCT inside.name) FROM inside JOIN membership m ON m.group_id = inside.id
          JOIN person p ON p.id = m.person_id WHERE p.active GROUP BY p.email"""
    with conn.cursor(row_factory=tuple_row) as cursor:
        return {email: tuple(found) for email, found in cursor.execute(query, (names,)).fetchall()}
