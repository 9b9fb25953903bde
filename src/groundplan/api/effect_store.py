"""The SQL behind until when a gateway that is cut off may serve. It changes nothing."""

from __future__ import annotations

from typing import Any, LiteralString

from psycopg import Connection

_LONGEST: LiteralString = """
    SELECT max(CASE WHEN w ->> 'sensitivity' = 'restricted' THEN 0 ELSE (w ->> 'grace_ms')::bigint END)
    FROM blueprint b, jsonb_array_elements(convert_from(b.body, 'UTF8')::jsonb -> 'workloads') w
    WHERE b.number >= (SELECT coalesce(min(blueprint), 0) FROM gateway WHERE state = 'live')
      AND (%s::text IS NULL OR w ->> 'name' = %s)"""


def longest_grace_s(conn: Connection[Any], workload: str | None = None) -> float:
    """The longest that any workload, or this one, may go on at a gateway that is cut off: by whichever blueprint a live
    gateway may have, which is the one that it told of or a later one."""
    row = conn.execute(_LONGEST, (workload, workload)).fetchone()
    return 0.0 if row is None or row[0] is None else row[0] / 1000
