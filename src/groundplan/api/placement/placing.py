"""Functions that the placement routes share: facts of the served company, its plan, and its drift. Decides nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, TypeVar, TypeVarTuple

from psycopg import Connection

from groundplan.api.context import Services
from groundplan.api.placement import serving as placement_serving
from groundplan.api.placement.views import replan_json
from groundplan.api.served_blueprint import current_blueprint, current_or_none, workspace_at
from groundplan.blueprint.model import Blueprint
from groundplan.core.errors import Conflict, GroundplanError, Invalid, NotFound, Unavailable
from groundplan.ledger import daily_store, finding_store
from groundplan.placement import drift, pilot, plan_process, whatif
from groundplan.placement.planner import CompanyPlan
from groundplan.placement.terms.facts import Company
from groundplan.release.compile.placing import company_facts
from groundplan.release.observed import read_observations

_Answer = TypeVar("_Answer")
_Arguments = TypeVarTuple("_Arguments")

DRIFT_DAYS = 28
LOOK_SECONDS = 3600.0
KIND = "placement.drift"


def served_company(conn: Connection[Any], services: Services) -> Company:
    """The facts of the served company, with observations of its deployments. Raises `NotFound` before genesis."""
    blueprint = current_blueprint(conn)
    now = services.clock.now()
    workspace = workspace_at(conn, blueprint.number)
    company = company_facts(
        workspace, blueprint.deployments, blueprint, now.date(), read_observations(conn, workspace, now, True)
    )
    return replace(company, speeds=placement_serving.calibrated_speeds(conn, now, company))


def run_view(
    services: Services, function: Callable[[CompanyPlan, *_Arguments], _Answer], *arguments: *_Arguments, plans: int = 1
) -> _Answer:
    """Run a function of `views` on the plan of the served company in the planning process, without holding a
    transaction. Raises what the function raises, `Conflict` if the company cannot be placed, and `Unavailable`.
    `plans`: how many plans the function makes."""
    with services.transaction() as conn:
        facts = served_company(conn, services)
    return plan_process.ask_plan(function, facts, *arguments, plans=plans)


def project_pilot(conn: Connection[Any], services: Services, workload: str) -> pilot.Projection:
    """The projection of a pilot to ten and a hundred times its calls, from the facts of four weeks."""
    facts = served_company(conn, services).workloads.get(workload)
    if facts is None:
        raise NotFound(
            f"no workload '{workload[:80]}' is declared", code="workload_unknown", hint="See /api/workloads."
        )
    blueprint = current_blueprint(conn)
    since = services.clock.now() - timedelta(days=DRIFT_DAYS)
    people = daily_store.people_days(conn, since, workload)
    rows = daily_store.workload_days(conn, since, workload)
    days = [
        pilot.Day(
            row["day"], row["calls"], row["usd"], row["tokens"], people.get(row["day"], 0), row["first_token_ms"],
            None if row["duration_ms"] is None else row["duration_ms"] / 1000,
        )
        for row in rows
    ]  # fmt: skip
    served = next((item for item in blueprint.workloads if item.name == workload), None)
    first = served.deployments[0] if served and served.deployments else ""
    deployment = next((item for item in blueprint.deployments if item.name == first), None)
    bounds = pilot.GrowthLimits(
        budget_usd_month=facts.budget_usd,
        calls_day=served.calls_per_day if served else None,
        people=served.people if served else None,
        concurrent=deployment.concurrent if deployment else None,
        first_token_ms=facts.first_token,
        peak=facts.peak,
    )
    return pilot.project(workload, days, bounds)


def drift_charts(conn: Connection[Any], blueprint: Blueprint, now: datetime) -> list[drift.Chart]:
    """Charts of what the blueprint's placements expect against past whole days."""
    rows = daily_store.workload_days(conn, now - timedelta(days=DRIFT_DAYS))
    observed: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if row["day"] < now.date().isoformat():
            unit = row["usd"] / row["calls"]
            figures = {"usd_day": row["usd"], "calls_day": row["calls"], "unit_usd": unit}
            observed.setdefault(row["workload"], []).append({**row, **figures})
    served = {item.name for item in blueprint.workloads}
    expected = {p.workload: p.expects for p in blueprint.placements if p.expects and p.workload in served}
    return drift.build_charts(expected, observed)


def served_company_or_none(conn: Connection[Any], services: Services) -> Company | None:
    """As `served_company`; None if it raises."""
    try:
        return served_company(conn, services)
    except GroundplanError:
        return None


def replan_comparison(facts: Company | None, charts: list[drift.Chart]) -> dict[str, Any] | None:
    """The comparison with a plan at the observed calls; None if that cannot be placed."""
    if facts is None:
        return None
    loads = {
        chart.workload: chart.newest_factor for chart in charts if chart.figure == "calls_day" and chart.has_drifted
    }
    try:
        return plan_process.ask_plan(replan_json, facts, loads, plans=2)
    except (Conflict, Invalid):
        return None


def update_drift_findings(services: Services) -> int:
    """Open findings on what drifts, and close those that no longer hold; returns how many are new. Idempotent, so any
    control process may run it."""
    with services.transaction() as conn:
        blueprint = current_or_none(conn)
        if blueprint is None:
            return 0
        charts = drift_charts(conn, blueprint, services.clock.now())
        drifting = [chart for chart in charts if chart.has_drifted]
        facts = served_company_or_none(conn, services) if drifting else None
    try:
        fix = replan_comparison(facts, drifting)
    except Unavailable:  # the findings are opened all the same
        fix = None
    owners = {item.name: next(iter(item.owners.get("architecture", ())), None) for item in blueprint.workloads}
    with services.transaction() as conn:
        changes = finding_store.replace_findings(conn, drift.drift_findings(charts, owners, fix), kinds=[KIND])
        return changes.opened


def parse_changes(sets: list[str], drop: list[str], demand: list[str], prices: list[str]) -> whatif.Changes:
    """Parse what-if changes. Raises `Invalid`, also where nothing is changed."""
    changes = whatif.parse_changes(sets, drop, demand, prices)
    if not (changes.sets or changes.drop_sites or changes.demand or changes.prices):
        raise Invalid(
            "nothing to change was given",
            code="what_if_nothing",
            hint="Give --set, --drop-site, --demand or --price, such as --demand support=x3.",
        )
    return changes
