"""Calls with their receipts, costs and outcomes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

from fastapi import Query
from msgspec.structs import replace
from psycopg import Connection
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from groundplan.api.access.protected_routes import protected_router
from groundplan.api.budgets import current_budget_use
from groundplan.api.caller import Caller, Reader, SignedIn, can_read_all, readable_workloads
from groundplan.api.calls import outcome_permissions, receipts
from groundplan.api.context import ServicesDep
from groundplan.api.cost import semantic_savings
from groundplan.api.people import find_person_id
from groundplan.api.routes.live import Status
from groundplan.api.served_blueprint import add_cached_placement, current_or_none
from groundplan.api.unknown_names import require_known_names
from groundplan.core.errors import Denied
from groundplan.core.ids import new_id
from groundplan.economics.tickets import TicketChange, to_report
from groundplan.ledger import outcome_store, queries, ticket_store
from groundplan.ledger.store import CallFilter

router = protected_router("ledger")
CHART_DAYS = 30
Limit = Annotated[int, Query(ge=1, le=queries.PAGE)]
Value = Annotated[
    Decimal, Field(ge=0, max_digits=outcome_store.VALUE_DIGITS, decimal_places=outcome_store.VALUE_PLACES)
]


class Outcome(BaseModel):
    """The business outcome of a call, or of a `ticket` that calls worked on: `accepted`, or the ticket system's own
    `status` as of `at`. Clients that choose the `id` can repeat a request that got no response."""

    model_config = ConfigDict(extra="forbid")
    id: UUID | None = None
    call_id: UUID | None = None
    ticket: Annotated[str, StringConstraints(max_length=64, pattern=f"^{ticket_store.TICKET_FORM}$")] | None = None
    status: Annotated[str, StringConstraints(max_length=64, pattern=r"^[^\x00]*$")] | None = None
    at: AwareDatetime | None = None
    accepted: bool | None = None
    value_usd: Value | None = None
    label: Annotated[str, StringConstraints(max_length=outcome_store.LABEL_LENGTH, pattern=r"^[^\x00]*$")] | None = None

    @model_validator(mode="after")
    def _check_report(self) -> Outcome:
        outcome_store.check_report(
            call_id=self.call_id, ticket=self.ticket, of_ticket=(self.status, self.at),
            of_call=(self.accepted, self.value_usd, self.label),
        )  # fmt: skip
        return self


@router.get("/calls")
def list_calls(
    services: ServicesDep,
    caller: SignedIn,
    workload: str | None = None,
    status: Status | None = None,
    person: str | None = None,
    key: UUID | None = None,
    deployment: str | None = None,
    before: UUID | None = None,
    limit: Limit = 50,
) -> dict[str, Any]:
    """List calls, newest first; for the next page pass `next` as `before`. Callers without a duty get only their own
    calls."""
    with services.transaction() as conn:
        person_id = caller.person
        if can_read_all(caller):  # for others a person filter would disclose who exists
            person_id = None if person is None else find_person_id(conn, person)
        call_filter = CallFilter(workload=workload, status=status, person=person_id, key=key, deployment=deployment)
        page = queries.list_calls(conn, call_filter, before=before, limit=limit)
        if before is None and can_read_all(caller):
            require_known_names(conn, page["calls"], workload=workload, deployment=deployment)
        add_cached_placement(conn, page["calls"])
        return page


@router.get("/calls/{call_id}")
def receipt(call_id: UUID, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """The receipt of a call: steps, attempts, passages, amounts, audit entry, why this deployment was chosen
    (`chosen`), and whether prompt and answer are stored. Callers with a duty also get its share of allocated costs."""
    with services.transaction() as conn:
        value = receipts.full_receipt(conn, services, caller, call_id)
    if not can_read_all(caller) and value["person_id"] != str(caller.person):
        raise Denied("this is somebody else's call", code="not_yours", hint="People with a duty may see it.")
    return value


@router.get("/cost")
def cost(services: ServicesDep, _: Reader, workload: str | None = None, days: int | None = None) -> dict[str, Any]:
    """Exact totals, without refused calls: of all time, or since `days` before the start of the present hour."""
    # whole hours: facts may have been archived, hourly sums stay
    hour = services.clock.now().replace(minute=0, second=0, microsecond=0)
    since = None if days is None else hour - timedelta(days=max(1, min(days, 3660)))
    with services.transaction() as conn:
        summary = queries.cost_summary(conn, CallFilter(workload=workload, since=since))
        semantic = semantic_savings.semantic_savings_json(conn, (since or datetime(1970, 1, 1, tzinfo=UTC)).date())
        semantic = [row for row in semantic if workload in (None, row["workload"])]
        require_known_names(conn, summary["by_workload"], workload=workload)
        budgets = current_budget_use(conn, current_or_none(conn), services.clock.now())
        return {**summary, "budgets": budgets, "by_meaning": semantic}


@router.get("/cost/days")
def cost_by_day(
    services: ServicesDep, _: Reader, days: Annotated[int, Query(ge=1, le=366)] = CHART_DAYS
) -> dict[str, Any]:
    """Cost and calls by day (UTC) and workload, of the last `days` whole days and of today so far. With 30 days this
    includes the whole of the present month."""
    today = services.clock.now().replace(hour=0, minute=0, second=0, microsecond=0)
    with services.transaction() as conn:
        return {"days": queries.daily_cost(conn, CallFilter(since=today - timedelta(days=days)))}


@router.post("/outcomes", status_code=201)
def outcome(body: Outcome, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Report the outcome of a call or of a ticket.

    The same `id` counts once; without an `id`, equal reports count once. The outcome of a ticket counts once for each
    workload whose calls worked on it. Permitted for holders of a duty for the workload and for the person of the call.
    Applications send the same to the gateway's port with an API key of the workload.
    """
    if body.call_id is None:
        change = TicketChange(body.ticket or "", body.accepted, body.status, body.value_usd, body.at, body.id)
        report = to_report(change, caller.actor, None, services.clock.now())
        with services.transaction() as conn:
            return ticket_store.report_json(report, _report_ticket(conn, caller, report))
    reported = outcome_store.Outcome(
        id=body.id or new_id(),
        call_id=body.call_id,
        accepted=body.accepted,
        value_usd=body.value_usd,
        label=body.label,
        by=caller.actor,
        named=body.id is not None,
    )
    with services.transaction() as conn:
        outcome_permissions.check_outcome_of_call(caller, body.call_id, outcome_store.call_owners(conn, [body.call_id]))
        outcome_store.add(conn, reported)
    return {"id": str(reported.id), "call_id": str(reported.call_id)}


def _report_ticket(
    conn: Connection[Any], caller: Caller, report: ticket_store.TicketReport
) -> list[ticket_store.TicketOutcome]:
    """Store the outcome for the workloads that the caller may report for. Other callers do not learn whether the ticket
    exists."""
    worked_on = ticket_store.workloads_by_ticket(conn, [report.ticket]).get(report.ticket, frozenset())
    if not worked_on and readable_workloads(caller):
        return ticket_store.report(conn, report)
    workloads = outcome_permissions.reportable_workloads(caller, report.ticket, worked_on)
    return [
        stored for workload in workloads for stored in ticket_store.report(conn, replace(report, workload=workload))
    ]
