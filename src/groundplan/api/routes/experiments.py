"""Experiments on live calls: list, start, approve, refuse and stop them, and record people's verdicts on pairs of
answers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from groundplan.api.access.protected_routes import protected_router
from groundplan.api.caller import Reader, SignedIn, require_duty
from groundplan.api.context import ServicesDep
from groundplan.api.presence import check_presence, is_alone
from groundplan.api.propagation import policy_effect
from groundplan.api.served_blueprint import current_blueprint, current_or_none
from groundplan.api.unknown_names import require_known_names
from groundplan.core.clock import end_of_day
from groundplan.core.errors import NotFound
from groundplan.core.ids import new_id
from groundplan.economics.experiment import experiment_store as store
from groundplan.economics.experiment import service
from groundplan.economics.experiment.record import ExperimentRecord, blocking_experiment
from groundplan.release.compile.experiments import TOLERANCE

router = protected_router("cost")
MAY_BEGIN = frozenset({"business", "product", "engineering", "operations", "architecture", "finance"})
MAY_APPROVE = frozenset({"business", "product"})
MAY_STOP = MAY_BEGIN | {"security", "compliance", "data", "on-call"}
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
Share = Annotated[float, Field(gt=0, le=1)]
Part = Annotated[float, Field(gt=0, lt=1)]
BudgetUsd = Annotated[float, Field(ge=0.000001, le=1_000_000)]


class Begin(BaseModel):
    """The experiment to start: workload, candidate deployment, type, share of calls, tolerances, budget and end."""

    model_config = ConfigDict(extra="forbid")
    workload: Name
    name: Name
    type: Literal["shadow", "ab"] = "shadow"
    candidate: Name
    judge: Name | None = None
    share: Share = 0.1
    by: Literal["person", "conversation"] = "person"
    tolerance: Part | None = None
    guard_tolerance: Part = 0.05
    budget_usd: BudgetUsd
    until: date | None = None
    reason: Annotated[str, StringConstraints(min_length=1, max_length=1000)]


class Say(BaseModel):
    """The reason of a decision."""

    model_config = ConfigDict(extra="forbid")
    reason: Annotated[str, StringConstraints(max_length=1000)] = ""


class Reviewed(BaseModel):
    """A verdict on a pair: whether the candidate's answer was as good as the one that the caller got."""

    model_config = ConfigDict(extra="forbid")
    kept: bool


@router.get("/experiments")
def experiments(
    services: ServicesDep, _: Reader, workload: Annotated[str | None, Query(max_length=63)] = None
) -> dict[str, Any]:
    """List experiments: running and requested ones first, then the others, newest first, each with its latest figures.

    `workloads` lists the workloads on which an experiment is possible, with the candidates. `waits` describes the
    running experiment that has to end first; null if there is none.
    """
    with services.transaction() as conn:
        listed, open_experiments = store.list_experiments(conn, workload), store.open_experiments(conn)
        require_known_names(conn, listed, workload=workload)
        blueprint = current_or_none(conn)
    served = blueprint.workloads if blueprint is not None else []
    return {
        "experiments": [{**item.to_json(), "waits": _waiting_reason(item, open_experiments)} for item in listed],
        "workloads": [
            {
                "name": item.name, "stage": item.stage, "answers": item.deployments[0],
                "candidates": item.deployments[1:], "keeps": item.keep is not None,
                "waits": None
                if (blocking := blocking_experiment(open_experiments, item.name)) is None
                else blocking.standing,
            }
            for item in served
            if len(item.deployments) > 1
        ],
    }  # fmt: skip


@router.get("/experiments/{id}")
def experiment(id: UUID, services: ServicesDep, _: Reader) -> dict[str, Any]:
    """One experiment with its interval at each interim analysis and its pairs of answers, without their texts."""
    with services.transaction() as conn:
        record = service.get_experiment(conn, id, lock=False)
        analyses, pairs = store.looks(conn, id), store.pairs(conn, id)
        waits = _waiting_reason(record, store.open_experiments(conn))
    return {
        **record.to_json(),
        "waits": waits,
        "looks": [{**row, "at": row["at"].isoformat()} for row in analyses],
        "pairs": [_pair(row) for row in pairs],
    }


