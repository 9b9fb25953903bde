"""The SQL of sums that are maintained as facts arrive (`008_rollups.sql`): folding them, and reading them exactly.

Where a time span begins or ends within an hour, the facts of that hour are read; all between is read from hours and
days. Each query is one statement, so it sees one state. Percentiles are of buckets 2 % wide; sums are exact.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString
from uuid import UUID

from psycopg import Connection, errors
from psycopg.rows import dict_row

from groundplan.core.database import select

Row = dict[str, Any]
CALL_KEYS = (
    "workload", "team", "demo", "blueprint", "model", "deployment", "site", "endpoint", "status", "cache", "feature",
)  # fmt: skip
PART_KEYS = (
    "workload", "demo", "blueprint", "deployment", "site", "model", "outcome", "estimated", "part", "purpose",
    "tier",
)  # fmt: skip
NOBODY = UUID(int=0)
EVER = (datetime(1970, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC))
"""Beginning and end of a span that is not limited."""
_EPOCH = EVER[0]
_BATCH_ROWS = 10_000
_HOUR, _DAY = timedelta(hours=1), timedelta(days=1)
IS_CALL: LiteralString = (
    "right(endpoint, 9) <> '.estimate' AND endpoint NOT IN ('messages.count_tokens', 'responses.input_tokens', 'mcp')"
)
"""Excludes estimates of calls, counting of tokens, and uses of tools, which no model answers. They are listed, but are
in no number of calls except those by endpoint."""
UNCOUNTED: LiteralString = (
    "(right(endpoint, 9) = '.estimate' OR endpoint IN ('messages.count_tokens', 'responses.input_tokens', 'mcp'))"
)
"""The complement of `IS_CALL`, in the form that an index has (`007_ledger.sql`)."""
TOOLS = "mcp"
"""The endpoint of uses of tools."""
_NO_CALLS = frozenset({"messages.count_tokens", "responses.input_tokens", TOOLS})
_SUMS: LiteralString = "calls, cost_usd, saved_usd, prefix_saved_usd, prompt_tokens, completion_tokens"
_KEYS: LiteralString = "workload, team, demo, blueprint, model, deployment, site, endpoint, status, cache, feature"
_PARTS: LiteralString = "workload, demo, blueprint, deployment, site, model, outcome, estimated, part, purpose, tier"

_SUMMED: LiteralString = (
    " {table}_day WHERE hour >= %(d0)s AND hour < %(d1)s"
    " UNION ALL SELECT {columns} FROM {table}_hour WHERE hour >= %(h0)s AND hour < %(d0)s AND hour < %(h1)s"
    " UNION ALL SELECT {columns} FROM {table}_hour WHERE hour >= %(d1)s AND hour >= %(d0)s AND hour < %(h1)s"
    " UNION ALL SELECT {columns} FROM {table}_delta WHERE hour >= %(h0)s AND hour < %(h1)s"
)
_CALL_COLUMNS: LiteralString = f"hour, {_KEYS}, {_SUMS}"
# the last condition: where there is no time beside whole hours, what no index summarizes yet is not looked at either
_CALL_FACTS: LiteralString = (
    " UNION ALL SELECT date_trunc('hour', at, 'UTC'), workload, coalesce(team, ''), demo, blueprint,"
    "   coalesce(model, ''), coalesce(deployment, ''), coalesce(site, ''), endpoint, status, cache,"
    "   coalesce(detail ->> 'feature', ''), 1, cost_usd, saved_usd, prefix_saved_usd, prompt_tokens, completion_tokens"
    "   FROM call WHERE at >= %({0}0)s AND at < %({0}1)s AND %({0}0)s < %({0}1)s"
)
_CALLS: LiteralString = (
    f"WITH summed AS (SELECT {_CALL_COLUMNS} FROM"
    + _SUMMED.format(table="call", columns=_CALL_COLUMNS)
    + _CALL_FACTS.format("a")
    + _CALL_FACTS.format("b")
    + "), wanted AS (SELECT * FROM summed WHERE (%(workload)s::text IS NULL OR workload = %(workload)s)"
    "   AND (%(status)s::text IS NULL OR status = %(status)s)"
    "   AND (%(deployment)s::text IS NULL OR deployment = %(deployment)s)"
    "   AND (%(demo)s::boolean IS NULL OR demo = %(demo)s)) "
)
_NUMBERS: LiteralString = """sum(calls) FILTER (WHERE status <> 'refused'{0}) AS calls,
  sum(calls) FILTER (WHERE status = 'refused'{0}) AS refused, sum(calls) FILTER (WHERE status = 'ok'{0}) AS ok,"""
_TOTALS: LiteralString = """
  sum(calls) FILTER (WHERE cache IN ('exact', 'semantic') AND status = 'ok') AS cached, sum(cost_usd) AS cost_usd,
  sum(saved_usd) AS saved_usd, sum(prefix_saved_usd) AS prefix_saved_usd, sum(prompt_tokens) AS prompt_tokens,
  sum(completion_tokens) AS completion_tokens"""


def is_call(endpoint: str) -> bool:
    """As `IS_CALL`, for the endpoint of a row."""
    return endpoint not in _NO_CALLS and not endpoint.endswith(".estimate")


def roll_up(conn: Connection[Any]) -> int:
    """Roll deltas up into hours and days, in the caller's transaction, and finished days into the running sums of a
    month (`008_rollups.sql`); returns the number of deltas."""
    row = conn.execute(
        "SELECT fold_rollups() + fold_outcomes() + fold_content() + fold_places() + fold_steps(), keep_running()"
    ).fetchone()
    assert row is not None
    return int(row[0])


def summarize_indexes(conn: Connection[Any]) -> int:
    """Summarize newly filled pages in the BRIN indexes by which facts of a time span are found; returns the number of
    page ranges. Does nothing while a vacuum, which does the same, holds one of the tables."""
    try:
        with conn.transaction():
            conn.execute("SET LOCAL lock_timeout = '20ms'")
            row = conn.execute("SELECT summarize_newest()").fetchone()
    except errors.LockNotAvailable:
        return 0
    assert row is not None
    return int(row[0])


def calls_by(conn: Connection[Any], by: Sequence[str], wanted: Row) -> list[Row]:
    """Sums of calls by some of `CALL_KEYS`, `day` or `hour`; rows are ordered by them.

    `wanted` has since, until, workload, status, deployment and demo, each None for no filter. Keys of rows: those of
    `by`; calls (not refused), refused, ok, cached, cost_usd, saved_usd, prefix_saved_usd, prompt_tokens,
    completion_tokens.
    """
    numbers = _NUMBERS.format("" if "endpoint" in by else f" AND {IS_CALL}")
    query = _CALLS + _select_clause(by, CALL_KEYS, numbers + _TOTALS) + " FROM wanted" + _group_by_clause(by)
    return select(conn, query, _with_time_bounds(wanted, "hour" not in by))


_PART_COLUMNS: LiteralString = f"hour, {_PARTS}, count, cost_usd"
_PART_FACTS: LiteralString = (
    " UNION ALL SELECT date_trunc('hour', a.at, 'UTC'), a.workload, a.demo, a.blueprint, a.deployment, a.site, a.model,"
    "   a.outcome, a.estimated, p.part, a.purpose, a.tier, p.count, p.usd"
    "   FROM attempt a, attempt_parts(a.cost_usd, a.parts) p"
    "   WHERE a.state <> 'open' AND a.at >= %({0}0)s AND a.at < %({0}1)s AND %({0}0)s < %({0}1)s"
)
_PART_ROWS: LiteralString = (
    f"WITH summed AS (SELECT {_PART_COLUMNS} FROM"
    + _SUMMED.format(table="part", columns=_PART_COLUMNS)
    + _PART_FACTS.format("a")
    + _PART_FACTS.format("b")
    + "), wanted AS (SELECT * FROM summed WHERE (%(workload)s::text IS NULL OR workload = %(workload)s)"
    "   AND (%(deployment)s::text IS NULL OR deployment = %(deployment)s)"
    "   AND (%(demo)s::boolean IS NULL OR demo = %(demo)s)) "
)


def parts_by(conn: Connection[Any], by: Sequence[str], wanted: Row) -> list[Row]:
    """Count and cost of the parts of settled attempts, grouped by some of `PART_KEYS`, `day` or `hour`.

    The part `attempt` counts attempts and costs nothing.
    """
    return select(conn, _parts_query(by), _with_time_bounds(wanted, "hour" not in by))


def stream_parts(conn: Connection[Any], by: Sequence[str], wanted: Row) -> Iterator[list[Row]]:
    """`parts_by` in batches of ten thousand rows, in the caller's transaction: a month of thousands of workloads has a
    million rows, which take almost a gigabyte."""
    with conn.cursor("parts_in_lots", row_factory=dict_row) as cursor:
        cursor.execute(_parts_query(by).encode(), _with_time_bounds(wanted, "hour" not in by))
        while rows := cursor.fetchmany(_BATCH_ROWS):
            yield rows


def _parts_query(by: Sequence[str]) -> str:
    sums: LiteralString = "sum(count) AS count, sum(cost_usd) AS cost_usd"
    return _PART_ROWS + _select_clause(by, PART_KEYS, sums) + " FROM wanted" + _group_by_clause(by)


def answers_by(conn: Connection[Any], by: Sequence[str], wanted: Row) -> dict[tuple[Any, ...], int]:
    """Values of some of `PART_KEYS` -> number of answered attempts, to which prices per request apply; includes
    attempts that cost nothing."""
    counts: dict[tuple[Any, ...], int] = {}
    for row in parts_by(conn, [*by, "part", "outcome"], wanted):
        if (row["part"], row["outcome"]) == ("attempt", "ok"):
            counts[tuple(row[name] for name in by)] = int(row["count"])
    return counts


def hour_of_day(at: datetime | None = None) -> int | None:
    """The hour of the day (UTC) of a row's `hour`; None for None."""
    return None if at is None else at.astimezone(UTC).hour


