"""The SQL that reads the ledger. Returns rows as dicts, which `queries` converts to JSON. Writes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, LiteralString
from uuid import UUID

from psycopg import Connection

from groundplan.core.database import select
from groundplan.ledger import rollup_store

Row = dict[str, Any]
BUCKETS_ABOVE = 20_000
"""With more answered calls than this, percentiles are read from buckets."""


@dataclass(frozen=True, slots=True)
class CallFilter:
    """Which calls to read; None matches all."""

    workload: str | None = None
    person: UUID | None = None
    key: UUID | None = None
    status: str | None = None
    deployment: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    demo: bool | None = None

    @property
    def personal(self) -> bool:
        """Whether it filters by person or key, by which no sums are stored."""
        return self.person is not None or self.key is not None

    def parameters(self) -> Row:
        return {
            "workload": self.workload,
            "person": self.person,
            "key": self.key,
            "status": self.status,
            "deployment": self.deployment,
            "since": self.since,
            "until": self.until,
            "demo": self.demo,
        }


_MATCHES: LiteralString = """
  (%(workload)s::text IS NULL OR c.workload = %(workload)s) AND (%(person)s::uuid IS NULL OR c.person_id = %(person)s)
  AND (%(key)s::uuid IS NULL OR c.key_id = %(key)s) AND (%(status)s::text IS NULL OR c.status = %(status)s)
  AND (%(deployment)s::text IS NULL OR c.deployment = %(deployment)s)
  AND (%(since)s::timestamptz IS NULL OR c.at >= %(since)s) AND (%(until)s::timestamptz IS NULL OR c.at < %(until)s)
  AND (%(demo)s::boolean IS NULL OR c.demo = %(demo)s)"""

_CALL: LiteralString = """SELECT c.id, c.at, c.workload, c.person_id, p.email AS person, p.name AS person_name,
  c.key_id, c.team, c.endpoint, c.status, c.http_status, c.error_code, c.model, c.deployment, c.site, c.cost_usd,
  c.saved_usd, c.prefix_saved_usd, c.reserved_usd, c.prompt_tokens, c.completion_tokens, c.cache, c.blueprint,
  c.demo, c.duration_ms, c.first_byte_ms, c.detail
  FROM call c LEFT JOIN person p ON p.id = c.person_id"""


def costs_by_workload(conn: Connection[Any], wanted: CallFilter) -> list[Row]:
    """By workload: cost and number of calls that were not refused, how many were answered from the cache, and what that
    and the providers' prompt caches saved."""
    if wanted.personal:
        query: LiteralString = (
            """SELECT c.workload, sum(c.cost_usd) AS total_usd, count(*) FILTER (WHERE c.status <> 'refused' AND """
            + rollup_store.IS_CALL
            + """) AS calls,
                 count(*) FILTER (WHERE c.cache IN ('exact', 'semantic') AND c.status = 'ok') AS cached,
                 sum(c.saved_usd) AS saved_usd, sum(c.prefix_saved_usd) AS prefix_saved_usd
               FROM call c WHERE """
            + _MATCHES
            + " GROUP BY c.workload ORDER BY c.workload"
        )
        return select(conn, query, wanted.parameters())
    return [
        {
            "workload": row["workload"],
            "total_usd": row["cost_usd"],
            "calls": int(row["calls"] or 0),
            "cached": int(row["cached"] or 0),
            "saved_usd": row["saved_usd"],
            "prefix_saved_usd": row["prefix_saved_usd"],
        }
        for row in rollup_store.calls_by(conn, ["workload"], wanted.parameters())
    ]


