"""Planning with fixed places: workloads keep the places of an earlier plan, also where a site is lost. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from groundplan.core.errors import Conflict
from groundplan.placement.planner import DEFAULT_LIMIT, CompanyPlan, plan_candidates, plan_company
from groundplan.placement.problem import WorkLimit
from groundplan.placement.terms.candidates import Candidate, CandidateSet, build_candidates
from groundplan.placement.terms.facts import Company

Places = Mapping[str, frozenset[tuple[str, str]]]


def place_key(candidate: Candidate) -> tuple[str, str]:
    """A configuration to build counts as the same whatever its number of units."""
    return candidate.site, candidate.config.partition(" on ")[0] + (candidate.hardware or "")


def workload_places(plan: CompanyPlan) -> dict[str, frozenset[tuple[str, str]]]:
    """Workload -> the keys of its primary, burst and fallback."""
    return {
        name: frozenset(place_key(c) for c in (each.primary, each.burst, each.fallback) if c is not None)
        for name, each in plan.placements.items()
    }


def with_current_sites(company: Company, sites: Mapping[str, str]) -> Company:
    """The company with its workloads running at these sites."""
    workloads = {
        name: replace(w, current_site=sites.get(name, w.current_site)) for name, w in company.workloads.items()
    }
    return replace(company, workloads=workloads)


def pin_candidates(company: Company, kept: Places, rule: str) -> CandidateSet:
    """The company's candidates; workloads in `kept` may take only these places, all others are forbidden by `rule`."""
    return CandidateSet(
        company,
        {
            name: tuple(
                c if name not in kept or place_key(c) in kept[name] or not c.is_allowed else replace(c, rules=(rule,))
                for c in candidates
            )
            for name, candidates in build_candidates(company).by_workload.items()
        },
    )


def plan_after_loss(
    plan: CompanyPlan, remaining: Company, lost_sites: Collection[str], limit: WorkLimit = DEFAULT_LIMIT
) -> tuple[CompanyPlan, int]:
    """The plan of the company without the lost sites, and how many workloads move although they used none of these:
    none where possible, else as few as possible. Raises `Conflict` where they cannot all be placed."""
    places = workload_places(plan)
    sites = {name: each.primary.site for name, each in plan.placements.items()}
    company = with_current_sites(remaining, sites)
    kept = {name: each for name, each in places.items() if not any(site in lost_sites for site, _ in each)}
    try:
        return plan_candidates(pin_candidates(company, kept, "only what ran at a lost site moves"), limit), 0
    except Conflict:
        low, high = -1, len(places)
        best = plan_company(company, limit)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            best, high = plan_company(replace(company, policy=replace(company.policy, max_moves=middle)), limit), middle
        except Conflict:
            low = middle
    moved = sum(name in kept and each.primary.site != sites[name] for name, each in best.placements.items())
    return best, moved
