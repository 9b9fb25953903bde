"""Responses that are made in the background as whoever runs Groundplan sees them: how far each is, why one waits, and
what it cost. Changes nothing, and reads nothing of what they say."""

from __future__ import annotations

from typing import Any

from psycopg import Connection

from groundplan.core.database import select
from groundplan.core.money import format_numeric

_OPEN_FIRST = """SELECT b.id, b.workload, b.status, b.at AS created_at, b.expires_at, b.key_id, b.call_id,
    CASE WHEN b.status = 'queued' THEN b.due END AS due_at,
    CASE WHEN b.status = 'queued' THEN b.waits ->> 'message'
      WHEN b.status = 'failed' AND b.failed IS NULL THEN 'background_interrupted'
      WHEN b.status = 'failed' THEN (SELECT c.error_code FROM call c WHERE c.id = b.call_id) END AS problem,
    coalesce((SELECT sum(a.cost_usd) FROM attempt a WHERE a.call_id = b.call_id), 0) AS cost
  FROM background_response b
  WHERE b.expires_at > now() AND (%(workload)s::text IS NULL OR b.workload = %(workload)s)
  ORDER BY b.status IN ('queued', 'in_progress') DESC, b.at DESC LIMIT %(limit)s"""
_TIMES = ("created_at", "due_at", "expires_at")


def list_responses(conn: Connection[Any], workload: str | None, limit: int) -> list[dict[str, Any]]:
    """Open responses first, then the newest. `problem` is why one waits (until `due_at`), or the code with which it
    failed."""
    return [_to_json(row) for row in select(conn, _OPEN_FIRST, {"workload": workload, "limit": limit})]


def count_open_by_workload(conn: Connection[Any], workload: str | None) -> list[dict[str, Any]]:
    """Numbers of open responses by workload, the largest first."""
    return select(
        conn,
        """SELECT workload, count(*) FILTER (WHERE status = 'queued') AS queued,
             count(*) FILTER (WHERE status = 'in_progress') AS in_progress FROM background_response
           WHERE status IN ('queued', 'in_progress') AND expires_at > now()
             AND (%(workload)s::text IS NULL OR workload = %(workload)s) GROUP BY 1 ORDER BY count(*) DESC, 1""",
        {"workload": workload},
    )


def response_workload(conn: Connection[Any], id: str) -> str | None:
    """The workload of a response; None where it does not exist."""
    found = select(
        conn, "SELECT workload FROM background_response WHERE id = %(id)s AND expires_at > now()", {"id": id}
    )
    return str(found[0]["workload"]) if found else None


def _to_json(row: dict[str, Any]) -> dict[str, Any]:
    cost = row.pop("cost")
    return {
        **row,
        **{name: None if row[name] is None else row[name].isoformat() for name in _TIMES},
        "key_id": str(row["key_id"]),
        "call_id": None if row["call_id"] is None else str(row["call_id"]),
        "cost_usd": format_numeric(cost),
    }