def tokens_by(
    conn: Connection[Any], by: Sequence[str], wanted: Row, excluded_parts: Sequence[str], places: Sequence[str]
) -> list[Row]:
    """Tokens of settled attempts by some of `PART_KEYS`, `day` or `hour`, without the parts in `excluded_parts`, at
    each deployment/NAME and site/NAME of `places`."""
    where: LiteralString = (
        " FROM wanted WHERE part <> ALL(%(beside)s) AND (deployment = ANY(%(deployments)s) OR site = ANY(%(sites)s))"
    )
    query = _PART_ROWS + _select_clause(by, PART_KEYS, "sum(count) AS tokens") + where + _group_by_clause(by)
    return select(
        conn,
        query,
        {**_with_time_bounds(wanted, "hour" not in by), "beside": list(excluded_parts), **place_names(places)},
    )


def content_sizes(conn: Connection[Any]) -> list[Row]:
    """(workload, calls, bytes) of the prompts and answers that are stored at present."""
    return select(
        conn,
        """SELECT workload, sum(calls)::bigint AS calls, sum(bytes)::bigint AS bytes FROM (
             SELECT * FROM content_sum UNION ALL SELECT * FROM content_delta) c
           GROUP BY 1 HAVING sum(calls) > 0 ORDER BY 1""",
        {},
    )


