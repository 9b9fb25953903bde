"""The coming months: growth, few moves, what fills up, and commitments that are the cheapest cover."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit import placement_rig as rig

from groundplan.core.errors import Invalid
from groundplan.placement import multi_period
from groundplan.placement.commit import plan_commitments
from groundplan.placement.fixed_plan import with_current_sites
from groundplan.placement.planner import DEFAULT_LIMIT, plan_company
from groundplan.placement.terms.facts import Company, PolicyFacts


def growing(growth: float, calls: float = 1.5e5, **changes: Any) -> Company:
    w = rig.workload("w", calls_month=calls, growth=growth, burst=False, move_hours=4.0, current_site="cloud")
    return replace(rig.company(w, deployments={"gpt": rig.deployment("gpt", "cloud", 1.0)}), **changes)


def test_without_growth_everything_stays() -> None:
    found = multi_period.plan_ahead(plan_company(growing(0.0)))
    assert [p.moved for p in found.periods] == [()] * 4 and found.months_covered == 12
    assert found.usd == pytest.approx(12 * found.periods[0].plan.usd) and found.today_usd == pytest.approx(found.usd)


def test_a_growing_workload_moves_once_to_where_it_is_cheaper() -> None:
    plan = plan_company(growing(0.35))
    assert plan.placements["w"].primary.site == "cloud"
    found = multi_period.plan_ahead(plan)
    sites = [p.plan.placements["w"].primary.site for p in found.periods]
    assert sites[-1] == "rack" and sum(len(p.moved) for p in found.periods) == 1
    assert found.today_usd is not None and found.usd <= found.today_usd
    body = multi_period.to_json(found)
    assert body["periods"][0]["from"] == 0 and body["periods"][-1]["to"] == 12
    assert any("moves from cloud to rack" in line for line in body["words"])


def test_no_way_through_the_plans_is_cheaper() -> None:
    """Every sequence of the plans in force is priced again by hand."""
    plan = plan_company(growing(0.35))
    found = multi_period.plan_ahead(plan, 9, 3)
    loads = [multi_period.with_growth(plan.company, month) for month in (3, 6, 9)]
    rivals = {site: plan_company(with_current_sites(loads[-1], {"w": site})) for site in ("cloud", "rack")}
    rivals |= {f"now at {p.placements['w'].primary.site}": p for p in (plan,)}
    least = float("inf")
    for ways in product(rivals.values(), repeat=3):
        total, before = 0.0, plan.placements["w"].primary.site
        for load, way in zip(loads, ways, strict=True):
            held = multi_period._plan_with_places(way, load, DEFAULT_LIMIT)
            if held is None:
                total = float("inf")
                break
            site = way.placements["w"].primary.site
            total += 3 * held.usd + (4.0 * plan.company.policy.people_usd if site != before else 0.0)
            before = site
        least = min(least, total)
    assert found.usd <= least + 0.01


def test_what_fills_up_and_what_breaks_is_told() -> None:
    company = growing(0.06, 5e6, deployments={})
    one = replace(company.sites["rack"], hardware=(rig.hardware(count=1),))
    found = multi_period.plan_ahead(plan_company(replace(company, sites={"rack": one})), 24, 3)
    assert found.infeasible_from is not None and found.periods[-1].last == found.infeasible_from[0] < 24
    assert any("nothing fits any more" in line for line in multi_period.describe(found))
    assert any(multi_period.nearly_full_hardware(p.plan) for p in found.periods)


def test_one_plan_moves_no_more_than_the_policy_says() -> None:
    many = {
        f"w{n}": rig.workload(f"w{n}", calls_month=4e5, growth=0.35, burst=False, move_hours=1.0, current_site="cloud")
        for n in range(3)
    }
    facts = replace(growing(0.0), workloads=many, policy=PolicyFacts(max_moves=1))
    found = multi_period.plan_ahead(plan_company(facts))
    assert all(len(p.moved) <= 1 for p in found.periods) and any(p.moved for p in found.periods)


@pytest.mark.parametrize(("months", "step"), [(0, 1), (12, 5), (48, 12), (3, 6)])
def test_an_absurd_horizon_is_refused(months: int, step: int) -> None:
    with pytest.raises(Invalid, match="cannot be planned"):
        multi_period.plan_ahead(plan_company(growing(0.0)), months, step)


@given(st.lists(st.integers(0, 2), min_size=1, max_size=4), st.floats(0.3, 0.99), st.floats(0.3, 0.99))
@settings(max_examples=40, deadline=None)
def test_commitments_are_the_cheapest_cover(needed: list[int], two: float, three: float) -> None:
    terms = [(2.0, 100 * two), (3.0, 100 * three)]
    found = plan_commitments(needed, 100.0, terms)
    starts = [(at, length, price) for length, price in ((2, 100 * two), (3, 100 * three)) for at in range(len(needed))]
    least = float("inf")
    for units in product(range(max(needed) + 1), repeat=len(starts)):
        paid = sum(n * length * price for n, (_, length, price) in zip(units, starts, strict=True))
        for month, count in enumerate(needed):
            active = sum(n for n, (s, length, _) in zip(units, starts, strict=True) if s <= month < s + length)
            paid += 100.0 * max(0, count - active)
        least = min(least, paid)
    assert found.usd == pytest.approx(least, rel=1e-9) if max(needed) else found.usd == 0
    paid = sum(s.units * s.term * s.price for s in found.commitments)
    for month, count in enumerate(needed):
        paid += 100.0 * max(0, count - sum(s.units for s in found.commitments if s.month <= month < s.month + s.term))
    assert paid == pytest.approx(found.usd)


def test_a_committed_base_is_found_under_hours_that_follow_the_week() -> None:
    from tests.unit.test_placement_over_time import busy, rented  # noqa: PLC0415 -- the same company as there

    site = rented(on_demand=4.0, terms=((12.0, 2.6),))
    w = replace(busy(calls=2e8), peak=2.0, curve=tuple(2.0 if 8 <= h % 24 < 18 else 0.28 for h in range(168)))
    plan = plan_company(rig.company(w, sites={"cloud": site}, deployments={}))
    found = multi_period.plan_ahead(plan)
    cover = found.commitments["cloud h100-sxm"]
    assert cover.commitments and cover.commitments[0].term == 12 and cover.usd < cover.on_demand_usd
    assert any("Sign" in line for line in multi_period.describe(found))
