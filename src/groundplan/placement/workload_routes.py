"""Routes of workloads as a release takes them from a plan, in plain values: the order of each workload, why, what to
build. Decides nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from groundplan.placement.explain.why import binding
from groundplan.placement.planner import CompanyPlan, WorkloadPlacement, find_unplaceable
from groundplan.placement.terms.candidates import build_candidates
from groundplan.placement.terms.facts import Company


@dataclass(frozen=True, slots=True)
class Route:
    """Where one workload goes."""

    configs: tuple[str, ...]
    """configurations: the primary, what takes its peaks, what takes over"""
    burst: str | None
    build: tuple[str, str, str] | None
    """site, model and configuration, where the primary is not there yet"""
    usd: float
    binding: str
    """empty where the plan does not order it"""
    immediate_move: str | None
    """why its change of place cannot go over in steps"""


@dataclass(frozen=True, slots=True)
class Routes:
    """Of a whole company."""

    by_workload: Mapping[str, Route]
    unplaceable: Mapping[str, str]
    """workload -> why nowhere may run it"""
    gap: float


def plan_routes(plan: CompanyPlan) -> Routes:
    """The plan, as releases take it."""
    return Routes(
        {name: _route(plan, each) for name, each in plan.placements.items()}, dict(plan.unplaceable), plan.gap or 0.0
    )


def _route(plan: CompanyPlan, decided: WorkloadPlacement) -> Route:
    first, name = decided.primary, decided.workload
    ordered = plan.company.workloads[name].is_planned
    return Route(
        configs=tuple(part.config for part in (first, decided.burst, decided.fallback) if part is not None),
        burst=None if decided.burst is None else decided.burst.config,
        build=(first.site, first.model, first.config) if first.kind == "build" else None,
        usd=decided.usd,
        binding=binding(plan, decided, plan.framed.candidates.by_workload[name]) if ordered else "",
        immediate_move=plan.immediate_moves.get(name),
    )


def unplaceable_workloads(company: Company) -> Mapping[str, str]:
    """Workloads that have no place, with the rules of each."""
    return find_unplaceable(build_candidates(company))
