"""The SQL of live figures: the last minutes in steps of ten seconds, which are maintained as facts arrive
(`008_rollups.sql`).

Counts, cost and newest calls are exactly those of the facts, however many there are. Latencies are of all calls where
these are few, else of a sample spread over the time, so no query reads more than `SAMPLE_ABOVE` facts.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final, LiteralString
from uuid import UUID

from psycopg import Connection

from groundplan.core.database import select
from groundplan.ledger.rollup_store import IS_CALL

Row = dict[str, Any]
STEP: Final = timedelta(seconds=10)
SAMPLE_ABOVE: Final = 20_000
"""Number of facts above which latencies are of a sample."""
_WINDOW: Final = timedelta(seconds=2)
_CALLS_A_WINDOW: Final = 30
_ATTEMPTS_A_STEP: Final = 60
_WRONG_REQUEST: LiteralString = "http_status IN (400, 413, 422)"
"""Statuses of an upstream that blame the request, and not the deployment, in the form that an index has
(`022_wrong_requests.sql`)."""
_CALLS: LiteralString = """(SELECT * FROM call_step WHERE step >= %(since)s
    UNION ALL SELECT * FROM call_step_delta WHERE step >= %(since)s)"""
_ATTEMPTS: LiteralString = """(SELECT * FROM attempt_step WHERE step >= step_of(%(since)s)
    UNION ALL SELECT * FROM attempt_step_delta WHERE step >= step_of(%(since)s))"""


def limit_time(conn: Connection[Any], milliseconds: int) -> None:
    """Limit the time of each statement of this transaction: live figures must not hold up a busy database."""
    conn.execute("SELECT set_config('statement_timeout', %s, true)", (str(milliseconds),))


def calls_by_step(conn: Connection[Any], since: datetime, wanted: Row) -> list[Row]:
    """Calls of each step by status, with their cost, filtered by `wanted` (workload, deployment, status, each None for
    no filter). `every`: all calls of the workload, whatever the other filters. Empty steps are left out."""
    return select(
        conn,
        f"""SELECT step AS at, sum(calls)::bigint AS every, {_count("asked")} AS calls,
              {_count("asked AND status = 'ok'")} AS ok, {_count("asked AND status = 'refused'")} AS refused,
              {_count("asked AND status IN ('failed', 'crashed')")} AS failed,
              coalesce(sum(cost_usd) FILTER (WHERE asked), 0) AS cost_usd
            FROM (
              SELECT s.*, (%(deployment)s::text IS NULL OR deployment = %(deployment)s)
                AND (%(status)s::text IS NULL OR status = %(status)s) AS asked
              FROM {_CALLS} s WHERE %(workload)s::text IS NULL OR workload = %(workload)s) s
            GROUP BY 1 ORDER BY 1""",
        {"since": since, **wanted},
    )


def _count(what: str) -> str:
    return f"coalesce(sum(calls) FILTER (WHERE {what}), 0)::bigint"


_ASKED: LiteralString = f"""c.status = 'ok' AND c.duration_ms IS NOT NULL AND {IS_CALL}
  AND (%(deployment)s::text IS NULL OR c.deployment = %(deployment)s)
  AND (%(status)s::text IS NULL OR c.status = %(status)s)"""
_MIDDLE: LiteralString = "percentile_cont(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY ms)"


def latencies_by_step(conn: Connection[Any], since: datetime, wanted: Row) -> dict[datetime | None, list[float]]:
    """Step -> [median, 95th percentile] (ms) of answered calls; None -> of all steps together. Reads each of the
    calls."""
    rows = select(
        conn,
        f"""SELECT at, {_MIDDLE} AS ms FROM (
              SELECT step_of(c.at) AS at, c.duration_ms AS ms FROM call c
              WHERE c.at >= %(since)s AND (%(workload)s::text IS NULL OR c.workload = %(workload)s) AND {_ASKED}) c
            GROUP BY GROUPING SETS ((at), ())""",
        {"since": since, **wanted},
    )
    return {row["at"]: row["ms"] for row in rows if row["ms"] is not None}


_NEWEST: LiteralString = "at >= w.at AND at < w.at + %(window)s"
_OF_ALL: LiteralString = f"WHERE {_NEWEST} ORDER BY at DESC"
_OF_ONE: LiteralString = f"WHERE workload = ANY(ARRAY[%(workload)s]) AND {_NEWEST} ORDER BY workload, at DESC"
"""The order is one that only the index by workload has, see `route_store`."""


def sampled_latencies_by_step(
    conn: Connection[Any], since: datetime, until: datetime, wanted: Row, answered: dict[datetime, int]
) -> dict[datetime | None, list[float]]:
    """As `latencies_by_step`, from the newest calls of each two seconds. `answered`: step -> number of its answers, by
    which the samples of the steps are weighted in the figure of all steps."""
    rows = select(
        conn,
        f"""WITH sampled AS MATERIALIZED (
              SELECT step_of(c.at) AS at, c.duration_ms AS ms
              FROM generate_series(%(since)s, %(until)s - %(window)s, %(window)s) w(at), LATERAL (
                SELECT at, status, deployment, duration_ms, endpoint FROM call
                {_OF_ALL if wanted["workload"] is None else _OF_ONE} LIMIT %(most)s) c
              WHERE {_ASKED}),
            by_step AS (SELECT at, count(*) AS n, {_MIDDLE} AS ms FROM sampled GROUP BY 1),
            weighed AS (
              SELECT s.ms, sum(o.ok / b.n::float) OVER (ORDER BY s.ms) AS upto, sum(o.ok / b.n::float) OVER () AS whole
              FROM sampled s JOIN by_step b USING (at)
              JOIN unnest(%(steps)s::timestamptz[], %(ok)s::float[]) o(at, ok) USING (at))
            SELECT at, ms FROM by_step
            UNION ALL SELECT NULL, ARRAY[min(ms) FILTER (WHERE upto >= 0.5 * whole),
              min(ms) FILTER (WHERE upto >= 0.95 * whole)] FROM weighed HAVING count(*) > 0""",
        {
            "since": since, "until": until, "window": _WINDOW, "most": _CALLS_A_WINDOW,
            "steps": list(answered), "ok": list(answered.values()), **wanted,
        },
    )  # fmt: skip
    return {row["at"]: row["ms"] for row in rows}


def attempts_by_deployment(conn: Connection[Any], since: datetime) -> list[Row]:
    """(deployment, attempts, ok, failed, wrong_requests, last_ok) of settled attempts since the beginning of the step
    of `since`. `wrong_requests`: those that the upstream refused as wrong, which are not in `failed`."""
    return select(
        conn,
        f"""WITH wrong AS (
              SELECT deployment, count(*) AS n FROM attempt
              WHERE at >= step_of(%(since)s) AND outcome <> 'ok' AND {_WRONG_REQUEST}
                AND outcome IN ('failed', 'not_billed') AND state <> 'open' GROUP BY 1),
            every AS (
              SELECT deployment, sum(attempts)::bigint AS attempts, sum(ok)::bigint AS ok,
                sum(failed)::bigint AS failed, max(last_ok) AS last_ok FROM {_ATTEMPTS} a GROUP BY 1)
            SELECT deployment, attempts, ok, greatest(0, failed - coalesce(n, 0)) AS failed,
              coalesce(n, 0) AS wrong_requests, last_ok
            FROM every LEFT JOIN wrong USING (deployment) ORDER BY 1""",
        {"since": since},
    )


def first_byte_p95(conn: Connection[Any], since: datetime, until: datetime, *, sampled: bool) -> dict[str, float]:
    """Deployment -> 95th percentile (ms) of the time to the first byte of its answers; with `sampled`, of the newest
    attempts of each ten seconds. Ids of calls are ordered by time, so only new rows are read."""
    ends = [since + STEP * place for place in range(int((until - since) / STEP) + 1)] if sampled else [since]
    rows = select(
        conn,
        """SELECT a.deployment, percentile_cont(0.95) WITHIN GROUP (ORDER BY a.first_byte_ms) AS ms
           FROM unnest(%(first)s::uuid[], %(last)s::uuid[]) w(first, last), LATERAL (
             SELECT deployment, outcome, first_byte_ms FROM attempt WHERE call_id >= w.first AND call_id < w.last
             ORDER BY call_id DESC LIMIT %(most)s) a
           WHERE a.outcome = 'ok' AND a.first_byte_ms IS NOT NULL GROUP BY 1""",
        {
            "first": [_first_id(at) for at in ends], "most": _ATTEMPTS_A_STEP if sampled else SAMPLE_ABOVE,
            "last": [_first_id(at + STEP) if sampled else UUID(int=(1 << 128) - 1) for at in ends],
        },
    )  # fmt: skip
    return {row["deployment"]: row["ms"] for row in rows}


def _first_id(at: datetime) -> UUID:
    """The lowest id that a call which began at this time can have."""
    return UUID(int=int(at.timestamp() * 1000) << 80)


def calls_by_workload(conn: Connection[Any], since: datetime, until: datetime) -> list[Row]:
    """(workload, calls, every): calls that were not refused, in whole steps from `since` to `until`, and all such calls
    since `since`."""
    return select(
        conn,
        f"""SELECT workload, coalesce(sum(calls) FILTER (WHERE step < %(until)s), 0)::bigint AS calls,
              sum(calls)::bigint AS every FROM {_CALLS} s WHERE status <> 'refused' GROUP BY 1""",
        {"since": since, "until": until},
    )


def count_newest_calls(conn: Connection[Any], since: datetime, until: datetime) -> list[Row]:
    """Number of calls that were not refused, from `since` to before `until`, by workload."""
    return select(
        conn,
        f"""SELECT workload, count(*) AS calls FROM call
           WHERE at >= %(since)s AND at < %(until)s AND status <> 'refused' AND {IS_CALL} GROUP BY 1""",
        {"since": since, "until": until},
    )


def newest_outcomes(conn: Connection[Any], since: datetime) -> list[Row]:
    """(site, deployment, failed, unanswered) of each deployment that was attempted since then: whether its newest
    attempt failed, and whether it did so without any response. A refusal of a wrong request says nothing about a
    deployment, so the attempt before it counts."""
    rows = select(
        conn,
        f"""SELECT site, deployment, coalesce(failed > ok, ok IS NULL) AS failed, false AS unanswered
            FROM (
              SELECT site, deployment, max(last_failed) AS failed, max(last_ok) AS ok
              FROM {_ATTEMPTS} a GROUP BY 1, 2) a
            WHERE greatest(failed, ok) >= %(since)s""",
        {"since": since},
    )
    failed = [row for row in rows if row["failed"]]
    newest = _newest_telling(conn, [row["deployment"] for row in failed], since) if failed else {}
    for row in failed:
        row |= newest.get((row["site"], row["deployment"]), {})
    return rows


def _newest_telling(conn: Connection[Any], deployments: Sequence[str], since: datetime) -> dict[tuple[str, str], Row]:
    """(site, deployment) -> `failed` and `unanswered` by the newest attempt since then that is not the refusal of a
    wrong request; neither where there are only such refusals."""
    rows = select(
        conn,
        f"""SELECT DISTINCT ON (site, deployment) site, deployment, outcome <> 'ok' AND NOT blames_request AS failed,
             outcome <> 'ok' AND coalesce(http_status, 0) = 0 AS unanswered
           FROM (
             SELECT *, outcome <> 'ok' AND coalesce({_WRONG_REQUEST}, false) AS blames_request FROM (
               SELECT site, deployment, outcome, http_status, at, number FROM attempt
               WHERE call_id >= %(first)s ORDER BY call_id DESC LIMIT %(most)s) a
             WHERE deployment = ANY(%(deployments)s) AND outcome NOT IN ('', 'cancelled')) a
           ORDER BY site, deployment, blames_request, at DESC, number DESC""",
        {"first": _first_id(since), "most": SAMPLE_ABOVE, "deployments": list(deployments)},
    )
    return {
        (row["site"], row["deployment"]): {"failed": row["failed"], "unanswered": row["unanswered"]} for row in rows
    }


def answering_sites(conn: Connection[Any], workloads: Sequence[str], since: datetime) -> list[Row]:
    """(workload, site) of the newest attempt of each workload since then that answered."""
    return select(
        conn,
        f"""SELECT DISTINCT ON (workload) workload, site FROM {_ATTEMPTS} a
            WHERE last_ok >= %(since)s AND workload = ANY(%(workloads)s) ORDER BY workload, last_ok DESC""",
        {"workloads": list(workloads), "since": since},
    )


def open_breakers(conn: Connection[Any]) -> list[Row]:
    """(worker's process id, its open circuit breakers) of each living worker; breakers that are not listed are
    closed."""
    return select(
        conn,
        """SELECT pid, health FROM gateway WHERE state = 'live' AND heartbeat_at > now() - interval '10 seconds'
           ORDER BY started_at, epoch""",
        {},
    )
