"""The SQL of what calls of a workload prove: from the sums that are kept, and the newest call of a kind.

Counts, cost and outcomes are exactly those of the facts of whole days; the percentile is within 2 %. A newest call is
looked for on the day on which the sums have one, so no question reads every call. Calls of the demo and those that
were refused prove nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from typing import Any

from psycopg import Connection
from psycopg.rows import dict_row

from groundplan.ledger import rollup_store

Row = dict[str, Any]
NEWEST = 200
"""Calls among which one that is in the audit log is looked for, and at first one that is grounded or was answered by
another deployment; where they have none, the first of that day is told."""
_DAY = timedelta(days=1)
_NEVER = datetime(9000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Kept:
    """The sums of one workload. `days` are rows of day, status, deployment, calls and cost_usd."""

    days: tuple[Row, ...] = ()
    first_byte_p95_ms: float | None = None
    grounded_on: datetime | None = None
    """The newest day with a call that was given a document."""
    outcomes: int = 0


@dataclass(slots=True)
class _Gathered:
    days: list[Row] = field(default_factory=list)
    buckets: list[tuple[int, int]] = field(default_factory=list)
    grounded_on: datetime | None = None
    outcomes: int = 0


def day_of(at: datetime) -> datetime:
    """The beginning of its day, UTC."""
    return datetime.combine(at.astimezone(UTC).date(), time(), UTC)


def kept(conn: Connection[Any], since: datetime) -> dict[str, Kept]:
    """workload -> its sums since `since`, the beginning of a day; in four questions for all of them together."""
    wanted = {"since": since, "until": None, "workload": None, "status": None, "deployment": None, "demo": False}
    found: dict[str, _Gathered] = {}
    for row in rollup_store.calls_by(conn, ["day", "workload", "status", "deployment"], wanted):
        if row["status"] != "refused":
            found.setdefault(row["workload"], _Gathered()).days.append(row)
    for row in _first_bytes(conn, since):
        found.setdefault(row["workload"], _Gathered()).buckets.append((row["bucket"], int(row["calls"])))
    for row in _grounded(conn, since, sorted(found)):
        found.setdefault(row["workload"], _Gathered()).grounded_on = row["day"]
    for row in _outcomes(conn, since):
        found.setdefault(row["workload"], _Gathered()).outcomes = int(row["outcomes"])
    return {
        name: Kept(tuple(mine.days), _percentile(mine.buckets, 0.95), mine.grounded_on, mine.outcomes)
        for name, mine in found.items()
    }


def proofs(conn: Connection[Any], workload: str, primary: str | None, since: datetime, sums: Kept | None) -> Row:
    """What calls of a workload prove since then; `sums` are those of `kept` since the same day.

    Keys: calls, ok, first_byte_p95_ms, cost_usd, call, grounded_call, fallback_call, logged_call, outcomes.
    """
    sums = sums or Kept()
    others = (r for r in sums.days if r["status"] == "ok" and r["deployment"] not in ("", primary))
    newest = _newest(sums.days, 1)
    times = {
        "call": newest,
        "grounded": sums.grounded_on or _NEVER,
        "fallback": _newest(others, 1) if primary is not None else _NEVER,
        "logged": _newest(sums.days, NEWEST) if newest != _NEVER else _NEVER,
    }
    with conn.cursor(row_factory=dict_row) as cursor:
        found = cursor.execute(
            """SELECT
                 (SELECT id FROM call WHERE workload = %(workload)s AND at >= %(call)s AND NOT demo
                    AND status <> 'refused' ORDER BY at DESC LIMIT 1) AS call,
                 coalesce(
                   (SELECT m.id FROM (SELECT id, at, status, detail FROM call
                      WHERE workload = %(workload)s AND at >= %(grounded)s AND NOT demo
                      ORDER BY at DESC LIMIT %(newest)s) m
                    WHERE status <> 'refused' AND jsonb_array_length(detail -> 'sources') > 0 ORDER BY at DESC LIMIT 1),
                   (SELECT id FROM call WHERE workload = %(workload)s AND at >= %(grounded)s AND NOT demo
                      AND status <> 'refused' AND jsonb_array_length(detail -> 'sources') > 0
                    ORDER BY at LIMIT 1)) AS grounded_call,
                 coalesce(
                   (SELECT m.id FROM (SELECT id, at, status, deployment FROM call
                      WHERE workload = %(workload)s AND at >= %(fallback)s AND NOT demo
                      ORDER BY at DESC LIMIT %(newest)s) m
                    WHERE status = 'ok' AND deployment <> %(primary)s ORDER BY at DESC LIMIT 1),
                   (SELECT id FROM call WHERE workload = %(workload)s AND at >= %(fallback)s AND NOT demo
                      AND status = 'ok' AND deployment <> %(primary)s ORDER BY at LIMIT 1)) AS fallback_call,
                 (SELECT m.id FROM (SELECT id, at FROM call WHERE workload = %(workload)s AND at >= %(logged)s
                      AND NOT demo AND status <> 'refused' ORDER BY at DESC LIMIT %(newest)s) m
                  WHERE EXISTS (SELECT 1 FROM audit_entry e WHERE e.id = m.id AND e.leaf_index IS NOT NULL)
                  ORDER BY m.at DESC LIMIT 1) AS logged_call""",
            {
                "workload": workload,
                "primary": primary,
                "newest": NEWEST,
                **{k: max(v, since) for k, v in times.items()},
            },
        ).fetchone()
    assert found is not None
    return {
        **found,
        "calls": sum(int(row["calls"] or 0) for row in sums.days),
        "ok": sum(int(row["ok"] or 0) for row in sums.days),
        "cost_usd": sum((row["cost_usd"] for row in sums.days), 0),
        "first_byte_p95_ms": sums.first_byte_p95_ms,
        "outcomes": sums.outcomes,
    }


def _newest(rows: Iterable[Row], count: int) -> datetime:
    """The day from which on there are so many calls, or all there are; `_NEVER` without any."""
    by_day: dict[Any, int] = {}
    for row in rows:
        by_day[row["day"]] = by_day.get(row["day"], 0) + int(row["calls"] or 0)
    found = _NEVER
    for day in sorted((day for day, calls in by_day.items() if calls > 0), reverse=True):
        found = datetime.combine(day, time(), UTC)
        count -= by_day[day]
        if count <= 0:
            break
    return found


def _percentile(buckets: list[tuple[int, int]], share: float) -> float | None:
    """The middle of the bucket up to which this share of calls is; buckets are 2 % wide."""
    whole = sum(calls for _, calls in buckets)
    upto = 0
    for bucket, calls in sorted(buckets):
        upto += calls
        if whole and upto >= share * whole:
            return float(1.02 ** (bucket + 0.5))
    return None


def _first_bytes(conn: Connection[Any], since: datetime) -> list[Row]:
    return _rows(
        conn,
        """SELECT workload, bucket, sum(CASE what WHEN 'first' THEN calls ELSE -calls END) AS calls FROM (
             SELECT * FROM latency_day UNION ALL SELECT * FROM latency_delta) l
           WHERE what IN ('first', 'first demo') AND hour >= %(since)s GROUP BY 1, 2
           HAVING sum(CASE what WHEN 'first' THEN calls ELSE -calls END) > 0""",
        since,
    )


def _grounded(conn: Connection[Any], since: datetime, workloads: list[str]) -> list[Row]:
    """The newest day of each on which a document was given; a day is one look into an index."""
    return _rows(
        conn,
        """SELECT workload, max(day) AS day FROM (
             SELECT w.workload, g.day FROM unnest(%(workloads)s::text[]) w(workload),
               generate_series(%(since)s, now() + interval '1 day', interval '1 day') g(day)
             WHERE EXISTS (SELECT 1 FROM document_day d WHERE d.hour = g.day AND d.workload = w.workload
               AND d.document > '' AND NOT d.demo)
             UNION ALL SELECT workload, hour FROM document_delta
               WHERE hour >= %(since)s AND document <> '' AND NOT demo) d GROUP BY 1""",
        since,
        workloads,
    )


def _outcomes(conn: Connection[Any], since: datetime) -> list[Row]:
    return _rows(
        conn,
        """SELECT workload, sum(outcomes) AS outcomes FROM (
             SELECT * FROM outcome_day UNION ALL SELECT * FROM outcome_delta) o
           WHERE hour >= %(since)s AND NOT demo AND NOT refused GROUP BY 1""",
        since,
    )


def _rows(conn: Connection[Any], query: str, since: datetime, workloads: Sequence[str] = ()) -> list[Row]:
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query.encode(), {"since": since, "workloads": list(workloads)}).fetchall()
