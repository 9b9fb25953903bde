"""Experiments on live calls: what runs and what it shows; begin, approve and stop one; say what an answer was worth."""

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
    """What to try on which workload."""

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
    """Why."""

    model_config = ConfigDict(extra="forbid")
    reason: Annotated[str, StringConstraints(max_length=1000)] = ""


class Reviewed(BaseModel):
    """Whether the candidate's answer was as good as the one that was given."""

    model_config = ConfigDict(extra="forbid")
    kept: bool


@router.get("/experiments")
def experiments(
    services: ServicesDep, _: Reader, workload: Annotated[str | None, Query(max_length=63)] = None
) -> dict[str, Any]:
    """Those that run or wait for their approval, then the others, the newest first, each with what was seen last; and
    what may be tried on which workload. `waits`: what runs, so that nothing else can begin."""
    with services.transaction() as conn:
        found, standing = store.list_experiments(conn, workload), store.open_experiments(conn)
        require_known_names(conn, found, workload=workload)
        blueprint = current_or_none(conn)
    served = blueprint.workloads if blueprint is not None else []
    return {
        "experiments": [{**each.to_json(), "waits": _waiting_reason(each, standing)} for each in found],
        "workloads": [
            {
                "name": each.name, "stage": each.stage, "answers": each.deployments[0],
                "candidates": each.deployments[1:], "keeps": each.keep is not None,
                "waits": None if (runs := blocking_experiment(standing, each.name)) is None else runs.standing,
            }
            for each in served
            if len(each.deployments) > 1
        ],
    }  # fmt: skip


@router.get("/experiments/{id}")
def experiment(id: UUID, services: ServicesDep, _: Reader) -> dict[str, Any]:
    """One of them: its interval at every look, and pairs of answers, without their texts."""
    with services.transaction() as conn:
        found = service.get_experiment(conn, id, lock=False)
        looks, pairs = store.looks(conn, id), store.pairs(conn, id)
        waits = _waiting_reason(found, store.open_experiments(conn))
    return {
        **found.to_json(),
        "waits": waits,
        "looks": [{**each, "at": each["at"].isoformat()} for each in looks],
        "pairs": [_pair(each) for each in pairs],
    }


@router.post("/experiments", status_code=201)
def begin(body: Begin, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Begin it; in production where duties are separated it waits until somebody else approves it."""
    require_duty(caller, MAY_BEGIN, f"workload/{body.workload}")
    now = services.clock.now()
    with services.transaction() as conn:
        blueprint = current_blueprint(conn)
        workload = next((each for each in blueprint.workloads if each.name == body.workload), None)
        made = _build_experiment(body, caller.actor, now)
        service.check(made, workload, now)
        waits = workload is not None and workload.stage == "production" and not is_alone(conn)
        made, number = service.ask(conn, caller.actor, made, waits=waits, now=now)
    return {**made.to_json(), "effective": None if number is None else policy_effect(services, number)}


@router.post("/experiments/{id}/approve")
def approve(id: UUID, body: Say, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Let it run, where it can still be tried: whoever holds the product or business duty of the workload, but never
    who asked."""
    with services.transaction() as conn:
        require_duty(caller, MAY_APPROVE, f"workload/{service.get_experiment(conn, id, lock=False).workload}")
        check_presence(conn, caller)
        served, now = current_blueprint(conn).workloads, services.clock.now()
        number = service.decide(conn, caller.actor, id, approve=True, reason=body.reason, now=now, served=served)
    return {"id": str(id), "state": "running", "effective": number and policy_effect(services, number)}


@router.post("/experiments/{id}/refuse")
def refuse(id: UUID, body: Say, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    with services.transaction() as conn:
        require_duty(caller, MAY_APPROVE, f"workload/{service.get_experiment(conn, id, lock=False).workload}")
        service.decide(conn, caller.actor, id, approve=False, reason=body.reason, now=services.clock.now())
    return {"id": str(id), "state": "refused"}


@router.post("/experiments/{id}/stop")
def stop(id: UUID, body: Say, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """End it, effective at every gateway within a second."""
    with services.transaction() as conn:
        require_duty(caller, MAY_STOP, f"workload/{service.get_experiment(conn, id, lock=False).workload}")
        number = service.stop(conn, caller.actor, id, body.reason or "stopped by hand")
    return {"id": str(id), "state": "ended", "effective": policy_effect(services, number)}


@router.post("/experiments/{id}/pairs/{call_id}/review")
def review(id: UUID, call_id: UUID, body: Reviewed, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Say what both answers were worth, so that it is known how far the comparison is to be trusted."""
    with services.transaction() as conn:
        require_duty(caller, MAY_BEGIN, f"workload/{service.get_experiment(conn, id, lock=False).workload}")
        if not store.review(conn, id, call_id, body.kept, caller.actor):
            hint = "GET /api/experiments/ID lists its pairs."
            raise NotFound(f"there is no pair of call {call_id}", code="pair_unknown", hint=hint)
    return {"id": str(id), "call_id": str(call_id), "kept": body.kept}


def _waiting_reason(one: ExperimentRecord, standing: Sequence[ExperimentRecord]) -> str | None:
    """Why a requested experiment cannot begin yet."""
    runs = blocking_experiment(standing, one.workload) if one.state == "asked" else None
    return None if runs is None else runs.standing


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
