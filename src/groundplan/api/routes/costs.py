"""What everything cost, term by term and exactly: the book, statements, FOCUS, outcomes, forecasts and scenarios."""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import date, timedelta
from heapq import nlargest
from typing import Annotated, Any, Literal

from fastapi import Query
from fastapi.responses import PlainTextResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from groundplan.api.access.protected_routes import protected_router
from groundplan.api.caller import Caller, Reader
from groundplan.api.context import ServicesDep
from groundplan.api.cost import book as cost_book
from groundplan.api.cost import breakdowns as cost_spread
from groundplan.api.cost import calendar as cost_calendar
from groundplan.api.cost import forecasts as cost_ahead
from groundplan.api.cost import outcomes as cost_outcomes
from groundplan.api.cost import own_hardware as cost_own
from groundplan.api.cost import what_if as cost_what_if
from groundplan.api.cost.runway import cached_forecast
from groundplan.api.served_blueprint import current_blueprint, current_or_none, require_workload
from groundplan.api.unknown_names import require_known_names
from groundplan.blueprint.calendar import Launch
from groundplan.core.audit.store import record
from groundplan.core.errors import NotFound
from groundplan.core.money import format_numeric, format_usd, optional_usd
from groundplan.core.months import first_of_next_month
from groundplan.economics.export.focus import focus_csv
from groundplan.economics.export.statement import UNCARRIED, Statement, statement_csv, statements
from groundplan.ledger import archive_store, daily_attribution_store, finding_store, rollup_store

router = protected_router("cost", prefix="/cost")
MAX_PEOPLE = 200
Day = Annotated[date | None, Query()]
Month = Annotated[str | None, Query(pattern=r"^[1-9]\d{3}-(0[1-9]|1[0-2])$")]


class LaunchAsked(BaseModel):
    """From that day on there is `factor` times as much."""

    model_config = ConfigDict(extra="forbid")
    day: date
    factor: Annotated[float, Field(gt=0, le=1000)]


class ForecastAsked(BaseModel):
    """`countries` and `launches` count beside what the workspace declares."""

    model_config = ConfigDict(extra="forbid")
    what: str = "cost"
    workload: str | None = None
    days: Annotated[int, Field(ge=1, le=400)] = 30
    countries: list[str] = Field(default_factory=list, max_length=20)
    launches: list[LaunchAsked] = Field(default_factory=list, max_length=50)
    growth_per_month: Annotated[float, Field(gt=-1, le=10)] | None = None
    growth: Literal["adoption"] | None = None
    """Instead of a rate: that of the curve by which people take it up."""


class WhatIf(BaseModel):
    model_config = ConfigDict(extra="forbid")
    workload: str | None = None
    first: date | None = None
    last: date | None = None
    changes: list[str] = Field(default_factory=list, max_length=10)
    model: str | None = None


@router.get("/book")
def book(
    services: ServicesDep, _: Reader, first: Day = None, last: Day = None, by: str = "term",
    workload: str | None = None,
    team: str | None = None, lines: bool = False, limit: Annotated[int | None, Query(ge=1, le=1000)] = None,
) -> dict[str, Any]:  # fmt: skip
    """Every cost of some days summed by a dimension; each says how much was measured, allocated and estimated. A
    workload that is not served and carried nothing is refused. With `limit` so many `lines`, the largest, and how many
    more there are (`more_lines`)."""
    now = services.clock.now()
    days = cost_book.parse_days(first, last, now.date())
    with services.transaction() as conn:
        found = cost_book.cost_lines(conn, days, now.date())
        blueprint = current_or_none(conn)
        found = [line for line in found if workload in (None, line.workload) and team in (None, line.team)]
        if workload and team is None and not found:
            require_workload(current_blueprint(conn), workload)
        workflows = cost_book.workflows_of_lines(conn, found) if by == "workflow" else {}
        if by in cost_spread.DIMENSIONS:
            sums = cost_book.sum_parts(cost_spread.breakdown(conn, found, days, by))
        else:
            sums = cost_book.sum_by(found, by, workflows)
    value = {
        "from": days.first.isoformat(), "to": days.last.isoformat(), "by": by,
        "total_usd": format_usd(sum(line.amount for line in found)),
        "basis": {row["key"]: row["cost_usd"] for row in cost_book.sum_by(found, "basis", workflows)},
        "sums": sums,
        "blueprint": blueprint.number if blueprint else None,
        "blueprints": cost_book.blueprint_numbers(found),
    }  # fmt: skip
    if not lines:
        return value
    shown = found if limit is None else nlargest(limit, found, key=lambda line: line.amount)
    told = [cost_book.line_json(line) for line in shown]
    return {**value, "lines": told, "more_lines": len(found) - len(told)}


