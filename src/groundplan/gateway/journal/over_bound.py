"""Stops a workload whose provider billed more than its bound, exceeded its cap, or counted more prompt tokens than were
bounded, until an operator has looked at it and lifts the kill.

Its reservation was too small, so budgets can no longer be held exactly. The cost itself is charged as it is (`settle`,
`leases`), and the worker that saw it has stopped the workload already (`LiveView.stop`); here it is stopped everywhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID, uuid5

from psycopg import Connection

from groundplan.core.audit import gateway_actor
from groundplan.core.money import format_usd
from groundplan.gateway.journal.recovery import Attempt
from groundplan.identity import service as identity
from groundplan.identity import store
from groundplan.ledger.model import OVER_BOUND, OVER_INPUT


def stop_workloads(conn: Connection[tuple[object, ...]], epoch: UUID, closed: Iterable[Attempt]) -> None:
    """Kill each workload of these settled attempts that went over its bound and is not stopped yet, and report a
    finding, in the caller's transaction."""
    over = {a.reservation.workload: a for a in closed if a.settlement is not None and OVER_BOUND in a.settlement.flags}
    if not over:
        return
    stopped = store.stopped_scopes(conn)
    for workload, attempt in sorted(over.items()):
        scope, made = f"workload/{workload}", attempt.reservation
        if scope in stopped:
            continue
        call = UUID(bytes=made.call)
        what = f"attempt {made.attempt + 1} of call {call} at {made.deployment} {_excess(attempt)}"
        identity.kill(conn, gateway_actor(epoch), scope, f"{OVER_BOUND}: {what}")
        conn.execute(
            """INSERT INTO finding (id, kind, severity, subject, message, hint)
               VALUES (%s, %s, 'critical', %s, %s, %s) ON CONFLICT (id) DO NOTHING""",
            (
                uuid5(epoch, f"{OVER_BOUND} {call} {made.attempt}"),
                OVER_BOUND,
                scope,
                f"The workload {workload} is stopped: {what}.",
                f"Compare the provider's bill; correct the {_FIELDS[OVER_INPUT in _flags(attempt)]} of "
                f"{made.deployment}, apply, then `groundplan kill {scope} --lift -m WHY`.",
            ),
        )


_FIELDS = ("price, image_tokens or cap_field", "tokens_per_byte, input_overhead_tokens, image_tokens or context")
"""Fields of a deployment that may be wrong: for the whole bound, and for that of prompts."""


def _flags(attempt: Attempt) -> list[str]:
    return attempt.settlement.flags if attempt.settlement is not None else []


def _excess(attempt: Attempt) -> str:
    """Say what the attempt exceeded."""
    made, settled = attempt.reservation, attempt.settlement
    if attempt.cost > made.bound or settled is None:
        return f"cost {format_usd(attempt.cost)} USD, more than its bound of {format_usd(made.bound)} USD"
    if OVER_INPUT in settled.flags:
        return f"counted {settled.usage.input} tokens of its prompt, more than were reserved for"
    return f"answered with {settled.usage.output} tokens, more than it was capped at"