def count_unsettled(conn: Connection[Any], wanted: CallFilter) -> tuple[int, int]:
    """Return the number of attempts that are in flight or of a crash not recovered yet, and of those that a crash cut
    off (charged at their bound, not archived). Filters by workload, deployment, time and demo."""
    rows = select(
        conn,
        """SELECT count(*) FILTER (WHERE state = 'open') AS open, count(*) FILTER (WHERE state = 'crashed') AS crashed
           FROM attempt WHERE state IN ('open', 'crashed') AND (%(workload)s::text IS NULL OR workload = %(workload)s)
             AND (%(deployment)s::text IS NULL OR deployment = %(deployment)s)
             AND (%(since)s::timestamptz IS NULL OR at >= %(since)s)
             AND (%(until)s::timestamptz IS NULL OR at < %(until)s)
             AND (%(demo)s::boolean IS NULL OR demo = %(demo)s)""",
        wanted.parameters(),
    )
    return int(rows[0]["open"]), int(rows[0]["crashed"])


def calls(conn: Connection[Any], wanted: CallFilter, before: UUID | None, limit: int) -> list[Row]:
    """The newest matching calls older than the call `before`. Calls of a person are read only from days on which the
    sums have any; refused and uncounted calls, which are in no sums, have indexes of their own. So no query scans the
    calls of everybody."""
    if wanted.person is None:
        rare = wanted.key is None and (wanted.deployment is not None or wanted.status not in (None, "ok"))
        return (_sparse_calls if rare else _newest_calls)(conn, wanted, before, limit)
    found: list[Row] = []
    if wanted.status in (None, "refused"):
        found = _newest_calls(conn, wanted, before, limit, " AND c.person_id = %(person)s AND c.status = 'refused'")
    if wanted.status != "refused":
        found += _newest_calls(conn, wanted, before, limit, _UNCOUNTED)
    beside = len(found)
    for first, after, made in (
        _merge_days(_days_of_person(conn, wanted, before), limit) if wanted.status != "refused" else ()
    ):
        if (lacking := limit - (len(found) - beside)) <= 0:
            break
        within = {"first": first, "after": after}
        found += _newest_calls(conn, wanted, before, min(lacking, made), _OF_SOME_DAYS, within)
    return sorted(found, key=lambda row: (row["at"], row["id"]), reverse=True)[:limit]


def _sparse_calls(conn: Connection[Any], wanted: CallFilter, before: UUID | None, limit: int) -> list[Row]:
    """The newest matching calls where few may match: those of one day if they suffice, else those of the days and
    workloads for which the sums have any."""
    found = _newest_calls(conn, wanted, before, limit, _LATELY)
    if len(found) == limit:
        return found
    found = []
    for row in _days_with(conn, wanted, before, limit):
        if (lacking := limit - len(found)) <= 0:
            break
        within = {"first": row["day"], "after": row["day"] + _DAY, "among": row["among"]}
        found += _newest_calls(conn, wanted, before, min(lacking, row["calls"]), _ON_A_DAY, within)
    return found


def _days_with(conn: Connection[Any], wanted: CallFilter, before: UUID | None, limit: int) -> list[Row]:
    """(day, calls, `among`: workloads) of the newest days with such calls; the first and last day may have none within
    the filter's time."""
    return select(
        conn,
        """SELECT day, array_agg(DISTINCT workload) AS among, sum(calls)::bigint AS calls FROM (
             SELECT hour AS day, workload, deployment, status, demo, calls FROM call_day
             UNION ALL
             SELECT date_trunc('day', hour, 'UTC'), workload, deployment, status, demo, calls FROM call_delta) d
           WHERE (%(workload)s::text IS NULL OR workload = %(workload)s)
             AND (%(status)s::text IS NULL OR status = %(status)s)
             AND (%(deployment)s::text IS NULL OR deployment = %(deployment)s)
             AND (%(demo)s::boolean IS NULL OR demo = %(demo)s)
             AND day >= (SELECT date_trunc('day', min(at), 'UTC') FROM call)
             AND (%(since)s::timestamptz IS NULL OR day > %(since)s - interval '24 hours')
             AND (%(until)s::timestamptz IS NULL OR day < %(until)s)
             AND (%(before)s::uuid IS NULL OR day <= (SELECT at FROM call WHERE id = %(before)s))
           GROUP BY 1 ORDER BY 1 DESC LIMIT %(days)s""",
        {**wanted.parameters(), "before": before, "days": limit + 2},
    )


