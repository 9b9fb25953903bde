"""A company with its plan fixed: workloads keep the places that it gave them, also where a site is lost. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from groundplan.core.errors import Conflict
from groundplan.placement.planner import LIMIT, CompanyPlan, plan_company, plan_offered
from groundplan.placement.problem import WorkLimit
from groundplan.placement.terms.candidates import Candidate, Offered, offered
from groundplan.placement.terms.facts import Company

Places = Mapping[str, frozenset[tuple[str, str]]]


def place(candidate: Candidate) -> tuple[str, str]:
    """A configuration to build counts as the same whatever its number of units."""
    return candidate.site, candidate.config.partition(" on ")[0] + (candidate.hardware or "")


def places(plan: CompanyPlan) -> dict[str, frozenset[tuple[str, str]]]:
    """What each workload uses: its primary, its burst, its fallback."""
    return {
        name: frozenset(place(c) for c in (each.primary, each.burst, each.fallback) if c is not None)
        for name, each in plan.decided.items()
    }


def at(company: Company, sites: Mapping[str, str]) -> Company:
    """The company with its workloads running there."""
    workloads = {name: replace(w, today=sites.get(name, w.today)) for name, w in company.workloads.items()}
    return replace(company, workloads=workloads)


def pinned(company: Company, kept: Places, rule: str) -> Offered:
    """Its candidates, of which workloads in `kept` may take only what they use; the rule says why."""
    return Offered(
        company,
        {
            name: tuple(
                c if name not in kept or place(c) in kept[name] or not c.allowed else replace(c, rules=(rule,))
                for c in candidates
            )
            for name, candidates in offered(company).by_workload.items()
        },
    )


def after_loss(
    plan: CompanyPlan, left: Company, lost: Collection[str], limit: WorkLimit = LIMIT
) -> tuple[CompanyPlan, int]:
    """The plan of a company without the sites that are lost, and how many workloads move though they used none of
    them: none where that is possible, else the fewest. Raises `Conflict` where nothing places them all."""
    used = places(plan)
    sites = {name: each.primary.site for name, each in plan.decided.items()}
    company = at(left, sites)
    kept = {name: each for name, each in used.items() if not any(site in lost for site, _ in each)}
    try:
        return plan_offered(pinned(company, kept, "only what ran at a lost site moves"), limit), 0
    except Conflict:
        low, high = -1, len(used)
        best = plan_company(company, limit)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            best, high = plan_company(replace(company, policy=replace(company.policy, moves=middle)), limit), middle
        except Conflict:
            low = middle
    moved = sum(name in kept and each.primary.site != sites[name] for name, each in best.decided.items())
    return best, moved
