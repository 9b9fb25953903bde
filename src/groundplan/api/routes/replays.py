"""Replays of stored calls: request one, see its results, and record people's verdicts on the judged answers."""

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
    """The replay to run: the workload whose stored calls are sent to `candidate`, the judge, the budget and the number
    of calls."""

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
    """List replays, newest first. `stands` says whether the savings proposal that rests on the run is still open.
    `waits` describes the experiment that has to end before a shadow of the candidate can start; null if there is
    none."""
    with services.transaction() as conn:
        runs, open_proposals, open_experiments = (
            store.list_runs(conn, workload),
            service.open_proposals(conn),
            experiment_store.open_experiments(conn),
        )
        require_known_names(conn, runs, workload=workload)
    return {
        "replays": [
            {**run.to_json(), "stands": str(run.id) in open_proposals, "waits": _waiting_reason(run, open_experiments)}
            for run in runs
        ]
    }


@router.get("/replays/{id}")
def replay(id: UUID, services: ServicesDep, _: Reader) -> dict[str, Any]:
    """One replay with its calls, without their texts; `stands` and `waits` as in the list."""
    with services.transaction() as conn:
        run, open_proposals = _require_run(conn, id), service.open_proposals(conn)
        calls, progress = store.calls(conn, id), store.progress(conn, id)
        spent, open_experiments = store.spent(conn, tuple(run.keys)), experiment_store.open_experiments(conn)
    return {
        **run.to_json(),
        "stands": str(run.id) in open_proposals,
        "waits": _waiting_reason(run, open_experiments),
        "progress": progress,
        "spent_usd": f"{spent:.6f}",
        "calls_asked": [_call(row) for row in calls],
    }


@router.post("/replays", status_code=201)
def ask(body: Ask, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Request a replay. It starts within seconds; its cost is also charged to the workload's budgets."""
    require_duty(caller, MAY_BEGIN, f"workload/{body.workload}")
    with services.transaction() as conn:
        blueprint = current_blueprint(conn)
        workload = next((item for item in blueprint.workloads if item.name == body.workload), None)
        current = workload.deployments[0] if workload is not None and workload.deployments else ""
        run = Run(
            id=new_id(), workload=body.workload, current=current, candidate=body.candidate, judge=body.judge,
            budget_usd=Decimal(str(body.budget_usd)), calls=body.calls, asked_by=str(caller.actor),
        )  # fmt: skip
        service.check(run, workload)
        service.check_alone(conn, run)
        service.ask(conn, caller.actor, run)
    return run.to_json()


@router.post("/replays/{id}/calls/{call_id}/review")
def review(id: UUID, call_id: UUID, body: Reviewed, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Record a person's verdict on whether the candidate's answer is as good. From ten verdicts on, the judge's are
    corrected."""
    with services.transaction() as conn:
        require_duty(caller, MAY_BEGIN, f"workload/{_require_run(conn, id).workload}")
        if not store.record_review(conn, id, call_id, body.kept, caller.actor):
            hint = "GET /api/replays/ID lists what was judged."
            raise NotFound(f"call {call_id} was not judged in this run", code="pair_unknown", hint=hint)
    return {"id": str(id), "call_id": str(call_id), "kept": body.kept}


def _require_run(conn: Connection[Any], id: UUID) -> Run:
    """The replay with this id. Raises `NotFound` (`replay_unknown`)."""
    run = store.find(conn, id)
    if run is None:
        hint = "`groundplan experiments replays` has them."
        raise NotFound(f"there is no replay {id}", code="replay_unknown", hint=hint)
    return run


def _call(row: dict[str, Any]) -> dict[str, Any]:
    amounts = {name: None if row[name] is None else f"{row[name]:.6f}" for name in ("cost_usd", "candidate_usd")}
    beside_call = None if row["beside_call"] is None else str(row["beside_call"])
    return {**row, **amounts, "call_id": str(row["call_id"]), "beside_call": beside_call}


def _waiting_reason(run: Run, open_experiments: Sequence[ExperimentRecord]) -> str | None:
    """Why a shadow of the candidate cannot start yet; None if it can."""
    blocking = blocking_experiment(open_experiments, run.workload, run.candidate)
    return None if blocking is None else blocking.standing
