"""Where everything runs and why: the plan, its reasons, what if, stress, the months ahead, a pilot, drift, reports."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Annotated, Any, Final

from fastapi import Query, Request
from fastapi.responses import HTMLResponse, Response
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from groundplan.api.access.authorization import authorize
from groundplan.api.access.protected_routes import protected_router
from groundplan.api.caller import Reader, SignedIn
from groundplan.api.context import ServicesDep
from groundplan.api.cost import own_hardware as cost_own
from groundplan.api.cost.book import Days
from groundplan.api.placement import placing, views
from groundplan.api.placement import replan as placement_replan
from groundplan.api.placement.serving import calibration_rows
from groundplan.api.served_blueprint import current_blueprint, current_or_none
from groundplan.core.audit.store import record
from groundplan.placement import drift, multi_period, pilot, stress
from groundplan.placement.explain.pareto_front import OWN_WEIGHTS
from groundplan.release.model import placement_json

router = protected_router("placement")
Text = Annotated[str, StringConstraints(min_length=1, max_length=200)]
OWN_DAYS: Final = timedelta(days=30)
MANY_PLANS: Final = 20
"""About how many plans are made for the months ahead, other ways and the report."""


class WhatIf(BaseModel):
    """What is to be different, each as NAME=VALUE."""

    model_config = ConfigDict(extra="forbid")
    set: list[Text] = Field(default_factory=list, max_length=50)
    """`sites.eu-private.power_price=0.4`"""
    drop_site: list[Text] = Field(default_factory=list, max_length=50)
    demand: list[Text] = Field(default_factory=list, max_length=50)
    """`support=x3`"""
    price: list[Text] = Field(default_factory=list, max_length=50)
    """`gpt-eu=-30%`"""


class Stress(BaseModel):
    """How many futures, and how far apart they are."""

    model_config = ConfigDict(extra="forbid")
    futures: Annotated[int, Field(ge=1, le=20_000)] = stress.FUTURES
    seed: Annotated[int, Field(ge=0, le=2**31)] = 0
    load: Annotated[float, Field(ge=0, le=2)] = stress.LOAD_SPREAD
    price: Annotated[float, Field(ge=0, le=2)] = stress.PRICE_SPREAD


class Replan(BaseModel):
    """Why it is re-planned, for the history."""

    model_config = ConfigDict(extra="forbid")
    reason: Annotated[str, StringConstraints(min_length=1, max_length=1000)] = "re-planned at the calls that were seen"


@router.get("/placement", response_model=dict[str, Any])
def show(
    services: ServicesDep,
    _: Reader,
    search: Annotated[str, Query(max_length=200)] = "",
    after: Annotated[str, Query(max_length=63)] = "",
    limit: Annotated[int | None, Query(ge=1, le=1000)] = None,
) -> Response:
    """The plan of the whole company: cost by term, proven gap, comparisons, the matrix of exclusions. With `limit` what
    is told of each workload is told of so many, by name, those behind `after` with `search` in their names: `next` is
    what `after` is for those that follow, `total` how many there are in all."""
    body = placing.run_view(
        services, views.plan_body, None if limit is None else views.WorkloadPage(limit, after, search)
    )
    return Response(body, media_type="application/json")


@router.get("/placement/served")
def served(
    services: ServicesDep,
    _: Reader,
    search: Annotated[str, Query(max_length=200)] = "",
    after: Annotated[str, Query(max_length=63)] = "",
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    among: Annotated[str | None, Query(max_length=8000)] = None,
) -> dict[str, Any]:
    """Why each served workload is where it is, as it was when it was released, by name; `search`: a part of the name,
    `among`: names with commas between them, and no others are told of. `next`: what `after` is for those that follow;
    `total`: how many there are in all."""
    with services.transaction() as conn:
        blueprint = current_or_none(conn)
    asked = None if among is None else frozenset(among.split(","))
    placements = blueprint.placements if blueprint else ()
    found = {each.workload: each for each in placements if asked is None or each.workload in asked}
    names = sorted(name for name in found if search.strip().lower() in name)
    rest = [name for name in names if name > after]
    following = rest[limit - 1] if len(rest) > limit else None
    return {
        "placements": [placement_json(found[name]) for name in rest[:limit]], "total": len(names), "next": following,
    }  # fmt: skip


@router.get("/placement/why/{workload}")
def because(workload: str, services: ServicesDep, _: Reader) -> dict[str, Any]:
    """Why one workload is where it is, as figures and in words."""
    return placing.run_view(services, views.explanation_json, workload, plans=2)


@router.post("/placement/what-if")
def what_if(body: WhatIf, services: ServicesDep, _: Reader) -> dict[str, Any]:
    """Two plans side by side, with the decisions that flip. Nothing is changed."""
    changes = placing.parse_changes(body.set, body.drop_site, body.demand, body.price)
    return placing.run_view(services, views.what_if_json, changes, plans=2)


@router.post("/placement/stress")
def stressed(body: Stress, services: ServicesDep, _: Reader) -> dict[str, Any]:
    """The plan under sampled futures, and a robust variant with what it costs."""
    return placing.run_view(
        services, views.stress_json, stress.Spreads(body.futures, body.load, body.price, body.seed), plans=3
    )


@router.get("/placement/pilot/{workload}")
def grows(workload: str, services: ServicesDep, _: Reader) -> dict[str, Any]:
    """A pilot's facts at ten and a hundred times its calls, and what breaks first."""
    with services.transaction() as conn:
        return pilot.to_json(placing.project_pilot(conn, services, workload))


