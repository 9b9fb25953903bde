"""Batches for the control API: progress, cost, and reserved amount of each. Reads only."""

from __future__ import annotations

from typing import Any

from psycopg import Connection

from groundplan.core.database import select
from groundplan.core.money import format_numeric

_NEWEST = """SELECT b.id, b.workload, b.endpoint, b.status, b.created_at, b.expires_at, b.ended_at, b.total, b.key_id,
    b.errors, l.completed + o.completed AS completed, l.failed + o.failed AS failed, l.running, o.problem AS waits,
    coalesce((SELECT max(s.granted_usd - s.released_usd) FROM budget_slice s WHERE s.epoch = b.id), 0) + o.held AS held,
    coalesce((SELECT sum(a.cost_usd) FROM attempt a JOIN batch_line i ON i.call_id = a.call_id WHERE i.batch_id = b.id),
      0) + b.left_usd AS cost
  FROM batch b
  LEFT JOIN LATERAL (SELECT coalesce(sum(d.completed), 0) AS completed, coalesce(sum(d.failed), 0) AS failed,
      (SELECT count(*) FROM batch_line i WHERE i.batch_id = b.id AND i.state IN ('running', 'ordered'))
        AS running
    FROM batch_done d WHERE d.batch_id = b.id) l ON true
  LEFT JOIN LATERAL (SELECT coalesce(sum(r.completed), 0) AS completed, coalesce(sum(r.failed), 0) AS failed,
      max(nullif(r.problem, '')) AS problem, coalesce(sum((SELECT max(s.granted_usd - s.released_usd)
        FROM budget_slice s WHERE s.epoch = r.id AND NOT s.closed)), 0) AS held
    FROM batch_order r WHERE r.batch_id = b.id AND r.state <> 'ended') o ON true
  WHERE (%(workload)s::text IS NULL OR b.workload = %(workload)s) ORDER BY b.id DESC LIMIT %(limit)s"""


_TIMES = ("created_at", "expires_at", "ended_at")


def list_batches(conn: Connection[Any], workload: str | None, limit: int) -> list[dict[str, Any]]:
    """The newest batches first. `held_usd` is reserved for lines that are not processed yet; `problem` says why a batch
    failed, or what its order at a provider waits for."""
    rows = select(conn, _NEWEST, {"workload": workload, "limit": limit})
    return [_to_json(row) for row in rows]


def file_totals(conn: Connection[Any], workload: str | None) -> list[dict[str, Any]]:
    """The number and total bytes of the files of each workload, the largest first."""
    return select(
        conn,
        """SELECT workload, count(*) AS files, sum(bytes)::bigint AS bytes FROM api_file WHERE deleted_at IS NULL
             AND (%(workload)s::text IS NULL OR workload = %(workload)s) GROUP BY 1 ORDER BY 3 DESC, 1""",
        {"workload": workload},
    )


def _to_json(row: dict[str, Any]) -> dict[str, Any]:
    errors, waits, held, cost = row.pop("errors"), row.pop("waits"), row.pop("held"), row.pop("cost")
    return {
        **row,
        **{name: None if row[name] is None else row[name].isoformat() for name in _TIMES},
        "id": f"{'msgbatch' if row['endpoint'] == '/v1/messages' else 'batch'}_{row['id'].hex}",
        "key_id": str(row["key_id"]),
        "held_usd": format_numeric(held),
        "cost_usd": format_numeric(cost),
        "problem": _first_error(errors) if errors else waits,
    }


def _first_error(errors: list[dict[str, Any]]) -> str:
    """The first of the errors for which a batch failed, with its line in the input file."""
    line, message = errors[0].get("line"), str(errors[0]["message"])
    return message if line is None else f"line {line}: {message}"
