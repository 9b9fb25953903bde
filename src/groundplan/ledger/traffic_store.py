"""The SQL behind live traffic: the last minutes of the ledger in short steps, and what each deployment did in them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from psycopg import Connection
from psycopg.rows import dict_row

Row = dict[str, Any]

_MATCHES = """c.at >= %(since)s AND (%(workload)s::text IS NULL OR c.workload = %(workload)s)
  AND (%(deployment)s::text IS NULL OR c.deployment = %(deployment)s)
  AND (%(status)s::text IS NULL OR c.status = %(status)s)"""


def limit_time(conn: Connection[Any], milliseconds: int) -> None:
    """A look at live traffic must not hold up a busy database."""
    conn.execute("SELECT set_config('statement_timeout', %s, true)", (str(milliseconds),))


def steps(conn: Connection[Any], since: datetime, seconds: int, wanted: Row) -> list[Row]:
    """Calls of each step by how they ended, with percentiles (ms) of those that were answered. Empty steps are left
    out."""
    return _rows(
        conn,
        f"""SELECT date_bin(make_interval(secs => %(seconds)s), c.at, %(since)s) AS at, count(*) AS calls,
              count(*) FILTER (WHERE c.status = 'ok') AS ok, count(*) FILTER (WHERE c.status = 'refused') AS refused,
              count(*) FILTER (WHERE c.status IN ('failed', 'crashed')) AS failed,
              percentile_cont(0.5) WITHIN GROUP (ORDER BY c.duration_ms) FILTER (WHERE c.status = 'ok') AS p50_ms,
              percentile_cont(0.95) WITHIN GROUP (ORDER BY c.duration_ms) FILTER (WHERE c.status = 'ok') AS p95_ms
            FROM call c WHERE {_MATCHES} GROUP BY 1 ORDER BY 1""",
        {"since": since, "seconds": seconds, **wanted},
    )


def whole(conn: Connection[Any], since: datetime, wanted: Row) -> Row:
    """The same over all of the time, with cost."""
    return _rows(
        conn,
        f"""SELECT count(*) AS calls, count(*) FILTER (WHERE c.status = 'ok') AS ok,
              count(*) FILTER (WHERE c.status = 'refused') AS refused,
              count(*) FILTER (WHERE c.status IN ('failed', 'crashed')) AS failed,
              percentile_cont(0.5) WITHIN GROUP (ORDER BY c.duration_ms) FILTER (WHERE c.status = 'ok') AS p50_ms,
              percentile_cont(0.95) WITHIN GROUP (ORDER BY c.duration_ms) FILTER (WHERE c.status = 'ok') AS p95_ms,
              coalesce(sum(c.cost_usd), 0) AS cost_usd FROM call c WHERE {_MATCHES}""",
        {"since": since, **wanted},
    )[0]


def deployments(conn: Connection[Any], since: datetime) -> list[Row]:
    """Attempts at each deployment since then. Ids of calls are ordered by time, so only new rows are read."""
    first = f"{int(since.timestamp() * 1000):012x}"
    return _rows(
        conn,
        """SELECT deployment, count(*) AS attempts, count(*) FILTER (WHERE outcome = 'ok') AS ok,
             count(*) FILTER (WHERE outcome IN ('failed', 'not_billed')) AS failed,
             percentile_cont(0.95) WITHIN GROUP (ORDER BY first_byte_ms) FILTER (WHERE outcome = 'ok')
               AS first_byte_p95_ms,
             max(at) FILTER (WHERE outcome = 'ok') AS last_ok
           FROM attempt WHERE call_id >= %(first)s::uuid GROUP BY 1 ORDER BY 1""",
        {"first": f"{first[:8]}-{first[8:]}-0000-0000-000000000000"},
    )


def breakers(conn: Connection[Any]) -> list[Row]:
    """(worker's process id, what it has open) of each living worker; what it does not name is closed."""
    return _rows(
        conn,
        """SELECT pid, health FROM gateway WHERE state = 'live' AND heartbeat_at > now() - interval '10 seconds'
           ORDER BY started_at, epoch""",
        {},
    )


def _rows(conn: Connection[Any], query: str, parameters: Row) -> list[Row]:
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query.encode(), parameters).fetchall()