@router.get("/people")
def people(
    services: ServicesDep, _: Reader, first: Day = None, last: Day = None, workload: str | None = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PEOPLE)] = 50,
) -> dict[str, Any]:  # fmt: skip
    """Whose calls cost most, of whole days."""
    days = cost_book.parse_days(first, last, services.clock.now().date())
    with services.transaction() as conn:
        rows = daily_attribution_store.people(conn, days.since, days.until, workload, limit)
        require_known_names(conn, rows, workload=workload)
    return {
        "people": [
            {"person": row["person"] or "", "calls": int(row["calls"]), "cost_usd": format_numeric(row["cost_usd"])}
            for row in rows
        ]
    }


@router.get("/features")
def features(services: ServicesDep, _: Reader, first: Day = None, last: Day = None, workload: str | None = None) -> Any:
    """Cost by what applications call their features (header `groundplan-feature`)."""
    days = cost_book.parse_days(first, last, services.clock.now().date())
    wanted = {**_query(days), "workload": workload}
    with services.transaction() as conn:
        rows = rollup_store.calls_by(conn, ["workload", "feature"], wanted)
        require_known_names(conn, rows, workload=workload)
    return {
        "features": [
            {"workload": row["workload"], "feature": row["feature"], "calls": int(row["calls"] or 0),
             "cost_usd": format_numeric(row["cost_usd"])}
            for row in rows
        ]
    }  # fmt: skip


@router.get("/sources")
def sources(services: ServicesDep, _: Reader, first: Day = None, last: Day = None, workload: str | None = None) -> Any:
    """Cost of calls in equal shares on the documents that they were given, by source; together exactly all calls.
    `calls` counts one that was given two documents of a source twice."""
    days = cost_book.parse_days(first, last, services.clock.now().date())
    with services.transaction() as conn:
        rows = daily_attribution_store.sources(conn, days.since, days.until, workload)
        require_known_names(conn, rows, workload=workload)
    return {
        "sources": [
            {"source": row["source"], "documents": int(row["documents"]), "calls": int(row["calls"]),
             "cost_usd": format_numeric(row["cost_usd"])}
            for row in rows
        ]
    }  # fmt: skip


@router.get("/outcomes")
def outcomes(services: ServicesDep, _: Reader, first: Day = None, last: Day = None) -> dict[str, Any]:
    """What an accepted outcome of each workload, and of each workflow with all its workloads, cost, beside the
    workflow's baseline, and what it returned. The cost is of all `calls`: where few of them were `reported`, an outcome
    looks dearer than it is."""
    today = services.clock.now().date()
    with services.transaction() as conn:
        return {**cost_outcomes.outcomes_json(conn, cost_book.parse_days(first, last, today), today)}


@router.get("/statements")
def all_statements(
    services: ServicesDep, _: Reader, month: Month = None,
    team: str | None = None, charge: bool = False, lines: bool = True,
) -> dict[str, Any]:  # fmt: skip
    """A month for each team; together exactly everything that was spent. Without `lines` the sums alone: of thousands
    of workloads the lines are a hundred megabytes."""
    made = _statements(services, month, team, charge, apart=lines)
    total = sum(each.total for each in made)
    told = [_statement_json(each) | ({"lines": _lines_json(each)} if lines else {}) for each in made]
    return {"statements": told, "total_usd": format_usd(total)}


def _record_export(services: ServicesDep, caller: Caller, kind: str, **what: object) -> None:
    """Record in the audit log who exported a file."""
    detail = {"kind": kind, **{name: str(value) for name, value in what.items() if value is not None}}
    with services.transaction() as conn:
        record(conn, action="export.cost", actor=caller.actor, subject="company", detail=detail)


