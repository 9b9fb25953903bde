"""The plan under sampled futures: other loads, other prices, outages of sites; its regret and its availability.

In each future every placement is priced again, and compared with the cheapest allowed candidate of its workload in that
future: since that ignores shared capacity and opening costs, the regret is an upper bound. The robust variant is the
plan for loads and prices at their upper tenth. Deterministic by its seed; random numbers are of numpy's PCG64.

Loads and prices are lognormal: a load varies by 50 % (one standard deviation of the logarithm 0.4) and the prices of a
site together by 20 % (0.18), unless said otherwise. A site is out in a share 1 - availability of the futures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundplan.core.errors import Conflict, Invalid
from groundplan.placement.company import BURST_LEVELS, MILLI, pool_of, price_role
from groundplan.placement.explain.words import format_usd
from groundplan.placement.planner import DEFAULT_LIMIT, CompanyPlan, WorkloadPlacement, plan_company, units_used
from groundplan.placement.pools import pool_use
from groundplan.placement.problem import PRIMARY, WorkLimit
from groundplan.placement.terms.candidates import Candidate
from groundplan.placement.terms.facts import Company
from groundplan.placement.whatif import Changes, apply_changes, find_flips

FUTURES = 1000
LOAD_SPREAD = 0.4
PRICE_SPREAD = 0.18
UPPER_TENTH = 1.28
"""standard deviations above the mean of a normal variable's upper tenth"""
LOAD_DEPENDENT_TERMS = ("tokens", "egress", "carbon", "penalty", "compute", "storage")
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Spreads:
    """How many futures to sample, and the standard deviations of the logarithms of loads and prices."""

    futures: int = FUTURES
    load: float = LOAD_SPREAD
    price: float = PRICE_SPREAD
    seed: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Futures:
    """Sampled factors: [futures, workloads] on loads, [futures, sites] on prices, and whether each site is up."""

    workloads: tuple[str, ...]
    sites: tuple[str, ...]
    load: Floats
    price: Floats
    is_up: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class StressResult:
    """One plan under all futures."""

    usd: tuple[float, float, float, float]
    """mean, median, 95th percentile, worst; a month"""
    regret: tuple[float, float, float]
    """mean, 95th percentile, worst share above the cheapest of each future"""
    availability: Mapping[str, float]
    """by workload: share of futures in which its primary, burst or fallback is up"""
    missed: Mapping[str, float]
    """by workload: share of futures in which its hardware is too small for what runs there, and it does not burst"""


def sample_futures(company: Company, spreads: Spreads) -> Futures:
    """Sample futures of a company. Raises `Invalid` (`stress_range`) for numbers out of range."""
    if not 1 <= spreads.futures <= 100_000 or not 0 <= spreads.load <= 2 or not 0 <= spreads.price <= 2:
        raise Invalid(
            "futures or spreads are out of range",
            code="stress_range",
            hint="From 1 to 100,000 futures, spreads from 0 to 2.",
        )
    rng = np.random.default_rng(spreads.seed)
    workloads, sites = tuple(sorted(company.workloads)), tuple(sorted(company.sites))
    size = spreads.futures
    load = np.exp(rng.normal(-(spreads.load**2) / 2, spreads.load, (size, len(workloads))))
    price = np.exp(rng.normal(-(spreads.price**2) / 2, spreads.price, (size, len(sites))))
    there = np.array([company.sites[name].availability for name in sites])
    return Futures(workloads, sites, load, price, rng.random((size, len(sites))) < there)


def evaluate(plan: CompanyPlan, futures: Futures) -> StressResult:
    """Price every placement of a plan in every future."""
    paid, least = np.zeros(len(futures.load)), np.zeros(len(futures.load))
    availability, missed = {}, {}
    overfull = _overfull_hardware(plan, futures)
    for at, name in enumerate(futures.workloads):
        placement = plan.placements.get(name)
        if placement is None:
            continue
        load = futures.load[:, at]
        own = _placement_cost(placement, futures, load)
        paid += own
        others = [
            _candidate_cost(c, futures, load)
            for c in plan.framed.candidates.by_workload[name]
            if c.is_allowed and np.isfinite(c.usd)
        ]
        least += np.minimum(np.min(others, axis=0), own)
        availability[name] = float(_is_available(placement, futures).mean())
        missed[name] = float(_lacks_room(placement, overfull, len(load)).mean())
    fixed = sum(plan.opened.values())
    total = paid + fixed
    regret = (paid - least) / np.maximum(least + fixed, 0.01)
    return StressResult(
        (float(total.mean()), float(np.median(total)), float(np.quantile(total, 0.95)), float(total.max())),
        (float(regret.mean()), float(np.quantile(regret, 0.95)), float(regret.max())),
        availability,
        missed,
    )