@router.get("/placement/drift", response_model=dict[str, Any])
def drifting(
    services: ServicesDep,
    _: Reader,
    search: Annotated[str, Query(max_length=200)] = "",
    begin: Annotated[int, Query(ge=0)] = 0,
    limit: Annotated[int | None, Query(ge=1, le=1000)] = None,
) -> Response:
    """Plan against facts on control charts; with the re-plan where something drifts, and the calls a day
    (`calls_day`) that it takes for those that were expected. With `limit` so many charts are told, those that drift
    first, from `begin` on, of those with days and with each word of `search` in workload and figure: `total` in all."""
    with services.transaction() as conn:
        found = placing.drift_charts(conn, current_blueprint(conn), services.clock.now())
        off = [each for each in found if each.has_drifted]
        facts = placing.served_company_or_none(conn, services) if off else None
    shown = found if limit is None else drift.matching_charts(found, search)
    rest = {
        "total": len(shown),
        "drifts": [f"{each.workload}: {drift.describe_drift(each)}" for each in off],
        "replan": placing.replan_comparison(facts, off),
        "calls_day": {each.workload: each.expected * each.newest_factor for each in off if each.figure == "calls_day"},
    }
    part = shown if limit is None else shown[begin : begin + limit]
    # one after another: to write megabytes at once would keep all others waiting
    charts = ",".join(json.dumps(drift.to_json(each)) for each in part)
    return Response(f'{{"charts":[{charts}],{json.dumps(rest)[1:]}', media_type="application/json")


@router.post("/placement/replan")
def again(body: Replan, request: Request, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Release the declared files at the calls that were seen, where these drift; what needs an approval waits for it.
    `difference` is what to write into the workspace too."""
    authorize(caller, "release", "company")
    with services.release_turn() as conn:
        value = placement_replan.release_replan(conn, services, caller.actor, body.reason)
    request.app.state.indexer.request_all()
    return value


@router.get("/placement/serving")
def serving(services: ServicesDep, _: Reader) -> dict[str, Any]:
    """The serving model beside what the gateways saw of deployments on own hardware: its error before and after own
    traffic corrects it."""
    with services.transaction() as conn:
        return {"deployments": calibration_rows(conn, services.clock.now(), placing.served_company(conn, services))}


@router.get("/placement/ahead")
def coming(
    services: ServicesDep,
    _: Reader,
    months: Annotated[int, Query(ge=1, le=multi_period.MAX_MONTHS)] = multi_period.MONTHS,
    step: Annotated[int, Query(ge=1, le=multi_period.MAX_MONTHS)] = multi_period.STEP,
) -> dict[str, Any]:
    """The coming months at the growth that is declared: who moves when, what fills up, what to commit to; and whether
    own hardware (`own`) pays at the use that was measured in the last 30 days."""
    today = services.clock.now().date()
    found = placing.run_view(services, views.months_ahead_json, months, step, plans=MANY_PLANS)
    with services.transaction() as conn:
        own = cost_own.own_hardware_json(
            conn, current_blueprint(conn), Days(today - OWN_DAYS, today - timedelta(days=1))
        )
    return {**found, "own": own, "words": [*found["words"], *(f"{row['deployment']}: {row['told']}" for row in own)]}


@router.get("/placement/front")
def ways(
    services: ServicesDep,
    _: Reader,
    carbon: Annotated[float | None, Query(ge=0, le=100_000)] = None,
    latency: Annotated[float | None, Query(ge=0, le=1000)] = None,
    people: Annotated[float | None, Query(ge=0, le=10_000)] = None,
) -> dict[str, Any]:
    """The plan under other weights of carbon (USD a tonne), latency (a second of a thousand calls) and people (an
    hour), and which of them nothing beats; with weights of your own, who would go where."""
    given = {"carbon_usd_tonne": carbon, "latency_usd": latency, "people_usd": people}
    asked = {name: value for name, value in given.items() if value is not None}
    found = placing.run_view(services, views.alternatives_json, asked, plans=MANY_PLANS)
    return {"ways": found, "yours": next((each for each in found if asked and OWN_WEIGHTS in each["name"]), None)}


@router.get("/placement/report", response_class=HTMLResponse)
def report(services: ServicesDep, _: Reader) -> HTMLResponse:
    """The plan as one self-contained page for the board."""
    return HTMLResponse(
        placing.run_view(services, views.board_report_html, services.clock.now().date(), plans=MANY_PLANS)
    )


@router.get("/placement/report.pdf")
def report_on_paper(services: ServicesDep, caller: Reader) -> Response:
    """The same report as a PDF."""
    body = placing.run_view(services, views.board_report_pdf, services.clock.now().date(), plans=MANY_PLANS)
    with services.transaction() as conn:
        record(conn, action="export.placement", actor=caller.actor, subject="company", detail={})
    return Response(body, media_type="application/pdf")
