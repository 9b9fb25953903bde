"""Hardware that workloads share over the week: own units that are held once for peaks at different hours, and a base of
rented ones that is committed to; each judged a second time, and each kind of wrong plan is caught."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from benchmarks.placement_instances.random_facts import random_facts
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit import placement_rig as rig
from tests.unit.test_placement_over_time import busy, rented

from groundplan.core.errors import Conflict
from groundplan.placement import stress
from groundplan.placement.explain.plan_summary import compare, summary_json
from groundplan.placement.planner import CompanyPlan, build_claim, plan_company, units_used
from groundplan.placement.pools import MAX_ROWS, peak_hours
from groundplan.placement.problem import POOL, WorkLimit
from groundplan.placement.terms.facts import Company, PolicyFacts, WorkloadFacts
from groundplan.placement.verify import verify
from groundplan.placement.verify.company import PlanClaim, find_violations

DAY = tuple(4.0 if 8 <= hour % 24 < 14 else 0.0 for hour in range(168))
NIGHT = tuple(4.0 if hour % 24 < 6 else 0.0 for hour in range(168))


def shaped(name: str, curve: tuple[float, ...], calls: float, **changes: Any) -> WorkloadFacts:
    return rig.workload(
        name, sensitivity="restricted", curve=curve, peak=4.0, calls_month=calls, burst=False, **changes
    )  # fmt: skip


def rack(count: int, *workloads: WorkloadFacts, **changes: Any) -> Company:
    site = rig.site("rack", "private", hardware=(rig.hardware(count=count),), model_hours=4.0)
    return rig.company(*workloads, sites={"rack": site}, deployments={}, **changes)


CALLS = 1.5e7


@pytest.fixture(scope="module")
def apart() -> CompanyPlan:
    return plan_company(rack(2, shaped("day", DAY, CALLS), shaped("night", NIGHT, CALLS)))


def test_peaks_at_different_hours_fit_beside_each_other_and_are_paid_once(apart: CompanyPlan) -> None:
    alone = plan_company(rack(2, shaped("day", DAY, CALLS)))
    units = alone.placements["day"].primary.units
    assert 1.0 < units < 2.0, "two of them would not fit if their peaks were added"
    with pytest.raises(Conflict):
        plan_company(rack(2, shaped("day", DAY, CALLS), shaped("also", DAY, CALLS)))
    held = apart.shared_hardware["rack h100-sxm"]
    memory = apart.placements["night"].primary.min_units
    assert held.units == pytest.approx(units + memory, abs=0.03), "the weights of the other stay in memory"
    hardware = [each.terms["compute"] + each.terms["idle"] for each in apart.placements.values()]
    own = alone.placements["day"].terms["compute"] + alone.placements["day"].terms["idle"]
    assert sum(hardware) < 1.4 * own and hardware[0] == pytest.approx(hardware[1], rel=0.01)
    used, room = units_used(apart)["rack h100-sxm"]
    assert used <= held.units <= room == 2.0
    summary = summary_json(apart, compare(apart))
    assert summary["held"][0]["units"] == pytest.approx(held.units) and any(
        "share" in line for line in summary["words"]
    )
    assert round(sum(summary["terms"].values()), 0) == round(summary["usd_month"] - apart.rounding_usd, 0)


def test_where_all_peak_together_nothing_is_pooled() -> None:
    plan = plan_company(rack(4, shaped("day", DAY, CALLS), shaped("also", DAY, CALLS)))
    assert not plan.shared_hardware and POOL not in plan.framed.problem.parts.role


def test_futures_fill_a_pool_hour_by_hour(apart: CompanyPlan) -> None:
    """Were peaks added, hardly a future would find room."""
    missed = stress.evaluate(apart, stress.sample_futures(apart.company, stress.Spreads(futures=200))).missed
    assert max(missed.values()) < 0.5


def test_a_conflict_says_what_more_units_would_cost() -> None:
    with pytest.raises(Conflict) as refused:
        plan_company(rack(1, shaped("day", DAY, CALLS * 0.6), shaped("night", NIGHT, CALLS * 0.3),
                          shaped("noon", tuple(DAY[(h - 2) % 168] for h in range(168)), CALLS * 0.5)))  # fmt: skip
    assert "rack h100-sxm: 1 are there: $" in refused.value.message


def test_the_hours_that_may_be_the_fullest() -> None:
    assert peak_hours([DAY, DAY]) == peak_hours([DAY]) and len(peak_hours([DAY])) == 1
    assert len(peak_hours([DAY, NIGHT])) == 2 and peak_hours([]) == ()
    many = [tuple(1.0 + (hour == at) for hour in range(168)) for at in range(60)]
    assert len(peak_hours(many)) <= MAX_ROWS and sum(len(each) for each in peak_hours(many)) == 60


@given(st.integers(0, 10**6), st.lists(st.floats(0, 100), min_size=1, max_size=4))
@settings(max_examples=40, deadline=None)
def test_no_hour_that_was_left_out_is_ever_fuller(seed: int, amounts: list[float]) -> None:
    draw = np.random.Generator(np.random.PCG64(seed))
    curves = [(draw.integers(0, 4, 168) + 0.5).tolist() for _ in amounts]
    total = [
        sum(amount * curve[hour] / max(curve) for amount, curve in zip(amounts, curves, strict=True))
        for hour in range(168)
    ]
    kept = {hour for each in peak_hours(curves) for hour in each}
    assert max(total[hour] for hour in kept) == pytest.approx(max(total), abs=1e-6)


def based(**changes: Any) -> CompanyPlan:
    """A base around the clock and peaks by day, in a cloud that rents by the hour and for a year."""
    site = rented(on_demand=4.0, terms=((12.0, 2.6),), reserved=2.6)
    curve = tuple(2.0 if 8 <= h % 24 < 18 else 0.28 for h in range(168))
    w = replace(busy(calls=2e8), peak=2.0, curve=curve)
    return plan_company(rig.company(w, sites={"cloud": site}, deployments={}, **changes))


@pytest.fixture(scope="module")
def signed() -> CompanyPlan:
    return based()


def test_a_base_is_committed_to_and_the_peaks_are_rented_by_the_hour(signed: CompanyPlan) -> None:
    (committed,) = signed.shared_hardware.values()
    assert committed.months == 12.0 and committed.units >= 1 and committed.usd == pytest.approx(
        committed.units * 2.6 * 730
    )  # fmt: skip
    assert any("by the hour, weekdays 8-18" in name for name in signed.bought), "the peaks on top of it"
    assert signed.rounding_usd == pytest.approx(0.0, abs=0.01), "what is held and rented is borne by the workloads"
    never = based(policy=PolicyFacts(commit_months=6.0))
    assert not any(each.months for each in never.shared_hardware.values()) or never.shared_hardware == {}
    summary = summary_json(signed, ())
    assert summary["to_sign"][0]["months"] == 12.0 and any(line.startswith("Sign ") for line in summary["words"])


def test_a_commitment_is_the_cheapest_number_of_units(signed: CompanyPlan) -> None:
    """Priced by hand for every number that could be signed for."""
    (committed,) = signed.shared_hardware.values()
    blocks = signed.placements["w"].primary.units_by_block
    hours = {"weekdays 8-18": 50 / 168 * 730, "weekdays 18-8": 70 / 168 * 730, "weekends": 48 / 168 * 730}
    costs = [
        n * 2.6 * 730 + sum(4.0 * hours[b] * max(0, np.ceil(round(units, 3) - n)) for b, units in blocks.items())
        for n in range(int(max(blocks.values())) + 2)
    ]
    assert committed.units == int(np.argmin(costs))


def change_shared(**facts: Any) -> Callable[[PlanClaim], PlanClaim]:
    def made(one: PlanClaim) -> PlanClaim:
        return replace(
            one, shared_hardware={name: replace(each, **facts) for name, each in one.shared_hardware.items()}
        )

    return made


OWN: list[tuple[str, Callable[[PlanClaim], PlanClaim]]] = [
    ("held", change_shared(units=9.0, usd=1e6)),
    ("held", change_shared(units=0.2)),
    ("held", change_shared(usd=1.0)),
    ("held", change_shared(type="l4")),
    ("cost", lambda one: replace(one, hardware_usd=1.0)),
]
SIGNED: list[tuple[str, Callable[[PlanClaim], PlanClaim]]] = [
    ("commitment", change_shared(months=36.0)),
    ("held", change_shared(usd=1.0)),
    ("held", change_shared(units=9000.0, usd=1e9)),
    ("capacity", lambda one: replace(one, shared_hardware={})),
    ("capacity", change_shared(rows=())),
]


@pytest.mark.parametrize(("kind", "mutate"), OWN)
def test_the_second_verifier_catches_a_pool_that_is_wrong(
    apart: CompanyPlan, kind: str, mutate: Callable[[PlanClaim], PlanClaim]
) -> None:
    claim = build_claim(apart)
    assert find_violations(apart.company, claim) == ()
    assert kind in {each.kind for each in find_violations(apart.company, mutate(claim))}


@pytest.mark.parametrize(("kind", "mutate"), SIGNED)
def test_the_second_verifier_catches_a_commitment_that_is_wrong(
    signed: CompanyPlan, kind: str, mutate: Callable[[PlanClaim], PlanClaim]
) -> None:
    claim = build_claim(signed)
    assert find_violations(signed.company, claim) == ()
    assert kind in {each.kind for each in find_violations(signed.company, mutate(claim))}


def test_the_second_verifier_adds_up_each_hour(apart: CompanyPlan) -> None:
    """The same plan, were the nights days."""
    facts = apart.company
    day = replace(facts.workloads["night"], curve=DAY)
    found = find_violations(replace(facts, workloads={**facts.workloads, "night": day}), build_claim(apart))
    assert {"capacity", "held"} <= {each.kind for each in found}


def test_the_verifier_of_arrays_knows_who_may_give(apart: CompanyPlan) -> None:
    problem, solution = apart.framed.problem, apart.solution
    assert verify(problem, solution).is_verified
    every = np.flatnonzero(problem.parts.role == POOL)
    pool = next(part for part in every if solution.choice[part] != problem.part_start[part])
    less = solution.choice.copy()
    less[pool] = problem.part_start[pool]
    assert "row" in {each.kind for each in verify(problem, replace(solution, choice=less)).violations}
    roles = problem.parts.role.copy()
    roles[pool] = 1
    disguised = replace(problem, parts=replace(problem.parts, role=roles))
    assert "pool" in {each.kind for each in verify(disguised, solution).violations}
    sites = problem.options.site.copy()
    sites[problem.options.part == pool] = 0
    placed = replace(problem, options=replace(problem.options, site=sites))
    assert "choice" in {each.kind for each in verify(placed, solution).violations}


CURVES = (DAY, NIGHT, (1.0,) * 168, tuple(3.0 if 100 <= h < 130 else 0.5 for h in range(168)))
ASKED = st.fixed_dictionaries(
    {
        "calls_month": st.floats(1e4, 2e7),
        "curve": st.sampled_from(CURVES),
        "sensitivity": st.sampled_from(["internal", "restricted"]),
        "fallback": st.sampled_from(["none", "wanted", "required"]),
        "burst": st.booleans(),
        "current_site": st.sampled_from([None, "cloud", "rack"]),
        "current_deployment": st.sampled_from([None, "gpt", "own"]),
        "ramp": st.sampled_from([(), (0.1, 0.5)]),
        "purposes": st.sampled_from([(), ("support",), ("support", "hiring")]),
    }
)


MORE = st.fixed_dictionaries(
    {
        "on_demand": st.sampled_from([None, 0.5, 3.0]),
        "terms": st.sampled_from([(), ((12.0, 1.4),), ((36.0, 0.4),)]),
        "max_units": st.sampled_from([1, 8]),
    }
)
"""What can be rented beyond own units"""


@given(
    st.lists(ASKED, min_size=1, max_size=5),
    st.sampled_from([None, 1.5]),
    st.sampled_from([1, 2, 6]),
    MORE,
    st.sampled_from([frozenset[str](), frozenset({"support"})]),
)
@settings(max_examples=40, deadline=None)
def test_no_sound_pool_is_refused(
    asked: list[dict[str, Any]], reserved: float | None, count: int, more: dict[str, Any], limited: frozenset[str]
) -> None:
    more = {**more, "reserved": min((price for _, price in more["terms"]), default=None)}
    made = rig.hardware("h100-sxm", 0, on_demand=3.0, reserved=reserved, terms=((12.0, reserved),) if reserved else ())
    sites = {
        "cloud": rig.site("cloud", hardware=(made,), purposes=limited),
        "rack": rig.site("rack", "private", hardware=(rig.hardware(count=count, **more),)),
    }
    own = rig.deployment("own", "rack", 0.0, hardware="h100-sxm", units=1.0, concurrent=16)
    workloads = [
        rig.workload(f"w{at}", **{**each, "peak": max(each["curve"])}) for at, each in enumerate(asked)
    ]  # fmt: skip
    deployments = {"gpt": rig.deployment("gpt", "cloud", 0.6), "own": own}
    facts = rig.company(*workloads, sites=sites, deployments=deployments)
    try:
        plan = plan_company(facts, WorkLimit(work=20, gap=1e-4))
    except Conflict:
        return
    assert find_violations(facts, build_claim(plan)) == () and verify(plan.framed.problem, plan.solution).is_verified


@pytest.mark.parametrize("seed", [78920, 105740])
def test_a_burst_on_shared_hardware_is_borne_whole(seed: int) -> None:
    """All units of a burst are held, however few hours it takes: random companies in which that was borne by nobody."""
    plan = plan_company(random_facts(seed, 30, 10), WorkLimit(work=10, gap=1e-4))
    assert any(each.burst is not None and each.burst.hardware for each in plan.placements.values())
    made = build_claim(plan)
    assert sum(each.usd for each in made.shared_hardware.values()) <= made.hardware_usd + 0.01
    assert not list(find_violations(plan.company, made))
