"""The SQL of evidence about models: pairs of answers that a judge compared, and verdicts in random arms.

Only calls whose question is still stored as a whole; contents are sealed, and opened elsewhere. Limited to `MOST` calls
and read a few at a time, since each may be as long as a request can be.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final, LiteralString

from psycopg import Connection
from psycopg.rows import dict_row

Row = dict[str, Any]
MOST: Final = 5000
"""Limit of calls of a workload, newest first."""
AT_ONCE: Final = 16
"""Rows with contents that are in memory at a time."""
ENDPOINTS: Final = ("chat.completions", "messages")
# the newest word about an answer; reviews are outcomes, too
_NEWEST: LiteralString = """LEFT JOIN LATERAL (SELECT accepted FROM outcome o
    WHERE o.call_id = c.id AND o.accepted IS NOT NULL ORDER BY o.at DESC LIMIT 1) said ON true"""
_CALL: LiteralString = """c.id, c.endpoint, c.model, c.person_id, c.cost_usd::float8 AS cost_usd, said.accepted,
    c.workload, c.blueprint, c.detail -> 'scores' AS scores, coalesce(c.detail ->> 'feature', '') AS feature,
    coalesce(c.detail -> 'route' ->> 'by', '') AS by, k.sealed"""
_KEPT: LiteralString = """JOIN content k ON k.call_id = c.id AND NOT k.cut AND k.expires_at > now()"""
_PAIRS: LiteralString = f"""WITH pair AS (
      SELECT p.call_id, p.beside_call, coalesce(p.reviewed, p.kept) AS kept,
        p.contradicted AND p.reviewed IS NULL AS torn, r.asked_at AS at
      FROM replay_call p JOIN replay_run r ON r.id = p.run
      WHERE r.workload = %(workload)s AND r.asked_at >= %(since)s AND p.state = 'judged' AND p.beside_call IS NOT NULL
      UNION ALL
      SELECT p.call_id, p.beside_call, coalesce(p.reviewed, p.score >= 0.5), p.contradicted AND p.reviewed IS NULL, p.at
      FROM experiment_pair p JOIN experiment e ON e.id = p.experiment
      WHERE e.workload = %(workload)s AND p.at >= %(since)s
        AND (p.reviewed IS NOT NULL OR (p.basis = 'judge' AND p.score IS NOT NULL))),
    newest AS (
      SELECT DISTINCT ON (p.call_id, b.model) p.call_id, p.kept, p.torn, p.at, b.model AS beside,
        b.cost_usd::float8 AS beside_usd
      FROM pair p JOIN call b ON b.id = p.beside_call ORDER BY p.call_id, b.model, p.at DESC)
    SELECT {_CALL}, n.beside, n.beside_usd, n.kept, n.torn
    FROM newest n JOIN call c ON c.id = n.call_id {_KEPT} {_NEWEST}
    WHERE n.beside <> c.model AND c.endpoint = ANY(%(endpoints)s) AND NOT c.demo
    ORDER BY n.at DESC, c.id LIMIT %(most)s"""
_SAID: LiteralString = f"""SELECT {_CALL}, c.detail -> 'route' ->> 'unit' AS unit,
      c.detail -> 'route' ->> 'arm' AS arm, e.share / 10000.0::float8 AS share
    FROM experiment e JOIN call c ON c.detail -> 'route' ->> 'experiment' = e.id::text
        AND c.detail -> 'route' ? 'experiment' AND NOT c.detail -> 'route' ? 'of' {_KEPT} {_NEWEST}
    WHERE e.workload = %(workload)s AND e.type = 'ab' AND c.at >= %(since)s AND said.accepted IS NOT NULL
      AND c.status = 'ok' AND c.cache NOT IN ('exact', 'semantic') AND c.endpoint = ANY(%(endpoints)s) AND NOT c.demo
    ORDER BY c.at DESC, c.id LIMIT %(most)s"""


def pairs(conn: Connection[Any], workload: str, since: datetime) -> Iterator[Row]:
    """Calls whose answer was compared with another model's, with the newest verdict of each pair: a person's, else the
    judge's."""
    return _rows(conn, _PAIRS, workload, since)


def verdicts(conn: Connection[Any], workload: str, since: datetime) -> Iterator[Row]:
    """Calls in the arms of A/B experiments with an outcome; the newest outcome counts."""
    return _rows(conn, _SAID, workload, since)


def prompt(conn: Connection[Any], workload: str, blueprint: int) -> str | None:
    """The prompt (name@version) that a workload had in a blueprint."""
    row = conn.execute(
        """SELECT w ->> 'prompt' FROM blueprint b,
             jsonb_array_elements(convert_from(b.body, 'UTF8')::jsonb -> 'workloads') w
           WHERE b.number = %s AND w ->> 'name' = %s""",
        (blueprint, workload),
    ).fetchone()
    return None if row is None else row[0]


def only_demo(conn: Connection[Any], workload: str) -> bool:
    """Whether all of the newest calls of a workload are of a demo."""
    row = conn.execute(
        """SELECT bool_and(demo) FROM (
             SELECT demo FROM call WHERE workload = ANY(ARRAY[%s]) ORDER BY workload, at DESC LIMIT 1000) c""",
        (workload,),
    ).fetchone()
    return row is not None and bool(row[0])


def _rows(conn: Connection[Any], query: LiteralString, workload: str, since: datetime) -> Iterator[Row]:
    asked = {"workload": workload, "since": since, "endpoints": list(ENDPOINTS), "most": MOST}
    with conn.transaction(), conn.cursor("evidence", row_factory=dict_row) as cursor:
        cursor.itersize = AT_ONCE
        yield from cursor.execute(query, asked)