@router.get("/statements.csv", response_class=PlainTextResponse)
def statements_csv(
    services: ServicesDep, caller: Reader, team: str, month: Month = None, charge: bool = False
) -> PlainTextResponse:
    """One team's month, line by line."""
    made = _statement(services, month, team, charge)
    _record_export(services, caller, "statement", team=team, month=month)
    return PlainTextResponse(statement_csv(made), media_type="text/csv; charset=utf-8")


@router.get("/statements.pdf", response_class=Response)
def statements_pdf(
    services: ServicesDep, caller: Reader, team: str, month: Month = None, charge: bool = False
) -> Response:
    """One team's month as PDF."""
    from groundplan.economics.export.statement_pdf import statement_pdf  # noqa: PLC0415 -- an extra

    made = _statement(services, month, team, charge)
    _record_export(services, caller, "statement", team=team, month=month)
    with services.transaction() as conn:
        blueprint = current_or_none(conn)
    data = statement_pdf(made, blueprint.company if blueprint else "")
    return Response(data, media_type="application/pdf")


@router.get("/focus.csv", response_class=PlainTextResponse)
def focus(services: ServicesDep, caller: Reader, first: Day = None, last: Day = None) -> PlainTextResponse:
    """The book of some days as FOCUS 1.0, each month by itself: a charge lies within one billing period."""
    today = services.clock.now().date()
    days = cost_book.parse_days(first, last, today)
    _record_export(services, caller, "focus", first=first, last=last)
    with services.transaction() as conn:
        months = [(month.first, month.last, cost_book.cost_lines(conn, month, today)) for month in days.months]
        centers = {begin: cost_book.cost_centers(conn, lines) for begin, _, lines in months}
        blueprint = current_or_none(conn)
    text = focus_csv(months, blueprint.company if blueprint else "", centers)
    return PlainTextResponse(text, media_type="text/csv; charset=utf-8")


@router.post("/forecast")
def forecasted(body: ForecastAsked, services: ServicesDep, _: Reader) -> dict[str, Any]:
    """The next days of calls, tokens or cost with 80 % intervals, and how right it would have been before."""
    launches = [Launch(workload="", day=each.day.isoformat(), factor=each.factor) for each in body.launches]
    today = services.clock.now().date()
    with services.transaction() as conn:
        known = cost_calendar.with_additions(cost_ahead.known_days(conn), body.countries, launches)
        past = cost_ahead.daily_series(conn, body.what, today, body.workload, known)
        curve = cost_ahead.adoption_curve(conn, today, body.workload) if body.growth else None
    rate = body.growth_per_month if curve is None else curve.growth_per_month
    if rate is not None:
        past = replace(past, growth_per_month=rate)
    made = cost_ahead.forecast_json(cached_forecast(past, body.days), body.what, past)
    made["notes"] += known.notes
    calendar = cost_calendar.known_days_json(known, body.workload)
    return {**made, "calendar": calendar, "adoption": None if curve is None else asdict(curve)}


@router.get("/forecast")
def forecast_of(
    services: ServicesDep, caller: Reader, what: str = "cost", workload: str | None = None,
    days: Annotated[int, Query(ge=1, le=400)] = 30,
) -> dict[str, Any]:  # fmt: skip
    """The same, with what the workspace declares of the time to come alone."""
    return forecasted(ForecastAsked(what=what, workload=workload, days=days), services, caller)


@router.get("/runway")
def runway(services: ServicesDep, _: Reader, workload: str | None = None) -> dict[str, Any]:
    """The day on which each budget ends at this rate; of many budgets those that are nearest to their limits, and how
    many `more` there are."""
    with services.transaction() as conn:
        found = cost_ahead.runways(conn, services.clock.now(), workload)
        require_known_names(conn, found["budgets"], workload=workload)
    return found


@router.post("/what-if")
def what_if(body: WhatIf, services: ServicesDep, _: Reader) -> Any:
    """What the same days would have cost with more people, other prices, contexts, a cache or another model."""
    days = cost_book.parse_days(body.first, body.last, services.clock.now().date())
    with services.transaction() as conn:
        return cost_what_if.scenario(conn, days, body.workload, body.changes, body.model)


