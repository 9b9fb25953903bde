"""The SQL of sums of whole days (UTC) by person, by document and source, and by tag of keys.

Rows that are not rolled up yet are included. Each query is one statement, so it sees one state; none reads calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, LiteralString

from psycopg import Connection

from groundplan.core.database import select
from groundplan.core.months import first_of_next_month
from groundplan.ledger.rollup_store import NOBODY, place_names

Row = dict[str, Any]
Columns = tuple[list[str], list[str], list[int], list[int]]
"""workload, key, the measured value, calls: results with many rows are returned as columns, since the garbage collector
does not traverse lists of strings and numbers as it does rows."""


def cost_by_person(
    conn: Connection[Any], since: datetime, until: datetime, workload: str | None, limit: int
) -> list[Row]:
    """(person_id, person, calls, cost_usd) of whole days, the most expensive first; `person` is None for calls without
    a person."""
    return select(
        conn,
        "WITH "
        + _summed_days("person", workload)
        + """, top AS (SELECT person AS person_id, sum(calls) AS calls, sum(cost_usd) AS cost_usd FROM summed
             GROUP BY 1 ORDER BY 3 DESC, 1 LIMIT %(limit)s)
           SELECT t.*, p.email AS person FROM top t LEFT JOIN person p ON p.id = t.person_id
           ORDER BY t.cost_usd DESC, t.person_id""",
        {**_months(since, until), "workload": workload, "limit": limit},
    )


def cost_by_source(conn: Connection[Any], since: datetime, until: datetime, workload: str | None) -> list[Row]:
    """(source, documents, calls, cost_usd) of whole days: the cost of each call in equal shares on the documents that
    it was given; source '' for calls without documents, or whose document was deleted."""
    return select(
        conn,
        "WITH "
        + _summed_days("document", workload)
        + """, by_document AS (
             SELECT document, sum(calls) AS calls, sum(cost_usd) AS cost_usd FROM summed GROUP BY 1)
           SELECT coalesce(d.source, '') AS source, count(*) FILTER (WHERE b.document <> '') AS documents,
             sum(b.calls) AS calls, sum(b.cost_usd) AS cost_usd
           FROM by_document b LEFT JOIN document d ON d.id::text = b.document GROUP BY 1 ORDER BY 4 DESC, 1""",
        {**_months(since, until), "workload": workload},
    )


def sources_by_workload(conn: Connection[Any], since: datetime, until: datetime) -> list[tuple[str, str, Any, Any]]:
    """(workload, source, cost_usd, calls) of whole days, as `cost_by_source`."""
    return _tuples(
        conn,
        f"""WITH {_summed_by_workload("document")}, each AS (
             SELECT workload, document, sum(cost_usd) AS cost_usd, sum(calls) AS calls FROM summed GROUP BY 1, 2)
           SELECT s.workload, coalesce(d.source, '') AS source, sum(s.cost_usd) AS cost_usd, sum(s.calls) AS calls
           FROM each s LEFT JOIN document d ON d.id::text = s.document GROUP BY 1, 2""",
        _months(since, until),
    )


def people_by_workload(conn: Connection[Any], since: datetime, until: datetime) -> Columns:
    """[workload, person's address, picodollars, calls] of whole days. The address is '' for calls without a person and
    for people who were removed. A person who has called in several months has several rows."""
    query = f"""WITH {_summed_by_workload("person")}
           SELECT {_joined_column("s.workload")}, {_joined_column("coalesce(p.email, '')")},
             {_joined_column("s.cost_usd::numeric(30,12)")}, {_joined_column("s.calls")}
           FROM summed s LEFT JOIN person p ON p.id = s.person"""
    workloads, people, amounts, calls = _read_columns(conn, query, _months(since, until))
    # amounts have 12 decimals each
    return workloads, people, [int(amount.replace(".", "")) for amount in amounts], list(map(int, calls))


def tags_by_workload(conn: Connection[Any], since: datetime, until: datetime) -> list[tuple[str, str, Any, Any]]:
    """(workload, tags, cost_usd, calls) of whole days by the tags of the calling keys. The tags of one key are joined,
    as in 'a, b'; '' for a key without tags."""
    return _tuples(
        conn,
        """WITH summed AS (
             SELECT workload, key, calls, cost_usd FROM key_day
             WHERE hour >= date_trunc('day', %(since)s::timestamptz, 'UTC') AND hour < %(until)s
             UNION ALL SELECT workload, key, calls, cost_usd FROM person_delta
             WHERE hour >= date_trunc('day', %(since)s::timestamptz, 'UTC') AND hour < %(until)s),
           each AS (
             SELECT workload, key, sum(cost_usd) AS cost_usd, sum(calls) AS calls FROM summed GROUP BY 1, 2),
           named AS (
             SELECT id, array_to_string(ARRAY(SELECT DISTINCT unnest(tags) ORDER BY 1), ', ') AS tags FROM api_key)
           SELECT s.workload, coalesce(n.tags, '') AS tags, sum(s.cost_usd) AS cost_usd, sum(s.calls) AS calls
           FROM each s LEFT JOIN named n ON n.id = s.key GROUP BY 1, 2""",
        {"since": since, "until": until},
    )


_LINES: LiteralString = """WITH wanted AS (SELECT DISTINCT unnest(%(keys)s::uuid[]) AS key),
    line AS (
      SELECT w.key, k.id, k.revoked_at, k.expires_at FROM wanted w JOIN api_key o ON o.id = w.key
        JOIN api_key k ON k.id = coalesce(o.family, o.id)
      UNION SELECT w.key, k.id, k.revoked_at, k.expires_at FROM wanted w JOIN api_key o ON o.id = w.key
        JOIN api_key k ON k.family = coalesce(o.family, o.id)),
    days AS (
      SELECT hour, key AS id, cost_usd FROM key_day WHERE hour >= %(since)s
      UNION ALL SELECT hour, key, cost_usd FROM person_delta WHERE hour >= %(since)s)"""
"""`line`: each key with the keys to and from which it was rotated, which count as the same key. `days`: the cost of
each key on each day."""


def recent_key_costs(
    conn: Connection[Any], keys: list[str], at: datetime, since: datetime, lately: datetime, today: datetime
) -> list[Row]:
    """key, workload, name (first characters of the key), first (day of a call) and lately_usd (cost of the days from
    `lately` to before `today`) of each of these keys that is neither revoked nor expired and made a call from `since`
    to before `today`."""
    return select(
        conn,
        _LINES
        + """, good AS (
             SELECT * FROM line WHERE key IN (
               SELECT key FROM line WHERE revoked_at IS NULL AND coalesce(expires_at > %(at)s, true))),
           each AS (
             SELECT id, min(hour) AS first, sum(cost_usd) FILTER (WHERE hour >= %(lately)s) AS lately_usd
             FROM days WHERE hour < %(today)s GROUP BY 1),
           told AS (
             SELECT g.key, min(e.first) AS first, coalesce(sum(e.lately_usd), 0) AS lately_usd
             FROM good g JOIN each e USING (id) GROUP BY 1)
           SELECT k.id::text AS key, k.workload, k.prefix AS name, (t.first AT TIME ZONE 'UTC')::date AS first,
             t.lately_usd
           FROM told t JOIN api_key k ON k.id = t.key""",
        {"keys": keys, "at": at, "since": since, "lately": lately, "today": today},
    )


def key_costs(conn: Connection[Any], keys: list[str], since: datetime) -> dict[str, dict[date, Decimal]]:
    """key -> day -> US dollars, for a few keys."""
    rows = select(
        conn,
        _LINES
        + """SELECT l.key::text AS key, (d.hour AT TIME ZONE 'UTC')::date AS day, sum(d.cost_usd) AS cost_usd
             FROM line l JOIN days d USING (id) GROUP BY 1, 2""",
        {"keys": keys, "since": since},
    )
    found: dict[str, dict[date, Decimal]] = {}
    for row in rows:
        found.setdefault(row["key"], {})[row["day"]] = row["cost_usd"]
    return found


def people_at_places(
    conn: Connection[Any], since: datetime, until: datetime, places: Sequence[str]
) -> tuple[list[str], list[str], Columns]:
    """(deployments, sites, [workload, person's address, tokens, calls]) of whole days, for answers from one of `places`
    (deployment/NAME or site/NAME); otherwise as `people_by_workload`."""
    query = f"""WITH {_summed_by_place("person")}
           SELECT {_joined_column("s.deployment")}, {_joined_column("s.site")}, {_joined_column("s.workload")},
             {_joined_column("coalesce(p.email, '')")}, {_joined_column("trunc(s.tokens)")}, {_joined_column("s.calls")}
           FROM summed s LEFT JOIN person p ON p.id = s.person"""
    asked = {**_months(since, until), **place_names(places)}
    deployments, sites, workloads, people, tokens, calls = _read_columns(conn, query, asked)
    return deployments, sites, (workloads, people, list(map(int, tokens)), list(map(int, calls)))


def sources_at_places(
    conn: Connection[Any], since: datetime, until: datetime, places: Sequence[str]
) -> list[tuple[str, str, str, str, Any, Any]]:
    """(workload, source, deployment, site, tokens, calls) of whole days, for answers from one of `places`
    (deployment/NAME or site/NAME): the tokens of each call in equal shares on its documents, as in `cost_by_source`."""
    return _tuples(
        conn,
        f"""WITH {_summed_by_place("document")}, each AS (
             SELECT workload, document, deployment, site, sum(tokens) AS tokens, sum(calls) AS calls FROM summed
             GROUP BY 1, 2, 3, 4)
           SELECT s.workload, coalesce(d.source, ''), s.deployment, s.site, sum(s.tokens), sum(s.calls)
           FROM each s LEFT JOIN document d ON d.id::text = s.document GROUP BY 1, 2, 3, 4""",
        {**_months(since, until), **place_names(places)},
    )


def _summed_by_place(what: LiteralString) -> str:
    """The CTE `summed` by deployment and site."""
    more = " AND (deployment = ANY(%(deployments)s) OR site = ANY(%(sites)s))"
    return _summed(f"{what}_place", f"workload, {what}, deployment, site", f"{what}_place_day", more, "tokens")


def _joined_column(column: str) -> str:
    """SQL for a column as one text with one value per line; no value contains a line end. There may be many people, and
    a row for each would cost several times as much, here and in transfer."""
    return f"string_agg(({column})::text, E'\\n')"


def _read_columns(conn: Connection[Any], query: str, parameters: Row) -> list[list[str]]:
    """The values of each column of a query whose columns are `_joined_column`."""
    row = conn.execute(query.encode(), parameters).fetchone()
    assert row is not None
    return [[] if column is None else column.split("\n") for column in row]


def people_by_week(
    conn: Connection[Any], since: datetime, until: datetime, workload: str | None
) -> dict[datetime, int]:
    """Monday -> number of people who called in that week. Weeks without calls are left out, and calls without a person
    are not counted."""
    days, more = ("person_whole", "") if workload is None else ("person_day", " AND workload = %(workload)s")
    rows = select(
        conn,
        f"""SELECT date_trunc('week', hour, 'UTC') AS week, count(DISTINCT person) AS people FROM (
              SELECT hour, person FROM {days} WHERE hour >= %(since)s AND hour < %(until)s{more}
              UNION ALL SELECT hour, person FROM person_delta WHERE hour >= %(since)s AND hour < %(until)s{more}) p
            WHERE person <> %(nobody)s GROUP BY 1""",
        {"since": since, "until": until, "workload": workload, "nobody": NOBODY},
    )
    return {row["week"]: int(row["people"]) for row in rows}


def _summed_days(what: LiteralString, workload: str | None) -> str:
    """The CTE `summed` of one workload, or of all together: rows that were rolled up and rows that were not yet."""
    if workload is None:
        return _summed(what, what, f"{what}_whole", "")
    return _summed(what, what, f"{what}_day", " AND workload = %(workload)s")


def _summed_by_workload(what: LiteralString) -> str:
    """The CTE `summed` by workload."""
    return _summed(what, f"workload, {what}", f"{what}_day", "")


def _summed(what: str, keys: str, days: str, more: str, measure: str = "cost_usd") -> str:
    """The CTE `summed`, with the CTEs that compute its bounds. Whole months are read from the sums of months; a partial
    month from its running sums as far as they reach, and from the days that are not in them yet; and rows that were not
    rolled up are added. A month in which nothing follows `until` counts as whole, such as the present one."""
    columns = f"SELECT {keys}, calls, {measure} FROM"
    spans = [
        f"{columns} {what}_month {_SPAN.format('m0', 'm1')}{more}",
        _running(what, keys, measure, more),
        f"{columns} {days} {_SPAN.format('head', 'least(m0, d1)')}{more}",
        f"{columns} {days} {_SPAN.format('tail', 'd1')}{more}",
        f"{columns} {what}_delta {_SPAN.format('d0', 'd1')}{more}",
    ]
    return _BOUND.replace("WHAT", what) + " UNION ALL ".join(spans) + ")"


def _running(what: str, keys: str, measure: str, more: str) -> str:
    """SQL of the running sums of partial months: of the month after the whole ones up to `tail`, and of the month
    before them up to `head`, less the sum before its first day. No rows where these spans are empty."""
    return f"""SELECT {keys}, CASE less WHEN 0 THEN calls[upto] ELSE calls[upto] - calls[less] END,
        CASE less WHEN 0 THEN {measure}[upto] ELSE {measure}[upto] - {measure}[less] END
      FROM (SELECT {keys}, calls, {measure},
              width_bucket(CASE WHEN month < m0 THEN head_day ELSE tail_day END, days) AS upto,
              CASE WHEN month < m0 THEN width_bucket(head_less, days) ELSE 0 END AS less
            FROM {what}_running, bound WHERE month IN ((SELECT before FROM bound WHERE head_day > head_less),
              (SELECT m1 FROM bound WHERE tail_day > 0)){more} OFFSET 0) r
      WHERE upto > less"""


_SPAN: LiteralString = "WHERE hour >= (SELECT {} FROM bound) AND hour < (SELECT {} FROM bound)"
# d: what is asked for; m: whole months; r: days that running sums hold; head, tail: up to where these tell of the month
# before and the one after the whole ones, with the last day of it that they tell, and the one before the first
_BOUND: LiteralString = """asked AS MATERIALIZED (
    SELECT date_trunc('day', %(since)s::timestamptz, 'UTC') AS d0, %(until)s::timestamptz AS d1,
      %(before)s::timestamptz AS before, %(month)s::timestamptz AS m0, (SELECT max(hour) FROM WHAT_day) AS newest,
      r.since AS r0, r.until AS r1 FROM running_span r WHERE r.name = 'WHAT'),
  months AS MATERIALIZED (
    SELECT *,
      greatest(m0, date_trunc('month', CASE WHEN d1 > newest THEN d1 + interval '744 hours' ELSE d1 END, 'UTC')) AS m1
    FROM asked),
  ends AS MATERIALIZED (
    SELECT *, CASE WHEN r0 <= before THEN greatest(d0, least(m0, d1, r1)) ELSE d0 END AS head,
      CASE WHEN r0 <= m1 THEN greatest(m1, least(d1, r1)) ELSE m1 END AS tail FROM months),
  bound AS MATERIALIZED (
    SELECT *, ceil(extract(epoch FROM head - before) / 86400)::smallint AS head_day,
      (extract(epoch FROM d0 - before) / 86400)::smallint AS head_less,
      ceil(extract(epoch FROM tail - m1) / 86400)::smallint AS tail_day FROM ends),
  summed AS ("""


def _months(since: datetime, until: datetime) -> Row:
    """Parameters of `_summed`: `month` is the first beginning of a month that is not before the day of `since`, and
    `before` the beginning of the previous month."""
    day = since.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    month = day if day.day == 1 else first_of_next_month(day)
    before = (month - timedelta(days=1)).replace(day=1)
    return {"since": since, "until": until, "month": month, "before": before}


def _tuples(conn: Connection[Any], query: str, parameters: Row) -> list[Any]:
    """Rows as tuples: for many rows they cost a tenth of dictionaries."""
    return conn.execute(query.encode(), parameters).fetchall()
