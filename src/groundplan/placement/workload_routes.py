"""The routes of workloads in a plan, as plain values for a release: the order of deployments, the reason, what to
build. Decides nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from groundplan.placement.explain.why import binding_constraint
from groundplan.placement.planner import CompanyPlan, WorkloadPlacement, find_unplaceable
from groundplan.placement.terms.candidates import build_candidates
from groundplan.placement.terms.facts import Company


@dataclass(frozen=True, slots=True)
class Route:
    """The route of one workload."""

    configs: tuple[str, ...]
    """the primary, then the burst and the fallback if there are any"""
    burst: str | None
    build: tuple[str, str, str] | None
    """(site, model, configuration) of a primary that is still to be built"""
    usd: float
    binding: str
    """the binding constraint; empty where the order is declared"""
    immediate_move: str | None
    """why its change of place cannot go over in steps"""


@dataclass(frozen=True, slots=True)
class Routes:
    """The routes of a company."""

    by_workload: Mapping[str, Route]
    unplaceable: Mapping[str, str]
    """workload -> why nowhere may run it"""
    gap: float


def plan_routes(plan: CompanyPlan) -> Routes:
    """The routes of all workloads in a plan."""
    return Routes(
        {name: _route(plan, each) for name, each in plan.placements.items()}, dict(plan.unplaceable), plan.gap or 0.0
    )


def _route(plan: CompanyPlan, placement: WorkloadPlacement) -> Route:
    first, name = placement.primary, placement.workload
    ordered = plan.company.workloads[name].is_planned
    return Route(
        configs=tuple(part.config for part in (first, placement.burst, placement.fallback) if part is not None),
        burst=None if placement.burst is None else placement.burst.config,
        build=(first.site, first.model, first.config) if first.kind == "build" else None,
        usd=placement.usd,
        binding=binding_constraint(plan, placement, plan.framed.candidates.by_workload[name]) if ordered else "",
        immediate_move=plan.immediate_moves.get(name),
    )


def unplaceable_workloads(company: Company) -> Mapping[str, str]:
    """Workload -> why nowhere may run it, for workloads without an allowed candidate."""
    return find_unplaceable(build_candidates(company))
