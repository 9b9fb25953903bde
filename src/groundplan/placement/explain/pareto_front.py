"""The Pareto front of placements in cost, latency, carbon and hours, sampled by changing the weights of the policy.

Each point is the company solved under other weights and then measured alike: USD a month at market prices, without the
company's own carbon price and its price of waiting. It is a sample of the front: other points may lie between.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from groundplan.core.errors import Conflict
from groundplan.placement.planner import DEFAULT_LIMIT, CompanyPlan, plan_company
from groundplan.placement.problem import WorkLimit

AXES = ("usd_month", "first_token_ms", "carbon_kg", "hours")
WEIGHTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("cost", {"carbon_usd_tonne": 0.0, "latency_usd": 0.0}),
    ("carbon", {"carbon_usd_tonne": 2000.0, "latency_usd": 0.0}),
    ("carbon first", {"carbon_usd_tonne": 50_000.0, "latency_usd": 0.0}),
    ("latency", {"carbon_usd_tonne": 0.0, "latency_usd": 5.0}),
    ("latency first", {"carbon_usd_tonne": 0.0, "latency_usd": 200.0}),
)
FEW_HOURS_FACTOR = 4.0
"""factor on the rate of people, for the plan that needs few hours"""

OWN_WEIGHTS = "your weights"
"""the name of the plan under the caller's own weights"""


def pareto_points(
    plan: CompanyPlan, limit: WorkLimit = DEFAULT_LIMIT, own_weights: Mapping[str, float] | None = None
) -> list[dict[str, Any]]:
    """The plan itself and the plans under other weights; `front` of each says whether another point dominates it.

    `own_weights`: further weights, by the names of the policy's fields; their plan is called "your weights".
    """
    points = [_point("the plan", plan, plan)]
    for name, other in _weighted_plans(plan, limit, own_weights or {}):
        point = _point(name, other, plan)
        same = next((p for p in points if all(abs(p[a] - point[a]) <= 0.005 * max(abs(p[a]), 1) for a in AXES)), None)
        if same is None:
            points.append(point)
        else:
            same["name"] = f"{same['name']}, {name}"
    for point in points:
        beaten = any(_dominates(other, point) for other in points)
        point["front"] = "dominated" if beaten else "on the front"
    return points


def _weighted_plans(
    plan: CompanyPlan, limit: WorkLimit, own_weights: Mapping[str, float]
) -> Iterator[tuple[str, CompanyPlan]]:
    company = plan.company
    more = [*WEIGHTS, ("few hours", {"people_usd": company.policy.people_usd * FEW_HOURS_FACTOR})]
    for name, weights in [*more, (OWN_WEIGHTS, dict(own_weights))] if own_weights else more:
        try:
            yield name, plan_company(replace(company, policy=replace(company.policy, **weights)), limit)
        except Conflict:
            continue


def _point(name: str, found: CompanyPlan, plan: CompanyPlan) -> dict[str, Any]:
    calls = {n: plan.company.workloads[n].calls_month for n in found.placements}
    total = sum(calls.values()) or 1.0
    priced = ("carbon", "penalty", "people")
    usd = sum(v for d in found.placements.values() for t, v in d.terms.items() if t not in priced) + found.rounding_usd
    policy, sites = plan.company.policy, plan.company.sites
    rate = policy.people_usd
    racks = sum(sites[s].rack_usd + sites[s].setup_usd / policy.payback_months for s in found.opened)
    return {
        "name": name,
        "usd_month": round(usd + racks + found.hours * rate, 2),
        "first_token_ms": round(
            sum(d.primary.times.first_token * calls[n] for n, d in found.placements.items()) / total, 1
        ),
        "carbon_kg": round(found.carbon_kg, 2),
        "hours": round(found.hours, 1),
        "moves": sorted(
            n
            for n, d in found.placements.items()
            if n in plan.placements and d.primary.site != plan.placements[n].primary.site
        ),
        "changes": {
            n: f"{d.primary.config} at {d.primary.site}"
            for n, d in sorted(found.placements.items())
            if n in plan.placements and d.primary.config != plan.placements[n].primary.config
        },
    }


def _dominates(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether `one` is at least as good on every axis, and better on some."""
    return all(one[a] <= other[a] + 1e-9 for a in AXES) and any(one[a] < other[a] - 1e-9 for a in AXES)
