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
    """`queries.receipt` with `chosen`, `content`, and for callers with a duty `allocated`. Raises as that does."""
    found = _with_budget_titles(conn, with_actor_name(conn, caller, queries.receipt(conn, call_id)))
    kept = content_store.find_content(conn, call_id)
    duty = can_read_all(caller)
    beside = cost_receipt.allocated_to_call(conn, found, services.clock.now().date()) if duty else None
    cost_receipt.explain_terms(conn, found)
    chosen = why_chosen(conn, found)
    served_blueprint.add_cached_placement(conn, [found])
    return {**found, "chosen": chosen, "allocated": beside, "content": None if kept is None else kept.facts()}


def why_chosen(conn: Connection[Any], receipt: dict[str, Any]) -> list[str]:
    """Sentences on why a call went to its deployment, by the blueprint that it began with; none where it went to no
    deployment."""
    if not receipt["deployment"] and receipt["cache"] not in explain.CACHED_REQUESTS:
        return []
    name = receipt["workload"]
    try:
        blueprint = served_blueprint.blueprint_at(conn, receipt["blueprint"])
    except NotFound:
        return explain.explain_source(receipt, None)
    placement = next((each for each in blueprint.placements if each.workload == name), None)
    routes = any(each.name == name and each.routing is not None for each in blueprint.workloads)
    return explain.explain_source(receipt, placement, routes=routes)


def _with_budget_titles(conn: Connection[Any], receipt: dict[str, Any]) -> dict[str, Any]:
    """The receipt with a `title` for the budget of each charge, also used in `refusal`: budgets of keys and experiments
    are named by an id."""
    texts = [str(receipt["refusal"] or ""), *(charge["budget"] for charge in receipt["charges"])]
    ids = {found[1] for text in texts for found in _BUDGET_BY_ID.finditer(text)}
    names = store.actor_names(conn, ids) if ids else {}

    def told(text: str) -> str:
        return _BUDGET_BY_ID.sub(lambda found: names.get(found[1], found[0]), text)

    for charge in (*receipt["charges"], *(each for one in receipt["attempts"] for each in one["charges"])):
        charge["title"] = told(charge["budget"])
    return {**receipt, "refusal": told(receipt["refusal"]) if receipt["refusal"] else receipt["refusal"]}
