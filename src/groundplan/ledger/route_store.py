"""The SQL of routed calls: what a router expected of them, and how people and judges rated the answers.

Verdicts of a time span are read by their own index, bounded by `MAX_VERDICTS`; no query reads all calls.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, LiteralString

from psycopg import Connection

from groundplan.core.database import select

Row = dict[str, Any]
MAX_VERDICTS: Final = 20_000
"""Number of the newest verdicts that are read."""
MAX_PAGE_VERDICTS: Final = 8000
"""Number of the newest verdicts that a page reads: of a workload, or of the company where the call of each must be
looked up."""
_VERDICTS: LiteralString = """WITH said AS (
      SELECT DISTINCT ON (call_id) call_id, accepted FROM (
        (SELECT call_id, accepted, at FROM outcome WHERE at >= %(since)s AND accepted IS NOT NULL
         ORDER BY at DESC LIMIT %(most)s)
        UNION ALL
        (SELECT id, state = 'released', decided_at FROM held_call
         WHERE at >= %(since)s AND kind = 'answer' AND decided_by IS NOT NULL AND state IN ('released', 'refused')
         ORDER BY at DESC LIMIT %(most)s)) every
      ORDER BY call_id, at DESC)
    SELECT c.workload, c.detail -> 'route' ->> 'router' AS router, c.model,
      (c.detail -> 'route' -> 'expected' ->> c.model)::double precision AS expected, said.accepted
    FROM said JOIN call c ON c.id = said.call_id
    WHERE NOT c.demo AND c.detail -> 'route' ->> 'router' <> '' AND c.detail -> 'route' -> 'expected' ? c.model
      AND c.detail -> 'route' ->> 'by' NOT IN ('unsure', 'cascade') AND c.cache NOT IN ('exact', 'semantic')"""


def router_outcomes(conn: Connection[Any], since: datetime) -> list[Row]:
    """workload, router (name@version), model, expected (0..1) and accepted of calls that a learned router decided and
    whose answers were rated since then; the newest rating counts. Calls for which the router was unsure are left out,
    since it expects nothing of them, and so are answers that passed or failed the checks of a cascade, which are no
    fair sample of a model's answers."""
    return select(conn, _VERDICTS, {"since": since, "most": MAX_VERDICTS})


_NEWEST: LiteralString = """newest AS MATERIALIZED (
      SELECT id, at, model, cost_usd, saved_usd, cache, status, coalesce(first_byte_ms, duration_ms, 0) AS ms, detail
      FROM call WHERE workload = ANY(ARRAY[%(workload)s]) AND at >= %(since)s
      ORDER BY workload, at DESC LIMIT %(most)s)"""
"""The newest verdicts whatever they are, so that an index finds them; filters apply to these. Those of one workload are
read in an order that only the index by workload has: in order of time alone, the calls of all other workloads would be
read to find those of a small one."""
_ANSWERS: LiteralString = (
    "WITH "
    + _NEWEST
    + """, mine AS (
      SELECT id, at, model, cost_usd, saved_usd, ms, cache IN ('exact', 'semantic') AS cached,
        detail -> 'route' AS route
      FROM newest WHERE status = 'ok' AND detail ->> 'of' IS NULL)
    SELECT m.at, m.model, m.cost_usd::double precision AS cost, m.ms, coalesce(m.route ->> 'by', '') AS by,
      coalesce(m.route ->> 'router', '') AS router, said.accepted, m.cached, m.saved_usd, a.deployment, a.parts,
      m.cost_usd + coalesce(
        (SELECT sum(o.cost_usd) FROM call o
         WHERE o.detail ->> 'of' = m.id::text AND o.detail ->> 'purpose' = 'cascade'), 0) AS cost_usd
    FROM mine m LEFT JOIN LATERAL (
      SELECT deployment, parts FROM attempt
      WHERE call_id = m.id AND outcome = 'ok' AND parts IS NOT NULL AND NOT m.cached
      ORDER BY number DESC LIMIT 1) a ON true
    LEFT JOIN LATERAL (
      SELECT accepted FROM outcome o WHERE o.call_id = m.id AND accepted IS NOT NULL AND NOT m.cached
      ORDER BY at DESC LIMIT 1) said ON true"""
)
SAMPLE: Final = 3000
"""Number of the newest calls of a workload that are read."""


def newest_answers(conn: Connection[Any], workload: str, since: datetime) -> list[Row]:
    """The answers among the newest calls of a workload: at, model, cost (US dollars), ms, by, router, accepted, cached,
    saved_usd, deployment and parts ({class: [count, picodollars]} of the attempt that answered), and cost_usd including
    the checks of a cascade. Answers from a cache have no rating and no attempt."""
    return select(conn, _ANSWERS, {"workload": workload, "since": since, "most": SAMPLE})


def judged_by_dimension(
    conn: Connection[Any], workload: str, since: datetime, dimensions: list[str]
) -> dict[str, tuple[int, int]]:
    """dimension -> (accepted, judged) of the calls of a workload, by the newest outcome that has the dimension as its
    label."""
    rows = select(
        conn,
        """SELECT label, count(*) AS judged, count(*) FILTER (WHERE accepted) AS accepted FROM (
                 SELECT DISTINCT ON (call_id, label) label, accepted FROM (
                   SELECT call_id, label, accepted, at FROM outcome
                   WHERE workload = %(workload)s AND at >= %(since)s AND accepted IS NOT NULL
                     AND label = ANY(%(dimensions)s)
                   ORDER BY at DESC LIMIT %(most)s) o
                 ORDER BY call_id, label, at DESC) said GROUP BY 1""",
        {"workload": workload, "since": since, "dimensions": dimensions, "most": MAX_PAGE_VERDICTS},
    )
    return {row["label"]: (row["accepted"], row["judged"]) for row in rows}


EXAMPLES: Final = 5


def judged_by_model(conn: Connection[Any], workloads: list[str], since: datetime, dimensions: list[str]) -> list[Row]:
    """workload, label, model, accepted, judged and refused (ids of the newest that were not accepted): as
    `judged_by_dimension`, by the model that answered, without answers from a cache, calls of the demo and calls made
    for others."""
    return select(
        conn,
        """SELECT workload, label, model, count(*) AS judged, count(*) FILTER (WHERE accepted) AS accepted,
                 (array_agg(call_id ORDER BY at DESC) FILTER (WHERE NOT accepted))[1:%(examples)s] AS refused
               FROM (
                 SELECT DISTINCT ON (o.call_id, o.label) o.call_id, o.label, o.accepted, o.at, c.workload, c.model
                 FROM (
                   SELECT call_id, label, accepted, at FROM outcome
                   WHERE at >= %(since)s AND accepted IS NOT NULL AND label = ANY(%(dimensions)s)
                   ORDER BY at DESC LIMIT %(most)s) o
                 JOIN call c ON c.id = o.call_id
                 WHERE c.workload = ANY(%(workloads)s) AND NOT c.demo AND c.model IS NOT NULL
                   AND c.cache NOT IN ('exact', 'semantic') AND c.detail ->> 'of' IS NULL
                 ORDER BY o.call_id, o.label, o.at DESC) said
               GROUP BY 1, 2, 3 ORDER BY 1, 2, 3""",
        {
            "workloads": workloads,
            "since": since,
            "dimensions": dimensions,
            "most": MAX_PAGE_VERDICTS,
            "examples": EXAMPLES,
        },
    )