def _placement_cost(placement: WorkloadPlacement, futures: Futures, load: Floats) -> Floats:
    """[futures] the cost of a placement: terms that follow the load, and those that do not."""
    site = futures.sites.index(placement.primary.site)
    variable = sum(cost for term, cost in placement.terms.items() if term in LOAD_DEPENDENT_TERMS)
    fixed = sum(placement.terms.values()) - variable
    found: Floats = (variable * load + fixed) * _price_factor(placement.primary, futures, site)
    return found


def _candidate_cost(candidate: Candidate, futures: Futures, load: Floats) -> Floats:
    site = futures.sites.index(candidate.site)
    variable = sum(cost for term, cost in candidate.terms.items() if term in LOAD_DEPENDENT_TERMS)
    found: Floats = (variable * load + candidate.usd - variable) * _price_factor(candidate, futures, site)
    return found


def _price_factor(candidate: Candidate, futures: Futures, site: int) -> Floats:
    """[futures] the factor on a candidate's cost: only tokens and egress follow the market."""
    paid = sum(candidate.terms.get(term, 0.0) for term in ("tokens", "egress"))
    share = paid / candidate.usd if candidate.usd else 0.0
    found: Floats = 1 + share * (futures.price[:, site] - 1)
    return found


def _is_available(placement: WorkloadPlacement, futures: Futures) -> NDArray[np.bool_]:
    up: NDArray[np.bool_] = futures.is_up[:, futures.sites.index(placement.primary.site)].copy()
    for other in (placement.fallback, placement.burst):
        if other is not None:
            up |= futures.is_up[:, futures.sites.index(other.site)]
    return up


def _overfull_hardware(plan: CompanyPlan, futures: Futures) -> dict[str, NDArray[np.bool_]]:
    """`SITE TYPE` -> [futures] whether the loads of all that run on it exceed its units, with the headroom used up."""
    needed: dict[str, dict[str, Floats]] = {}
    for at, name in enumerate(futures.workloads):
        placement = plan.placements.get(name)
        if placement is None or placement.primary.hardware is None or placement.primary.lease:
            continue
        w, c = plan.company.workloads[name], placement.primary
        key, pool = f"{c.site} {c.hardware}", pool_of(plan.framed.pools, c)
        _, units = price_role(w, c, PRIMARY, placement.level)
        rows = {"": units * MILLI} if pool is None else pool_use(pool, w, c, BURST_LEVELS[placement.level])
        for row, thousandths in rows.items():
            used = thousandths / MILLI * (1 - plan.company.policy.headroom) * futures.load[:, at]
            each = needed.setdefault(key, {})
            each[row] = each.get(row, np.zeros(len(used))) + used
    room = units_used(plan)
    return {key: np.max(list(rows.values()), axis=0) > room.get(key, (0.0, np.inf))[1] for key, rows in needed.items()}


def _lacks_room(
    placement: WorkloadPlacement, overfull: Mapping[str, NDArray[np.bool_]], futures: int
) -> NDArray[np.bool_]:
    """[futures] whether its hardware is too small for all that runs there, and the workload does not burst."""
    found = overfull.get(f"{placement.primary.site} {placement.primary.hardware}")
    return np.zeros(futures, dtype=np.bool_) if found is None or placement.burst is not None else found


