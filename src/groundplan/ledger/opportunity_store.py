"""What calls were made of, by workload and deployment: the facts from which savings are found. The only SQL of it."""

from __future__ import annotations

from datetime import datetime
from typing import Any, LiteralString

from psycopg import Connection
from psycopg.rows import dict_row

_SPENT: LiteralString = """SELECT c.workload, a.deployment, a.model, count(DISTINCT a.call_id) AS calls,
    count(*) AS attempts, sum(a.cost_usd) AS cost_usd,
    coalesce(sum(a.cost_usd) FILTER (WHERE a.outcome <> 'ok'), 0) AS wasted_usd,
    count(*) FILTER (WHERE a.outcome <> 'ok' AND a.cost_usd > 0) AS wasted_attempts,
    coalesce(sum((a.usage ->> 'input')::bigint), 0)::bigint AS input,
    coalesce(sum((a.usage ->> 'cache_read')::bigint), 0)::bigint AS cache_read,
    coalesce(sum((a.usage ->> 'output')::bigint), 0)::bigint AS output,
    count(*) FILTER (WHERE c.cache IN ('exact', 'semantic')) AS cached
  FROM call c JOIN attempt a ON a.call_id = c.id
  WHERE c.at >= %(since)s AND a.state = 'settled' AND (%(workload)s::text IS NULL OR c.workload = %(workload)s)
  GROUP BY 1, 2, 3 ORDER BY 6 DESC LIMIT 500"""


def spent(conn: Connection[Any], since: datetime, workload: str | None = None) -> list[dict[str, Any]]:
    """Rows of workload, deployment and model: calls, attempts, cost, what failed attempts cost, tokens."""
    with conn.cursor(row_factory=dict_row) as cursor:
        return list(cursor.execute(_SPENT, {"since": since, "workload": workload}).fetchall())
