"""What the whole plan is worth: its proven gap, and its total against today, all-cloud, all-private and each alone.

Each comparison is the company solved again under that restriction; workloads that it leaves without a place are named,
and left out of both totals.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from groundplan.core.errors import Conflict
from groundplan.core.words import quantity
from groundplan.placement.explain.why import place_json
from groundplan.placement.explain.words import usd
from groundplan.placement.planner import DEFAULT_LIMIT, CompanyPlan, describe_proof, plan_candidates, units_used
from groundplan.placement.problem import WorkLimit
from groundplan.placement.terms.candidates import Candidate, CandidateSet

CENT = 0.01


@dataclass(frozen=True, slots=True)
class Compared:
    """Another way of placing the company."""

    name: str
    usd: float | None
    """a month; None: it cannot be placed so at all"""
    ours: float
    """what the plan costs for the same workloads"""
    without: tuple[str, ...]
    """workloads that have no place there"""


def compare(plan: CompanyPlan, limit: WorkLimit = DEFAULT_LIMIT) -> tuple[Compared, ...]:
    """Today, all-cloud, all-private, each alone."""
    sites = plan.company.sites
    return (
        _today(plan),
        _restricted(plan, "all cloud", lambda c: sites[c.site].type == "cloud", limit),
        _restricted(plan, "all private", lambda c: sites[c.site].type == "private", limit),
        _alone(plan),
    )


def _today(plan: CompanyPlan) -> Compared:
    """What runs today goes on at its site: the cheapest allowed there."""
    total, ours, without = 0.0, 0.0, []
    used: set[str] = set()
    mine: set[str] = set()
    for name, decided in plan.placements.items():
        today = plan.company.workloads[name].current_site
        there = [c for c in plan.framed.candidates.by_workload[name] if c.site == today and c.is_allowed]
        if not there:
            without.append(name)
            continue
        best = min(there, key=lambda c: (c.usd, c.config))
        total += best.usd
        ours += decided.usd
        used.add(best.site)
        mine |= {c.site for c in (decided.primary, decided.burst, decided.fallback) if c is not None}
    total += _opening(plan, used)
    return Compared("today", total if used else None, ours + _opening(plan, mine), tuple(without))


def _opening(plan: CompanyPlan, sites: set[str]) -> float:
    return sum(usd_ for name, usd_ in plan.opened.items() if name in sites)


def _restricted(plan: CompanyPlan, name: str, keep: Callable[[Candidate], bool], limit: WorkLimit) -> Compared:
    offers = plan.framed.candidates
    kept = {w: tuple(c for c in each if keep(c)) for w, each in offers.by_workload.items()}
    try:
        other = plan_candidates(CandidateSet(offers.company, kept), limit)
    except Conflict:
        return Compared(name, None, plan.usd, tuple(sorted(kept)))
    same = set(other.placements)
    without = tuple(sorted(set(plan.placements) - same))
    sites = {
        c.site
        for w in same
        for c in (plan.placements[w].primary, plan.placements[w].burst, plan.placements[w].fallback)
        if c is not None
    }
    ours = sum(plan.placements[w].usd for w in same) + _opening(plan, sites)
    return Compared(name, other.usd if same else None, ours, without)


def _alone(plan: CompanyPlan) -> Compared:
    """Each workload where it would be cheapest if it were the only one, its site opened for it alone."""
    total = 0.0
    for each in plan.framed.candidates.by_workload.values():
        costs = [c.usd + plan.opened.get(c.site, 0.0) for c in each if c.is_allowed]
        total += min(costs, default=0.0)
    return Compared("each alone", total, plan.usd, ())


def moves(plan: CompanyPlan) -> list[dict[str, Any]]:
    """What goes elsewhere than it runs today, with what moving costs and what staying would."""
    found = []
    for name, decided in plan.placements.items():
        today = plan.company.workloads[name].current_site
        if today is None or today == decided.primary.site:
            continue
        there = [c for c in plan.framed.candidates.by_workload[name] if c.site == today]
        allowed = [c for c in there if c.is_allowed]
        if allowed:
            stays = min(allowed, key=lambda c: c.usd)
            reason = f"staying would cost {usd(stays.usd - decided.usd)} a month more"
        else:
            reason = ", ".join(there[0].rules) if there else f"{today} is no longer there"
        found.append({"workload": name, "from": today, "to": decided.primary.site, "because": reason})
    return found


def whole_json(
    plan: CompanyPlan, compared: tuple[Compared, ...], among: frozenset[str] | None = None
) -> dict[str, Any]:
    """The plan as JSON, with the `workloads` that are among these, or all. Money is USD a month."""
    there = Counter(each.primary.site for each in plan.placements.values())
    terms: dict[str, float] = {}
    for decided in plan.placements.values():
        for term, value in decided.terms.items():
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
                "workloads": there[site.name],
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
        "to_build": to_build(plan),
        "compared": [
            {
                "with": each.name,
                "usd_month": None if each.usd is None else round(each.usd, 2),
                "plan_usd_month": round(each.ours, 2),
                "without": list(each.without),
            }
            for each in compared
        ],
        "moves": moves(plan),
        "notes": list(plan.notes),
        "words": list(summary(plan, compared)),
    }  # fmt: skip


def to_build(plan: CompanyPlan) -> list[dict[str, Any]]:
    """What the plan takes that no document declares yet."""
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


def summary(plan: CompanyPlan, compared: tuple[Compared, ...]) -> list[str]:
    """The plan in sentences."""
    workloads, sites = quantity(len(plan.placements), "workload"), quantity(len(plan.opened), "site")
    lines = [
        f"{workloads} at {sites} for {usd(plan.usd)} a month, {usd(sum(plan.opened.values()))} of it for the sites"
        f" themselves, {describe_proof(plan)}."
    ]
    for each in compared:
        lines.append(_versus(each))
    lines += [f"{name} cannot be placed: {why}." for name, why in plan.unplaceable.items()]
    lines += [f"{m['workload']} moves from {m['from']} to {m['to']}: {m['because']}." for m in moves(plan)]
    lines += [f"{name}: {units} to rent." for name, units in plan.bought.items()]
    lines += [
        f"Sign {each.units:g} {each.type} at {each.site} for {each.months:.0f} months, {usd(each.usd)} a month."
        if each.months
        else f"Peaks at different hours share {each.units:.3g} {each.type} at {each.site}."
        for _, each in sorted(plan.shared_hardware.items())
    ]
    lines += [f"{name} moves to its new place at once: {why}." for name, why in sorted(plan.immediate_moves.items())]
    for name, decided in sorted(plan.placements.items()):
        budget, tokens = plan.company.workloads[name].budget_usd, decided.terms.get("tokens", 0.0)
        if budget is not None and tokens > budget:
            lines.append(f"{name} will use {usd(tokens)} of tokens a month, more than its budget of {usd(budget)}.")
    return lines


def _versus(each: Compared) -> str:
    if each.usd is None:
        told = "nothing runs yet" if each.name == "today" else "not possible, the workloads do not fit there together"
        return f"{each.name.capitalize()}: {told}."
    saved = each.usd - each.ours
    left = f", without the {quantity(len(each.without), 'workload')} that have no place in it" if each.without else ""
    if abs(saved) < CENT / 2:
        return f"The plan costs as much as {each.name} ({usd(each.usd)} a month{left})."
    more = f"{usd(abs(saved))} {'less' if saved > 0 else 'more'} than"
    return f"The plan costs {more} {each.name} ({usd(each.usd)} a month{left})."


def excluded_matrix(
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
