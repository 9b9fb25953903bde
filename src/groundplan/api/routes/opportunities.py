"""Where money may be saved, from what calls cost in the last days."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query

from groundplan.api.access.protected_routes import protected_router
from groundplan.api.caller import Reader
from groundplan.api.context import ServicesDep
from groundplan.api.cost import levers

router = protected_router("cost")


@router.get("/opportunities")
def opportunities(
    services: ServicesDep,
    caller: Reader,  # noqa: ARG001 -- whoever may read
    days: Annotated[int, Query(ge=1, le=92)] = 30,
    workload: Annotated[str | None, Query(max_length=63)] = None,
) -> dict[str, Any]:
    """Levers ranked by what they would save a month at most, each with evidence, effort and what is still to prove.
    `workloads`: all that one is about; none: the whole company. `waits`: what is being tried on the
    workload, so that no shadow can begin. `together_usd`: what they would save if each worked on
    what the others leave."""
    with services.transaction() as conn:
        found, together = levers.find_levers(conn, services.clock.now(), days, workload)
    return {
        "days": days,
        "together_usd": f"{together:.6f}",
        "opportunities": [
            {
                "lever": each.lever,
                "workload": each.workload,
                "workloads": list(each.about),
                "saves_usd": f"{each.saves_usd:.6f}",
                "what": each.what,
                "evidence": each.evidence,
                "effort": each.effort,
                "proof": each.proof,
                "frees_usd": f"{each.frees_usd:.6f}",
                "candidate": each.candidate or None,
                "tried": each.tried,
                "waits": each.waits or None,
            }
            for each in found
        ],
    }
