"""A company with its plan fixed: workloads keep the places that it gave them, also where a site is lost. Pure."""

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
    """What each workload uses: its primary, its burst, its fallback."""
    return {
        name: frozenset(place_key(c) for c in (each.primary, each.burst, each.fallback) if c is not None)
        for name, each in plan.placements.items()
    }


def with_current_sites(company: Company, sites: Mapping[str, str]) -> Company:
    """The company with its workloads running there."""
    workloads = {
        name: replace(w, current_site=sites.get(name, w.current_site)) for name, w in company.workloads.items()
    }
    return replace(company, workloads=workloads)


def pin_candidates(company: Company, kept: Places, rule: str) -> CandidateSet:
    """Its candidates, of which workloads in `kept` may take only what they use; the rule says why."""
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


def after_loss(
    plan: CompanyPlan, left: Company, lost: Collection[str], limit: WorkLimit = DEFAULT_LIMIT
) -> tuple[CompanyPlan, int]:
    """The plan of a company without the sites that are lost, and how many workloads move though they used none of
    them: none where that is possible, else the fewest. Raises `Conflict` where nothing places them all."""
    used = workload_places(plan)
    sites = {name: each.primary.site for name, each in plan.placements.items()}
    company = with_current_sites(left, sites)
    kept = {name: each for name, each in used.items() if not any(site in lost for site, _ in each)}
    try:
        return plan_candidates(pin_candidates(company, kept, "only what ran at a lost site moves"), limit), 0
    except Conflict:
        low, high = -1, len(used)
        best = plan_company(company, limit)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            best, high = plan_company(replace(company, policy=replace(company.policy, max_moves=middle)), limit), middle
        except Conflict:
            low = middle
    moved = sum(name in kept and each.primary.site != sites[name] for name, each in best.placements.items())
    return best, moved
