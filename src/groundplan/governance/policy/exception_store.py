"""The SQL of exceptions from company rules, and of the recorded calls that policies are tried against. No rules."""

from __future__ import annotations

from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID

from psycopg import Connection
from psycopg.rows import class_row, tuple_row

from groundplan.governance.policy.exceptions_model import PolicyException
from groundplan.governance.policy.shadow import RecordedCall

_EXCEPTION: LiteralString = """SELECT e.id, e.rule, e.workload, e.person, e.until, c.reason, c.requested_by AS asked_by,
      c.requested_at AS asked_at, d.by AS decided_by, d.at AS decided_at, d.comment AS decided_reason,
      CASE c.state WHEN 'pending' THEN 'asked' WHEN 'applied' THEN 'approved' WHEN 'refused' THEN 'refused'
        WHEN 'expired' THEN 'lapsed' ELSE 'ended' END AS state,
      ARRAY(SELECT n ->> 'duty' FROM jsonb_array_elements(c.needs) n WHERE c.state = 'pending' AND NOT EXISTS (
        SELECT FROM approval a JOIN person p ON p.id = a.person_id AND p.active
        WHERE a.change_id = c.id AND a.duty = n ->> 'duty' AND a.decision = 'approved'
          AND a.withdrawn_at IS NULL AND a.digest = c.digest)) AS waits_for,
      coalesce(e.ended_by, (SELECT 'person:' || a.person_id FROM approval a
        WHERE a.change_id = c.id AND a.withdrawn_at IS NOT NULL ORDER BY a.withdrawn_at DESC LIMIT 1)) AS ended_by
    FROM policy_exception e JOIN change c ON c.id = e.id
    LEFT JOIN LATERAL (SELECT 'person:' || a.person_id AS by, a.at, a.comment FROM approval a
      WHERE a.change_id = c.id AND c.state <> 'pending' ORDER BY a.at DESC LIMIT 1) d ON true"""


def insert_exception(conn: Connection[Any], id: UUID, rule: str, workload: str, person: str, until: datetime) -> None:
    """Store the row that gateways read; the same change is stored once."""
    conn.execute(
        """INSERT INTO policy_exception (id, rule, workload, person, until) VALUES (%s, %s, %s, %s, %s)
           ON CONFLICT (id) DO NOTHING""",
        (id, rule, workload, person, until),
    )


def find_exception(conn: Connection[Any], id: UUID) -> PolicyException | None:
    with conn.cursor(row_factory=class_row(PolicyException)) as cursor:
        query: LiteralString = f"{_EXCEPTION} WHERE e.id = %s"
        return cursor.execute(query, (id,)).fetchone()


def list_exceptions(conn: Connection[Any], limit: int = 500) -> list[PolicyException]:
    """The newest first."""
    with conn.cursor(row_factory=class_row(PolicyException)) as cursor:
        query: LiteralString = f"{_EXCEPTION} ORDER BY e.id DESC LIMIT %s"
        return cursor.execute(query, (limit,)).fetchall()


def mark_ended(conn: Connection[Any], id: UUID, by: str) -> None:
    """Record who ended it."""
    conn.execute("UPDATE policy_exception SET ended_by = %s, ended_at = now() WHERE id = %s", (by, id))


def recorded_calls(conn: Connection[Any], since: datetime, until: datetime, limit: int) -> list[RecordedCall]:
    """Calls that were sent to a deployment, newest first."""
    query: LiteralString = """SELECT c.id, c.at, c.workload, coalesce(p.email, ''), coalesce(c.key_id::text, ''),
          c.deployment, c.endpoint
        FROM call c LEFT JOIN person p ON p.id = c.person_id
        WHERE c.at >= %s AND c.at < %s AND c.deployment IS NOT NULL AND c.status <> 'refused'
        ORDER BY c.at DESC LIMIT %s"""
    with conn.cursor(row_factory=tuple_row) as cursor:
        return [RecordedCall(*row) for row in cursor.execute(query, (since, until, limit)).fetchall()]


def lines_by_key(conn: Connection[Any], ids: list[str]) -> dict[str, tuple[str, ...]]:
    """Key -> those of the keys `ids` that are in its line of rotations; only keys that have any."""
    query: LiteralString = """SELECT k.id::text, array_agg(named.id::text) FROM api_key named
        JOIN api_key k ON coalesce(k.family, k.id) = coalesce(named.family, named.id)
        WHERE named.id::text = ANY(%s) GROUP BY k.id"""
    with conn.cursor(row_factory=tuple_row) as cursor:
        return {key: tuple(found) for key, found in cursor.execute(query, (ids,)).fetchall()}


def groups_by_person(conn: Connection[Any], names: list[str]) -> dict[str, tuple[str, ...]]:
    """E-mail address -> those of the named groups and teams that the person belongs to, directly or not."""
    query: LiteralString = """WITH RECURSIVE inside(name, id) AS (
            SELECT name, id FROM people_group WHERE name = ANY(%s)
            UNION SELECT inside.name, m.member_group_id FROM membership m JOIN inside ON m.group_id = inside.id
              WHERE m.member_group_id IS NOT NULL)
        SELECT p.email, array_agg(DISTINCT inside.name) FROM inside JOIN membership m ON m.group_id = inside.id
          JOIN person p ON p.id = m.person_id WHERE p.active GROUP BY p.email"""
    with conn.cursor(row_factory=tuple_row) as cursor:
        return {email: tuple(found) for email, found in cursor.execute(query, (names,)).fetchall()}