@router.get("/own")
def own(services: ServicesDep, _: Reader, first: Day = None, last: Day = None) -> dict[str, Any]:
    """Own hardware at its measured use beside paying by the token, and the use from which on it pays."""
    days = cost_book.parse_days(first, last, services.clock.now().date())
    with services.transaction() as conn:
        return {
            "from": days.first.isoformat(), "to": days.last.isoformat(),
            "own": cost_own.own_hardware_json(conn, current_blueprint(conn), days),
        }  # fmt: skip


@router.get("/archive")
def archived(services: ServicesDep, _: Reader) -> dict[str, Any]:
    """The days whose facts are Parquet files now, and where; what came of one when it had left is a further `part`."""
    with services.transaction() as conn:
        rows = archive_store.list_parts(conn)
    return {
        "url": services.settings.archive_url,
        "hot_days": services.settings.archive_days,
        "days": [
            {"day": row["day"].isoformat(), "url": row["url"], "calls": row["calls"],
             "cost_usd": format_numeric(row["cost_usd"]), "sha256": row["sha256"], "part": row["part"]}
            for row in rows
        ],
    }  # fmt: skip


@router.get("/anomalies")
def anomalies(services: ServicesDep, _: Reader, closed: bool = True) -> dict[str, Any]:
    """What was unusual, the open ones first."""
    with services.transaction() as conn:
        rows = finding_store.list_findings(conn, kinds=["cost.anomaly"], closed=closed, limit=100)
    return {
        "anomalies": [
            {"id": str(row["id"]), "subject": row["subject"], "severity": row["severity"], "message": row["message"],
             "hint": row["hint"], "at": row["at"].isoformat(), "detail": row["detail"],
             "closed_at": row["closed_at"].isoformat() if row["closed_at"] else None}
            for row in rows
        ]
    }  # fmt: skip


def _statements(
    services: ServicesDep, month: str | None, team: str | None, charge: bool, *, apart: bool = True
) -> list[Statement]:
    today = services.clock.now().date()
    first = date.fromisoformat(f"{month}-01") if month else today.replace(day=1)
    last = cost_book.parse_days(first, None, max(first, today)).last
    last = min(last, first_of_next_month(first) - timedelta(days=1))
    days = cost_book.Days(first, last)
    with services.transaction() as conn:
        lines = cost_book.cost_lines(conn, days, today, None if team == UNCARRIED else team, separate=apart)
        before = cost_book.carrier_lines(conn, days.month_before, today)
        centers = cost_book.cost_centers(conn, lines)
    over = days.last < today
    found = statements(lines, days.first, days.last, charged=charge, previous=before, over=over, centers=centers)
    return [each for each in found if team in (None, each.team)]


def _statement(services: ServicesDep, month: str | None, team: str, charge: bool) -> Statement:
    """The statement of one team. Raises `NotFound` (`statement_unknown`) where it spent nothing."""
    made = _statements(services, month, team, charge)
    if not made:
        raise NotFound(
            f"nothing was spent by {team[:80]} in {month or 'this month'}", code="statement_unknown",
            hint="`groundplan cost statement` lists the teams of a month.",
        )  # fmt: skip
    return made[0]


def _statement_json(made: Statement) -> dict[str, Any]:
    return {
        "team": made.team, "cost_center": made.cost_center or None,
        "from": made.first.isoformat(), "to": made.last.isoformat(), "over": made.over,
        "charged": made.charged, "total_usd": format_usd(made.total), "previous_usd": optional_usd(made.previous),
        "by_workload": _pairs(made.by_workload()), "by_term": _pairs(made.by_term()),
        "by_basis": _pairs(made.by_basis()), "blueprints": list(made.blueprints),
    }  # fmt: skip


def _lines_json(made: Statement) -> list[dict[str, Any]]:
    return [cost_book.line_json(line) for line in made.lines]


def _pairs(sums: list[tuple[str, int]]) -> list[dict[str, str]]:
    return [{"key": name, "cost_usd": format_usd(amount)} for name, amount in sums]


def _query(days: cost_book.Days) -> dict[str, Any]:
    return {"since": days.since, "until": days.until, "status": None, "deployment": None, "demo": None}
