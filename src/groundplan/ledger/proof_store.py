"""The SQL of what calls of a workload prove: stored sums, and the newest call of each kind.

Counts, cost and outcomes are exactly those of the facts of whole days; the percentile is within 2 %. A newest call is
searched on the newest day on which the sums have one, so no query reads every call. Calls of the demo and refused calls
prove nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, time
from decimal import Decimal
from typing import Any, LiteralString

from psycopg import Connection

from groundplan.core.database import select
from groundplan.ledger.rollup_store import IS_CALL

Row = dict[str, Any]
NEWEST = 200
"""Number of the newest calls among which one that is in the audit log is searched; also, at first, one that was
grounded or was answered by another deployment. If there is none, the first such call of that day, or of that hour, is
taken."""
NEVER = datetime(9000, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class WorkloadSums:
    """The sums of one workload. Days are their beginnings; `NEVER` where there is none."""

    calls: int = 0
    ok: int = 0
    cost_usd: Decimal = Decimal(0)
    newest: datetime = NEVER
    """The newest day with a call."""
    logged: datetime = NEVER
    """The day since which there are `NEWEST` calls, or all there are."""
    answered: dict[str, datetime] = field(default_factory=dict)
    """Deployment -> the newest day on which it answered."""
    grounded_on: datetime = NEVER
    """The newest day with a call that was given a document."""
    first_byte_p95_ms: float | None = None
    outcomes: int = 0


def day_of(at: datetime) -> datetime:
    """The beginning of a time's day, UTC."""
    return datetime.combine(at.astimezone(UTC).date(), time(), UTC)


def workload_sums(
    conn: Connection[Any], since: datetime, workloads: Sequence[str] | None = None
) -> dict[str, WorkloadSums]:
    """workload -> its sums since `since`, the beginning of a day, for all workloads or those named; in four queries for
    all of them together."""
    sums: defaultdict[str, WorkloadSums] = defaultdict(WorkloadSums)
    days: dict[str, list[tuple[datetime, int]]] = {}
    for row in _calls(conn, since, workloads):
        if row["by_day"]:
            days.setdefault(row["workload"], []).append((row["day"], int(row["calls"])))
        else:
            _add_calls(sums[row["workload"]], row)
    for workload, counts in days.items():
        sums[workload].newest, sums[workload].logged = max(counts)[0], _since_newest(counts, NEWEST)
    for row in _first_bytes(conn, since, workloads):
        sums[row["workload"]].first_byte_p95_ms = float(1.02 ** (row["bucket"] + 0.5))
    for row in _grounded(conn, since, sorted(sums)):
        sums[row["workload"]].grounded_on = row["day"]
    for row in _outcomes(conn, since, workloads):
        sums[row["workload"]].outcomes = int(row["outcomes"])
    return dict(sums)


def proofs(
    conn: Connection[Any], primaries: Mapping[str, str | None], since: datetime, sums: Mapping[str, WorkloadSums]
) -> dict[str, Row]:
    """What calls of workloads prove since then, by workload, in one query. `primaries`: workload -> the deployment that
    answers it at first. `sums` are those of `workload_sums` since the same day.

    Keys: calls, ok, first_byte_p95_ms, cost_usd, call, grounded_call, fallback_call, logged_call, outcomes.
    """
    names = list(primaries)
    ordered_sums = [sums.get(name, WorkloadSums()) for name in names]
    fallbacks = [_newest_day_of_others(each, primaries[name]) for name, each in zip(names, ordered_sums, strict=True)]
    days_by_kind = {
        "call": [each.newest for each in ordered_sums], "grounded": [each.grounded_on for each in ordered_sums],
        "fallback": fallbacks, "logged": [each.logged for each in ordered_sums],
    }  # fmt: skip
    parameters = {
        "workloads": names, "primaries": [primaries[name] for name in names], "most": NEWEST,
        **{what: [max(each, since) for each in days] for what, days in days_by_kind.items()},
    }  # fmt: skip
    rows = select(conn, _EXAMPLES, parameters)
    examples = {row.pop("workload"): row for row in rows}
    return {
        name: {
            **examples[name], "calls": each.calls, "ok": each.ok, "cost_usd": each.cost_usd,
            "first_byte_p95_ms": each.first_byte_p95_ms, "outcomes": each.outcomes,
        }
        for name, each in zip(names, ordered_sums, strict=True)
    }  # fmt: skip


