"""The SQL of what each workload and deployment did, day by day: for the control charts of plans and for pilots.

Calls of the demo count like others; those that were refused count nowhere.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from psycopg import Connection
from psycopg.rows import dict_row

Row = dict[str, Any]


def workload_days(conn: Connection[Any], since: datetime, workload: str | None = None) -> list[Row]:
    """Days (UTC) by workload: calls, cost, tokens, people, medians in milliseconds, share that was answered."""
    return _rows(
        conn,
        """SELECT workload, (at AT TIME ZONE 'UTC')::date::text AS day, count(*) AS calls, sum(cost_usd)::float AS usd,
             sum(prompt_tokens + completion_tokens)::bigint AS tokens, count(DISTINCT person_id) AS people,
             percentile_cont(0.5) WITHIN GROUP (ORDER BY first_byte_ms) FILTER (WHERE status = 'ok') AS first_token_ms,
             percentile_cont(0.5) WITHIN GROUP (ORDER BY duration_ms) FILTER (WHERE status = 'ok') AS duration_ms,
             (count(*) FILTER (WHERE status IN ('ok', 'cancelled')))::float / count(*) AS availability
           FROM call WHERE at >= %(since)s AND status <> 'refused'
             AND (%(workload)s::text IS NULL OR workload = %(workload)s)
           GROUP BY 1, 2 ORDER BY 1, 2""",
        {"since": since, "workload": workload},
    )


def deployment_times(conn: Connection[Any], since: datetime) -> list[Row]:
    """Medians of each deployment since then, from calls that one attempt answered, where at least twenty were; and the
    share of attempts that did not fail."""
    return _rows(
        conn,
        """SELECT c.deployment, percentile_cont(0.5) WITHIN GROUP (ORDER BY c.first_byte_ms) AS first_token_ms,
             percentile_cont(0.5) WITHIN GROUP (ORDER BY
               greatest(c.duration_ms - c.first_byte_ms, 0) / greatest(c.completion_tokens - 1, 1)) AS per_token_ms,
             (SELECT (count(*) FILTER (WHERE a.outcome = 'ok'))::float / nullif(count(*), 0) FROM attempt a
               WHERE a.deployment = c.deployment AND a.at >= %(since)s) AS availability, count(*) AS calls
           FROM call c WHERE c.at >= %(since)s AND c.status = 'ok' AND c.deployment IS NOT NULL
             AND c.first_byte_ms IS NOT NULL AND c.cache = 'none'
           GROUP BY c.deployment HAVING count(*) >= 20 ORDER BY 1""",
        {"since": since},
    )


def attempts_since(conn: Connection[Any], since: datetime, deployments: list[str]) -> list[Row]:
    """Attempts at each of these deployments since then, and how many of them failed."""
    return _rows(
        conn,
        """SELECT deployment, count(*) AS attempts,
             count(*) FILTER (WHERE outcome IN ('failed', 'not_billed')) AS failed
           FROM attempt WHERE at >= %(since)s AND deployment = ANY(%(deployments)s) GROUP BY 1 ORDER BY 1""",
        {"since": since, "deployments": deployments},
    )


def workload_hours(conn: Connection[Any], since: datetime, until: datetime, workloads: list[str]) -> list[Row]:
    """Calls of each of these workloads in each hour that had any, from the sums that are kept of them."""
    return _rows(
        conn,
        """SELECT workload, hour, sum(calls)::float AS calls FROM (
             SELECT workload, hour, calls, status FROM call_hour
             UNION ALL SELECT workload, hour, calls, status FROM call_delta) AS hours
           WHERE hour >= %(since)s AND hour < %(until)s AND status <> 'refused' AND workload = ANY(%(workloads)s)
           GROUP BY 1, 2 ORDER BY 1, 2""",
        {"since": since, "until": until, "workloads": workloads},
    )


def deployment_days(conn: Connection[Any], since: datetime) -> list[Row]:
    """Days (UTC) of each deployment: calls, mean tokens, medians in milliseconds, where at least five were answered."""
    return _rows(
        conn,
        """SELECT deployment, (at AT TIME ZONE 'UTC')::date::text AS day, count(*) AS calls,
             avg(prompt_tokens)::float AS prompt, avg(completion_tokens)::float AS output,
             sum(duration_ms)::float AS busy_ms,
             percentile_cont(0.5) WITHIN GROUP (ORDER BY first_byte_ms) AS first_token_ms,
             percentile_cont(0.5) WITHIN GROUP (ORDER BY
               greatest(duration_ms - first_byte_ms, 0) / greatest(completion_tokens - 1, 1)) AS per_token_ms
           FROM call WHERE at >= %(since)s AND status = 'ok' AND deployment IS NOT NULL AND first_byte_ms > 0
             AND cache = 'none' AND completion_tokens > 1
           GROUP BY 1, 2 HAVING count(*) >= 5 ORDER BY 1, 2""",
        {"since": since},
    )


def _rows(conn: Connection[Any], query: str, parameters: Row) -> list[Row]:
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query.encode(), parameters).fetchall()