def count_answered(conn: Connection[Any], workload: str | None, since: datetime | None) -> int:
    """The number of answered calls on whole days since then."""
    rows = select(
        conn,
        """SELECT coalesce(sum(calls), 0) AS calls FROM (
             SELECT hour, workload, what, calls FROM latency_day
             UNION ALL SELECT hour, workload, what, calls FROM latency_delta) l
           WHERE what = 'whole' AND (%(workload)s::text IS NULL OR workload = %(workload)s)
             AND (%(since)s::timestamptz IS NULL OR hour >= date_trunc('day', %(since)s, 'UTC'))""",
        {"workload": workload, "since": since},
    )
    return int(rows[0]["calls"])


def latencies(conn: Connection[Any], workload: str | None, since: datetime | None) -> list[Row]:
    """Percentiles (ms) of answered calls by workload, on whole days since then, within 2 %."""
    return select(
        conn,
        """WITH buckets AS (
             SELECT workload, what, bucket, sum(calls) AS calls FROM (
               SELECT * FROM latency_day UNION ALL SELECT * FROM latency_delta) l
             WHERE (%(workload)s::text IS NULL OR workload = %(workload)s)
               AND (%(since)s::timestamptz IS NULL OR hour >= date_trunc('day', %(since)s, 'UTC'))
             GROUP BY 1, 2, 3),
           running AS (
             SELECT workload, what, bucket, calls,
               sum(calls) OVER (PARTITION BY workload, what ORDER BY bucket) AS upto,
               sum(calls) OVER (PARTITION BY workload, what) AS whole FROM buckets)
           SELECT workload, max(whole) FILTER (WHERE what = 'whole') AS calls,
             power(1.02, 0.5 + min(bucket) FILTER (WHERE what = 'whole' AND upto >= 0.5 * whole))::double precision
               AS p50_ms,
             power(1.02, 0.5 + min(bucket) FILTER (WHERE what = 'whole' AND upto >= 0.95 * whole))::double precision
               AS p95_ms,
             power(1.02, 0.5 + min(bucket) FILTER (WHERE what = 'first' AND upto >= 0.95 * whole))::double precision
               AS first_byte_p95_ms
           FROM running GROUP BY 1 ORDER BY 1""",
        {"workload": workload, "since": since},
    )


