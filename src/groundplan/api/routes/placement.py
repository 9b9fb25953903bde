"""The placement plan: reasons, what-if comparisons, stress tests, the coming months, pilot projections, drift, and
reports."""

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
"""The approximate number of plans computed for the coming months, the alternatives and the report."""


class WhatIf(BaseModel):
    """Changed assumptions, each as NAME=VALUE."""

    model_config = ConfigDict(extra="forbid")
    set: list[Text] = Field(default_factory=list, max_length=50)
    """`sites.eu-private.power_price=0.4`"""
    drop_site: list[Text] = Field(default_factory=list, max_length=50)
    demand: list[Text] = Field(default_factory=list, max_length=50)
    """`support=x3`"""
    price: list[Text] = Field(default_factory=list, max_length=50)
    """`gpt-eu=-30%`"""


class Stress(BaseModel):
    """The number of sampled futures, the seed, and the spreads of load and prices."""

    model_config = ConfigDict(extra="forbid")
    futures: Annotated[int, Field(ge=1, le=20_000)] = stress.FUTURES
    seed: Annotated[int, Field(ge=0, le=2**31)] = 0
    load: Annotated[float, Field(ge=0, le=2)] = stress.LOAD_SPREAD
    price: Annotated[float, Field(ge=0, le=2)] = stress.PRICE_SPREAD


class Replan(BaseModel):
    """The reason of a re-plan, for the history."""

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
    """The plan of the whole company: cost by term, proven gap, comparisons, the exclusion matrix.

    With `limit`, details are included only for a page of workloads, by name: those after `after` with `search` in their
    names. For the next page pass `next` as `after`; `total` counts all matching workloads.
    """
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
    """The placement of each served workload with its reasons, as of its release, by name.

    `search` is a part of the name; `among` restricts the result to comma-separated names. For the next page pass `next`
    as `after`; `total` counts all matching workloads.
    """
    with services.transaction() as conn:
        blueprint = current_or_none(conn)
    selected = None if among is None else frozenset(among.split(","))
    placements = blueprint.placements if blueprint else ()
    by_workload = {
        placement.workload: placement for placement in placements if selected is None or placement.workload in selected
    }
    names = sorted(name for name in by_workload if search.strip().lower() in name)
    after_names = [name for name in names if name > after]
    next_name = after_names[limit - 1] if len(after_names) > limit else None
    return {
        "placements": [placement_json(by_workload[name]) for name in after_names[:limit]],
        "total": len(names),
        "next": next_name,
    }


@router.get("/placement/why/{workload}")
def because(workload: str, services: ServicesDep, _: Reader) -> dict[str, Any]:
    """Why one workload is placed where it is, as figures and as text."""
    return placing.run_view(services, views.explanation_json, workload, plans=2)


@router.post("/placement/what-if")
def what_if(body: WhatIf, services: ServicesDep, _: Reader) -> dict[str, Any]:
    """Compare the plan with one under changed assumptions, and list the decisions that differ. Changes nothing."""
    changes = placing.parse_changes(body.set, body.drop_site, body.demand, body.price)
    return placing.run_view(services, views.what_if_json, changes, plans=2)


@router.post("/placement/stress")
def stressed(body: Stress, services: ServicesDep, _: Reader) -> dict[str, Any]:
    """The plan under sampled futures, and a robust variant with its price."""
    return placing.run_view(
        services, views.stress_json, stress.Spreads(body.futures, body.load, body.price, body.seed), plans=3
    )


@router.get("/placement/pilot/{workload}")
def grows(workload: str, services: ServicesDep, _: Reader) -> dict[str, Any]:
    """The projection of a pilot to ten and a hundred times its calls, and what becomes the bottleneck first."""
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
    """Control charts of the plan's expectations against the facts.

    If something drifts, also the re-plan, and the calls per day (`calls_day`) that it would use instead of the expected
    ones. With `limit`, only so many charts from number `begin` on, drifting ones first: charts with data that have
    every word of `search` in workload or figure. `total` counts all of these.
    """
    with services.transaction() as conn:
        all_charts = placing.drift_charts(conn, current_blueprint(conn), services.clock.now())
        drifted = [chart for chart in all_charts if chart.has_drifted]
        company = placing.served_company_or_none(conn, services) if drifted else None
    matching = all_charts if limit is None else drift.matching_charts(all_charts, search)
    other_fields = {
        "total": len(matching),
        "drifts": [f"{chart.workload}: {drift.describe_drift(chart)}" for chart in drifted],
        "replan": placing.replan_comparison(company, drifted),
        "calls_day": {
            chart.workload: chart.expected * chart.newest_factor for chart in drifted if chart.figure == "calls_day"
        },
    }
    page = matching if limit is None else matching[begin : begin + limit]
    # encoded one by one: encoding megabytes at once would hold the GIL and block other requests
    charts = ",".join(json.dumps(drift.to_json(chart)) for chart in page)
    return Response(f'{{"charts":[{charts}],{json.dumps(other_fields)[1:]}', media_type="application/json")