_EXAMPLES: LiteralString = """SELECT w.workload,
    (SELECT id FROM call WHERE workload = w.workload AND at >= w.newest AND NOT demo
       AND status <> 'refused' ORDER BY at DESC LIMIT 1) AS call,
    coalesce(
      (SELECT m.id FROM (SELECT id, at, status, detail FROM call
         WHERE workload = w.workload AND at >= w.grounded AND NOT demo ORDER BY at DESC LIMIT %(most)s) m
       WHERE status <> 'refused' AND jsonb_array_length(detail -> 'sources') > 0 ORDER BY at DESC LIMIT 1),
      (SELECT id FROM call WHERE workload = w.workload AND at >= w.grounded AND NOT demo
         AND status <> 'refused' AND jsonb_array_length(detail -> 'sources') > 0
       ORDER BY at LIMIT 1)) AS grounded_call,
    coalesce(
      (SELECT m.id FROM (SELECT id, at, status, deployment FROM call
         WHERE workload = w.workload AND at >= w.fallback AND NOT demo ORDER BY at DESC LIMIT %(most)s) m
       WHERE status = 'ok' AND deployment <> w.first ORDER BY at DESC LIMIT 1),
      (SELECT id FROM call WHERE workload = w.workload AND NOT demo AND status = 'ok' AND deployment <> w.first
         AND at >= coalesce((SELECT max(h.hour) FROM call_hour h WHERE h.hour >= w.fallback
             AND h.hour < w.fallback + interval '24 hours' AND h.workload = w.workload AND NOT h.demo
             AND h.status = 'ok' AND h.deployment NOT IN ('', w.first)), w.fallback)
       ORDER BY at LIMIT 1)) AS fallback_call,
    (SELECT m.id FROM (SELECT id, at FROM call WHERE workload = w.workload AND at >= w.logged
         AND NOT demo AND status <> 'refused' ORDER BY at DESC LIMIT %(most)s) m
     WHERE EXISTS (SELECT 1 FROM audit_entry e WHERE e.id = m.id AND e.leaf_index IS NOT NULL)
     ORDER BY m.at DESC LIMIT 1) AS logged_call
  FROM unnest(%(workloads)s::text[], %(primaries)s::text[], %(call)s::timestamptz[], %(grounded)s::timestamptz[],
    %(fallback)s::timestamptz[], %(logged)s::timestamptz[]) w(workload, first, newest, grounded, fallback, logged)"""


def _add_calls(sums: WorkloadSums, row: Row) -> None:
    sums.calls += int(row["calls"])
    sums.cost_usd += row["cost_usd"]
    if row["status"] == "ok":
        sums.ok += int(row["calls"])
        if row["deployment"]:
            sums.answered[row["deployment"]] = row["day"]


def _newest_day_of_others(sums: WorkloadSums, primary: str | None) -> datetime:
    """The newest day on which a deployment other than the primary answered."""
    days = [day for deployment, day in sums.answered.items() if deployment != primary]
    return max(days, default=NEVER) if primary is not None else NEVER


def _since_newest(days: Iterable[tuple[datetime, int]], count: int) -> datetime:
    """The day since which there are `count` calls, or all there are."""
    first_day = NEVER
    for day, calls in sorted(days, reverse=True):
        first_day, count = day, count - calls
        if count <= 0:
            break
    return first_day