_DAY = timedelta(days=1)
_LATELY: LiteralString = (
    " AND c.at >= coalesce((SELECT b.at FROM call b WHERE b.id = %(before)s), now()) - interval '1 day'"
)
_ON_A_DAY: LiteralString = " AND c.workload = ANY(%(among)s) AND c.at >= %(first)s AND c.at < %(after)s"
_OF_SOME_DAYS: LiteralString = (
    " AND c.person_id = %(person)s AND c.status <> 'refused' AND c.at >= %(first)s AND c.at < %(after)s"
    f" AND {rollup_store.IS_CALL}"
)
_UNCOUNTED: LiteralString = f" AND c.person_id = %(person)s AND c.status <> 'refused' AND {rollup_store.UNCOUNTED}"


def _merge_days(days: list[tuple[datetime, int]], limit: int) -> Iterator[tuple[datetime, datetime, int]]:
    """Merge consecutive days until they have `limit` calls; yields (start, end, calls)."""
    place = 0
    while place < len(days):
        first, made = days[place]
        after = first + _DAY
        place += 1
        while made < limit and place < len(days) and days[place][0] + _DAY == first:
            first, made = days[place][0], made + days[place][1]
            place += 1
        yield first, after, made


def _newest_calls(
    conn: Connection[Any], wanted: CallFilter, before: UUID | None, limit: int, more: LiteralString = "",
    values: Row | None = None,
) -> list[Row]:  # fmt: skip
    query: LiteralString = (
        _CALL
        + " WHERE "
        + _MATCHES
        + " AND (%(before)s::uuid IS NULL OR (c.at, c.id) < (SELECT b.at, b.id FROM call b WHERE b.id = %(before)s))"
        + more
        + " ORDER BY c.at DESC, c.id DESC LIMIT %(limit)s"
    )
    return select(conn, query, {**wanted.parameters(), "before": before, "limit": limit, **(values or {})})


def _days_of_person(conn: Connection[Any], wanted: CallFilter, before: UUID | None) -> list[tuple[datetime, int]]:
    """(day, calls) of days on which a person made calls that were not refused, newest first, including archived
    days."""
    rows = select(
        conn,
        """SELECT hour, sum(calls)::bigint AS calls FROM (
             SELECT hour, calls FROM person_whole WHERE person = %(person)s
             UNION ALL SELECT hour, calls FROM person_delta WHERE person = %(person)s) d
           WHERE hour >= (SELECT date_trunc('day', min(at), 'UTC') FROM call)
             AND (%(since)s::timestamptz IS NULL OR hour > %(since)s - interval '24 hours')
             AND (%(until)s::timestamptz IS NULL OR hour < %(until)s)
             AND (%(before)s::uuid IS NULL OR hour <= (SELECT at FROM call WHERE id = %(before)s))
           GROUP BY 1 ORDER BY 1 DESC""",
        {**wanted.parameters(), "before": before},
    )
    return [(row["hour"], row["calls"]) for row in rows]


def calls_shipped_since(conn: Connection[Any], since: datetime, limit: int) -> list[Row]:
    """The newest calls that reached the ledger after `since`, in order of arrival, with `shipped_at`. Calls with an
    arrival in the future, from when the clock was wrong, are left out."""
    query: LiteralString = (
        "SELECT * FROM ("
        + _CALL.replace("c.detail", "c.detail, c.shipped_at")
        + " WHERE c.shipped_at > %(since)s AND c.shipped_at <= clock_timestamp()"
        " ORDER BY c.shipped_at DESC, c.id DESC LIMIT %(limit)s) n"
        " ORDER BY n.shipped_at, n.id"
    )
    return select(conn, query, {"since": since, "limit": limit})


def citations(conn: Connection[Any], id: UUID) -> list[Row]:
    """The checked citations of a call, in the order of its answer."""
    return select(
        conn,
        """SELECT passage, document, version, start_char, end_char, answer_start, answer_end, supported
           FROM call_citation WHERE call_id = %(id)s ORDER BY number""",
        {"id": id},
    )