@router.post("/placement/replan")
def again(body: Replan, request: Request, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Release the declared files with the observed numbers of calls, where these drift from the plan. Parts that need
    an approval become pending changes. `difference` is the diff to apply to the workspace files, too."""
    authorize(caller, "release", "company")
    with services.release_turn() as conn:
        value = placement_replan.release_replan(conn, services, caller.actor, body.reason)
    request.app.state.indexer.request_all()
    return value


@router.get("/placement/serving")
def serving(services: ServicesDep, _: Reader) -> dict[str, Any]:
    """The serving model compared with what gateways observed on own hardware: its error before and after calibration
    with the company's own traffic."""
    with services.transaction() as conn:
        return {"deployments": calibration_rows(conn, services.clock.now(), placing.served_company(conn, services))}


@router.get("/placement/ahead")
def coming(
    services: ServicesDep,
    _: Reader,
    months: Annotated[int, Query(ge=1, le=multi_period.MAX_MONTHS)] = multi_period.MONTHS,
    step: Annotated[int, Query(ge=1, le=multi_period.MAX_MONTHS)] = multi_period.STEP,
) -> dict[str, Any]:
    """The plan for the coming months at the declared growth: which workloads move when, what fills up, what to commit
    to. `own` is the break-even of own hardware at the utilisation of the last 30 days."""
    today = services.clock.now().date()
    ahead = placing.run_view(services, views.months_ahead_json, months, step, plans=MANY_PLANS)
    with services.transaction() as conn:
        own = cost_own.own_hardware_json(
            conn, current_blueprint(conn), Days(today - OWN_DAYS, today - timedelta(days=1))
        )
    return {**ahead, "own": own, "words": [*ahead["words"], *(f"{row['deployment']}: {row['told']}" for row in own)]}


@router.get("/placement/front")
def ways(
    services: ServicesDep,
    _: Reader,
    carbon: Annotated[float | None, Query(ge=0, le=100_000)] = None,
    latency: Annotated[float | None, Query(ge=0, le=1000)] = None,
    people: Annotated[float | None, Query(ge=0, le=10_000)] = None,
) -> dict[str, Any]:
    """Plans under other weights of carbon (USD per tonne), latency (USD per second, for a thousand calls) and people
    (USD per hour), and which of them are not dominated. With weights of the caller's own, `yours` is the plan under
    these."""
    weights = {"carbon_usd_tonne": carbon, "latency_usd": latency, "people_usd": people}
    own_weights = {name: value for name, value in weights.items() if value is not None}
    plans = placing.run_view(services, views.alternatives_json, own_weights, plans=MANY_PLANS)
    return {"ways": plans, "yours": next((plan for plan in plans if own_weights and OWN_WEIGHTS in plan["name"]), None)}


@router.get("/placement/report", response_class=HTMLResponse)
def report(services: ServicesDep, _: Reader) -> HTMLResponse:
    """The plan as one self-contained HTML page for the board."""
    return HTMLResponse(
        placing.run_view(services, views.board_report_html, services.clock.now().date(), plans=MANY_PLANS)
    )


@router.get("/placement/report.pdf")
def report_on_paper(services: ServicesDep, caller: Reader) -> Response:
    """The report for the board as a PDF."""
    body = placing.run_view(services, views.board_report_pdf, services.clock.now().date(), plans=MANY_PLANS)
    with services.transaction() as conn:
        record(conn, action="export.placement", actor=caller.actor, subject="company", detail={})
    return Response(body, media_type="application/pdf")
