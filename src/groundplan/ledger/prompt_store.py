"""The SQL of attempts by the length of their prompt, where their price depends on it.

It reads attempts, not sums. Queries are bounded by a length above which attempts are few and have an index
(`007_ledger.sql`), as far as possible, or by the newest calls of each workload.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, LiteralString

from psycopg import Connection

from groundplan.core.database import select
from groundplan.ledger import rollup_store

Row = dict[str, Any]
Place = tuple[int, str]
"""(number of a blueprint, deployment)"""
_FEW: Final = 16_384
"""Tokens of a prompt above which attempts have an index."""
NEWEST, LEAST, TOGETHER = 1000, 100, 20_000
"""Number of the newest calls of a workload that are read: at most, and at least; and about how many of all workloads
together."""
_OF_FEW: LiteralString = " AND (a.usage ->> 'input')::bigint > 16384"


def parts_above(
    conn: Connection[Any], since: datetime, until: datetime, workload: str | None,
    edges: Mapping[Place, Sequence[int]], *, hours: bool = False,
) -> list[Row]:  # fmt: skip
    """(blueprint, deployment, part, tier, above, hour, count, cost_usd) of attempts that answered clients with a prompt
    longer than the first edge of their deployment. `above`: the last edge that the prompt exceeds. `hour`: of the day,
    UTC; None unless `hours`."""
    flat = [(number, name, edge) for (number, name), each in edges.items() for edge in each]
    if not flat:
        return []
    lowest = min(edge for _, _, edge in flat)
    return select(
        conn,
        """SELECT a.blueprint, a.deployment, p.part, a.tier, e.above,
             CASE WHEN %(hours)s THEN extract(hour FROM a.at AT TIME ZONE 'UTC')::int END AS hour,
             sum(p.count)::bigint AS count, sum(p.usd) AS cost_usd
           FROM attempt a, LATERAL (
             SELECT max(e.above) AS above
             FROM unnest(%(blueprints)s::int[], %(deployments)s::text[], %(edges)s::bigint[])
               e(blueprint, deployment, above)
             WHERE e.blueprint = a.blueprint AND e.deployment = a.deployment
               AND e.above < (a.usage ->> 'input')::bigint) e,
             attempt_parts(a.cost_usd, a.parts) p
           WHERE a.at >= %(since)s AND a.at < %(until)s AND a.state <> 'open' AND a.purpose = ''
             AND (a.usage ->> 'input')::bigint > %(lowest)s AND e.above IS NOT NULL
             AND (%(workload)s::text IS NULL OR a.workload = %(workload)s)"""
        + (_OF_FEW if lowest >= _FEW else "")
        + " GROUP BY 1, 2, 3, 4, 5, 6",
        {
            "since": since, "until": until, "workload": workload, "lowest": lowest, "hours": hours,
            "blueprints": [number for number, _, _ in flat], "deployments": [name for _, name, _ in flat],
            "edges": [edge for _, _, edge in flat],
        },
    )  # fmt: skip


def count_beyond_context(
    conn: Connection[Any], since: datetime, until: datetime, workload: str | None, sizes: Mapping[Place, int],
    times: tuple[float, float],
) -> list[Row]:  # fmt: skip
    """(deployment, context, looked, beyond) of the newest calls of a workload, or of each workload, that models
    answered at these deployments with these context lengths. `beyond`: how many would exceed the context if prompts and
    answers were longer by the factors `times`."""
    if not sizes:
        return []
    workloads = [workload]
    if workload is None:
        wanted = {
            "since": since, "until": until, "workload": None, "status": "ok", "deployment": None, "demo": None
        }  # fmt: skip
        workloads = [row["workload"] for row in rollup_store.calls_by(conn, ["workload"], wanted)]
    return select(
        conn,
        """SELECT n.deployment, s.context, count(*) AS looked, count(*) FILTER (
             WHERE n.prompt_tokens * %(prompt)s + n.completion_tokens * %(answer)s > s.context) AS beyond
           FROM unnest(%(workloads)s::text[]) w(workload), LATERAL (
               SELECT status, cache, endpoint, blueprint, deployment, prompt_tokens, completion_tokens, detail
               FROM call WHERE workload = ANY(ARRAY[w.workload]) AND at >= %(since)s AND at < %(until)s
               ORDER BY workload, at DESC LIMIT %(most)s) n
             JOIN unnest(%(blueprints)s::int[], %(deployments)s::text[], %(contexts)s::bigint[])
               s(blueprint, deployment, context) USING (blueprint, deployment)
           WHERE n.status = 'ok' AND n.cache NOT IN ('exact', 'semantic') AND n.detail ->> 'of' IS NULL
             AND """
        + rollup_store.IS_CALL
        + """ GROUP BY 1, 2""",
        {
            "since": since, "until": until, "workloads": workloads,
            "most": max(LEAST, min(NEWEST, TOGETHER // max(1, len(workloads)))),
            "prompt": times[0], "answer": times[1], "blueprints": [number for number, _ in sizes],
            "deployments": [name for _, name in sizes], "contexts": list(sizes.values()),
        },
    )  # fmt: skip