def shipped_at(conn: Connection[Any], id: UUID) -> datetime | None:
    """When a call reached the ledger."""
    rows = select(conn, "SELECT shipped_at FROM call WHERE id = %(id)s", {"id": id})
    return rows[0]["shipped_at"] if rows else None


def database_time(conn: Connection[Any]) -> datetime:
    """The current time of the database, whose clock sets `shipped_at`."""
    now: datetime = select(conn, "SELECT now() AS now", {})[0]["now"]
    return now


def get_call(conn: Connection[Any], id: UUID) -> Row | None:
    rows = select(conn, _CALL + " WHERE c.id = %(id)s", {"id": id})
    return rows[0] if rows else None


def attempts(conn: Connection[Any], call_id: UUID) -> list[Row]:
    """Attempts of a call in order."""
    return select(
        conn,
        """SELECT number, at, deployment, site, model, state, outcome, http_status, reserved_usd, cost_usd, usage,
             estimated, flags, duration_ms, started_ms, connect_ms, first_byte_ms, parts, tier FROM attempt
           WHERE call_id = %(id)s ORDER BY number""",
        {"id": call_id},
    )


def attempts_between(
    conn: Connection[Any], since: datetime, until: datetime, calls: list[UUID], limit: int
) -> list[Row]:
    """Attempts from `since` to before `until`, and all attempts of `calls`, with the workload of their call."""
    return select(
        conn,
        """SELECT a.call_id, a.number, a.at, coalesce(c.workload, '') AS workload, a.deployment, a.model, a.state,
             a.outcome, a.cost_usd, a.usage, a.estimated, a.blueprint, coalesce(c.demo, false) AS demo
           FROM attempt a LEFT JOIN call c ON c.id = a.call_id
           WHERE (a.at >= %(since)s AND a.at < %(until)s) OR a.call_id = ANY(%(calls)s)
           ORDER BY a.at, a.call_id, a.number LIMIT %(limit)s""",
        {"since": since, "until": until, "calls": calls, "limit": limit},
    )


def charges(conn: Connection[Any], call_id: UUID) -> list[Row]:
    """The charges of a call's attempts to budgets."""
    return select(
        conn,
        "SELECT attempt, budget, period, cost_usd FROM charge WHERE call_id = %(id)s ORDER BY attempt, budget, period",
        {"id": call_id},
    )


def audit_leaf(conn: Connection[Any], call_id: UUID) -> Row | None:
    """The audit entry of a call, which has the call's id."""
    rows = select(conn, "SELECT id, leaf_index FROM audit_entry WHERE id = %(id)s", {"id": call_id})
    return rows[0] if rows else None


def outcomes(conn: Connection[Any], call_id: UUID) -> list[Row]:
    return select(
        conn,
        "SELECT at, accepted, value_usd, label, by FROM outcome WHERE call_id = %(id)s ORDER BY at",
        {"id": call_id},
    )


def subcalls(conn: Connection[Any], call_id: UUID) -> list[Row]:
    """Calls that the gateway itself made for this one, in the order of their begin."""
    return select(
        conn,
        """SELECT id AS call, detail ->> 'purpose' AS purpose, deployment, model, status, cost_usd FROM call
           WHERE detail ->> 'of' = %(id)s::text ORDER BY at, id""",
        {"id": call_id},
    )


def daily_costs(conn: Connection[Any], wanted: CallFilter) -> list[Row]:
    """Cost and calls of each UTC day and workload."""
    if wanted.personal:
        query: LiteralString = (
            """SELECT (c.at AT TIME ZONE 'UTC')::date AS day, c.workload, sum(c.cost_usd) AS cost_usd,
                 count(*) FILTER (WHERE c.status <> 'refused' AND """
            + rollup_store.IS_CALL
            + """) AS calls FROM call c WHERE """
            + _MATCHES
            + " GROUP BY 1, 2 ORDER BY 1, 2"
        )
        return select(conn, query, wanted.parameters())
    names = ("day", "workload", "cost_usd")
    rows = rollup_store.calls_by(conn, ["day", "workload"], wanted.parameters())
    return [{**{name: row[name] for name in names}, "calls": int(row["calls"] or 0)} for row in rows]