def robust_plan(plan: CompanyPlan, spreads: Spreads, limit: WorkLimit = DEFAULT_LIMIT) -> CompanyPlan | None:
    """The plan for loads and prices at their upper tenth; None where these cannot be placed."""
    load, price = (float(np.exp(UPPER_TENTH * each - each**2 / 2)) for each in (spreads.load, spreads.price))
    company = plan.company
    prices = dict.fromkeys(company.deployments, price)
    harder_company = apply_changes(company, Changes(demand={"all": load}, prices=prices))
    try:
        return plan_company(harder_company, limit)
    except Conflict:
        return None


def report(plan: CompanyPlan, spreads: Spreads, limit: WorkLimit = DEFAULT_LIMIT) -> dict[str, Any]:
    """The plan and its robust variant under the same futures, as JSON with sentences."""
    futures = sample_futures(plan.company, spreads)
    result = evaluate(plan, futures)
    body: dict[str, Any] = {"futures": spreads.futures, "seed": spreads.seed, "plan": to_json(result)}
    robust = robust_plan(plan, spreads, limit)
    body["robust"] = None
    if robust is not None:
        body["robust"] = _robust_json(plan, robust, futures)
    body["words"] = describe(plan, result, body["robust"])
    return body


def _robust_json(plan: CompanyPlan, robust: CompanyPlan, futures: Futures) -> dict[str, Any]:
    """The placements of the robust variant, priced at the loads of the plan."""
    kept = {}
    for name, each in robust.placements.items():
        candidates = plan.framed.candidates.by_workload.get(name, ())
        found = next(
            (c for c in candidates if c.site == each.primary.site and _model_name(c) == _model_name(each.primary)), None
        )
        if found is not None:
            kept[name] = replace(plan.placements[name], primary=found, terms=dict(found.terms), burst=each.burst)
            if (plan.placements[name].primary.site, _model_name(plan.placements[name].primary)) == (
                found.site,
                _model_name(found),
            ):
                kept[name] = replace(plan.placements[name], burst=each.burst or plan.placements[name].burst)
    variant = replace(plan, placements={**plan.placements, **kept}, opened={**plan.opened, **robust.opened})
    stressed = evaluate(variant, futures)
    price = sum(d.usd for d in variant.placements.values()) + sum(variant.opened.values())
    return {
        **to_json(stressed),
        "extra_usd_month": round(price - plan.usd, 2),
        "flips": [dict(each) for each in find_flips(plan, variant)],
    }


def _model_name(candidate: Candidate) -> str:
    return candidate.config.partition(" on ")[0]


def to_json(found: StressResult) -> dict[str, Any]:
    names: Sequence[str] = ("mean", "median", "p95", "worst")
    return {
        "usd_month": {name: round(value, 2) for name, value in zip(names, found.usd, strict=True)},
        "regret": dict(zip(("mean", "p95", "worst"), (round(value, 4) for value in found.regret), strict=True)),
        "availability": {name: round(value, 5) for name, value in sorted(found.availability.items())},
        "over_capacity": {name: round(value, 4) for name, value in sorted(found.missed.items())},
    }


def describe(plan: CompanyPlan, found: StressResult, robust: Mapping[str, Any] | None) -> list[str]:
    """The result in sentences."""
    mean, _, high, worst = found.usd
    lines = [
        f"Under the sampled futures the plan costs {format_usd(mean)} a month on average, {format_usd(high)} in one of "
        f"twenty, {format_usd(worst)} at worst.",
        f"Whoever had known each future would have paid at most {100 * found.regret[0]:.1f}% less on average.",
    ]
    for name, share in sorted(found.availability.items()):
        aim = plan.company.workloads[name].availability
        if aim is not None and share < aim:
            lines.append(f"{name} is there in {100 * share:.2f}% of them, below its {100 * aim:g}%.")
    lines += [
        f"{n} finds no room on its hardware in {100 * s:.1f}%." for n, s in sorted(found.missed.items()) if s > 0.01
    ]
    if robust is None:
        return [*lines, "There is no room for loads and prices at their upper tenth: no robust variant exists."]
    if not robust["flips"]:
        return [*lines, "The robust variant is the same plan."]
    extra = robust["extra_usd_month"]
    return [
        *lines,
        f"The robust variant changes {len(robust['flips'])} decisions and costs {format_usd(extra)} a month more.",
    ]
