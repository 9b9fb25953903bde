"""Calls with their receipts, what they cost, and what they were worth."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from groundplan.api import store
from groundplan.api.caller import Reader, SignedIn
from groundplan.api.context import Using
from groundplan.api.people import named
from groundplan.core.errors import Denied
from groundplan.core.ids import new_id
from groundplan.ledger import queries
from groundplan.ledger.store import CallFilter

router = APIRouter(tags=["ledger"])
CHART_DAYS = 30
Limit = Annotated[int, Query(ge=1, le=queries.PAGE)]


class Outcome(BaseModel):
    """What a call was worth to the business."""

    model_config = ConfigDict(extra="forbid")
    call_id: UUID
    accepted: bool | None = None
    value_usd: Annotated[Decimal, Field(ge=0, max_digits=18, decimal_places=12)] | None = None
    label: Annotated[str, StringConstraints(max_length=200)] | None = None


@router.get("/calls")
def list_calls(
    services: Using,
    caller: SignedIn,
    workload: str | None = None,
    status: str | None = None,
    person: str | None = None,
    deployment: str | None = None,
    before: UUID | None = None,
    limit: Limit = 50,
) -> dict[str, Any]:
    """Newest first; continue with `before` = `next`. Who holds no duty sees their own calls."""
    with services.transaction() as conn:
        who = None if person is None else named(conn, person)
        if not caller.operator and not caller.duties:
            who = caller.person
        wanted = CallFilter(workload=workload, status=status, person=who, deployment=deployment)
        return queries.list_calls(conn, wanted, before=before, limit=limit)


@router.get("/calls/{call_id}")
def receipt(call_id: UUID, services: Using, caller: SignedIn) -> dict[str, Any]:
    """The receipt: steps, attempts, passages, reserved and charged amounts, the audit entry."""
    with services.transaction() as conn:
        found = queries.receipt(conn, call_id)
    if not caller.operator and not caller.duties and found["person_id"] != str(caller.person):
        raise Denied("this is somebody else's call", code="not_yours", hint="People with a duty may see it.")
    return found


@router.get("/cost")
def cost(services: Using, _: Reader, workload: str | None = None, days: int | None = None) -> dict[str, Any]:
    """Exact totals; refused calls are not counted. Of the last `days`, or of always."""
    since = None if days is None else services.clock.now() - timedelta(days=max(1, min(days, 3660)))
    with services.transaction() as conn:
        summary = queries.cost_summary(conn, CallFilter(workload=workload, since=since))
        return {**summary, "budgets": queries.budget_use(conn, services.clock.now().date())}


@router.get("/cost/days")
def cost_by_day(services: Using, _: Reader, days: Annotated[int, Query(ge=1, le=366)] = CHART_DAYS) -> dict[str, Any]:
    """Cost and calls of each day and workload."""
    with services.transaction() as conn:
        return {"days": queries.daily_cost(conn, CallFilter(since=services.clock.now() - timedelta(days=days)))}


@router.post("/outcomes", status_code=201)
def outcome(body: Outcome, services: Using, caller: SignedIn) -> dict[str, Any]:
    """Report what a call was worth."""
    outcome_id = new_id()
    with services.transaction() as conn:
        store.add_outcome(conn, outcome_id, body.call_id, body.accepted, body.value_usd, body.label, caller.actor)
    return {"id": str(outcome_id), "call_id": str(body.call_id)}
