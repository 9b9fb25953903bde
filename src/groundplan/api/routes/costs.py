"""Exact costs: the cost book by term and other dimensions, statements, the FOCUS export, outcomes, forecasts and
scenarios."""

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
    """A launch: from `day` on, usage is multiplied by `factor`."""

    model_config = ConfigDict(extra="forbid")
    day: date
    factor: Annotated[float, Field(gt=0, le=1000)]


class ForecastAsked(BaseModel):
    """`countries` (public holidays) and `launches` are considered in addition to those that the workspace declares."""

    model_config = ConfigDict(extra="forbid")
    what: str = "cost"
    workload: str | None = None
    days: Annotated[int, Field(ge=1, le=400)] = 30
    countries: list[str] = Field(default_factory=list, max_length=20)
    launches: list[LaunchAsked] = Field(default_factory=list, max_length=50)
    growth_per_month: Annotated[float, Field(gt=-1, le=10)] | None = None
    growth: Literal["adoption"] | None = None
    """Use the growth rate of the fitted adoption curve instead of `growth_per_month`."""


class WhatIf(BaseModel):
    """A scenario for the calls of a past period; `changes` are NAME=VALUE, `model` the name of a model or
    deployment."""

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
    """The costs of a period summed by a dimension, with the amounts that were measured, allocated and estimated.

    Raises `NotFound` for a `workload` that is neither served nor has any cost. With `lines` and a `limit`, only the
    largest lines are returned, and `more_lines` counts the others.
    """
    now = services.clock.now()
    days = cost_book.parse_days(first, last, now.date())
    with services.transaction() as conn:
        book_lines = cost_book.cost_lines(conn, days, now.date())
        blueprint = current_or_none(conn)
        book_lines = [line for line in book_lines if workload in (None, line.workload) and team in (None, line.team)]
        if workload and team is None and not book_lines:
            require_workload(current_blueprint(conn), workload)
        workflows = cost_book.workflows_of_lines(conn, book_lines) if by == "workflow" else {}
        if by in cost_spread.DIMENSIONS:
            sums = cost_book.sum_parts(cost_spread.breakdown(conn, book_lines, days, by))
        else:
            sums = cost_book.sum_by(book_lines, by, workflows)
    value = {
        "from": days.first.isoformat(), "to": days.last.isoformat(), "by": by,
        "total_usd": format_usd(sum(line.amount for line in book_lines)),
        "basis": {row["key"]: row["cost_usd"] for row in cost_book.sum_by(book_lines, "basis", workflows)},
        "sums": sums,
        "blueprint": blueprint.number if blueprint else None,
        "blueprints": cost_book.blueprint_numbers(book_lines),
    }  # fmt: skip
    if not lines:
        return value
    shown = book_lines if limit is None else nlargest(limit, book_lines, key=lambda line: line.amount)
    line_rows = [cost_book.line_json(line) for line in shown]
    return {**value, "lines": line_rows, "more_lines": len(book_lines) - len(line_rows)}


@router.get("/people")
def people(
    services: ServicesDep, _: Reader, first: Day = None, last: Day = None, workload: str | None = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PEOPLE)] = 50,
) -> dict[str, Any]:  # fmt: skip
    """The people whose calls cost most, over whole days (UTC)."""
    days = cost_book.parse_days(first, last, services.clock.now().date())
    with services.transaction() as conn:
        rows = daily_attribution_store.cost_by_person(conn, days.since, days.until, workload, limit)
        require_known_names(conn, rows, workload=workload)
    return {
        "people": [
            {"person": row["person"] or "", "calls": int(row["calls"]), "cost_usd": format_numeric(row["cost_usd"])}
            for row in rows
        ]
    }


@router.get("/features")
def features(services: ServicesDep, _: Reader, first: Day = None, last: Day = None, workload: str | None = None) -> Any:
    """Cost by feature, which applications name in the header `groundplan-feature`."""
    days = cost_book.parse_days(first, last, services.clock.now().date())
    query = {**_query(days), "workload": workload}
    with services.transaction() as conn:
        rows = rollup_store.calls_by(conn, ["workload", "feature"], query)
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
    """Cost of calls by document source: the cost of a call is divided equally among the documents that it was given, so
    all rows together add up to the cost of all calls. `calls` counts a call once for each of its documents."""
    days = cost_book.parse_days(first, last, services.clock.now().date())
    with services.transaction() as conn:
        rows = daily_attribution_store.cost_by_source(conn, days.since, days.until, workload)
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
    """Cost and value of an accepted outcome, by workload, and by workflow (all its workloads together, compared with
    the workflow's baseline).

    The cost covers all `calls`. If outcomes are `reported` for only a few of them, the cost of an outcome is
    overestimated.
    """
    today = services.clock.now().date()
    with services.transaction() as conn:
        return {**cost_outcomes.outcomes_json(conn, cost_book.parse_days(first, last, today), today)}


