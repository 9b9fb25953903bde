"""Imports the results of tickets from a ticket system's export as outcomes of the calls that worked on them; and the
cost of a resolved ticket.

The file is the body of the request and is not stored. It can be sent again at any time, since equal results count once;
so it is stored in parts, and an interrupted import is simply repeated.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated, Any
from uuid import NAMESPACE_URL, uuid5

from fastapi import Query, Request
from psycopg import Connection
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool

from groundplan.api.access.protected_routes import protected_router
from groundplan.api.caller import Caller, Reader
from groundplan.api.calls import outcome_permissions
from groundplan.api.context import Services, ServicesDep
from groundplan.api.cost import book as cost_book
from groundplan.api.http.uploads import parse_options, read_text
from groundplan.api.routes.costs import Day
from groundplan.api.unknown_names import require_known_names
from groundplan.core.audit.store import record
from groundplan.core.error_shape import problem_json
from groundplan.core.errors import Conflict, Denied, Invalid, NotFound, Problem
from groundplan.core.money import ceil_div, format_numeric, format_usd, from_decimal
from groundplan.economics.tickets import Row, read_tickets
from groundplan.ledger import outcome_store, ticket_store

router = protected_router("ledger")
PART_SIZE = 200
"""Tickets per transaction; each ticket is locked until its transaction ends."""
MAX_LISTED_REFUSALS = 200
"""The most refused lines that are listed; all are counted."""
_FILE = {
    "requestBody": {
        "required": True,
        "content": {"text/csv": {"schema": {"type": "string"}}, "application/json": {"schema": {}}},
    }
}


class ImportQuery(BaseModel):
    """How to read the file: `columns` are ROLE=NAME, `state` is STATUS=resolved, unresolved or open."""

    name: Annotated[str, Field(max_length=200)] = "tickets"
    columns: list[str] = Field(default_factory=list, max_length=20)
    state: list[str] = Field(default_factory=list, max_length=100)


@router.post("/outcomes/import", openapi_extra=_FILE)
async def imported(
    request: Request, services: ServicesDep, caller: Reader, query: Annotated[ImportQuery, Query()]
) -> dict[str, Any]:
    """Import the results of tickets (the body: CSV or JSON, at most 16 MiB, or the single object of a webhook). Lines
    that cannot be imported are listed with their position, including those of workloads that the caller holds no duty
    for; tickets that no call worked on are only counted."""
    text = await read_text(request, "tickets", "Export fewer days at once.")
    return await run_in_threadpool(_import, services, caller, text, query)


@router.get("/cost/tickets")
def tickets(
    services: ServicesDep, _: Reader, first: Day = None, last: Day = None, workload: str | None = None
) -> dict[str, Any]:  # fmt: skip
    """The cost of a resolved ticket, by workload. It covers tickets whose newest result was reported in these days, and
    all calls that worked on them, whenever these were made."""
    days = cost_book.parse_days(first, last, services.clock.now().date())
    with services.transaction() as conn:
        rows = ticket_store.by_workload(conn, days.since, days.until, workload)
        require_known_names(conn, rows, workload=workload)
    return {
        "from": days.first.isoformat(), "to": days.last.isoformat(),
        "tickets": [
            {
                "workload": row["workload"], "resolved": row["resolved"], "unresolved": row["unresolved"],
                "calls": row["calls"], "cost_usd": format_numeric(row["cost_usd"]),
                "resolved_usd": format_numeric(row["resolved_usd"]), "value_usd": format_numeric(row["value_usd"]),
                "cost_per_resolved_usd": format_usd(ceil_div(from_decimal(row["cost_usd"]), row["resolved"]))
                if row["resolved"] else None,
            }
            for row in rows
        ],
    }  # fmt: skip


def _import(services: Services, caller: Caller, text: str, query: ImportQuery) -> dict[str, Any]:
    """Import the rows of a file, and record the import in the audit log. Raises the first problem if no row was
    imported."""
    columns = parse_options(query.columns, "ticket=COLUMN")
    states = parse_options(query.state, "Erledigt=resolved, or unresolved, or open")
    parsed = read_tickets(text, query.name, columns, states, services.clock.now())
    counts: Counter[str] = Counter()
    refused = list(parsed.refused)
    for start in range(0, len(parsed.rows), PART_SIZE):
        with services.transaction() as conn:
            _store_rows(conn, caller, parsed.rows[start : start + PART_SIZE], counts, refused)
    refused.sort(key=lambda problem: problem.where.line if problem.where else 0)
    if refused and not counts.total():
        first = refused[0]
        kind = Denied if all(problem.code == outcome_permissions.DENIED_CODE for problem in refused) else Invalid
        raise kind(
            first.message,
            code=first.code,
            hint=first.hint,
            where=first.where,
            problems=tuple(refused[:MAX_LISTED_REFUSALS]),
        )
    totals = {name: counts[name] for name in ("new", "same", "waiting", "others")}
    with services.transaction() as conn:
        detail = {
            "file": query.name,
            **{name: str(count) for name, count in totals.items()},
            "refused": str(len(refused)),
        }
        record(conn, action="outcomes.imported", actor=caller.actor, subject="company", detail=detail)
    return {
        "file": query.name, "columns": dict(parsed.columns), "lines": len(parsed.rows) + len(parsed.refused), **totals,
        "refused": [problem_json(problem) for problem in refused[:MAX_LISTED_REFUSALS]], "refused_in_all": len(refused),
    }  # fmt: skip


def _store_rows(
    conn: Connection[Any], caller: Caller, rows: Sequence[Row], counts: Counter[str], refused: list[Problem]
) -> None:
    """Store rows in one transaction; refused ones are added to `refused`. Tickets are locked in a fixed order, which
    prevents deadlocks."""
    known = ticket_store.workloads_by_ticket(conn, [row.ticket for row in rows if row.ticket])
    calls = outcome_store.call_owners(conn, [row.call for row in rows if row.call is not None])
    for row in sorted(rows, key=lambda one: (one.ticket, one.at)):
        if row.call is None and row.ticket not in known:
            counts["others"] += 1
            continue
        try:
            counts[_store_row(conn, caller, row, known, calls)] += 1
        except (NotFound, Conflict, Denied) as error:
            refused.append(Problem(error.message, error.code, error.hint, row.where))


def _store_row(
    conn: Connection[Any],
    caller: Caller,
    row: Row,
    known: Mapping[str, frozenset[str]],
    calls: outcome_store.CallOwners,
) -> str:
    """Store one row; returns `new`, `same` or `waiting`."""
    if row.call is None:
        results = set()
        for workload in outcome_permissions.reportable_workloads(caller, row.ticket, known[row.ticket]):
            report = ticket_store.TicketReport(
                ticket=row.ticket, state=row.state, at=row.at, event=row.event, by=caller.actor, value_usd=row.value,
                workload=workload,
            )  # fmt: skip
            results |= {result.told for result in ticket_store.report(conn, report)}
        return next(result for result in ("new", "same", "waiting") if result in results)
    outcome_permissions.check_outcome_of_call(caller, row.call, calls)
    if row.state == "open" and not outcome_store.was_accepted(conn, row.call):
        return "waiting"
    outcome = outcome_store.Outcome(
        id=uuid5(NAMESPACE_URL, f"{row.call}\n{row.event}"),
        call_id=row.call,
        accepted=row.state == "resolved",
        value_usd=row.value,
        label=f"ticket {row.ticket}" if row.ticket else "ticket",
        by=caller.actor,
        at=row.at,
    )
    return "new" if outcome_store.add(conn, outcome) else "same"
