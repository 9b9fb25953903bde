"""Compiles a workspace to the draft of a blueprint: names resolved, prices looked up, every workload placed.

Pure: the day and the prices are arguments. `plan` decides which parts of the draft may be served now. The catalog has
checked cross-references before, so unknown names are left out here.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date

import msgspec

from groundplan.blueprint import model as bp
from groundplan.catalog import model as doc
from groundplan.catalog.workspace import Workspace
from groundplan.core.errors import Problem
from groundplan.governance.policy import declared
from groundplan.placement import solve
from groundplan.release import ramping
from groundplan.release.compile import budgets, knowledge, places, placing, pricing, workloads
from groundplan.release.compile.governance import compile_descriptions, compile_frameworks, compile_tools
from groundplan.release.model import Draft, with_location


def declared_caps(workspace: Workspace) -> bp.Caps:
    """The caps that the company document declares."""
    caps = workspace.company.caps
    return bp.Caps(people=caps.people, calls_per_day=caps.calls_per_day, days=caps.days, sensitivity=caps.sensitivity)


def declared_owners(workspace: Workspace) -> dict[str, list[str]]:
    """Duty -> e-mail addresses for the company, as its document declares."""
    return _sorted_owners(workspace.owner_emails(workspace.company.owners))


def compile_draft(
    workspace: Workspace,
    current: bp.Blueprint | None,
    caps: bp.Caps,
    owners: dict[str, list[str]],
    *,
    today: date,
    prices: pricing.Prices = pricing.rates_with_successors,
    seen: placing.Observations = placing.NO_OBSERVATIONS,
) -> Draft:
    """Everything that is declared and served by its stage, placed and priced, as a blueprint numbered 0.

    `caps` and company-wide `owners` are those in force, which may differ from the declared ones; `seen` are the
    gateways' measurements for plans.
    """
    sites = {name: places.compile_site(item) for name, item in workspace.sites.items()}
    deployments, problems = places.compile_deployments(workspace, today, prices)
    served = {item.name: item for item in current.workloads} if current else {}
    found = placing.plan_placements(workspace, deployments, current, today, seen)
    placements, refusals = _place_workloads(workspace, deployments, sites, found, current)
    problems += [*found.problems, *refusals]
    running = []
    for name, item in workspace.workloads.items():
        if item.stage in doc.SERVED_STAGES:
            made = workloads.compile_workload(workspace, item, placements[name], served.get(name), caps, today)
            running.append(_with_owners(workspace, item, owners, made))
    names = {item.name for item in running}
    used = {name for item in running if item.grounding for name in item.grounding.sources}
    own = {f"workload/{name}" for name in names}
    blueprint = bp.Blueprint(
        number=0,
        company=workspace.company.name,
        separation=workspace.company.separation,
        sites=[sites[name] for name in sorted(sites)],
        deployments=deployments,
        sources=[knowledge.compile_source(workspace, item) for name, item in workspace.sources.items() if name in used],
        workloads=running,
        budgets=budgets.compile_budgets(workspace, own),
        limits=budgets.compile_limits(workspace),
        allocations=[budgets.compile_allocation(item) for _, item in sorted(workspace.allocations.items())],
        currencies=budgets.compile_currencies(workspace),
        calendar=budgets.compile_calendar(workspace, names),
        workflows=budgets.compile_workflows(workspace, names),
        may_cost=budgets.outcome_cost_limits(workspace, names),
        cost_centers=budgets.cost_centers(workspace),
        trusted_proxies=sorted(workspace.company.trusted_proxies),
        placements=list(placements.values()),
        terms=[knowledge.compile_term(workspace, item) for item in workspace.terms.values()],
        review_days=knowledge.review_days(workspace, used),
        caps=caps,
        owners=owners,
        policies=declared.rules(workspace),
        described=compile_descriptions(workspace, own),
        tools=compile_tools(workspace),
        frameworks=compile_frameworks(workspace),
        index=knowledge.compile_index(workspace.company.index),
        approved_parts=sorted(workspace.company.approvals.parts),
    )
    return Draft(blueprint, tuple(problems))


def _place_workloads(
    workspace: Workspace,
    deployments: list[bp.Deployment],
    sites: dict[str, bp.Site],
    found: placing.PlacementPlan,
    current: bp.Blueprint | None,
) -> tuple[dict[str, bp.Placement], list[Problem]]:
    """The placement of every workload, in the order of the plan if it asks for one; and refusals of served ones."""
    placements: dict[str, bp.Placement] = {}
    problems: list[Problem] = []
    for name, item in workspace.workloads.items():
        demand = workloads.placement_demand(item)
        placement = placing.apply_plan(found, solve.place_workload(demand, deployments, sites), workspace, current)
        route = found.route(name)
        placement = ramping.with_ramp(item, placement, current, route.immediate_move if route is not None else None)
        placements[name] = solve.limit_alternatives(placement)
        if item.stage in doc.SERVED_STAGES:
            where = workspace.where("workload", name, workloads.refusal_key(item))
            problems += [with_location(problem, where) for problem in solve.find_refusals(demand, placement)]
    return placements, problems


def _with_owners(
    workspace: Workspace, item: doc.WorkloadDoc, owners: dict[str, list[str]], workload: bp.Workload
) -> bp.Workload:
    """The workload with its owners: its own for each duty, else the company's."""
    answering = {**owners, **_sorted_owners(workspace.owner_emails(item.owners))}
    return msgspec.structs.replace(workload, owners=dict(sorted(answering.items())))


def _sorted_owners(owners: Mapping[str, tuple[str, ...]]) -> dict[str, list[str]]:
    return {duty: sorted(people) for duty, people in sorted(owners.items())}
