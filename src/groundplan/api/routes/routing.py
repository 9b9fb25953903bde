"""What the models and the routes of a workload cost and are worth, and what its calls show a router."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from typing import Annotated, Any, Literal

from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field

from groundplan.api import served_blueprint
from groundplan.api.access.protected_routes import protected_router
from groundplan.api.caller import Reader, SignedIn, require_duty
from groundplan.api.context import ServicesDep
from groundplan.api.routes.content import READERS
from groundplan.api.routing import choices
from groundplan.api.routing import evidence as router_evidence
from groundplan.core.audit.store import record
from groundplan.economics.routing.watch.tradeoff import AnsweredCall, points
from groundplan.ledger import route_store

router = protected_router("cost", prefix="/routing")
TODAY = timedelta(hours=24)


@router.get("/trade-off")
def trade_off(
    services: ServicesDep,
    _: Reader,
    workload: Annotated[str, Query(max_length=63)],
    days: Annotated[int, Query(ge=1, le=92)] = 30,
) -> dict[str, Any]:
    """Each model and each route of a workload as a point: cost of a call, quality, latency, risk, with 95 % intervals;
    which of them none beats, and what is chosen now; what that choice saves, whether its floors of quality are kept,
    and what a cheaper place keeps from taking calls. Of its newest 3,000 calls."""
    now = services.clock.now()
    since = now - timedelta(days=days)
    with services.transaction() as conn:
        blueprint = served_blueprint.current_blueprint(conn)
        found = served_blueprint.require_workload(blueprint, workload)
        answers = route_store.answers(conn, workload, since)
        workspace = served_blueprint.workspace_at(conn, blueprint.number)
        choice = choices.choice_json(conn, blueprint, workspace, workload, since, answers)
    rows = [row for row in answers if not row["cached"] and row["model"] is not None]
    seen = [_observed_json(row) for row in rows]
    recent = [one for row, one in zip(rows, seen, strict=True) if row["at"] >= now - TODAY]
    floors = workspace.workloads[workload].objectives.quality if workload in workspace.workloads else {}
    declared: dict[str, float] = {}
    risks: dict[str, str] = {}
    for name, model in workspace.models.items():
        scores = [each.score for each in model.quality if each.task in floors]
        declared |= {name: sum(scores) / len(scores)} if scores else {}
        risks |= {name: model.risk} if model.risk is not None else {}
    made = points(seen, declared, risks, recent)
    return {
        "workload": workload,
        "days": days,
        "calls": len(seen),
        "routed": found.routing is not None,
        "router": found.routing.router if found.routing is not None else None,
        "floors": dict(floors),
        "points": [asdict(point) for point in made],
        **choice,
    }


class Evidence(BaseModel):
    """Which workload's calls, and what of them: pairs that judges compared, or outcomes in A/B experiments."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)
    workload: Annotated[str, Field(min_length=1, max_length=63)]
    source: Annotated[Literal["judges", "outcomes"], Field(alias="from")]


@router.post("/evidence")
def evidence(body: Evidence, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """What kept calls of the last 92 days show a router, with their questions: at most 5,000, the newest first. Needs
    a duty in engineering, operations or security of the workload; that it was read is audited."""
    subject = f"workload/{body.workload}"
    require_duty(caller, READERS, subject)
    with services.transaction() as conn:
        served_blueprint.require_workload(served_blueprint.current_blueprint(conn), body.workload)
        rows = router_evidence.training_evidence(services, conn, body.workload, body.source)
        detail = {"from": body.source, "calls": len(rows)}
        record(conn, action="routing.evidence", actor=caller.actor, subject=subject, detail=detail)
    return {"workload": body.workload, "from": body.source, "rows": rows}


def _observed_json(row: dict[str, Any]) -> AnsweredCall:
    by = f"{row['by']} {row['router']}".strip() if row["by"] == "learned" else row["by"]
    return AnsweredCall(row["model"], by, row["cost"], row["ms"], row["accepted"])
