"""The SQL for calls of a journal whose books were closed without it: a HOME that was declared lost is back.

Runs only where a row existed before, or a call is archived; in the caller's transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any, LiteralString
from uuid import UUID

from groundplan.gateway.journal.ledger_store import INSERT_CALLS, Conn, Row, as_json

Attempts = list[dict[str, Any]]
_CALL_COSTS: LiteralString = """WITH told AS (
    SELECT a.call_id, sum(a.cost_usd) AS usd, jsonb_agg(jsonb_build_object(
      'number', a.number, 'deployment', a.deployment, 'state', a.state, 'cost_usd', a.cost_usd::text)
      ORDER BY a.number) AS attempts
    FROM attempt a WHERE a.call_id = ANY(%s) GROUP BY 1) """


def correct_costs(conn: Conn, calls: Sequence[UUID]) -> list[tuple[UUID, str, Decimal, Attempts]]:
    """Set charges to what their attempts cost, and each call's cost to the sum of its attempts. Returns (call,
    workload, USD, attempts) of the calls that changed. A call is never archived after its attempts."""
    conn.execute(
        """UPDATE charge c SET cost_usd = a.cost_usd FROM attempt a
           WHERE a.call_id = ANY(%s) AND c.call_id = a.call_id AND c.attempt = a.number AND c.cost_usd <> a.cost_usd""",
        (calls,),
    )
    return conn.execute(
        _CALL_COSTS
        + """UPDATE call c SET cost_usd = t.usd FROM told t WHERE c.id = t.call_id AND c.cost_usd <> t.usd
           RETURNING c.id, c.workload, t.usd, t.attempts""",
        (calls,),
    ).fetchall()


def call_costs(conn: Conn, calls: Iterable[UUID]) -> dict[UUID, tuple[Decimal, Attempts]]:
    """Return USD and attempts of these calls, from the attempts that are not archived."""
    rows = conn.execute(_CALL_COSTS + "SELECT * FROM told", (list(calls),)).fetchall()
    return {id: (Decimal(usd), attempts) for id, usd, attempts in rows}


def add_to_sums(conn: Conn, call: Row, usd: Decimal) -> None:
    """Add to the sums of calls what an archived call costs more."""
    conn.execute(
        "SELECT roll_more(c, %s) FROM json_populate_recordset(NULL::call, %s::json) c",
        (usd, as_json(INSERT_CALLS, [call])),
    )
