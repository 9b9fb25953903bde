"""The SQL of routed calls: what a router expected of them, and what people and judges said of the answers.

Reads verdicts of a time by their own index, never all calls; bounded by `MAX_VERDICTS`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, LiteralString

from psycopg import Connection

from groundplan.core.database import select

Row = dict[str, Any]
MAX_VERDICTS: Final = 20_000
"""Newest verdicts that are looked at."""
MAX_PAGE_VERDICTS: Final = 8000
"""Newest verdicts that a page looks at, of a workload or, where the call of each is looked up, of the company."""
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


def verdicts(conn: Connection[Any], since: datetime) -> list[Row]:
    """workload, router (name@version), model, expected (0..1) and accepted of calls that a learned router decided and
    of whose answers somebody said something since then; the newest word counts. Of what it was not sure of it expects
    nothing, and answers that passed or failed the checks of a cascade are no fair sample of a model's."""
    return select(conn, _VERDICTS, {"since": since, "most": MAX_VERDICTS})


_NEWEST: LiteralString = """newest AS MATERIALIZED (
      SELECT id, at, model, cost_usd, saved_usd, cache, status, coalesce(first_byte_ms, duration_ms, 0) AS ms, detail
      FROM call WHERE workload = ANY(ARRAY[%(workload)s]) AND at >= %(since)s
      ORDER BY workload, at DESC LIMIT %(most)s)"""
"""Whatever they are, so that an index gives them: what is left out is left out of them. Of one workload, in an order
that only the index by workload has: by time alone the calls of all others would be read to find those of a few."""
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
"""Newest calls of a workload that are looked at."""


def answers(conn: Connection[Any], workload: str, since: datetime) -> list[Row]:
    """The answers among the newest calls of a workload: at, model, cost (US dollars), ms, by, router, accepted, cached,
    saved_usd, deployment and parts ({class: [count, picodollars]} of the attempt that answered), and cost_usd with what
    a cascade checked them with. Of those from a cache nobody said anything, and no attempt gave them."""
    return select(conn, _ANSWERS, {"workload": workload, "since": since, "most": SAMPLE})


def judged_by_dimension(
    conn: Connection[Any], workload: str, since: datetime, dimensions: list[str]
) -> dict[str, tuple[int, int]]:
    """dimension -> (accepted, judged): of the calls of a workload, by the newest outcome that has that label."""
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
    """workload, label, model, accepted, judged and refused (ids of the newest that were not accepted): the same by the
    model that answered, answers from memory, demonstrations and calls made for others left out."""
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
