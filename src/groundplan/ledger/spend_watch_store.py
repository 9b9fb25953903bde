"""The SQL of the watch over spending: the last hour minute by minute, and the callers of the last weeks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

from psycopg import Connection
from psycopg.rows import dict_row

from groundplan.core.database import select
from groundplan.ledger.rollup_store import IS_CALL

Row = dict[str, Any]


def calls_by_minute(conn: Connection[Any], since: datetime, until: datetime) -> list[Row]:
    """Calls by minute, workload and every attribute that may be a cause; refused calls have no cost."""
    return select(
        conn,
        f"""SELECT date_trunc('minute', at) AS at, workload, coalesce(model, 'cache') AS model,
             coalesce(key_id::text, '') AS key, coalesce(team, '') AS team, endpoint, blueprint,
             coalesce(detail ->> 'feature', '') AS feature, status = 'refused' AS refused,
             cache IN ('exact', 'semantic') AND status = 'ok' AS cached, count(*) AS calls, sum(cost_usd) AS cost_usd,
             sum(prompt_tokens + completion_tokens) AS tokens
           FROM call WHERE at >= %(since)s AND at < %(until)s AND {IS_CALL} GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10""",
        {"since": since, "until": until},
    )


def workload_sums_by_hour(conn: Connection[Any], since: datetime, until: datetime) -> Iterator[Row]:
    """Yield (hour, workload, calls, cost_usd, tokens, cached, by_model) of whole hours from stored sums, one workload
    after the other, read as they are consumed. Refused calls cost nothing and are not counted. `by_model`: calls by
    model; those without a model as `cache`."""
    with conn.cursor("hours", row_factory=dict_row) as cursor:
        cursor.itersize = 10_000
        yield from cursor.execute(
            f"""WITH by_model AS (
             SELECT hour, workload, coalesce(nullif(model, ''), 'cache') AS model,
               coalesce(sum(calls) FILTER (WHERE status <> 'refused'), 0)::bigint AS calls, sum(cost_usd) AS cost_usd,
               sum(prompt_tokens + completion_tokens)::bigint AS tokens,
               coalesce(sum(calls) FILTER (WHERE cache IN ('exact', 'semantic') AND status = 'ok'), 0)::bigint AS cached
             FROM (SELECT * FROM call_hour UNION ALL SELECT * FROM call_delta) c
             WHERE hour >= %(since)s AND hour < %(until)s AND {IS_CALL} GROUP BY 1, 2, 3)
           SELECT hour, workload, sum(calls)::bigint AS calls, sum(cost_usd) AS cost_usd, sum(tokens)::bigint AS tokens,
             sum(cached)::bigint AS cached, jsonb_object_agg(model, calls) AS by_model
           FROM by_model GROUP BY 1, 2 ORDER BY workload, hour""",
            {"since": since, "until": until},
        )


def busiest_minutes(
    conn: Connection[Any], since: datetime, until: datetime, keys: Sequence[str] | None = None
) -> dict[str, float]:
    """key -> calls of its busiest minute in that time, of all keys or of these."""
    rows = select(
        conn,
        f"""SELECT key, max(calls) AS calls FROM (
             SELECT key_id::text AS key, date_trunc('minute', at) AS at, count(*) AS calls FROM call
             WHERE at >= %(since)s AND at < %(until)s AND key_id IS NOT NULL AND {IS_CALL}
               AND (%(keys)s::uuid[] IS NULL OR key_id = ANY(%(keys)s::uuid[])) GROUP BY 1, 2) m GROUP BY 1""",
        {"since": since, "until": until, "keys": None if keys is None else list(keys)},
    )
    return {row["key"]: float(row["calls"]) for row in rows}


def busiest_minutes_of_last_day(
    conn: Connection[Any], keys: list[str], since: datetime, until: datetime
) -> dict[str, float]:
    """key -> calls of its busiest minute on the newest day (UTC) before that of `until` on which it made a call."""
    rows = select(
        conn,
        f"""WITH days AS (
             SELECT key, hour FROM key_day WHERE key = ANY(%(keys)s::uuid[]) AND hour >= %(since)s
               AND hour < date_trunc('day', %(until)s::timestamptz, 'UTC')
             UNION ALL
             SELECT key, hour FROM person_delta WHERE key = ANY(%(keys)s::uuid[]) AND hour >= %(since)s
               AND hour < date_trunc('day', %(until)s::timestamptz, 'UTC')),
           newest AS (SELECT key, max(hour) AS day FROM days GROUP BY 1)
           SELECT key, max(calls) AS calls FROM (
             SELECT n.key::text AS key, date_trunc('minute', c.at) AS at, count(*) AS calls FROM newest n
             JOIN call c ON c.key_id = n.key AND c.at >= n.day AND c.at < n.day + interval '24 hours' AND {IS_CALL}
             GROUP BY 1, 2) m GROUP BY 1""",
        {"keys": keys, "since": since, "until": until},
    )
    return {row["key"]: float(row["calls"]) for row in rows}


def known_keys(conn: Connection[Any], since: datetime, until: datetime) -> set[tuple[str, str]]:
    """(workload, key) of every key that made a call on one of these days."""
    rows = select(
        conn,
        """SELECT DISTINCT workload, key::text AS key FROM key_day WHERE hour >= %(since)s AND hour < %(until)s
           UNION SELECT DISTINCT workload, key::text FROM person_delta WHERE hour >= %(since)s AND hour < %(until)s""",
        {"since": since, "until": until},
    )
    return {(row["workload"], row["key"]) for row in rows}


def rotation_lines(conn: Connection[Any], since: datetime) -> dict[str, tuple[str, ...]]:
    """For keys that were rotated: key -> all keys of its line of rotations that were valid at any time since then; the
    holder of any of them is the same caller. The keys of a line share one tuple: a key that is rotated every hour has
    thousands."""
    rows = select(
        conn,
        """SELECT array_agg(id::text ORDER BY id) AS keys FROM api_key
           WHERE coalesce(family, id) IN (SELECT family FROM api_key WHERE id <> family)
             AND coalesce(least(revoked_at, expires_at) >= %(since)s, true)
           GROUP BY coalesce(family, id) HAVING count(*) > 1""",
        {"since": since},
    )
    return {key: line for row in rows for line in [tuple(row["keys"])] for key in line}


def calls_by_attribute(conn: Connection[Any], workload: str, since: datetime, until: datetime) -> list[Row]:
    """Calls of a workload by every attribute that may be a cause."""
    return select(
        conn,
        """SELECT coalesce(model, 'cache') AS model, coalesce(key_id::text, '') AS key, coalesce(team, '') AS team,
             endpoint, blueprint, coalesce(detail ->> 'feature', '') AS feature, count(*) AS calls,
             sum(cost_usd) AS cost_usd, sum(prompt_tokens + completion_tokens) AS tokens
           FROM call WHERE workload = %(workload)s AND at >= %(since)s AND at < %(until)s GROUP BY 1, 2, 3, 4, 5, 6""",
        {"workload": workload, "since": since, "until": until},
    )


def largest_call(conn: Connection[Any], workload: str, since: datetime, until: datetime, *, by: str) -> Row | None:
    """(id, cost_usd, tokens) of the call of a workload that has the most of `by`: cost_usd or tokens."""
    rows = select(
        conn,
        f"""SELECT id::text AS id, cost_usd, prompt_tokens + completion_tokens AS tokens FROM call
           WHERE workload = %(workload)s AND at >= %(since)s AND at < %(until)s
           ORDER BY {"cost_usd" if by == "cost_usd" else "prompt_tokens + completion_tokens"} DESC, id LIMIT 1""",
        {"workload": workload, "since": since, "until": until},
    )
    return rows[0] if rows else None


def calls_before_refusal(
    conn: Connection[Any], keys: list[str], span: timedelta, since: datetime, until: datetime
) -> list[Row]:
    """What these keys, and those that a budget refused, were doing: their answered calls of the last `span` before the
    first such refusal, with the growth of their prompts, and the fullest budget to which the newest of these calls was
    charged."""
    return select(
        conn,
        f"""WITH refused AS (
             SELECT workload, key_id, count(*) AS refused, min(at) AS stopped FROM call
             WHERE error_code = 'budget_exhausted' AND at >= %(since)s AND at < %(until)s AND key_id IS NOT NULL
             GROUP BY 1, 2),
           ends AS (
             SELECT * FROM refused UNION ALL
             SELECT DISTINCT workload, key_id, 0::bigint, NULL::timestamptz FROM call
             WHERE cardinality(%(keys)s::text[]) > 0 AND at >= %(since)s AND at < %(until)s
               AND key_id::text = ANY(%(keys)s) AND (workload, key_id) NOT IN (SELECT workload, key_id FROM refused)),
           mine AS (
             SELECT c.*, e.refused, e.stopped, ntile(3) OVER w AS third, lag(c.prompt_tokens) OVER w AS before
             FROM ends e JOIN call c USING (workload, key_id)
             WHERE c.status = 'ok' AND {IS_CALL} AND c.at >= coalesce(e.stopped, %(until)s) - %(span)s
               AND c.at < coalesce(e.stopped, %(until)s)
             WINDOW w AS (PARTITION BY c.workload, c.key_id ORDER BY c.at, c.id)),
           told AS (
             SELECT workload, key_id::text AS caller, coalesce(mode() WITHIN GROUP (ORDER BY team), '') AS team,
               coalesce(mode() WITHIN GROUP (ORDER BY coalesce(detail ->> 'feature', '')), '') AS feature,
               count(*) AS calls, min(at) AS since, max(at) AS last, sum(cost_usd) AS cost_usd,
               coalesce(avg(prompt_tokens) FILTER (WHERE third = 1), 0)::float AS first_tokens,
               coalesce(avg(prompt_tokens) FILTER (WHERE third = 3), 0)::float AS last_tokens,
               count(*) FILTER (WHERE prompt_tokens > before) AS rises, refused, stopped,
               (array_agg(id ORDER BY at DESC, id DESC))[1] AS newest
             FROM mine GROUP BY workload, key_id, refused, stopped)
           SELECT t.*, coalesce(b.budget, '') AS budget, coalesce(b.limit_usd, 0) AS limit_usd FROM told t
           LEFT JOIN LATERAL (
             SELECT p.budget, p.limit_usd FROM charge c JOIN budget_period p USING (budget, period)
             WHERE c.call_id = t.newest AND p.limit_usd > 0 ORDER BY p.granted_usd / p.limit_usd DESC, p.budget LIMIT 1
           ) b ON t.stopped IS NOT NULL ORDER BY t.workload, t.caller""",
        {"keys": keys, "span": span, "since": since, "until": until},
    )


def key_holders(conn: Connection[Any], keys: list[str]) -> dict[str, str]:
    """The person's address and the first characters of each of these keys."""
    rows = select(
        conn,
        """SELECT k.id::text AS id, coalesce(p.email || ' ', '') || '(key ' || k.prefix || ')' AS name
           FROM api_key k LEFT JOIN person p ON p.id = k.person_id WHERE k.id::text = ANY(%(keys)s)""",
        {"keys": keys},
    )
    return {row["id"]: row["name"] for row in rows}
