"""Savings levers, from the costs of recent calls."""

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
    """Savings levers ranked by the most they could save per month, each with evidence, effort and what is still to be
    proven.

    `workloads` are all workloads that a lever concerns; empty: the whole company. `waits` describes the experiment that
    has to end before a shadow can start. `together_usd` is the saving of all levers together, each applied to what the
    others leave.
    """
    with services.transaction() as conn:
        found_levers, together = levers.find_levers(conn, services.clock.now(), days, workload)
    return {
        "days": days,
        "together_usd": f"{together:.6f}",
        "opportunities": [
            {
                "lever": lever.lever,
                "workload": lever.workload,
                "workloads": list(lever.about),
                "saves_usd": f"{lever.saves_usd:.6f}",
                "what": lever.what,
                "evidence": lever.evidence,
                "effort": lever.effort,
                "proof": lever.proof,
                "frees_usd": f"{lever.frees_usd:.6f}",
                "candidate": lever.candidate or None,
                "tried": lever.tried,
                "waits": lever.waits or None,
            }
            for lever in found_levers
        ],
    }