@router.post("/experiments", status_code=201)
def begin(body: Begin, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Start an experiment. On a production workload it first waits for the approval of somebody else, except in a
    company of one person."""
    require_duty(caller, MAY_BEGIN, f"workload/{body.workload}")
    now = services.clock.now()
    with services.transaction() as conn:
        blueprint = current_blueprint(conn)
        workload = next((item for item in blueprint.workloads if item.name == body.workload), None)
        record = _build_experiment(body, caller.actor, now)
        service.check(record, workload, now)
        waits = workload is not None and workload.stage == "production" and not is_alone(conn)
        record, number = service.ask(conn, caller.actor, record, waits=waits, now=now)
    return {**record.to_json(), "effective": None if number is None else policy_effect(services, number)}


@router.post("/experiments/{id}/approve")
def approve(id: UUID, body: Say, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Approve a requested experiment, which starts if it is still possible. Requires the duty product or business of
    the workload, and proof of presence; nobody approves their own request."""
    with services.transaction() as conn:
        require_duty(caller, MAY_APPROVE, f"workload/{service.get_experiment(conn, id, lock=False).workload}")
        check_presence(conn, caller)
        served, now = current_blueprint(conn).workloads, services.clock.now()
        number = service.decide(conn, caller.actor, id, approve=True, reason=body.reason, now=now, served=served)
    return {"id": str(id), "state": "running", "effective": number and policy_effect(services, number)}


@router.post("/experiments/{id}/refuse")
def refuse(id: UUID, body: Say, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Refuse a requested experiment. Requires the duty product or business of the workload."""
    with services.transaction() as conn:
        require_duty(caller, MAY_APPROVE, f"workload/{service.get_experiment(conn, id, lock=False).workload}")
        service.decide(conn, caller.actor, id, approve=False, reason=body.reason, now=services.clock.now())
    return {"id": str(id), "state": "refused"}


@router.post("/experiments/{id}/stop")
def stop(id: UUID, body: Say, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Stop an experiment, effective at every gateway within a second."""
    with services.transaction() as conn:
        require_duty(caller, MAY_STOP, f"workload/{service.get_experiment(conn, id, lock=False).workload}")
        number = service.stop(conn, caller.actor, id, body.reason or "stopped by hand")
    return {"id": str(id), "state": "ended", "effective": policy_effect(services, number)}


@router.post("/experiments/{id}/pairs/{call_id}/review")
def review(id: UUID, call_id: UUID, body: Reviewed, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Record a person's verdict on a pair of answers, which shows how far the judge's verdicts can be trusted."""
    with services.transaction() as conn:
        require_duty(caller, MAY_BEGIN, f"workload/{service.get_experiment(conn, id, lock=False).workload}")
        if not store.review(conn, id, call_id, body.kept, caller.actor):
            hint = "GET /api/experiments/ID lists its pairs."
            raise NotFound(f"there is no pair of call {call_id}", code="pair_unknown", hint=hint)
    return {"id": str(id), "call_id": str(call_id), "kept": body.kept}


def _waiting_reason(record: ExperimentRecord, open_experiments: Sequence[ExperimentRecord]) -> str | None:
    """Why a requested experiment cannot start yet; None if it can."""
    blocking = blocking_experiment(open_experiments, record.workload) if record.state == "asked" else None
    return None if blocking is None else blocking.standing


def _build_experiment(body: Begin, actor: str, now: datetime) -> ExperimentRecord:
    last = now + service.ORDINARY if body.until is None else end_of_day(body.until)
    return ExperimentRecord(
        id=new_id(), name=body.name, workload=body.workload, type=body.type, candidate=body.candidate,
        judge=body.judge or "", share=max(1, round(body.share * 10_000)), split=body.by,
        tolerance=TOLERANCE[body.type] if body.tolerance is None else body.tolerance,
        guard_tolerance=body.guard_tolerance, budget_usd=Decimal(str(body.budget_usd)), until=last, reason=body.reason,
        asked_by=str(actor), state="asked",
    )  # fmt: skip


def _pair(row: dict[str, Any]) -> dict[str, Any]:
    return {
        **row, "call_id": str(row["call_id"]), "beside_call": str(row["beside_call"]), "at": row["at"].isoformat(),
        "shown_usd": f"{row['shown_usd']:.6f}", "beside_usd": f"{row['beside_usd']:.6f}",
    }  # fmt: skip