@router.get("/statements")
def all_statements(
    services: ServicesDep, _: Reader, month: Month = None,
    team: str | None = None, charge: bool = False, lines: bool = True,
) -> dict[str, Any]:  # fmt: skip
    """The monthly statements of all teams, or of one `team`; together they add up exactly to what was spent. `charge`:
    as chargeback instead of showback. Without `lines` only the sums are returned: for thousands of workloads the lines
    take about a hundred megabytes."""
    team_statements = _statements(services, month, team, charge, separate_deployments=lines)
    total = sum(statement.total for statement in team_statements)
    rows = [
        _statement_json(statement) | ({"lines": _lines_json(statement)} if lines else {})
        for statement in team_statements
    ]
    return {"statements": rows, "total_usd": format_usd(total)}


def _record_export(services: ServicesDep, caller: Caller, kind: str, **what: object) -> None:
    """Record in the audit log who exported a file, with the export's parameters."""
    detail = {"kind": kind, **{name: str(value) for name, value in what.items() if value is not None}}
    with services.transaction() as conn:
        record(conn, action="export.cost", actor=caller.actor, subject="company", detail=detail)


@router.get("/statements.csv", response_class=PlainTextResponse)
def statements_csv(
    services: ServicesDep, caller: Reader, team: str, month: Month = None, charge: bool = False
) -> PlainTextResponse:
    """The monthly statement of one team as CSV, one row per line."""
    statement = _statement(services, month, team, charge)
    _record_export(services, caller, "statement", team=team, month=month)
    return PlainTextResponse(statement_csv(statement), media_type="text/csv; charset=utf-8")


@router.get("/statements.pdf", response_class=Response)
def statements_pdf(
    services: ServicesDep, caller: Reader, team: str, month: Month = None, charge: bool = False
) -> Response:
    """The monthly statement of one team as PDF."""
    from groundplan.economics.export.statement_pdf import statement_pdf  # noqa: PLC0415 -- an extra

    statement = _statement(services, month, team, charge)
    _record_export(services, caller, "statement", team=team, month=month)
    with services.transaction() as conn:
        blueprint = current_or_none(conn)
    data = statement_pdf(statement, blueprint.company if blueprint else "")
    return Response(data, media_type="application/pdf")


@router.get("/focus.csv", response_class=PlainTextResponse)
def focus(services: ServicesDep, caller: Reader, first: Day = None, last: Day = None) -> PlainTextResponse:
    """The cost book of a period in the FOCUS 1.0 format, split by calendar month, since a charge lies within one
    billing period."""
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
    """Forecast the next days of calls, tokens or cost with 80 % intervals, and the error that the method had on past
    days."""
    launches = [Launch(workload="", day=launch.day.isoformat(), factor=launch.factor) for launch in body.launches]
    today = services.clock.now().date()
    with services.transaction() as conn:
        known = cost_calendar.with_additions(cost_ahead.known_days(conn), body.countries, launches)
        past = cost_ahead.daily_series(conn, body.what, today, body.workload, known)
        curve = cost_ahead.adoption_curve(conn, today, body.workload) if body.growth else None
    rate = body.growth_per_month if curve is None else curve.growth_per_month
    if rate is not None:
        past = replace(past, growth_per_month=rate)
    value = cost_ahead.forecast_json(cached_forecast(past, body.days), body.what, past)
    value["notes"] += known.notes
    calendar = cost_calendar.known_days_json(known, body.workload)
    return {**value, "calendar": calendar, "adoption": None if curve is None else asdict(curve)}


@router.get("/forecast")
def forecast_of(
    services: ServicesDep, caller: Reader, what: str = "cost", workload: str | None = None,
    days: Annotated[int, Query(ge=1, le=400)] = 30,
) -> dict[str, Any]:  # fmt: skip
    """As POST, with only the holidays and launches that the workspace declares."""
    return forecasted(ForecastAsked(what=what, workload=workload, days=days), services, caller)