def place_names(places: Sequence[str]) -> Row:
    """Split deployment/NAME and site/NAME into the parameters `deployments` and `sites`."""
    pairs = [place.partition("/") for place in places]
    return {f"{each}s": [name for kind, _, name in pairs if kind == each] for each in ("deployment", "site")}


def _with_time_bounds(wanted: Row, by_days: bool) -> Row:
    """`wanted` with the bounds of the whole days (d), of the whole hours (h), and of the spans of facts before and
    after them (a, b). Without `by_days` no whole day is used, so that hours are distinguished."""
    since, until = wanted["since"] or EVER[0], wanted["until"] or EVER[1]
    until = max(since, until)
    hours = _ceil(since, _HOUR), max(_ceil(since, _HOUR), _floor(until, _HOUR))
    days = _ceil(since, _DAY), max(_ceil(since, _DAY), _floor(until, _DAY))
    if not by_days:
        days = hours[1], hours[1]
    before, after = (since, min(hours[0], until)), (min(hours[1], until), until)
    names = {"h": hours, "d": days, "a": before, "b": after}
    return {**wanted, **{f"{name}{end}": times[end] for name, times in names.items() for end in (0, 1)}}


def _floor(at: datetime, step: timedelta) -> datetime:
    return at - (at - _EPOCH) % step


def _ceil(at: datetime, step: timedelta) -> datetime:
    return at + (_EPOCH - at) % step


def _select_clause(by: Sequence[str], allowed: Sequence[str], sums: str) -> str:
    """The SELECT clause of a query. Names in `by` become part of the statement, so they are checked."""
    times = {"day": "(hour AT TIME ZONE 'UTC')::date AS day", "hour": "hour"}
    if unknown := [name for name in by if name not in allowed and name not in times]:
        raise AssertionError(f"sums are not kept by {unknown}")
    return "SELECT " + "".join(f"{times.get(name, name)}, " for name in by) + sums


def _group_by_clause(by: Sequence[str]) -> str:
    places = ", ".join(str(place + 1) for place in range(len(by)))
    return f" GROUP BY {places} ORDER BY {places}" if by else ""
