"""The SQL of the watch over spending: the last hour minute by minute, and who was seen in the last weeks."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from psycopg import Connection
from psycopg.rows import dict_row

Row = dict[str, Any]


def minutes(conn: Connection[Any], since: datetime, until: datetime) -> list[Row]:
    """Calls by minute, workload and all that may be a cause; refused ones have no cost."""
    return _rows(
        conn,
        """SELECT date_trunc('minute', at) AS at, workload, coalesce(model, 'cache') AS model,
             coalesce(key_id::text, '') AS key, coalesce(team, '') AS team, endpoint, blueprint,
             coalesce(detail ->> 'feature', '') AS feature, status = 'refused' AS refused,
             cache IN ('exact', 'semantic') AND status = 'ok' AS cached, count(*) AS calls, sum(cost_usd) AS cost_usd,
             sum(prompt_tokens + completion_tokens) AS tokens
           FROM call WHERE at >= %(since)s AND at < %(until)s GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10""",
        {"since": since, "until": until},
    )


def busiest(conn: Connection[Any], since: datetime, until: datetime) -> dict[str, float]:
    """key -> calls of its busiest minute in that time."""
    rows = _rows(
        conn,
        """SELECT key, max(calls) AS calls FROM (
             SELECT key_id::text AS key, date_trunc('minute', at) AS at, count(*) AS calls FROM call
             WHERE at >= %(since)s AND at < %(until)s AND key_id IS NOT NULL GROUP BY 1, 2) m GROUP BY 1""",
        {"since": since, "until": until},
    )
    return {row["key"]: float(row["calls"]) for row in rows}


def known_keys(conn: Connection[Any], since: datetime, until: datetime) -> set[tuple[str, str]]:
    """(workload, key) of whoever made a call on one of these days."""
    rows = _rows(
        conn,
        """SELECT DISTINCT workload, key::text AS key FROM person_day WHERE hour >= %(since)s AND hour < %(until)s
           UNION SELECT DISTINCT workload, key::text FROM person_delta WHERE hour >= %(since)s AND hour < %(until)s""",
        {"since": since, "until": until},
    )
    return {(row["workload"], row["key"]) for row in rows}


def slices(conn: Connection[Any], workload: str, since: datetime, until: datetime) -> list[Row]:
    """Calls of a workload by all that may be a cause."""
    return _rows(
        conn,
        """SELECT coalesce(model, 'cache') AS model, coalesce(key_id::text, '') AS key, coalesce(team, '') AS team,
             endpoint, blueprint, coalesce(detail ->> 'feature', '') AS feature, count(*) AS calls,
             sum(cost_usd) AS cost_usd, sum(prompt_tokens + completion_tokens) AS tokens
           FROM call WHERE workload = %(workload)s AND at >= %(since)s AND at < %(until)s GROUP BY 1, 2, 3, 4, 5, 6""",
        {"workload": workload, "since": since, "until": until},
    )


def callers(conn: Connection[Any], keys: list[str]) -> dict[str, str]:
    """Who is behind keys: the person's address and the key's first characters."""
    rows = _rows(
        conn,
        """SELECT k.id::text AS id, coalesce(p.email || ' ', '') || '(key ' || k.prefix || ')' AS name
           FROM api_key k LEFT JOIN person p ON p.id = k.person_id WHERE k.id::text = ANY(%(keys)s)""",
        {"keys": keys},
    )
    return {row["id"]: row["name"] for row in rows}


def _rows(conn: Connection[Any], query: str, parameters: Row) -> list[Row]:
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query.encode(), parameters).fetchall()
