"""The receipt of a call for the API, the console and `why`: facts of the ledger with the caller's name, charges, the
explanation of its deployment, and kept content. Who may see it is not decided here.
"""

from __future__ import annotations

import re
from typing import Any
from uuid import UUID

from psycopg import Connection

from groundplan.api import explain, served_blueprint, store
from groundplan.api.actor_names import with_actor_name
from groundplan.api.caller import Caller, can_read_all
from groundplan.api.context import Services
from groundplan.api.cost import receipt as cost_receipt
from groundplan.core.errors import NotFound
from groundplan.ledger import content_store, queries

_BUDGET_BY_ID = re.compile(r"(?:key|experiment)/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})")


def full_receipt(conn: Connection[Any], services: Services, caller: Caller, call_id: UUID) -> dict[str, Any]:
    """`queries.receipt` with `chosen`, `content`, `key_name` (`key PREFIX...`; null where the call had no key), and for
    callers with a duty `allocated`. Raises as that does."""
    receipt = _with_budget_titles(conn, with_actor_name(conn, caller, queries.receipt(conn, call_id)))
    key = receipt["key_id"]
    content = content_store.find_content(conn, call_id)
    duty = can_read_all(caller)
    allocated = cost_receipt.allocated_to_call(conn, receipt, services.clock.now().date()) if duty else None
    cost_receipt.explain_terms(conn, receipt)
    chosen = why_chosen(conn, receipt)
    served_blueprint.add_cached_placement(conn, [receipt])
    return {
        **receipt,
        "chosen": chosen,
        "key_name": store.actor_names(conn, [key]).get(key) if key else None,
        "allocated": allocated,
        "content": None if content is None else content.facts(),
    }


def why_chosen(conn: Connection[Any], receipt: dict[str, Any]) -> list[str]:
    """Sentences on why a call went to its deployment, by the blueprint that it started with; empty if it went to
    none."""
    if not receipt["deployment"] and receipt["cache"] not in explain.CACHED_REQUESTS:
        return []
    name = receipt["workload"]
    try:
        blueprint = served_blueprint.blueprint_at(conn, receipt["blueprint"])
    except NotFound:
        return explain.explain_source(receipt, None)
    placement = next((item for item in blueprint.placements if item.workload == name), None)
    routes = any(item.name == name and item.routing is not None for item in blueprint.workloads)
    return explain.explain_source(receipt, placement, routes=routes)


def _with_budget_titles(conn: Connection[Any], receipt: dict[str, Any]) -> dict[str, Any]:
    """The receipt with a `title` for the budget of each charge, which is also used in `refusal`: budgets of keys and
    experiments are named by an id only."""
    texts = [str(receipt["refusal"] or ""), *(charge["budget"] for charge in receipt["charges"])]
    ids = {match[1] for text in texts for match in _BUDGET_BY_ID.finditer(text)}
    names = store.actor_names(conn, ids) if ids else {}

    def with_titles(text: str) -> str:
        return _BUDGET_BY_ID.sub(lambda match: names.get(match[1], match[0]), text)

    attempt_charges = (charge for attempt in receipt["attempts"] for charge in attempt["charges"])
    for charge in (*receipt["charges"], *attempt_charges):
        charge["title"] = with_titles(charge["budget"])
    return {**receipt, "refusal": with_titles(receipt["refusal"]) if receipt["refusal"] else receipt["refusal"]}
