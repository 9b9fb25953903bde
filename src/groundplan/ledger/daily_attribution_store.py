"""The SQL of sums of whole days (UTC) by whom and what calls were for: people, documents and their sources, tags of
keys.

What is not folded yet counts as well; a question is one statement, so it sees one state. No question reads calls.
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
"""workload, key, what was measured, calls: of many rows the columns, which no collector of garbage looks through"""


def people(conn: Connection[Any], since: datetime, until: datetime, workload: str | None, limit: int) -> list[Row]:
    """(person_id, person, calls, cost_usd) of whole days, the dearest first; nobody in particular has no person."""
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


def sources(conn: Connection[Any], since: datetime, until: datetime, workload: str | None) -> list[Row]:
    """(source, documents, calls, cost_usd) of whole days: equal shares of what calls cost on the documents that they
    were given; '' where they were given none, or the document is gone."""
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
    """(workload, source, cost_usd, calls) of whole days, as `sources`."""
    return _tuples(
        conn,
        f"""WITH {_summed_by_workload("document")}, each AS (
             SELECT workload, document, sum(cost_usd) AS cost_usd, sum(calls) AS calls FROM summed GROUP BY 1, 2)
           SELECT s.workload, coalesce(d.source, '') AS source, sum(s.cost_usd) AS cost_usd, sum(s.calls) AS calls
           FROM each s LEFT JOIN document d ON d.id::text = s.document GROUP BY 1, 2""",
        _months(since, until),
    )


def people_by_workload(conn: Connection[Any], since: datetime, until: datetime) -> Columns:
    """[workload, person's address, picodollars, calls] of whole days; of nobody in particular, and of each who is gone,
    it is ''. Of one who has called in several months there are several."""
    query = f"""WITH {_summed_by_workload("person")}
           SELECT {_joined_column("s.workload")}, {_joined_column("coalesce(p.email, '')")},
             {_joined_column("s.cost_usd::numeric(30,12)")}, {_joined_column("s.calls")}
           FROM summed s LEFT JOIN person p ON p.id = s.person"""
    workloads, people, amounts, calls = _read_columns(conn, query, _months(since, until))
    # amounts have 12 decimals each
    return workloads, people, [int(amount.replace(".", "")) for amount in amounts], list(map(int, calls))


def tags_by_workload(conn: Connection[Any], since: datetime, until: datetime) -> list[tuple[str, str, Any, Any]]:
    """(workload, tags, cost_usd, calls) of whole days by the tags of the keys that called, those of one key together:
    'a, b'; without any it is ''."""
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
"""Keys with those that they were rotated to and from, which are the same key, and what each cost on each day."""


def recent_key_costs(
    conn: Connection[Any], keys: list[str], at: datetime, since: datetime, lately: datetime, today: datetime
) -> list[Row]:
    """key, workload, name (how it begins), first (day) and lately_usd (of the days from `lately` on to before `today`),
    of each of these keys that is neither revoked nor over and made a call since then, before `today`."""
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
    """key -> day -> US dollars, of few keys."""
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


def people_placed(
    conn: Connection[Any], since: datetime, until: datetime, places: Sequence[str]
) -> tuple[list[str], list[str], Columns]:
    """(deployments, sites, [workload, person's address, tokens, calls]) of whole days, of answers that were made at
    deployment/NAME or site/NAME, as `people_by_workload`."""
    query = f"""WITH {_summed_by_place("person")}
           SELECT {_joined_column("s.deployment")}, {_joined_column("s.site")}, {_joined_column("s.workload")},
             {_joined_column("coalesce(p.email, '')")}, {_joined_column("trunc(s.tokens)")}, {_joined_column("s.calls")}
           FROM summed s LEFT JOIN person p ON p.id = s.person"""
    asked = {**_months(since, until), **place_names(places)}
    deployments, sites, workloads, people, tokens, calls = _read_columns(conn, query, asked)
    return deployments, sites, (workloads, people, list(map(int, tokens)), list(map(int, calls)))


def sources_placed(
    conn: Connection[Any], since: datetime, until: datetime, places: Sequence[str]
) -> list[tuple[str, str, str, str, Any, Any]]:
    """(workload, source, deployment, site, tokens, calls) of whole days, of answers that were made at deployment/NAME
    or site/NAME: equal shares of a call's tokens on what it was given, as `sources`."""
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
    """`summed` of places, each told."""
    more = " AND (deployment = ANY(%(deployments)s) OR site = ANY(%(sites)s))"
    return _summed(f"{what}_place", f"workload, {what}, deployment, site", f"{what}_place_day", more, "tokens")


def _joined_column(column: str) -> str:
    """A column as one text with a value a line, of which none has line ends. People are many: a row of each costs
    several times as much, here and on the way."""
    return f"string_agg(({column})::text, E'\\n')"


def _read_columns(conn: Connection[Any], query: str, parameters: Row) -> list[list[str]]:
    """The values of each column that is `_joined_column`."""
    row = conn.execute(query.encode(), parameters).fetchone()
    assert row is not None
    return [[] if column is None else column.split("\n") for column in row]


def people_weeks(conn: Connection[Any], since: datetime, until: datetime, workload: str | None) -> dict[datetime, int]:
    """Monday -> how many people asked in that week; weeks without any are left out, nobody in particular is nobody."""
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
    """`summed`: what was folded, of one workload or of all, and what was not yet."""
    if workload is None:
        return _summed(what, what, f"{what}_whole", "")
    return _summed(what, what, f"{what}_day", " AND workload = %(workload)s")


def _summed_by_workload(what: LiteralString) -> str:
    """`summed` of all workloads, each told."""
    return _summed(what, f"workload, {what}", f"{what}_day", "")


def _summed(what: str, keys: str, days: str, more: str, measure: str = "cost_usd") -> str:
    """Months that are whole from their months; of one that is not, the sums up to the ends of what is asked for, and
    the days that are in no such sum yet; and what was not folded. A month in which nothing follows `until` is whole,
    such as this one so far."""
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
    """Sums of the month after the whole ones up to its `tail`, and of the one before them up to its `head` less those
    up to where it begins; no rows where there is nothing between them."""
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
    """The times of `_summed`: `month` is the first beginning of a month that is not before the day of `since`, and
    `before` the one of the month before that."""
    day = since.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    month = day if day.day == 1 else first_of_next_month(day)
    before = (month - timedelta(days=1)).replace(day=1)
    return {"since": since, "until": until, "month": month, "before": before}


def _tuples(conn: Connection[Any], query: str, parameters: Row) -> list[Any]:
    """Many rows: what is no dictionary costs a tenth."""
    return conn.execute(query.encode(), parameters).fetchall()
