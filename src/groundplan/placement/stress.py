"""The plan under sampled futures: other loads, other prices, outages of sites; its regret and its availability.

For each future every choice is priced again as it stands, and against the cheapest allowed candidate of each workload
in that future: since that ignores shared room and opening, the regret is an upper bound. The robust variant is the plan
for dearer days: loads and prices at their upper tenth. Deterministic by its seed; numbers are of numpy's PCG64.

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
from groundplan.placement.explain.words import usd
from groundplan.placement.planner import DEFAULT_LIMIT, CompanyPlan, WorkloadPlacement, plan_company, units_used
from groundplan.placement.pools import pool_use
from groundplan.placement.problem import PRIMARY, WorkLimit
from groundplan.placement.terms.candidates import Candidate
from groundplan.placement.terms.facts import Company
from groundplan.placement.whatif import Changes, changed, flips

FUTURES = 1000
LOAD_SPREAD = 0.4
PRICE_SPREAD = 0.18
UPPER = 1.28
"""Standard deviations of the upper tenth"""
VARIABLE = ("tokens", "egress", "carbon", "penalty", "compute", "storage")
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Spreads:
    """How far the futures differ."""

    futures: int = FUTURES
    load: float = LOAD_SPREAD
    price: float = PRICE_SPREAD
    seed: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Futures:
    """Sampled: [futures, workloads] loads, [futures, sites] prices and whether a site is there."""

    workloads: tuple[str, ...]
    sites: tuple[str, ...]
    load: Floats
    price: Floats
    up: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Stressed:
    """What the futures did to one plan."""

    usd: tuple[float, float, float, float]
    """mean, median, 95th percentile, worst; a month"""
    regret: tuple[float, float, float]
    """mean, 95th percentile, worst share above the cheapest of each future"""
    availability: Mapping[str, float]
    """by workload: futures in which its primary or its fallback was there"""
    missed: Mapping[str, float]
    """by workload: futures in which its hardware had no room for all that runs there, and it does not burst"""


def sample(company: Company, spreads: Spreads) -> Futures:
    """Futures of this company. Raises `Invalid` for absurd numbers."""
    if not 1 <= spreads.futures <= 100_000 or not 0 <= spreads.load <= 2 or not 0 <= spreads.price <= 2:
        raise Invalid(
            "futures or spreads are out of range",
            code="stress_range",
            hint="From 1 to 100,000 futures, spreads from 0 to 2.",
        )
    dice = np.random.default_rng(spreads.seed)
    workloads, sites = tuple(sorted(company.workloads)), tuple(sorted(company.sites))
    size = spreads.futures
    load = np.exp(dice.normal(-(spreads.load**2) / 2, spreads.load, (size, len(workloads))))
    price = np.exp(dice.normal(-(spreads.price**2) / 2, spreads.price, (size, len(sites))))
    there = np.array([company.sites[name].availability for name in sites])
    return Futures(workloads, sites, load, price, dice.random((size, len(sites))) < there)


def run(plan: CompanyPlan, futures: Futures) -> Stressed:
    """Every choice of a plan in every future."""
    paid, least = np.zeros(len(futures.load)), np.zeros(len(futures.load))
    availability, missed = {}, {}
    overfull = _overfull(plan, futures)
    for at, name in enumerate(futures.workloads):
        decided = plan.placements.get(name)
        if decided is None:
            continue
        load = futures.load[:, at]
        own = _decided(decided, futures, load)
        paid += own
        others = [
            _cost(c, futures, load)
            for c in plan.framed.candidates.by_workload[name]
            if c.is_allowed and np.isfinite(c.usd)
        ]
        least += np.minimum(np.min(others, axis=0), own)
        availability[name] = float(_there(decided, futures).mean())
        missed[name] = float(_full(decided, overfull, len(load)).mean())
    fixed = sum(plan.opened.values())
    total = paid + fixed
    regret = (paid - least) / np.maximum(least + fixed, 0.01)
    return Stressed(
        (float(total.mean()), float(np.median(total)), float(np.quantile(total, 0.95)), float(total.max())),
        (float(regret.mean()), float(np.quantile(regret, 0.95)), float(regret.max())),
        availability,
        missed,
    )


def _decided(decided: WorkloadPlacement, futures: Futures, load: Floats) -> Floats:
    """What a decision costs: terms that follow the load, and those that do not."""
    site = futures.sites.index(decided.primary.site)
    follows = sum(usd_ for term, usd_ in decided.terms.items() if term in VARIABLE)
    stays = sum(decided.terms.values()) - follows
    found: Floats = (follows * load + stays) * _priced(decided.primary, futures, site)
    return found


def _cost(candidate: Candidate, futures: Futures, load: Floats) -> Floats:
    site = futures.sites.index(candidate.site)
    follows = sum(usd_ for term, usd_ in candidate.terms.items() if term in VARIABLE)
    found: Floats = (follows * load + candidate.usd - follows) * _priced(candidate, futures, site)
    return found


def _priced(candidate: Candidate, futures: Futures, site: int) -> Floats:
    """People and own hardware do not follow the market."""
    paid = sum(candidate.terms.get(term, 0.0) for term in ("tokens", "egress"))
    share = paid / candidate.usd if candidate.usd else 0.0
    found: Floats = 1 + share * (futures.price[:, site] - 1)
    return found


def _there(decided: WorkloadPlacement, futures: Futures) -> NDArray[np.bool_]:
    up: NDArray[np.bool_] = futures.up[:, futures.sites.index(decided.primary.site)].copy()
    for other in (decided.fallback, decided.burst):
        if other is not None:
            up |= futures.up[:, futures.sites.index(other.site)]
    return up


def _overfull(plan: CompanyPlan, futures: Futures) -> dict[str, NDArray[np.bool_]]:
    """`SITE TYPE` -> futures in which the loads of all that run on it are more than its units; headroom is used up."""
    needed: dict[str, dict[str, Floats]] = {}
    for at, name in enumerate(futures.workloads):
        decided = plan.placements.get(name)
        if decided is None or decided.primary.hardware is None or decided.primary.lease:
            continue
        w, c = plan.company.workloads[name], decided.primary
        key, pool = f"{c.site} {c.hardware}", pool_of(plan.framed.pools, c)
        _, units = price_role(w, c, PRIMARY, decided.level)
        rows = {"": units * MILLI} if pool is None else pool_use(pool, w, c, BURST_LEVELS[decided.level])
        for row, thousandths in rows.items():
            used = thousandths / MILLI * (1 - plan.company.policy.headroom) * futures.load[:, at]
            each = needed.setdefault(key, {})
            each[row] = each.get(row, np.zeros(len(used))) + used
    room = units_used(plan)
    return {key: np.max(list(rows.values()), axis=0) > room.get(key, (0.0, np.inf))[1] for key, rows in needed.items()}


def _full(decided: WorkloadPlacement, overfull: Mapping[str, NDArray[np.bool_]], futures: int) -> NDArray[np.bool_]:
    """Futures in which its hardware has no room for all that runs there, and it has nothing to burst to."""
    found = overfull.get(f"{decided.primary.site} {decided.primary.hardware}")
    return np.zeros(futures, dtype=np.bool_) if found is None or decided.burst is not None else found


def robust(plan: CompanyPlan, spreads: Spreads, limit: WorkLimit = DEFAULT_LIMIT) -> CompanyPlan | None:
    """The plan for loads and prices at their upper tenth; None where there is no room for them."""
    load, price = (float(np.exp(UPPER * each - each**2 / 2)) for each in (spreads.load, spreads.price))
    company = plan.company
    prices = dict.fromkeys(company.deployments, price)
    harder = changed(company, Changes(demand={"all": load}, prices=prices))
    try:
        return plan_company(harder, limit)
    except Conflict:
        return None


def report(plan: CompanyPlan, spreads: Spreads, limit: WorkLimit = DEFAULT_LIMIT) -> dict[str, Any]:
    """The plan and its robust variant under the same futures, as JSON with sentences."""
    futures = sample(plan.company, spreads)
    ours = run(plan, futures)
    body: dict[str, Any] = {"futures": spreads.futures, "seed": spreads.seed, "plan": stressed_json(ours)}
    harder = robust(plan, spreads, limit)
    body["robust"] = None
    if harder is not None:
        body["robust"] = _robust_json(plan, harder, futures)
    body["words"] = words(plan, ours, body["robust"])
    return body


def _robust_json(plan: CompanyPlan, harder: CompanyPlan, futures: Futures) -> dict[str, Any]:
    """The decisions of the robust variant, priced at the loads of the plan."""
    kept = {}
    for name, each in harder.placements.items():
        candidates = plan.framed.candidates.by_workload.get(name, ())
        found = next((c for c in candidates if c.site == each.primary.site and _model(c) == _model(each.primary)), None)
        if found is not None:
            kept[name] = replace(plan.placements[name], primary=found, terms=dict(found.terms), burst=each.burst)
            if (plan.placements[name].primary.site, _model(plan.placements[name].primary)) == (
                found.site,
                _model(found),
            ):
                kept[name] = replace(plan.placements[name], burst=each.burst or plan.placements[name].burst)
    variant = replace(plan, placements={**plan.placements, **kept}, opened={**plan.opened, **harder.opened})
    stressed = run(variant, futures)
    price = sum(d.usd for d in variant.placements.values()) + sum(variant.opened.values())
    return {
        **stressed_json(stressed),
        "extra_usd_month": round(price - plan.usd, 2),
        "flips": [dict(each) for each in flips(plan, variant)],
    }


def _model(candidate: Candidate) -> str:
    return candidate.config.partition(" on ")[0]


def stressed_json(found: Stressed) -> dict[str, Any]:
    names: Sequence[str] = ("mean", "median", "p95", "worst")
    return {
        "usd_month": {name: round(value, 2) for name, value in zip(names, found.usd, strict=True)},
        "regret": dict(zip(("mean", "p95", "worst"), (round(value, 4) for value in found.regret), strict=True)),
        "availability": {name: round(value, 5) for name, value in sorted(found.availability.items())},
        "over_capacity": {name: round(value, 4) for name, value in sorted(found.missed.items())},
    }


def words(plan: CompanyPlan, found: Stressed, harder: Mapping[str, Any] | None) -> list[str]:
    """What the futures say, in sentences."""
    mean, _, high, worst = found.usd
    lines = [
        f"Under the sampled futures the plan costs {usd(mean)} a month on average, {usd(high)} in one of twenty, "
        f"{usd(worst)} at worst.",
        f"Whoever had known each future would have paid at most {100 * found.regret[0]:.1f}% less on average.",
    ]
    for name, share in sorted(found.availability.items()):
        aim = plan.company.workloads[name].availability
        if aim is not None and share < aim:
            lines.append(f"{name} is there in {100 * share:.2f}% of them, below its {100 * aim:g}%.")
    lines += [
        f"{n} finds no room on its hardware in {100 * s:.1f}%." for n, s in sorted(found.missed.items()) if s > 0.01
    ]
    if harder is None:
        return [*lines, "There is no room for loads and prices at their upper tenth: no robust variant exists."]
    if not harder["flips"]:
        return [*lines, "The robust variant is the same plan."]
    extra = harder["extra_usd_month"]
    return [*lines, f"The robust variant changes {len(harder['flips'])} decisions and costs {usd(extra)} a month more."]
