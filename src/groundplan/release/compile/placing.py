"""The company's placement plan inside a release: the order of deployments of each planned workload, its burst, what to
build, and the expected daily figures.

A blueprint routes to declared deployments only; a place that the plan would rather build is shown with its price. If no
workload asks for a plan, nothing is solved.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date

import msgspec

from groundplan.blueprint import model as bp
from groundplan.catalog import model as doc
from groundplan.catalog.workspace import Workspace
from groundplan.core.errors import GroundplanError, Invalid, Problem, Unavailable, Where
from groundplan.core.money import PICO
from groundplan.placement.plan_process import ask_company, ask_plan
from groundplan.placement.terms.candidates import deployment_candidate
from groundplan.placement.terms.curve import ObservedLoad
from groundplan.placement.terms.facts import DAYS, Company
from groundplan.placement.terms.from_workspace import Context, ObservedFacts, read_company
from groundplan.placement.workload_routes import Route, Routes, plan_routes, unplaceable_workloads


@dataclass(frozen=True, slots=True)
class PlacementPlan:
    """The plan of a release; without routes, placements keep the order of `placement.solve`."""

    company: Company | None = None
    routes: Routes | None = None
    problems: tuple[Problem, ...] = ()
    note: str = ""
    """why there is no plan although a workload asks for one"""

    def route(self, workload: str) -> Route | None:
        """The route of a workload; None where the plan does not place it."""
        return None if self.routes is None else self.routes.by_workload.get(workload)


@dataclass(frozen=True, slots=True)
class Observations:
    """What the gateways measured, as input of plans."""

    times: Mapping[str, ObservedFacts] = field(default_factory=dict)
    """by deployment"""
    loads: Mapping[str, ObservedLoad] = field(default_factory=dict)
    """by workload, of those whose curve is `seen`"""


NO_OBSERVATIONS = Observations()


def company_facts(
    workspace: Workspace,
    deployments: Sequence[bp.Deployment],
    current: bp.Blueprint | None,
    today: date,
    observations: Observations = NO_OBSERVATIONS,
) -> Company:
    """The input of a plan. Raises `Invalid` where a trace cannot be read."""
    context = Context(
        today,
        primary_sites(current),
        primary_deployments(current),
        observations.times,
        observations.loads,
        lambda name: _read_file(workspace, name),
    )
    return read_company(workspace, deployments, context)


def primary_sites(current: bp.Blueprint | None) -> dict[str, str]:
    """Workload -> site of its primary in a blueprint."""
    if current is None:
        return {}
    sites = {each.name: each.site for each in current.deployments}
    return {w.name: sites[w.deployments[0]] for w in current.workloads if w.deployments and w.deployments[0] in sites}


def primary_deployments(current: bp.Blueprint | None) -> dict[str, str]:
    """Workload -> its primary in a blueprint."""
    return {} if current is None else {w.name: w.deployments[0] for w in current.workloads if w.deployments}


def plan_placements(
    workspace: Workspace,
    deployments: Sequence[bp.Deployment],
    current: bp.Blueprint | None,
    today: date,
    observations: Observations = NO_OBSERVATIONS,
) -> PlacementPlan:
    """The plan of a workspace, if a workload asks for one. Rules that contradict each other are refusals."""
    planned = [name for name, item in workspace.workloads.items() if item.placement.order == "planned"]
    where = workspace.where("workload", planned[0], "placement", "order") if planned else None
    try:
        company = company_facts(workspace, deployments, current, today, observations)
        if not planned:
            return PlacementPlan(company)
        found = ask_plan(plan_routes, company, urgent=True)
        unplaceable = found.unplaceable
        if observations.times:  # measured times alone refuse nothing
            declared = company_facts(workspace, deployments, current, today, Observations(loads=observations.loads))
            unplaceable = ask_company(unplaceable_workloads, declared, urgent=True)
        return PlacementPlan(company, found, _unplaceable_problems(workspace, unplaceable, planned))
    except Unavailable:
        raise
    except Invalid as error:
        if error.code == "extra_missing":
            return PlacementPlan(note="not planned: a solver is not installed")
        return PlacementPlan(problems=(_problem(error, where),))
    except GroundplanError as error:
        return PlacementPlan(problems=(_problem(error, where),))


def _unplaceable_problems(
    workspace: Workspace, found: Mapping[str, str], planned: Sequence[str]
) -> tuple[Problem, ...]:
    """Refusals of served workloads that ask for a plan and have no allowed place."""
    return tuple(
        Problem(
            f"nowhere may {name} run: {found[name]}"[:2000],
            "placement_nowhere",
            "Relax one of these rules, or declare a site, a deployment or hardware that they allow.",
            workspace.where("workload", name, "placement", "order"),
        )
        for name in planned
        if name in found and workspace.workloads[name].stage in doc.SERVED_STAGES
    )


def _problem(error: GroundplanError, where: Where | None) -> Problem:
    """The error as a problem at its own location, else at `where`."""
    if isinstance(error.where, Where):
        return Problem(error.message, error.code, error.hint, error.where)
    message = f"{error.where}: {error.message}" if error.where else error.message
    return Problem(message, error.code, error.hint, where)


def apply_plan(
    found: PlacementPlan, placement: bp.Placement, workspace: Workspace, current: bp.Blueprint | None = None
) -> bp.Placement:
    """A placement with the order of the plan, if its workload asks for one, and with its expected figures."""
    item = workspace.workloads[placement.workload]
    if item.placement.order == "planned" and found.note:
        placement = msgspec.structs.replace(placement, binding=f"{placement.binding}; {found.note}")
    route = found.route(placement.workload)
    if found.routes is not None and route is not None:
        if item.placement.order == "planned":
            placement = _in_planned_order(found.routes.gap, route, placement)
        placement = _with_build(route, placement)
    previous = (
        next((each for each in current.placements if each.workload == placement.workload), None) if current else None
    )
    return msgspec.structs.replace(
        placement, expects=_keep_expectations(_expectations(found.company, placement), placement, previous)
    )


def _keep_expectations(
    expects: dict[str, float], placement: bp.Placement, previous: bp.Placement | None
) -> dict[str, float]:
    """The expectations; if the primary stays, new measurements do not change them, since drift is measured against
    them."""
    if previous is None or previous.primary != placement.primary:
        return expects
    kept = ("first_token_ms", "availability")
    return {key: previous.expects.get(key, value) if key in kept else value for key, value in expects.items()}


def _in_planned_order(gap: float, route: Route, placement: bp.Placement) -> bp.Placement:
    allowed = {each.deployment for each in placement.alternatives if each.allowed}
    previous = [name for name in (placement.primary, *placement.fallbacks) if name is not None]
    order = [name for name in dict.fromkeys([*route.configs, *previous]) if name in allowed]
    if not order:
        return placement
    return msgspec.structs.replace(
        placement,
        primary=order[0],
        fallbacks=order[1:],
        binding=route.binding,
        gap=gap,
        burst=route.burst if route.burst in allowed else None,
    )


def _with_build(route: Route, placement: bp.Placement) -> bp.Placement:
    if route.build is None:
        return placement
    site, model, config = route.build
    build = bp.ToBuild(site=site, model=model, config=config, monthly=round(route.usd * PICO))
    return msgspec.structs.replace(placement, to_build=[build])


def _expectations(company: Company | None, placement: bp.Placement) -> dict[str, float]:
    """The daily figures that the plan expects, for the control charts of drift."""
    if company is None or placement.primary is None or placement.workload not in company.workloads:
        return {}
    facts = company.workloads[placement.workload]
    priced = next((a.monthly for a in placement.alternatives if a.deployment == placement.primary), None)
    deployment = company.deployments.get(placement.primary)
    if priced is None or deployment is None or not facts.calls_month:
        return {}
    first = deployment_candidate(company, facts, deployment)
    usd = priced / PICO
    return {
        "availability": round(first.availability, 6),
        "calls_day": round(facts.calls_month / DAYS, 3),
        "first_token_ms": round(first.times.first_token, 1),
        "unit_usd": round(usd / facts.calls_month, 9),
        "usd_day": round(usd / DAYS, 6),
    }


def _read_file(workspace: Workspace, name: str) -> str:
    """A file of the workspace, as applied or from its folder. Raises `OSError`."""
    if name in workspace.files:
        return workspace.files[name]
    if workspace.root is None:
        raise FileNotFoundError(name)
    return (workspace.root / name).read_text(encoding="utf-8")