@router.get("/runway")
def runway(services: ServicesDep, _: Reader, workload: str | None = None) -> dict[str, Any]:
    """The day on which each budget runs out at the present rate. If there are many budgets, only those nearest to their
    limits; `more` counts the others."""
    with services.transaction() as conn:
        value = cost_ahead.runways(conn, services.clock.now(), workload)
        require_known_names(conn, value["budgets"], workload=workload)
    return value


@router.post("/what-if")
def what_if(body: WhatIf, services: ServicesDep, _: Reader) -> Any:
    """What the calls of a past period would have cost under other assumptions: more people, other prices, longer
    contexts, a cache, or another model."""
    days = cost_book.parse_days(body.first, body.last, services.clock.now().date())
    with services.transaction() as conn:
        return cost_what_if.scenario(conn, days, body.workload, body.changes, body.model)


@router.get("/own")
def own(services: ServicesDep, _: Reader, first: Day = None, last: Day = None) -> dict[str, Any]:
    """Own hardware at its measured utilisation compared with paying by the token, and the break-even utilisation."""
    days = cost_book.parse_days(first, last, services.clock.now().date())
    with services.transaction() as conn:
        return {
            "from": days.first.isoformat(), "to": days.last.isoformat(),
            "own": cost_own.own_hardware_json(conn, current_blueprint(conn), days),
        }  # fmt: skip


@router.get("/archive")
def archived(services: ServicesDep, _: Reader) -> dict[str, Any]:
    """The days whose facts were moved to Parquet files, with the URL of each file. Facts of a day that arrived after it
    was archived are in a further `part`."""
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
    """Unusual spending, open anomalies first."""
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
    services: ServicesDep, month: str | None, team: str | None, charge: bool, *, separate_deployments: bool = True
) -> list[Statement]:
    """The statements of a month (by default the present one). `charge`: chargeback instead of showback.
    `separate_deployments`: lines by deployment instead of sums over all deployments."""
    today = services.clock.now().date()
    first = date.fromisoformat(f"{month}-01") if month else today.replace(day=1)
    last = cost_book.parse_days(first, None, max(first, today)).last
    last = min(last, first_of_next_month(first) - timedelta(days=1))
    days = cost_book.Days(first, last)
    with services.transaction() as conn:
        lines = cost_book.cost_lines(
            conn, days, today, None if team == UNCARRIED else team, separate=separate_deployments
        )
        before = cost_book.carrier_lines(conn, days.month_before, today)
        centers = cost_book.cost_centers(conn, lines)
    over = days.last < today
    team_statements = statements(
        lines, days.first, days.last, charged=charge, previous=before, over=over, centers=centers
    )
    return [statement for statement in team_statements if team in (None, statement.team)]


def _statement(services: ServicesDep, month: str | None, team: str, charge: bool) -> Statement:
    """The statement of one team. Raises `NotFound` (`statement_unknown`) if it spent nothing."""
    team_statements = _statements(services, month, team, charge)
    if not team_statements:
        raise NotFound(
            f"nothing was spent by {team[:80]} in {month or 'this month'}", code="statement_unknown",
            hint="`groundplan cost statement` lists the teams of a month.",
        )  # fmt: skip
    return team_statements[0]


def _statement_json(statement: Statement) -> dict[str, Any]:
    return {
        "team": statement.team, "cost_center": statement.cost_center or None,
        "from": statement.first.isoformat(), "to": statement.last.isoformat(), "over": statement.over,
        "charged": statement.charged, "total_usd": format_usd(statement.total),
        "previous_usd": optional_usd(statement.previous),
        "by_workload": _pairs(statement.by_workload()), "by_term": _pairs(statement.by_term()),
        "by_basis": _pairs(statement.by_basis()), "blueprints": list(statement.blueprints),
    }  # fmt: skip


def _lines_json(statement: Statement) -> list[dict[str, Any]]:
    return [cost_book.line_json(line) for line in statement.lines]


def _pairs(sums: list[tuple[str, int]]) -> list[dict[str, str]]:
    return [{"key": name, "cost_usd": format_usd(amount)} for name, amount in sums]


def _query(days: cost_book.Days) -> dict[str, Any]:
    return {"since": days.since, "until": days.until, "status": None, "deployment": None, "demo": None}
