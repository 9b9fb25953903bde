"""Deletes stored content of calls once it has expired or no rule allows it any more, unless its person is under a legal
hold.

The tables have the columns `workload`, `at`, `expires_at` and `sealed`, and an index of the first two, which finds the
oldest row of each workload: there may be millions of rows, and this runs often.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, LiteralString

from psycopg import Connection
from psycopg.rows import tuple_row

Rules = Sequence[tuple[str, bool, int]]
"""(workload, whether content may be stored in full, seconds) of the workloads that store any."""
_NOT_HELD: LiteralString = """NOT EXISTS (SELECT FROM person_hold h WHERE h.ended_at IS NULL
  AND h.person_id::text = sealed_for(k.sealed))"""
"""Content of a person under a legal hold is kept even when expired."""


def delete_expired(conn: Connection[Any], table: LiteralString) -> dict[str, int]:
    """Delete expired rows; return how many by workload."""
    return _delete(conn, table, "k.expires_at <= now()", ())


def apply_rules(
    conn: Connection[Any], table: LiteralString, rules: Rules, *, redacted: bool = False
) -> dict[str, int]:  # fmt: skip
    """Delete expired rows and those that the rules no longer allow; return how many by workload. A row is not allowed
    if its workload has no rule or it is older than the rule's time. `redacted`: the table also has redacted rows,
    marked in `kind`."""
    deleted = delete_expired(conn, table)
    for kind in ("full", "redacted") if redacted else ("full",):
        of_kind: LiteralString = "k.kind = %(kind)s" if redacted else "true"
        for workload, until in _due(conn, table, of_kind, kind, rules):
            due: LiteralString = f"k.workload = %(workload)s AND {of_kind} AND k.at <= %(until)s::timestamptz"
            for name, count in _delete(conn, table, due, {"workload": workload, "kind": kind, "until": until}).items():
                deleted[name] = deleted.get(name, 0) + count
    return deleted


def _due(
    conn: Connection[Any], table: LiteralString, of_kind: LiteralString, kind: str, rules: Rules
) -> list[tuple[str, str]]:
    """(workload, time up to which its rows must be deleted) of workloads that have such rows."""
    statement = f"""WITH RECURSIVE there (workload) AS (
             (SELECT workload FROM {table} ORDER BY workload LIMIT 1)
             UNION ALL SELECT (SELECT k.workload FROM {table} k WHERE k.workload > t.workload ORDER BY 1 LIMIT 1)
               FROM there t WHERE t.workload IS NOT NULL),
           due AS MATERIALIZED (
             SELECT t.workload, coalesce(now() - make_interval(secs => r.seconds), 'infinity') AS until FROM there t
             LEFT JOIN unnest(%(workloads)s::text[], %(seconds)s::bigint[]) r (workload, seconds) USING (workload)
             WHERE t.workload IS NOT NULL)
         SELECT d.workload, d.until::text FROM due d CROSS JOIN LATERAL (
           SELECT k.at FROM {table} k WHERE k.workload = d.workload AND {of_kind} ORDER BY k.at LIMIT 1) oldest
         WHERE oldest.at <= d.until"""
    may = [(workload, seconds) for workload, full, seconds in rules if full or kind == "redacted"]
    values = {"kind": kind, "workloads": [each for each, _ in may], "seconds": [seconds for _, seconds in may]}
    with conn.cursor(row_factory=tuple_row) as cursor:
        return cursor.execute(statement.encode(), values).fetchall()


def _delete(conn: Connection[Any], table: LiteralString, due: LiteralString, values: Any) -> dict[str, int]:
    """Delete rows and count them by workload in the database: after a long pause there may be millions."""
    statement = f"""WITH gone AS (DELETE FROM {table} k WHERE {due} AND {_NOT_HELD} RETURNING workload)
        SELECT workload, count(*) AS count FROM gone GROUP BY workload"""
    with conn.cursor(row_factory=tuple_row) as cursor:
        return {workload: count for workload, count in cursor.execute(statement.encode(), values).fetchall()}