def latencies(conn: Connection[Any], wanted: CallFilter) -> list[Row]:
    """Percentiles (ms) of answered calls by workload: exact, or within 2 % where there are many."""
    if not (wanted.personal or wanted.until or wanted.deployment or wanted.status or wanted.demo is not None) and (
        rollup_store.count_answered(conn, wanted.workload, wanted.since) > BUCKETS_ABOVE
    ):
        found = rollup_store.latencies(conn, wanted.workload, wanted.since)
        return [{**row, "calls": int(row["calls"])} for row in found]
    query: LiteralString = (
        """SELECT c.workload, count(*) AS calls,
             percentile_cont(0.5) WITHIN GROUP (ORDER BY c.duration_ms) AS p50_ms,
             percentile_cont(0.95) WITHIN GROUP (ORDER BY c.duration_ms) AS p95_ms,
             percentile_cont(0.95) WITHIN GROUP (ORDER BY c.first_byte_ms) AS first_byte_p95_ms
           FROM call c WHERE c.status = 'ok' AND """
        + rollup_store.IS_CALL
        + " AND "
        + _MATCHES
        + " GROUP BY c.workload ORDER BY c.workload"
    )
    return select(conn, query, wanted.parameters())


def statuses(conn: Connection[Any], wanted: CallFilter) -> list[Row]:
    """Number of calls by workload and status."""
    if wanted.personal:
        query: LiteralString = (
            "SELECT c.workload, c.status, count(*) AS calls FROM call c WHERE "
            + _MATCHES
            + " GROUP BY 1, 2 ORDER BY 1, 2"
        )
        return select(conn, query, wanted.parameters())
    rows = rollup_store.calls_by(conn, ["workload", "status"], wanted.parameters())
    return [
        {
            "workload": row["workload"],
            "status": row["status"],
            "calls": int((row["calls"] or 0) + (row["refused"] or 0)),
        }
        for row in rows
    ]


def budgets(conn: Connection[Any], periods: list[str], at: datetime, near: float | None = None) -> list[Row]:
    """Limit, granted and charged amounts of each budget in these periods and in periods with their own start and end
    that contain `at`; without budgets of experiments and replays that ended, and of keys that ended long ago."""
    return select(
        conn,
        """WITH RECURSIVE every (period) AS (
             SELECT min(period) FROM budget_period
             UNION ALL SELECT (SELECT min(b.period) FROM budget_period b WHERE b.period > e.period)
               FROM every e WHERE e.period IS NOT NULL),
           present AS MATERIALIZED (SELECT %(periods)s::text[] || array_agg(period) AS periods FROM every
             WHERE is_current_span(period, %(at)s))
           SELECT b.budget, b.period, b.limit_usd, b.granted_usd, s.spent_usd FROM budget_period b
           LEFT JOIN (SELECT * FROM charge_total WHERE period = ANY((SELECT periods FROM present)::text[])) t
             USING (budget, period)
           LEFT JOIN (SELECT budget, period, sum(cost_usd) AS cost_usd FROM charge_delta GROUP BY 1, 2) d
             USING (budget, period)
           CROSS JOIN LATERAL (SELECT coalesce(t.cost_usd, 0) + coalesce(d.cost_usd, 0) AS spent_usd) s
           WHERE b.period = ANY((SELECT periods FROM present)::text[]) AND NOT b.ended
             AND NOT EXISTS (SELECT FROM experiment e WHERE b.budget = 'experiment/' || e.id AND e.state = 'ended')
             AND NOT EXISTS (SELECT FROM api_key k WHERE b.budget = 'key/' || k.id AND k.purpose = 'replay'
               AND k.revoked_at IS NOT NULL)
             AND (%(near)s::numeric IS NULL OR b.budget NOT LIKE 'key/%%' OR s.spent_usd >= %(near)s * b.limit_usd)
           ORDER BY b.budget, b.period""",
        {"periods": periods, "at": at, "near": near},
    )
