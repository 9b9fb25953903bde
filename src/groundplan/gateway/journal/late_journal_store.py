"""The SQL for what a journal tells of calls whose books were closed without it: a HOME that was declared lost is back.

Runs only where a row was there before, or a call has left for an archive; in the caller's transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any, LiteralString
from uuid import UUID

from groundplan.gateway.journal.ledger_store import INSERT_CALLS, Conn, Row, as_json

Attempts = list[dict[str, Any]]
_TOLD: LiteralString = """WITH told AS (
    SELECT a.call_id, sum(a.cost_usd) AS usd, jsonb_agg(jsonb_build_object(
      'number', a.number, 'deployment', a.deployment, 'state', a.state, 'cost_usd', a.cost_usd::text)
      ORDER BY a.number) AS attempts
    FROM attempt a WHERE a.call_id = ANY(%s) GROUP BY 1) """


def set_right(conn: Conn, calls: Sequence[UUID]) -> list[tuple[UUID, str, Decimal, Attempts]]:
    """What is charged for attempts of these is what they cost, and each call costs as much as its attempts: (call,
    workload, USD, attempts) of those of which that changed. A call never leaves for an archive after its attempts."""
    conn.execute(
        """UPDATE charge c SET cost_usd = a.cost_usd FROM attempt a
           WHERE a.call_id = ANY(%s) AND c.call_id = a.call_id AND c.attempt = a.number AND c.cost_usd <> a.cost_usd""",
        (calls,),
    )
    return conn.execute(
        _TOLD
        + """UPDATE call c SET cost_usd = t.usd FROM told t WHERE c.id = t.call_id AND c.cost_usd <> t.usd
           RETURNING c.id, c.workload, t.usd, t.attempts""",
        (calls,),
    ).fetchall()


def here(conn: Conn, calls: Iterable[UUID]) -> dict[UUID, tuple[Decimal, Attempts]]:
    """USD and attempts of these, of what has not left."""
    rows = conn.execute(_TOLD + "SELECT * FROM told", (list(calls),)).fetchall()
    return {id: (Decimal(usd), attempts) for id, usd, attempts in rows}


def add_to_sums(conn: Conn, call: Row, usd: Decimal) -> None:
    """A call that has left costs so much more in the sums of calls."""
    conn.execute(
        "SELECT roll_more(c, %s) FROM json_populate_recordset(NULL::call, %s::json) c",
        (usd, as_json(INSERT_CALLS, [call])),
    )
