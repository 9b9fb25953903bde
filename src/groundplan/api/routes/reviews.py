"""Answers and tool calls held for review: the queue, one item, and the decision."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any
from uuid import UUID

from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from groundplan.api.access.protected_routes import protected_router
from groundplan.api.caller import Caller, Reader, SignedIn, require_duty
from groundplan.api.context import ServicesDep
from groundplan.api.presence import check_presence, is_alone
from groundplan.core.audit.subject import SubjectKeys
from groundplan.core.errors import Denied
from groundplan.governance.review import service, store
from groundplan.governance.review.model import HeldCall, ReviewDecision, Reviewer

router = protected_router("review")
MAY_REVIEW = frozenset({"product", "business"})
MAY_APPROVE_TOOLS = frozenset({"security", "operations", "business"})


class Decision(BaseModel):
    """The reason of a decision, and how many minutes it took."""

    model_config = ConfigDict(extra="forbid")
    reason: Annotated[str, StringConstraints(max_length=1000)] = ""
    minutes: Annotated[float, Field(ge=0, le=480)] | None = None


@router.get("/reviews")
def queue(
    services: ServicesDep,
    _: Reader,
    all: Annotated[bool, Query()] = False,
    days: Annotated[float, Query(gt=0, le=366)] = 30.0,
) -> dict[str, Any]:
    """List items that wait for a review, most urgent first; with `all` also decided ones, newest first. Texts are not
    included. `minutes` is the time spent on reviews in the last `days`, by workload."""
    now = services.clock.now()
    with services.transaction() as conn:
        items = store.queue(conn, waiting=not all)
        minutes = store.minutes_by_workload(conn, now - timedelta(days=days))
    return {
        "reviews": [held.to_json(now) for held in items],
        "minutes": [
            {"workload": workload, "decided": count, "minutes": float(total)} for workload, count, total in minutes
        ],
    }


@router.get("/reviews/{id}")
def one(id: UUID, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """One held item with the request and the answer that would be sent, for people who may decide about it. Reading it
    is recorded in the audit log."""
    with services.transaction() as conn:
        held = service.find(conn, id)
        _require_reviewer(caller, held)
        texts = service.read_texts(conn, SubjectKeys.of(services.home), caller.actor, held)
    return {**held.to_json(services.clock.now()), **texts}


@router.post("/reviews/{id}/release")
def release(id: UUID, body: Decision, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Send the held answer, or allow the tool call once."""
    return _decide(services, caller, id, body, release=True)


@router.post("/reviews/{id}/refuse")
def refuse(id: UUID, body: Decision, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Refuse the held item: the caller gets an error with the reason."""
    return _decide(services, caller, id, body, release=False)


def _decide(services: ServicesDep, caller: Caller, id: UUID, body: Decision, *, release: bool) -> dict[str, Any]:
    with services.transaction() as conn:
        held = service.find(conn, id)
        _require_reviewer(caller, held)
        if release and held.kind == "tool":
            check_presence(conn, caller)
        reviewer = Reviewer(caller.actor, caller.email, is_alone(conn))
        decision = ReviewDecision(release, body.reason, body.minutes)
        state = service.decide(conn, reviewer, held, decision, services.clock.now())
    return {"id": str(id), "state": state}


def may_decide(caller: Caller, held: HeldCall) -> bool:
    """Whether the caller may decide about the held item."""
    try:
        _require_reviewer(caller, held)
    except Denied:
        return False
    return True


def _require_reviewer(caller: Caller, held: HeldCall) -> None:
    """Raise `Denied` unless the caller is named in the workload's review or, if nobody is named, holds the required
    duty."""
    if held.kind == "tool":
        require_duty(caller, MAY_APPROVE_TOOLS, f"workload/{held.workload}")
    elif held.reviewers:
        if not caller.operator and caller.email not in held.reviewers:
            require_duty(caller, frozenset(), f"workload/{held.workload}")
    else:
        require_duty(caller, MAY_REVIEW, f"workload/{held.workload}")
