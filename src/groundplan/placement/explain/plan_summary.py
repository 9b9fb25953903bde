"""A summary of the plan: its proven gap, and its total against today, all-cloud, all-private and each workload alone.

Each comparison is the company solved again under that restriction; workloads that it cannot place are named, and left
out of both totals.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from groundplan.core.errors import Conflict
from groundplan.core.words import quantity
from groundplan.placement.explain.why import place_json
from groundplan.placement.explain.words import format_usd
from groundplan.placement.planner import DEFAULT_LIMIT, CompanyPlan, describe_proof, plan_candidates, units_used
from groundplan.placement.problem import WorkLimit
from groundplan.placement.terms.candidates import Candidate, CandidateSet

CENT = 0.01


@dataclass(frozen=True, slots=True)
class Comparison:
    """Another way of placing the company, compared with the plan."""

    name: str
    usd: float | None
    """a month; None: no workload can be placed in this way"""
    plan_usd: float
    """USD a month of the plan for the same workloads"""
    unplaced: tuple[str, ...]
    """workloads without a place in this comparison"""


def compare(plan: CompanyPlan, limit: WorkLimit = DEFAULT_LIMIT) -> tuple[Comparison, ...]:
    """The comparisons with today, all-cloud, all-private and each alone."""
    sites = plan.company.sites
    return (
        _compare_today(plan),
        _compare_restricted(plan, "all cloud", lambda c: sites[c.site].type == "cloud", limit),
        _compare_restricted(plan, "all private", lambda c: sites[c.site].type == "private", limit),
        _compare_each_alone(plan),
    )


def _compare_today(plan: CompanyPlan) -> Comparison:
    """Every workload stays at its present site, on the cheapest candidate allowed there."""
    total, plan_usd, unplaced = 0.0, 0.0, []
    sites: set[str] = set()
    plan_sites: set[str] = set()
    for name, placement in plan.placements.items():
        today = plan.company.workloads[name].current_site
        at_site = [c for c in plan.framed.candidates.by_workload[name] if c.site == today and c.is_allowed]
        if not at_site:
            unplaced.append(name)
            continue
        best = min(at_site, key=lambda c: (c.usd, c.config))
        total += best.usd
        plan_usd += placement.usd
        sites.add(best.site)
        plan_sites |= {c.site for c in (placement.primary, placement.burst, placement.fallback) if c is not None}
    total += _opening_usd(plan, sites)
    return Comparison("today", total if sites else None, plan_usd + _opening_usd(plan, plan_sites), tuple(unplaced))


def _opening_usd(plan: CompanyPlan, sites: set[str]) -> float:
    return sum(cost for name, cost in plan.opened.items() if name in sites)


def _compare_restricted(
    plan: CompanyPlan, name: str, keep: Callable[[Candidate], bool], limit: WorkLimit
) -> Comparison:
    offers = plan.framed.candidates
    kept = {w: tuple(c for c in each if keep(c)) for w, each in offers.by_workload.items()}
    try:
        other = plan_candidates(CandidateSet(offers.company, kept), limit)
    except Conflict:
        return Comparison(name, None, plan.usd, tuple(sorted(kept)))
    placed = set(other.placements)
    unplaced = tuple(sorted(set(plan.placements) - placed))
    sites = {
        c.site
        for w in placed
        for c in (plan.placements[w].primary, plan.placements[w].burst, plan.placements[w].fallback)
        if c is not None
    }
    plan_usd = sum(plan.placements[w].usd for w in placed) + _opening_usd(plan, sites)
    return Comparison(name, other.usd if placed else None, plan_usd, unplaced)


def _compare_each_alone(plan: CompanyPlan) -> Comparison:
    """Each workload where it would be cheapest if it were the only one, its site opened for it alone."""
    total = 0.0
    for each in plan.framed.candidates.by_workload.values():
        costs = [c.usd + plan.opened.get(c.site, 0.0) for c in each if c.is_allowed]
        total += min(costs, default=0.0)
    return Comparison("each alone", total, plan.usd, ())


def find_moves(plan: CompanyPlan) -> list[dict[str, Any]]:
    """Workloads whose site changes, with the reason: what staying would cost, or the rules against it."""
    found = []
    for name, placement in plan.placements.items():
        today = plan.company.workloads[name].current_site
        if today is None or today == placement.primary.site:
            continue
        at_site = [c for c in plan.framed.candidates.by_workload[name] if c.site == today]
        allowed = [c for c in at_site if c.is_allowed]
        if allowed:
            stays = min(allowed, key=lambda c: c.usd)
            reason = f"staying would cost {format_usd(stays.usd - placement.usd)} a month more"
        else:
            reason = ", ".join(at_site[0].rules) if at_site else f"{today} is no longer there"
        found.append({"workload": name, "from": today, "to": placement.primary.site, "because": reason})
    return found


def summary_json(
    plan: CompanyPlan, compared: tuple[Comparison, ...], among: frozenset[str] | None = None
) -> dict[str, Any]:
    """The plan as JSON, with the `workloads` that are among these, or all. Money is USD a month."""
    at_site = Counter(each.primary.site for each in plan.placements.values())
    terms: dict[str, float] = {}
    for placement in plan.placements.values():
        for term, value in placement.terms.items():
            terms[term] = terms.get(term, 0.0) + value
    return {
        "usd_month": round(plan.usd, 2),
        "gap": plan.gap,
        "proof": plan.solution.certificate.proof,
        "proven": describe_proof(plan),
        "stopped": plan.solution.stop_reason,
        "verified": True,
        "terms": {**{k: round(v, 2) for k, v in sorted(terms.items())}, "sites": round(sum(plan.opened.values()), 2)},
        "carbon_kg": round(plan.carbon_kg, 2),
        "hours": round(plan.hours, 1),
        "workloads": [
            {
                "workload": name,
                "usd_month": round(each.usd, 2),
                "place": place_json(each),
                "terms": {term: round(value, 2) for term, value in sorted(each.terms.items())},
            }
            for name, each in sorted(plan.placements.items())
            if among is None or name in among
        ],
        "homeless": dict(plan.unplaceable),
        "sites": [
            {
                "site": site.name, "type": site.type, "jurisdiction": site.jurisdiction, "domain": site.domain,
                "opening_usd_month": round(plan.opened.get(site.name, 0.0), 2), "open": site.name in plan.opened,
                "workloads": at_site[site.name],
            }
            for _, site in sorted(plan.company.sites.items())
        ],
        "units": {name: {"used": round(u, 3), "room": round(room, 3)} for name, (u, room) in units_used(plan).items()},
        "to_buy": plan.bought,
        "to_sign": [
            {"pool": name, "units": each.units, "months": round(each.months, 1), "usd_month": round(each.usd, 2)}
            for name, each in sorted(plan.shared_hardware.items())
            if each.months
        ],
        "held": [
            {"pool": name, "units": round(each.units, 3), "usd_month": round(each.usd, 2)}
            for name, each in sorted(plan.shared_hardware.items())
            if not each.months
        ],
        "at_once": dict(plan.immediate_moves),
        "to_build": places_to_build(plan),
        "compared": [
            {
                "with": each.name,
                "usd_month": None if each.usd is None else round(each.usd, 2),
                "plan_usd_month": round(each.plan_usd, 2),
                "without": list(each.unplaced),
            }
            for each in compared
        ],
        "moves": find_moves(plan),
        "notes": list(plan.notes),
        "words": list(summary_sentences(plan, compared)),
    }  # fmt: skip


def places_to_build(plan: CompanyPlan) -> list[dict[str, Any]]:
    """Places that the plan uses and that no document declares yet."""
    return [
        {
            "workload": name,
            "site": each.primary.site,
            "config": each.primary.config,
            "model": each.primary.model,
            "usd_month": round(each.usd, 2),
        }
        for name, each in sorted(plan.placements.items())
        if each.primary.kind == "build"
    ]


def summary_sentences(plan: CompanyPlan, compared: tuple[Comparison, ...]) -> list[str]:
    """The plan in sentences."""
    workloads, sites = quantity(len(plan.placements), "workload"), quantity(len(plan.opened), "site")
    lines = [
        f"{workloads} at {sites} for {format_usd(plan.usd)} a month, {format_usd(sum(plan.opened.values()))} of it for "
        f"the sites themselves, {describe_proof(plan)}."
    ]
    for each in compared:
        lines.append(_comparison_sentence(each))
    lines += [f"{name} cannot be placed: {why}." for name, why in plan.unplaceable.items()]
    lines += [f"{m['workload']} moves from {m['from']} to {m['to']}: {m['because']}." for m in find_moves(plan)]
    lines += [f"{name}: {units} to rent." for name, units in plan.bought.items()]
    lines += [
        f"Sign {each.units:g} {each.type} at {each.site} for {each.months:.0f} months, {format_usd(each.usd)} a month."
        if each.months
        else f"Peaks at different hours share {each.units:.3g} {each.type} at {each.site}."
        for _, each in sorted(plan.shared_hardware.items())
    ]
    lines += [f"{name} moves to its new place at once: {why}." for name, why in sorted(plan.immediate_moves.items())]
    for name, placement in sorted(plan.placements.items()):
        budget, tokens = plan.company.workloads[name].budget_usd, placement.terms.get("tokens", 0.0)
        if budget is not None and tokens > budget:
            lines.append(
                f"{name} will use {format_usd(tokens)} of tokens a month, more than its budget of {format_usd(budget)}."
            )
    return lines


def _comparison_sentence(each: Comparison) -> str:
    if each.usd is None:
        reason = "nothing runs yet" if each.name == "today" else "not possible, the workloads do not fit there together"
        return f"{each.name.capitalize()}: {reason}."
    saved = each.usd - each.plan_usd
    omitted = (
        f", without the {quantity(len(each.unplaced), 'workload')} that have no place in it" if each.unplaced else ""
    )
    if abs(saved) < CENT / 2:
        return f"The plan costs as much as {each.name} ({format_usd(each.usd)} a month{omitted})."
    amount = f"{format_usd(abs(saved))} {'less' if saved > 0 else 'more'} than"
    return f"The plan costs {amount} {each.name} ({format_usd(each.usd)} a month{omitted})."


def exclusion_matrix(
    plan: CompanyPlan, names: Collection[str] | None = None
) -> Mapping[str, Mapping[str, tuple[str, ...]]]:
    """workload -> site -> rules of the best candidate there; empty rules: it may run there. Sites without any
    candidate say so."""
    found: dict[str, dict[str, tuple[str, ...]]] = {}
    offers = plan.framed.candidates.by_workload
    for name in sorted(offers if names is None else names):
        candidates = offers[name]
        row: dict[str, tuple[str, ...]] = {}
        for each in candidates:
            if each.site not in row or len(each.rules) < len(row[each.site]):
                row[each.site] = each.rules
        found[name] = {site: row.get(site, ("nothing is served there",)) for site in sorted(plan.company.sites)}
    return found
