"""Own units that can be extended by rented ones of their type are one pool: own first, and beyond them as many as the
fullest hour takes; judged a second time, and each kind of wrong plan is caught."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import ceil
from typing import Any

import numpy as np
import pytest
from tests.unit import placement_rig as rig
from tests.unit.test_placement_inputs import facts
from tests.unit.test_placement_shared import CALLS, DAY, NIGHT, shaped

from groundplan.core.errors import Conflict
from groundplan.placement import stress
from groundplan.placement.explain.plan_summary import compare, summary_json
from groundplan.placement.planner import (
    CompanyPlan,
    build_claim,
    describe_proof,
    permanent_units,
    plan_company,
    units_used,
)
from groundplan.placement.pools import weekly_units
from groundplan.placement.problem import POOL
from groundplan.placement.terms.facts import HOURS, Company, HardwareFacts, PolicyFacts, WorkloadFacts
from groundplan.placement.verify import verify
from groundplan.placement.verify.company import PlanClaim, find_violations

NOON = tuple(4.0 if 6 <= hour % 24 < 12 else 0.0 for hour in range(168))


def rack(count: int, *workloads: WorkloadFacts, hardware: HardwareFacts | None = None, **changes: Any) -> Company:
    made = hardware or rig.hardware(count=count, on_demand=3.0)
    site = rig.site("rack", "private", hardware=(made,), model_hours=4.0)
    return rig.company(*workloads, sites={"rack": site}, deployments={}, **changes)


def three(calls: float = 2.4 * CALLS) -> tuple[WorkloadFacts, ...]:
    return shaped("day", DAY, calls), shaped("night", NIGHT, calls), shaped("noon", NOON, calls / 2)


def fullest(plan: CompanyPlan) -> float:
    """Units in the fullest hour of the week, added up from the decisions."""
    mine = [(plan.company.workloads[name], each.primary, 1.0) for name, each in plan.placements.items()]
    return max(weekly_units(mine))


@pytest.fixture(scope="module")
def extended() -> CompanyPlan:
    return plan_company(rack(1, *three()))


def test_own_units_come_first_and_the_fullest_hour_says_how_many_are_rented(extended: CompanyPlan) -> None:
    need, added = fullest(extended), sum(each.primary.units for each in extended.placements.values())
    assert ceil(need - 1) < ceil(added - 1), "peaks at different hours fit beside each other"
    assert extended.shared_hardware["rack h100-sxm"].units == 1.0
    assert extended.bought == {"rack h100-sxm on demand": ceil(need - 1)}
    hardware = sum(each.terms["compute"] + each.terms["idle"] for each in extended.placements.values())
    energy = sum(each.terms["compute"] for each in extended.placements.values())
    paid = extended.shared_hardware["rack h100-sxm"].usd + ceil(need - 1) * 3.0 * HOURS
    assert paid < hardware < paid + energy and extended.rounding_usd == pytest.approx(0.0, abs=0.02)
    used, room = units_used(extended)["rack h100-sxm"]
    assert used == pytest.approx(need, abs=0.01) and room == 1 + ceil(need - 1)
    assert permanent_units(extended)["rack", "h100-sxm"] == room
    summary = summary_json(extended, compare(extended))
    assert summary["to_buy"] == extended.bought and any("to rent" in line for line in summary["words"])


@pytest.mark.parametrize("count", [1, 2, 3])
def test_as_many_are_rented_as_cost_least(count: int) -> None:
    plan = plan_company(rack(count, *three()))
    need = fullest(plan)
    assert plan.bought.get("rack h100-sxm on demand", 0) == max(0, ceil(round(need - count, 3)))
    own = plan.shared_hardware["rack h100-sxm"].units
    assert own == pytest.approx(min(need, count), abs=0.02) and describe_proof(plan) == "proven optimal"


def test_own_units_are_held_before_cheaper_rented_ones() -> None:
    dear = rig.hardware(count=2, owned_month=5000.0, on_demand=1.0)
    plan = plan_company(rack(2, *three(), hardware=dear))
    assert plan.shared_hardware["rack h100-sxm"].units == 2.0 and plan.bought["rack h100-sxm on demand"] >= 1


def test_a_term_is_signed_where_it_is_the_cheapest() -> None:
    signed = rig.hardware(count=1, on_demand=3.0, reserved=1.8, terms=((12.0, 1.8),))
    plan = plan_company(rack(1, *three(), hardware=signed))
    committed = plan.shared_hardware["rack h100-sxm committed"]
    assert not plan.bought and committed.months == 12.0 and committed.units == ceil(fullest(plan) - 1)
    assert committed.usd == pytest.approx(committed.units * 1.8 * HOURS)
    assert permanent_units(plan)["rack", "h100-sxm"] == 1 + committed.units
    assert any(line.startswith("Sign ") for line in summary_json(plan, ())["words"])
    never = plan_company(rack(1, *three(), hardware=signed, policy=PolicyFacts(commit_months=6.0)))
    assert not any(each.months for each in never.shared_hardware.values()) and never.bought


def test_a_conflict_counts_what_can_be_rented() -> None:
    scarce = rig.hardware(count=1, on_demand=3.0, max_units=1)
    days = (shaped(name, DAY, 0.7 * CALLS) for name in ("day", "also", "later"))
    with pytest.raises(Conflict) as refused:
        plan_company(rack(1, *days, shaped("night", NIGHT, CALLS), hardware=scarce))
    assert "1 are there and 1 can be rented: $" in refused.value.message


def test_futures_fill_what_is_rented_too(extended: CompanyPlan) -> None:
    missed = stress.evaluate(extended, stress.sample_futures(extended.company, stress.Spreads(futures=200))).missed
    assert max(missed.values()) < 0.5


def held(**changed: Any) -> Callable[[PlanClaim], PlanClaim]:
    return lambda one: replace(
        one, shared_hardware={name: replace(each, **changed) for name, each in one.shared_hardware.items()}
    )


WRONG: list[tuple[str, Callable[[PlanClaim], PlanClaim]]] = [
    ("capacity", lambda one: replace(one, bought={})),
    ("held", held(units=0.5)),
    ("cost", lambda one: replace(one, hardware_usd=one.hardware_usd - 2000.0)),
    ("cost", lambda one: replace(one, bought={"rack h100-sxm on demand": 9})),
]


@pytest.mark.parametrize(("kind", "mutate"), WRONG)
def test_the_second_verifier_catches_an_extended_pool_that_is_wrong(
    extended: CompanyPlan, kind: str, mutate: Callable[[PlanClaim], PlanClaim]
) -> None:
    claim = build_claim(extended)
    assert find_violations(extended.company, claim) == ()
    assert kind in {each.kind for each in find_violations(extended.company, mutate(claim))}


def test_the_verifier_of_arrays_knows_that_own_units_come_first(extended: CompanyPlan) -> None:
    problem, solution = extended.framed.problem, extended.solution
    assert verify(problem, solution).is_verified
    parts = np.flatnonzero(problem.parts.role == POOL)
    own = next(part for part in parts if extended.framed.options[int(problem.part_start[part])].pool == "rack h100-sxm")
    less = solution.choice.copy()
    less[own] = problem.part_start[own]
    found = verify(problem, replace(solution, choice=less)).violations
    assert any(each.kind == "row" and "before more are rented" in each.message for each in found)


def test_two_entries_of_one_type_are_one_pool() -> None:
    hosting = (
        "hardware: [{type: h100-sxm, count: 1, owned: {purchase: 29200 USD, life: 1460d}}, "
        "{type: h100-sxm, count: 3, owned: {purchase: 14600 USD, life: 1460d}}, "
        "{type: h100-sxm, on_demand: 4 USD/hour, most: 5}, {type: l40s, on_demand: 1 USD/hour}]"
    )
    one, other = facts(hosting=hosting).sites["azure-sweden"].hardware
    assert (one.type, one.count, one.on_demand, one.max_units) == ("h100-sxm", 4, 4.0, 5) and other.type == "l40s"
    assert one.owned_month == pytest.approx((600.0 + 3 * 300.0) / 4)
