"""The SQL of policies in shadow mode: calls of an hour grouped by what decides them, and what policies would refuse.

An hour is written as a whole, and again while calls of it may still arrive; two processes may do so at once.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID

from psycopg import Connection
from psycopg.rows import tuple_row
from psycopg.types.json import Jsonb

from groundplan.core.database import select
from groundplan.governance.policy.shadow import RecordedCall, Trial

SAMPLES = 10
"""Number of the newest calls of an hour that are stored as examples."""
_GROUPED_CALLS: LiteralString = """SELECT (array_agg(c.id ORDER BY c.at DESC))[1:%s], max(c.at), c.workload,
      coalesce(p.email, ''), coalesce(c.key_id::text, ''), c.deployment, c.endpoint, count(*)
    FROM call c LEFT JOIN person p ON p.id = c.person_id
    WHERE c.at >= %s AND c.at < %s AND c.deployment IS NOT NULL AND c.status <> 'refused'
    GROUP BY c.workload, p.email, c.key_id, c.deployment, c.endpoint ORDER BY 2 DESC"""
_UPSERT_HOUR: LiteralString = """INSERT INTO policy_shadow
      (policy, digest, hour, looked_at, refused, by_workload, rules, calls)
    VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
    ON CONFLICT (policy, digest, hour) DO UPDATE SET looked_at = excluded.looked_at, refused = excluded.refused,
      by_workload = excluded.by_workload, rules = excluded.rules, calls = excluded.calls"""
_DAYS: LiteralString = """SELECT (hour AT TIME ZONE 'UTC')::date AS day, sum(looked_at)::bigint AS looked_at,
      sum(refused)::bigint AS would_refuse, jsonb_agg(by_workload) AS by_workload,
      jsonb_agg(calls ORDER BY hour DESC) AS calls
    FROM policy_shadow WHERE policy = %s AND digest = %s AND hour >= %s GROUP BY 1 ORDER BY 1 DESC"""


def grouped_calls(conn: Connection[Any], since: datetime, until: datetime) -> list[RecordedCall]:
    """Calls that were sent to a deployment; those that every policy decides alike are one, with their number."""
    with conn.cursor(row_factory=tuple_row) as cursor:
        rows = cursor.execute(_GROUPED_CALLS, (SAMPLES, since, until)).fetchall()
    return [_made(*row) for row in rows]


def _made(
    ids: list[UUID], at: datetime, workload: str, person: str, key: str, deployment: str, endpoint: str, count: int
) -> RecordedCall:
    return RecordedCall(ids[0], at, workload, person, key, deployment, endpoint, count, tuple(ids[1:]))


def store_hour(conn: Connection[Any], digest: str, hour: datetime, trial: Trial) -> None:
    """Store what a policy would have refused in an hour, replacing what is stored of it."""
    calls = [str(call) for made in trial.calls for call in (made.call, *made.others)][:SAMPLES]
    conn.execute(
        _UPSERT_HOUR,
        (
            trial.policy, digest, hour, trial.looked_at, trial.refused, Jsonb(trial.by_workload), Jsonb(trial.rules),
            Jsonb(calls),
        ),
    )  # fmt: skip


def stored_hours(conn: Connection[Any], policy: str, digest: str, since: datetime) -> set[datetime]:
    """Hours of a policy that are stored."""
    with conn.cursor(row_factory=tuple_row) as cursor:
        query: LiteralString = "SELECT hour FROM policy_shadow WHERE policy = %s AND digest = %s AND hour >= %s"
        return {row[0] for row in cursor.execute(query, (policy, digest, since)).fetchall()}


def daily_counts(conn: Connection[Any], policy: str, digest: str, since: datetime) -> list[dict[str, Any]]:
    """By day (UTC), newest first: number of calls, of those it would have refused, of these by workload, examples."""
    rows = select(conn, _DAYS, (policy, digest, since))
    return [{**row, "by_workload": _sum_workloads(row["by_workload"]), "calls": _first(row["calls"])} for row in rows]


def delete_before(conn: Connection[Any], before: datetime) -> int:
    return conn.execute("DELETE FROM policy_shadow WHERE hour < %s", (before,)).rowcount


def _sum_workloads(hours: list[dict[str, int]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for hour in hours:
        for workload, count in hour.items():
            found[workload] = found.get(workload, 0) + count
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def _first(hours: list[list[str]]) -> list[str]:
    return [call for hour in hours for call in hour][:SAMPLES]
