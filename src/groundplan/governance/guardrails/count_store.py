"""The SQL of guardrail hits by day. Reads only; gateways write them."""

from __future__ import annotations

from datetime import date
from typing import Any, LiteralString

from psycopg import Connection

from groundplan.core.database import select


def guardrail_counts(conn: Connection[Any], since: date) -> list[dict[str, Any]]:
    """Counts since a day by workload, place and check: calls with a hit, hits, and the newest such call."""
    query: LiteralString = """SELECT workload, place, name AS check, done, shadow, sum(calls)::bigint AS calls,
          sum(finds)::bigint AS finds, (array_agg(last_call::text ORDER BY last_at DESC))[1] AS last_call,
          max(last_at) AS last_at
        FROM guard_count WHERE day >= %s GROUP BY workload, place, name, done, shadow
        ORDER BY workload, place, name, done"""
    return select(conn, query, (since,))
