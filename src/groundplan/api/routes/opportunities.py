"""Where money may be saved, from what calls cost in the last days."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Query

from groundplan.api.caller import Reader
from groundplan.api.context import Using
from groundplan.api.served import current_blueprint
from groundplan.economics.replay.opportunities import Spent
from groundplan.economics.replay.opportunities import found as levers
from groundplan.ledger import opportunity_store

router = APIRouter(tags=["cost"])


@router.get("/opportunities")
def opportunities(
    services: Using,
    caller: Reader,  # noqa: ARG001 -- whoever may read
    days: Annotated[int, Query(ge=1, le=92)] = 30,
    workload: Annotated[str | None, Query(max_length=63)] = None,
) -> dict[str, Any]:
    """Levers ranked by what they would save a month at most, each with evidence, effort and what is still to prove."""
    with services.transaction() as conn:
        blueprint = current_blueprint(conn)
        rows = opportunity_store.spent(conn, datetime.now(UTC) - timedelta(days=days), workload)
    names = Spent.__dataclass_fields__
    spent = [Spent(**{name: row[name] for name in names}) for row in rows]
    places = {place.name: place for place in blueprint.deployments}
    found = levers(spent, blueprint.workloads, places, days)
    return {
        "days": days,
        "opportunities": [
            {
                "lever": each.lever,
                "workload": each.workload,
                "saves_usd": f"{each.saves_usd:.6f}",
                "what": each.what,
                "evidence": each.evidence,
                "effort": each.effort,
                "proof": each.proof,
            }
            for each in found
        ],
    }
