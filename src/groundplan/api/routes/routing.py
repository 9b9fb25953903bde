"""The trade-off between models and routes of a workload, and training evidence for its router."""

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
    """Each model and each route of a workload as a point (cost per call, quality, latency, risk, with 95 % intervals),
    from the newest 3,000 calls.

    Also which points are not dominated, which is chosen now, what that choice saves, whether the quality floors hold,
    and why cheaper deployments do not take calls.
    """
    now = services.clock.now()
    since = now - timedelta(days=days)
    with services.transaction() as conn:
        blueprint = served_blueprint.current_blueprint(conn)
        served = served_blueprint.require_workload(blueprint, workload)
        answers = route_store.newest_answers(conn, workload, since)
        workspace = served_blueprint.workspace_at(conn, blueprint.number)
        choice = choices.choice_json(conn, blueprint, workspace, workload, since, answers)
    rows = [row for row in answers if not row["cached"] and row["model"] is not None]
    observed = [_observed_json(row) for row in rows]
    recent = [call for row, call in zip(rows, observed, strict=True) if row["at"] >= now - TODAY]
    floors = workspace.workloads[workload].objectives.quality if workload in workspace.workloads else {}
    declared: dict[str, float] = {}
    risks: dict[str, str] = {}
    for name, model in workspace.models.items():
        scores = [score.score for score in model.quality if score.task in floors]
        declared |= {name: sum(scores) / len(scores)} if scores else {}
        risks |= {name: model.risk} if model.risk is not None else {}
    trade_off_points = points(observed, declared, risks, recent)
    return {
        "workload": workload,
        "days": days,
        "calls": len(observed),
        "routed": served.routing is not None,
        "router": served.routing.router if served.routing is not None else None,
        "floors": dict(floors),
        "points": [asdict(point) for point in trade_off_points],
        **choice,
    }


class Evidence(BaseModel):
    """The workload whose calls are read, and the kind of evidence: pairs compared by judges, or outcomes of A/B
    experiments."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)
    workload: Annotated[str, Field(min_length=1, max_length=63)]
    source: Annotated[Literal["judges", "outcomes"], Field(alias="from")]


@router.post("/evidence")
def evidence(body: Evidence, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Training evidence for a router, from stored calls of the last 92 days with their questions: at most 5,000, newest
    first. Requires the duty engineering, operations or security of the workload. Reading it is recorded in the audit
    log."""
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
