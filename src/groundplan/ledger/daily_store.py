"""The SQL of daily figures of each workload and deployment, for the control charts of plans and for pilots.

Counts, cost and shares are of whole days (UTC), from stored sums, and so are medians of workloads, within 2 %.
Latencies of deployments are of the newest calls of each hour, or of all where these are few, so no query reads every
call. Calls of the demo count like others; refused calls count nowhere.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, LiteralString

from psycopg import Connection

from groundplan.core.database import select
from groundplan.ledger.rollup_store import IS_CALL

Row = dict[str, Any]


SAMPLE: Final = 50
"""Number of the newest calls of each hour that are read."""
_DAYS: LiteralString = f"""(
    SELECT hour AS day, workload, deployment, status, cache, calls, cost_usd,
      prompt_tokens + completion_tokens AS tokens
    FROM call_day WHERE hour >= date_trunc('day', %(since)s::timestamptz, 'UTC') AND {IS_CALL}
    UNION ALL SELECT date_trunc('day', hour, 'UTC'), workload, deployment, status, cache, calls, cost_usd,
      prompt_tokens + completion_tokens
    FROM call_delta WHERE hour >= date_trunc('day', %(since)s::timestamptz, 'UTC') AND {IS_CALL})"""
_NEWEST: LiteralString = f"""generate_series(%(since)s::timestamptz, %(until)s, '1 hour') h(at),
    LATERAL (SELECT * FROM call WHERE at >= h.at AND at < h.at + interval '1 hour' ORDER BY at DESC LIMIT %(most)s) c
    WHERE c.status = 'ok' AND c.deployment IS NOT NULL AND c.cache = 'none' AND {IS_CALL}"""
_PER_TOKEN: LiteralString = """percentile_cont(0.5) WITHIN GROUP (ORDER BY
    greatest(c.duration_ms - c.first_byte_ms, 0) / greatest(c.completion_tokens - 1, 1))"""


def workload_days(conn: Connection[Any], since: datetime, workload: str | None = None) -> list[Row]:
    """Daily figures by workload: calls, cost, tokens, median latencies in milliseconds, share of answered calls.
    Latencies are filled in only for a single workload."""
    return select(
        conn,
        f"""WITH sums AS (
              SELECT workload, day, sum(calls)::bigint AS calls, sum(cost_usd)::float AS usd,
                sum(tokens)::bigint AS tokens,
                (coalesce(sum(calls) FILTER (WHERE status IN ('ok', 'cancelled')), 0) / sum(calls))::float
                  AS availability
              FROM {_DAYS} c
              WHERE status <> 'refused' AND (%(workload)s::text IS NULL OR workload = %(workload)s) GROUP BY 1, 2),
            running AS (
              SELECT workload, hour AS day, what, bucket,
                sum(calls) OVER (PARTITION BY hour, workload, what ORDER BY bucket) AS upto,
                sum(calls) OVER (PARTITION BY hour, workload, what) AS whole
              FROM (SELECT * FROM latency_day UNION ALL SELECT * FROM latency_delta) l
              WHERE hour >= date_trunc('day', %(since)s::timestamptz, 'UTC') AND what = ANY(%(times)s)
                AND (%(workload)s::text IS NULL OR workload = %(workload)s)),
            middle AS (
              SELECT workload, day,
                power(1.02, 0.5 + min(bucket) FILTER (WHERE what = 'first'))::float AS first_token_ms,
                power(1.02, 0.5 + min(bucket) FILTER (WHERE what = 'whole'))::float AS duration_ms
              FROM running WHERE upto >= 0.5 * whole GROUP BY 1, 2)
            SELECT workload, (day AT TIME ZONE 'UTC')::date::text AS day, calls, usd, tokens, first_token_ms,
              duration_ms, availability
            FROM sums LEFT JOIN middle USING (workload, day) ORDER BY 1, 2""",
        {"since": since, "workload": workload, "times": ["first"] if workload is None else ["first", "whole"]},
    )


def people_days(conn: Connection[Any], since: datetime, workload: str) -> dict[str, int]:
    """Day -> number of people who called a workload; calls without a person are not counted."""
    rows = select(
        conn,
        """SELECT (hour AT TIME ZONE 'UTC')::date::text AS day, count(DISTINCT person) AS people FROM (
             SELECT hour, workload, person, calls FROM person_day
             UNION ALL SELECT hour, workload, person, calls FROM person_delta) p
           WHERE hour >= date_trunc('day', %(since)s::timestamptz, 'UTC') AND workload = %(workload)s AND calls > 0
             AND person <> '00000000-0000-0000-0000-000000000000' GROUP BY 1""",
        {"since": since, "workload": workload},
    )
    return {row["day"]: row["people"] for row in rows}


def deployment_times(conn: Connection[Any], since: datetime, until: datetime) -> list[Row]:
    """Median latencies of each deployment in that time, from calls that a single attempt answered, if there were at
    least twenty; and the share of attempts that did not fail."""
    return select(
        conn,
        f"""WITH tried AS (
              SELECT deployment, sum(count) AS attempts, sum(count) FILTER (WHERE outcome = 'ok') AS ok FROM (
                SELECT deployment, outcome, part, count, hour FROM part_day
                UNION ALL SELECT deployment, outcome, part, count, hour FROM part_delta) p
              WHERE part = 'attempt' AND hour >= date_trunc('day', %(since)s::timestamptz, 'UTC') GROUP BY 1)
            SELECT m.*, (coalesce(t.ok, 0) / nullif(t.attempts, 0))::float AS availability FROM (
              SELECT c.deployment, percentile_cont(0.5) WITHIN GROUP (ORDER BY c.first_byte_ms) AS first_token_ms,
                {_PER_TOKEN} AS per_token_ms, count(*) AS calls
              FROM {_NEWEST} AND c.first_byte_ms IS NOT NULL GROUP BY 1 HAVING count(*) >= 20) m
            LEFT JOIN tried t USING (deployment) ORDER BY 1""",
        {"since": since, "until": until, "most": SAMPLE},
    )


def attempts_since(conn: Connection[Any], since: datetime, deployments: list[str]) -> list[Row]:
    """Number of attempts at each of these deployments since then, and number of those that failed."""
    return select(
        conn,
        """SELECT deployment, count(*) AS attempts,
             count(*) FILTER (WHERE outcome IN ('failed', 'not_billed')) AS failed
           FROM attempt WHERE at >= %(since)s AND deployment = ANY(%(deployments)s) GROUP BY 1 ORDER BY 1""",
        {"since": since, "deployments": deployments},
    )


def workload_hours(conn: Connection[Any], since: datetime, until: datetime, workloads: list[str]) -> list[Row]:
    """Number of calls of each of these workloads in each hour that had any, from stored sums."""
    return select(
        conn,
        f"""SELECT workload, hour, sum(calls)::float AS calls FROM (
             SELECT workload, hour, calls, status FROM call_hour WHERE {IS_CALL}
             UNION ALL SELECT workload, hour, calls, status FROM call_delta WHERE {IS_CALL}) AS hours
           WHERE hour >= %(since)s AND hour < %(until)s AND status <> 'refused' AND workload = ANY(%(workloads)s)
           GROUP BY 1, 2 ORDER BY 1, 2""",
        {"since": since, "until": until, "workloads": workloads},
    )


def deployment_days(conn: Connection[Any], since: datetime, until: datetime) -> list[Row]:
    """Daily figures of each deployment: calls, mean tokens, total time of answers, and median latencies in milliseconds
    where there were at least five calls."""
    return select(
        conn,
        f"""WITH answers AS (
              SELECT deployment, day, sum(calls)::bigint AS calls FROM {_DAYS} d
              WHERE status = 'ok' AND cache = 'none' GROUP BY 1, 2),
            seen AS (
              SELECT c.deployment, date_trunc('day', c.at, 'UTC') AS day, avg(c.prompt_tokens)::float AS prompt,
                avg(c.completion_tokens)::float AS output, avg(c.duration_ms) AS mean_ms,
                percentile_cont(0.5) WITHIN GROUP (ORDER BY c.first_byte_ms) AS first_token_ms,
                {_PER_TOKEN} AS per_token_ms
              FROM {_NEWEST} AND c.first_byte_ms > 0 AND c.completion_tokens > 1 GROUP BY 1, 2 HAVING count(*) >= 5)
            SELECT deployment, (day AT TIME ZONE 'UTC')::date::text AS day, calls, prompt, output,
              mean_ms * calls AS busy_ms, first_token_ms, per_token_ms
            FROM seen JOIN answers USING (deployment, day) ORDER BY 1, 2""",
        {"since": since, "until": until, "most": SAMPLE},
    )
