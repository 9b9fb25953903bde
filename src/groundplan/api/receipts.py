"""The receipt of a call as it is told by the API, the console and `why`: the facts of the ledger with who made it, what
it is charged to, why it was asked where it was, and what is kept of it. Decides nothing about who may see it.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from psycopg import Connection

from groundplan.api import call_choice
from groundplan.api.caller import Caller, sees_all
from groundplan.api.charged import titled
from groundplan.api.context import Services
from groundplan.api.cost import receipt as cost_receipt
from groundplan.api.served import placed
from groundplan.api.who import with_who
from groundplan.ledger import content_store, queries


def receipt(conn: Connection[Any], services: Services, caller: Caller, call_id: UUID) -> dict[str, Any]:
    """`queries.receipt` with `chosen`, `content`, and for who holds a duty `allocated`. Raises as that does."""
    found = titled(conn, with_who(conn, caller, queries.receipt(conn, call_id)))
    kept = content_store.kept(conn, call_id)
    duty = sees_all(caller)
    beside = cost_receipt.beside(conn, found, services.clock.now().date()) if duty else None
    cost_receipt.explain(conn, found)
    chosen = call_choice.sentences(conn, found)
    placed(conn, [found])
    return {**found, "chosen": chosen, "allocated": beside, "content": None if kept is None else kept.facts()}