_MEANT: LiteralString = " AND (%(workloads)s::text[] IS NULL OR workload = ANY(%(workloads)s))"


def _calls(conn: Connection[Any], since: datetime, workloads: Sequence[str] | None) -> list[Row]:
    """Sums of calls that were not refused: calls and cost by status and deployment, with the newest `day` of each; and,
    with `by_day`, calls by workload and `day`."""
    return _rows(
        conn,
        """SELECT workload, status, deployment, max(day) AS day, grouping(status) = 1 AS by_day, sum(calls) AS calls,
             sum(cost_usd) AS cost_usd
           FROM (
             SELECT workload, status, deployment, hour AS day, calls, cost_usd FROM call_day
             WHERE hour >= %(since)s AND NOT demo AND status <> 'refused' AND """
        + IS_CALL
        + _MEANT
        + """
             UNION ALL SELECT workload, status, deployment, date_trunc('day', hour, 'UTC'), calls, cost_usd
             FROM call_delta WHERE hour >= %(since)s AND NOT demo AND status <> 'refused' AND """
        + IS_CALL
        + _MEANT
        + """) c
           GROUP BY GROUPING SETS ((workload, status, deployment), (workload, day))""",
        since,
        workloads,
    )


def _first_bytes(conn: Connection[Any], since: datetime, workloads: Sequence[str] | None) -> list[Row]:
    """By workload the bucket that contains the 95th percentile of the time to the first byte; buckets are 2 % wide. The
    database computes it: thousands of workloads have hundreds of thousands of buckets."""
    return _rows(
        conn,
        """SELECT workload, min(bucket) AS bucket FROM (
             SELECT workload, bucket, sum(calls) OVER (PARTITION BY workload ORDER BY bucket) AS upto,
               sum(calls) OVER (PARTITION BY workload) AS whole FROM (
                 SELECT workload, bucket, sum(CASE what WHEN 'first' THEN calls ELSE -calls END) AS calls FROM (
                   SELECT * FROM latency_day UNION ALL SELECT * FROM latency_delta) l
                 WHERE what IN ('first', 'first demo') AND hour >= %(since)s"""
        + _MEANT
        + """ GROUP BY 1, 2
                 HAVING sum(CASE what WHEN 'first' THEN calls ELSE -calls END) > 0) b) c
           WHERE upto >= 0.95 * whole GROUP BY 1""",
        since,
        workloads,
    )


def _grounded(conn: Connection[Any], since: datetime, workloads: list[str]) -> list[Row]:
    """The newest day of each workload on which a document was given; each day takes one index lookup."""
    return _rows(
        conn,
        """SELECT workload, max(day) AS day FROM (
             SELECT w.workload, g.day FROM unnest(%(workloads)s::text[]) w(workload),
               generate_series(%(since)s, now() + interval '24 hours', interval '24 hours') g(day),
               LATERAL (SELECT FROM document_day d WHERE d.hour = g.day AND d.workload = w.workload
                 AND d.document > '' AND NOT d.demo LIMIT 1) given
             UNION ALL SELECT workload, hour FROM document_delta
               WHERE hour >= %(since)s AND document <> '' AND NOT demo) d GROUP BY 1""",
        since,
        workloads,
    )


def _outcomes(conn: Connection[Any], since: datetime, workloads: Sequence[str] | None) -> list[Row]:
    return _rows(
        conn,
        """SELECT workload, sum(outcomes) AS outcomes FROM (
             SELECT * FROM outcome_day UNION ALL SELECT * FROM outcome_delta) o
           WHERE hour >= %(since)s AND NOT demo AND NOT refused"""
        + _MEANT
        + " GROUP BY 1",
        since,
        workloads,
    )


def _rows(conn: Connection[Any], query: str, since: datetime, workloads: Sequence[str] | None) -> list[Row]:
    return select(conn, query, {"since": since, "workloads": None if workloads is None else list(workloads)})
