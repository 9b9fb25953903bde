"""Replays of kept calls: have one made, see what it proves, and say what people think of the judged answers."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

from fastapi import Query
from psycopg import Connection
from pydantic import BaseModel, ConfigDict, Field

from groundplan.api.access.protected_routes import protected_router
from groundplan.api.caller import Reader, SignedIn, require_duty
from groundplan.api.context import ServicesDep
from groundplan.api.routes.experiments import MAY_BEGIN, BudgetUsd, Name, Reviewed
from groundplan.api.served_blueprint import current_blueprint
from groundplan.api.unknown_names import require_known_names
from groundplan.core.errors import NotFound
from groundplan.core.ids import new_id
from groundplan.economics.experiment import experiment_store
from groundplan.economics.experiment.record import ExperimentRecord, blocking_experiment
from groundplan.economics.replay import replay_store as store
from groundplan.economics.replay import service
from groundplan.economics.replay.run import Run

router = protected_router("cost")


class Ask(BaseModel):
    """Which workload's kept calls to ask again of which deployment, and what that may cost."""

    model_config = ConfigDict(extra="forbid")
    workload: Name
    candidate: Name
    judge: Name
    budget_usd: BudgetUsd
    calls: Annotated[int, Field(ge=30, le=5000)] = 200


@router.get("/replays")
def replays(
    services: ServicesDep, _: Reader, workload: Annotated[str | None, Query(max_length=63)] = None
) -> dict[str, Any]:
    """All runs, the newest first; `stands`: what it proposes is still proposed; `waits`: what runs, so that a shadow
    of it cannot begin."""
    with services.transaction() as conn:
        found, standing, tried = (
            store.list_runs(conn, workload),
            service.open_proposals(conn),
            experiment_store.open_experiments(conn),
        )
        require_known_names(conn, found, workload=workload)
    return {
        "replays": [
            {**each.to_json(), "stands": str(each.id) in standing, "waits": _waiting_reason(each, tried)}
            for each in found
        ]
    }


@router.get("/replays/{id}")
def replay(id: UUID, services: ServicesDep, _: Reader) -> dict[str, Any]:
    """One run with its calls, without their texts; `stands`, `waits`: as of all runs."""
    with services.transaction() as conn:
        found, standing = _require_run(conn, id), service.open_proposals(conn)
        calls, progress = store.calls(conn, id), store.progress(conn, id)
        spent, tried = store.spent(conn, tuple(found.keys)), experiment_store.open_experiments(conn)
    return {
        **found.to_json(),
        "stands": str(found.id) in standing,
        "waits": _waiting_reason(found, tried),
        "progress": progress,
        "spent_usd": f"{spent:.6f}",
        "calls_asked": [_call(each) for each in calls],
    }


@router.post("/replays", status_code=201)
def ask(body: Ask, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Ask for a run; it begins within seconds, and its money is charged to the workload's budgets as well."""
    require_duty(caller, MAY_BEGIN, f"workload/{body.workload}")
    with services.transaction() as conn:
        blueprint = current_blueprint(conn)
        workload = next((each for each in blueprint.workloads if each.name == body.workload), None)
        current = workload.deployments[0] if workload is not None and workload.deployments else ""
        made = Run(
            id=new_id(), workload=body.workload, current=current, candidate=body.candidate, judge=body.judge,
            budget_usd=Decimal(str(body.budget_usd)), calls=body.calls, asked_by=str(caller.actor),
        )  # fmt: skip
        service.check(made, workload)
        service.check_alone(conn, made)
        service.ask(conn, caller.actor, made)
    return made.to_json()


@router.post("/replays/{id}/calls/{call_id}/review")
def review(id: UUID, call_id: UUID, body: Reviewed, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Say whether the candidate's answer is as good; ten such reviews correct what the judge says."""
    with services.transaction() as conn:
        require_duty(caller, MAY_BEGIN, f"workload/{_require_run(conn, id).workload}")
        if not store.record_review(conn, id, call_id, body.kept, caller.actor):
            hint = "GET /api/replays/ID lists what was judged."
            raise NotFound(f"call {call_id} was not judged in this run", code="pair_unknown", hint=hint)
    return {"id": str(id), "call_id": str(call_id), "kept": body.kept}


def _require_run(conn: Connection[Any], id: UUID) -> Run:
    found = store.find(conn, id)
    if found is None:
        hint = "`groundplan experiments replays` has them."
        raise NotFound(f"there is no replay {id}", code="replay_unknown", hint=hint)
    return found


def _call(row: dict[str, Any]) -> dict[str, Any]:
    usd = {name: None if row[name] is None else f"{row[name]:.6f}" for name in ("cost_usd", "candidate_usd")}
    beside = None if row["beside_call"] is None else str(row["beside_call"])
    return {**row, **usd, "call_id": str(row["call_id"]), "beside_call": beside}


def _waiting_reason(run: Run, tried: Sequence[ExperimentRecord]) -> str | None:
    """Why a shadow of the candidate cannot begin yet."""
    standing = blocking_experiment(tried, run.workload, run.candidate)
    return None if standing is None else standing.standing
