"""Background check: findings on models whose answers are judged below a quality floor of the workload.

The finding goes to the owner of the workload, with the judgements and how to route calls to the strongest model again:
Groundplan changes no route by itself. It closes when it no longer holds, or the model gets no more calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from psycopg import Connection

from groundplan.api import served_blueprint
from groundplan.api.context import Services
from groundplan.api.routing import choices
from groundplan.blueprint.model import Workload
from groundplan.economics.levers.model_choice import Place
from groundplan.economics.levers.quality_floor import BelowFloor, Judged, find_below_floor
from groundplan.ledger import finding_store, route_store
from groundplan.ledger.finding import Finding

KIND = "cost.quality_floor"
LOOK_SECONDS = 600.0
HISTORY = timedelta(days=30)


def update_findings(services: Services) -> finding_store.FindingChanges:
    """Open findings on models below a floor, and close those that no longer hold."""
    with services.transaction() as conn:
        return update_floor_findings(conn, services.clock.now())


def update_floor_findings(conn: Connection[Any], now: datetime) -> finding_store.FindingChanges:
    """As `update_findings`, in the caller's transaction."""
    findings: list[Finding] = []
    blueprint = served_blueprint.current_or_none(conn)
    if blueprint is not None:
        workspace, since = served_blueprint.workspace_at(conn, blueprint.number), now - HISTORY
        floors = {
            item.name: dict(workspace.workloads[item.name].objectives.quality)
            for item in blueprint.workloads
            if item.name in workspace.workloads and workspace.workloads[item.name].objectives.quality
        }
        judged = _judgements(conn, floors, since)
        for workload in blueprint.workloads:
            low = find_below_floor(judged.get(workload.name, ()), floors.get(workload.name, {}))
            if low:
                places = choices.candidate_places(blueprint, workspace, workload.name)
                best = choices.strongest_place(conn, places, workload.name, since)
                findings += [
                    _finding(workload, below_floor, best)
                    for below_floor in low
                    if _may_answer(places, below_floor.judged.model)
                ]
    return finding_store.replace_findings(conn, findings, kinds=[KIND], within="workload/")


def _judgements(conn: Connection[Any], floors: dict[str, dict[str, float]], since: datetime) -> dict[str, list[Judged]]:
    """Workload -> judgements by model and dimension."""
    dimensions = sorted({name for by_dimension in floors.values() for name in by_dimension})
    judgements: dict[str, list[Judged]] = {}
    for row in route_store.judged_by_model(conn, sorted(floors), since, dimensions) if floors else ():
        refused = tuple(str(call) for call in row["refused"] or ())
        judged = Judged(row["model"], row["label"], row["accepted"], row["judged"], refused)
        judgements.setdefault(row["workload"], []).append(judged)
    return judgements


def _may_answer(places: Sequence[Place], model: str) -> bool:
    """Whether calls of the workload may go to the model now."""
    return any(place.model == model and not place.barred for place in places)


def _finding(workload: Workload, below_floor: BelowFloor, best: Place | None) -> Finding:
    judged, name = below_floor.judged, workload.name
    return Finding(
        kind=KIND,
        subject=f"workload/{name}",
        mark=f"{judged.model} {judged.dimension}",
        severity="high",
        owner=next(iter(workload.owners.get("business", ())), None),
        message=(
            f"Answers of {judged.model} in {name} are below the floor of {below_floor.floor:.0%} for "
            f"{judged.dimension}: {judged.share:.0%} (99 %: {below_floor.low:.0%} to {below_floor.high:.0%}) of "
            f"{judged.judged} that were judged in {HISTORY.days} days were accepted."
        ),
        hint=_hint(workload, judged, best),
        detail={
            "model": judged.model, "dimension": judged.dimension, "floor": below_floor.floor, "judged": judged.judged,
            "accepted": judged.accepted, "share": round(judged.share, 4), "low": round(below_floor.low, 4),
            "high": round(below_floor.high, 4), "days": HISTORY.days, "refused": list(judged.refused),
            "strongest": None if best is None else best.name,
        },
    )  # fmt: skip


def _hint(workload: Workload, judged: Judged, best: Place | None) -> str:
    if best is None or best.model == judged.model:
        return (
            "No stronger deployment may take these calls: name one, mend the prompt or the sources, or lower the floor "
            "with those who decide about it."
        )
    routed = workload.routing is not None and workload.routing.router is not None
    rollback_hint = ", or go back to the router before (`groundplan rollback`)" if routed else ""
    score = f"quality: [{{task: {judged.dimension}, score: {100 * judged.share:.4g}%}}]"
    return (
        f"Let {best.name} take these calls again: declare the judged quality in the document of the model "
        f"{judged.model} (`{score}`) and apply{rollback_hint}; a model whose declared {judged.dimension} is below the "
        f"floor takes none."
    )
