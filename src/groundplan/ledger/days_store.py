"""The SQL of sums of whole days (UTC) by what only calls know: people, documents and their sources, tags of keys.

What is not folded yet counts as well; a question is one statement, so it sees one state. No question reads calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString

from psycopg import Connection
from psycopg.rows import dict_row

from groundplan.ledger.rollup_store import NOBODY, place_names

Row = dict[str, Any]


def people(conn: Connection[Any], since: datetime, until: datetime, workload: str | None, limit: int) -> list[Row]:
    """(person_id, person, calls, cost_usd) of whole days, the dearest first; nobody in particular has no person."""
    return _rows(
        conn,
        "WITH "
        + _whole_days("person", workload)
        + """, top AS (SELECT person AS person_id, sum(calls) AS calls, sum(cost_usd) AS cost_usd FROM summed
             GROUP BY 1 HAVING sum(calls) <> 0 ORDER BY 3 DESC, 1 LIMIT %(limit)s)
           SELECT t.*, p.email AS person FROM top t LEFT JOIN person p ON p.id = t.person_id
           ORDER BY t.cost_usd DESC, t.person_id""",
        {**_months(since, until), "workload": workload, "limit": limit},
    )


def sources(conn: Connection[Any], since: datetime, until: datetime, workload: str | None) -> list[Row]:
    """(source, documents, calls, cost_usd) of whole days: equal shares of what calls cost on the documents that they
    were given; '' where they were given none, or the document is gone."""
    return _rows(
        conn,
        "WITH "
        + _whole_days("document", workload)
        + """, by_document AS (
             SELECT document, sum(calls) AS calls, sum(cost_usd) AS cost_usd FROM summed GROUP BY 1
             HAVING sum(calls) <> 0)
           SELECT coalesce(d.source, '') AS source, count(*) FILTER (WHERE b.document <> '') AS documents,
             sum(b.calls) AS calls, sum(b.cost_usd) AS cost_usd
           FROM by_document b LEFT JOIN document d ON d.id::text = b.document GROUP BY 1 ORDER BY 4 DESC, 1""",
        {**_months(since, until), "workload": workload},
    )


def sources_by_workload(conn: Connection[Any], since: datetime, until: datetime) -> list[tuple[str, str, Any, Any]]:
    """(workload, source, cost_usd, calls) of whole days, as `sources`."""
    return _tuples(
        conn,
        _each("document")
        + """
           SELECT s.workload, coalesce(d.source, '') AS source, sum(s.cost_usd) AS cost_usd, sum(s.calls) AS calls
           FROM each s LEFT JOIN document d ON d.id::text = s.document GROUP BY 1, 2""",
        _months(since, until),
    )


def people_by_workload(conn: Connection[Any], since: datetime, until: datetime) -> list[tuple[str, str, Any, Any]]:
    """(workload, person's address, cost_usd, calls) of whole days; of nobody in particular, and of each who is gone, it
    is ''."""
    return _tuples(
        conn,
        _each("person")
        + """
           SELECT s.workload, coalesce(p.email, '') AS person, s.cost_usd, s.calls
           FROM each s LEFT JOIN person p ON p.id = s.person""",
        _months(since, until),
    )


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


def placed(
    conn: Connection[Any], by: str, since: datetime, until: datetime, places: Sequence[str]
) -> list[tuple[str, str, str, str, Any, Any]]:
    """(workload, key, deployment, site, tokens, calls) of whole days, of answers that were made at deployment/NAME or
    site/NAME: by `source` in equal shares of a call's tokens on what it was given, as `sources`, or by `person`, as
    `people_by_workload`."""
    what: LiteralString = "document" if by == "source" else "person"
    more = " AND (deployment = ANY(%(deployments)s) OR site = ANY(%(sites)s))"
    summed = _summed(f"{what}_place", f"workload, {what}, deployment, site", f"{what}_place_day", more, "calls, tokens")
    each = f"""each AS (
        SELECT workload, {what}, deployment, site, sum(tokens) AS tokens, sum(calls) AS calls FROM summed
        GROUP BY 1, 2, 3, 4 HAVING sum(calls) <> 0)"""
    asked = {**_months(since, until), **place_names(places)}
    if by == "person":
        query = f"""WITH {summed}, {each}
           SELECT s.workload, coalesce(p.email, ''), s.deployment, s.site, s.tokens, s.calls
           FROM each s LEFT JOIN person p ON p.id = s.person"""
        return _tuples(conn, query, asked)
    query = f"""WITH {summed}, {each}
           SELECT s.workload, coalesce(d.source, ''), s.deployment, s.site, sum(s.tokens), sum(s.calls)
           FROM each s LEFT JOIN document d ON d.id::text = s.document GROUP BY 1, 2, 3, 4"""
    return _tuples(conn, query, asked)


def people_weeks(conn: Connection[Any], since: datetime, until: datetime, workload: str | None) -> dict[datetime, int]:
    """Monday -> how many people asked in that week; weeks without any are left out, nobody in particular is nobody."""
    days, more = ("person_whole", "") if workload is None else ("person_day", " AND workload = %(workload)s")
    rows = _rows(
        conn,
        f"""SELECT date_trunc('week', hour, 'UTC') AS week, count(DISTINCT person) AS people FROM (
              SELECT hour, person FROM {days} WHERE hour >= %(since)s AND hour < %(until)s{more}
              UNION ALL SELECT hour, person FROM person_delta WHERE hour >= %(since)s AND hour < %(until)s{more}) p
            WHERE person <> %(nobody)s GROUP BY 1""",
        {"since": since, "until": until, "workload": workload, "nobody": NOBODY},
    )
    return {row["week"]: int(row["people"]) for row in rows}


def _whole_days(what: LiteralString, workload: str | None) -> str:
    """`summed`: what was folded, of one workload or of all, and what was not yet."""
    if workload is None:
        return _summed(what, what, f"{what}_whole", "")
    return _summed(what, what, f"{what}_day", " AND workload = %(workload)s")


def _apart(what: LiteralString) -> str:
    """`summed` of all workloads, each told."""
    return _summed(what, f"workload, {what}", f"{what}_day", "")


def _each(what: LiteralString) -> str:
    """The beginning of a question about sums by workload and each person or document that was there."""
    return (
        "WITH "
        + _apart(what)
        + f""", each AS (
             SELECT workload, {what}, sum(cost_usd) AS cost_usd, sum(calls) AS calls FROM summed GROUP BY 1, 2
             HAVING sum(calls) <> 0)"""
    )


def _summed(what: str, keys: str, days: str, more: str, sums: str = "calls, cost_usd") -> str:
    """Months that are whole from their months; of one that is not, its days, or the month less its other days where
    these are fewer; and what was not folded yet. A month in which nothing follows `until` is whole, such as this one so
    far. Keys of which nothing is left have no calls."""
    columns = f"SELECT {keys}, {sums} FROM"
    less = f"SELECT {keys}, {', '.join(f'-{each}' for each in sums.split(', '))} FROM"
    from_days, other_days = f"{columns} {days} {_SPAN}{more}", f"{less} {days} {_SPAN}{more}"
    spans = [
        f"{columns} {what}_month {_SPAN.format('m0', 'm1')}{more}",
        f"{columns} {what}_month WHERE hour IN ((SELECT head FROM bound), (SELECT tail FROM bound)){more}",
        from_days.format("d0", "CASE WHEN head IS NULL THEN least(m0, d1) END"),
        other_days.format("head", "d0"),
        other_days.format("CASE WHEN head IS NOT NULL THEN d1 END", "m0"),
        from_days.format("m1", "CASE WHEN tail IS NULL THEN d1 END"),
        other_days.format("CASE WHEN tail IS NOT NULL THEN d1 END", "m2"),
        f"{columns} {what}_delta {_SPAN.format('d0', 'd1')}{more}",
    ]
    return _BOUND.replace("newest_day", f"(SELECT max(hour) FROM {what}_day)") + " UNION ALL ".join(spans) + ")"


_SPAN: LiteralString = "WHERE hour >= (SELECT {} FROM bound) AND hour < (SELECT {} FROM bound)"
# d: what is asked for; m: whole months, and the end of the one after them; head, tail: months that are not whole and of
# which the other days are fewer
_BOUND: LiteralString = """asked AS MATERIALIZED (
    SELECT date_trunc('day', %(since)s::timestamptz, 'UTC') AS d0, %(until)s::timestamptz AS d1,
      %(before)s::timestamptz AS before, %(month)s::timestamptz AS m0, newest_day AS newest),
  months AS MATERIALIZED (
    SELECT *, newest + interval '1 day' AS ended,
      greatest(m0, date_trunc('month', CASE WHEN d1 > newest THEN d1 + interval '744 hours' ELSE d1 END, 'UTC')) AS m1
    FROM asked),
  around AS MATERIALIZED (
    SELECT *, date_trunc('month', m1 + interval '768 hours', 'UTC') AS m2,
      d0 - before + greatest(least(m0, ended) - d1, '0') + interval '1 day' AS others FROM months),
  bound AS MATERIALIZED (
    SELECT *, CASE WHEN least(m0, d1) - d0 > others THEN before END AS head,
      CASE WHEN d1 - m1 > least(m2, ended) - d1 + interval '1 day' THEN m1 END AS tail FROM around),
  summed AS ("""


def _months(since: datetime, until: datetime) -> Row:
    """The times of `_summed`: `month` is the first beginning of a month that is not before the day of `since`, and
    `before` the one of the month before that."""
    day = since.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    month = day if day.day == 1 else (day.replace(day=1) + timedelta(days=32)).replace(day=1)
    before = (month - timedelta(days=1)).replace(day=1)
    return {"since": since, "until": until, "month": month, "before": before}


def _rows(conn: Connection[Any], query: str, parameters: Row) -> list[Row]:
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query.encode(), parameters).fetchall()


def _tuples(conn: Connection[Any], query: str, parameters: Row) -> list[Any]:
    """Many rows: what is no dictionary costs a tenth."""
    return conn.execute(query.encode(), parameters).fetchall()
