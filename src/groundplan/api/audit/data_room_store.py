"""The SQL of the data room: sums over a period, a sample by a seed, changes and evidence. Reads only."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg import Connection

from groundplan.core.database import select


def sample(
    conn: Connection[Any], since: datetime, until: datetime, workload: str | None, seed: str, size: int
) -> list[UUID]:
    """Ids of calls, drawn by the seed alone: the `size` smallest of SHA-256 over seed and id. Calls of a demo count,
    and say so themselves."""
    rows = conn.execute(
        """SELECT id FROM call WHERE at >= %s AND at < %s AND (%s::text IS NULL OR workload = %s)
           ORDER BY sha256(convert_to(%s || ' ' || id::text, 'UTF8')) LIMIT %s""",
        (since, until, workload, workload, seed, size),
    ).fetchall()
    return [row[0] for row in rows]


def count(conn: Connection[Any], since: datetime, until: datetime, workload: str | None) -> int:
    row = conn.execute(
        "SELECT count(*) FROM call WHERE at >= %s AND at < %s AND (%s::text IS NULL OR workload = %s)",
        (since, until, workload, workload),
    ).fetchone()
    return int(row[0]) if row else 0


def summary(conn: Connection[Any], since: datetime, until: datetime, workload: str | None) -> list[dict[str, Any]]:
    """By workload, status, error and whether it was a demo: calls and cost."""
    return select(
        conn,
        """SELECT workload, status, coalesce(error_code, '') AS error, demo, count(*) AS calls,
                 sum(cost_usd) AS cost_usd
               FROM call WHERE at >= %s AND at < %s AND (%s::text IS NULL OR workload = %s)
               GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4""",
        (since, until, workload, workload),
    )


def changes(conn: Connection[Any], since: datetime, until: datetime) -> list[dict[str, Any]]:
    """Changes that were requested or decided in the period, with the comments of the deciders."""
    return select(
        conn,
        """SELECT c.id, c.digest, c.type, c.base, c.summary, c.needs, c.requested_by, c.requested_at, c.state,
                 c.decided_at, c.blueprint, coalesce((SELECT jsonb_agg(jsonb_build_object(
                   'person', p.email, 'duty', a.duty, 'subject', a.subject, 'decision', a.decision,
                   'comment', a.comment, 'proof', a.proof, 'unseparated', a.unseparated, 'demo', a.demo, 'at', a.at,
                   'withdrawn_at', a.withdrawn_at) ORDER BY a.at)
                   FROM approval a JOIN person p ON p.id = a.person_id WHERE a.change_id = c.id), '[]') AS approvals
               FROM change c WHERE (c.requested_at >= %s AND c.requested_at < %s)
                 OR (c.decided_at >= %s AND c.decided_at < %s) ORDER BY c.requested_at, c.id""",
        (since, until, since, until),
    )


def evidence(conn: Connection[Any], since: datetime, until: datetime, workload: str | None) -> list[dict[str, Any]]:
    """Evidence that was added in the period, with its index in the log."""
    subject = None if workload is None else f"workload/{workload}"
    return select(
        conn,
        """SELECT e.id, e.what, e.subject, e.type, e.collector, e.at, e.valid_until, e.holds, e.says, e.detail,
                 e.digest, e.audit_entry, e.link, e.withdrawn_at, e.withdrawn_by, e.approval, a.leaf_index
               FROM evidence e JOIN audit_entry a ON a.id = e.audit_entry
               WHERE e.at >= %s AND e.at < %s AND (%s::text IS NULL OR e.subject IN (%s, 'company'))
               ORDER BY e.at, e.id""",
        (since, until, subject, subject),
    )
