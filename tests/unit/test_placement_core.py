"""Which options a plan within a target can use, and the search among them: against trying everything."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from benchmarks.placement_instances.assignment import assignment
from hypothesis import given, settings
from hypothesis import strategies as st

from groundplan.placement.problem import Problem, WorkLimit
from groundplan.placement.solve import fixing
from groundplan.placement.solve.arrays import Arrays, Floats, build_arrays
from groundplan.placement.solve.columns import GenerationState
from groundplan.placement.solve.core import branch_core, search_core
from groundplan.placement.solve.knapsacks import build_knapsacks
from groundplan.placement.solve.neighbourhoods import build_plan, usable_options
from groundplan.placement.solve.optimise import optimise
from groundplan.placement.solve.relax import relax
from groundplan.placement.solve.submodel import Effort
from groundplan.placement.verify import verify


def instance(seed: int, agents: int, jobs: int) -> Problem:
    """Costs that fall as uses rise."""
    draw = np.random.Generator(np.random.PCG64(seed))
    use = draw.integers(1, 30, (agents, jobs))
    cost = 41 - use + draw.integers(-10, 11, (agents, jobs))
    return assignment(cost, use, np.full(agents, int(0.85 * use.sum() / agents / agents)))


def least_with(data: Arrays) -> Floats:
    """[O] the cost of the best plan that takes each option, by trying everything; inf where there is none."""
    found = np.full(len(data.index), np.inf)
    for taken in product(
        *(range(begin, end) for begin, end in zip(data.part_start[:-1], data.part_start[1:], strict=True))
    ):
        plan = build_plan(data, np.array(taken))
        if plan is not None:
            found[list(taken)] = np.minimum(found[list(taken)], plan.cost)
    return found


def reached(data: Arrays, seed: int | None = None) -> Floats:
    """At the relaxation's multipliers, or at others drawn around them."""
    sets, relaxation = build_knapsacks(data), relax(data)
    assert sets is not None and relaxation is not None
    part = relaxation.part
    if seed is not None:
        part = part + np.random.Generator(np.random.PCG64(seed)).normal(0, 3, len(part))
    found = fixing.option_bounds(sets, GenerationState(0.0, part, relaxation.row, np.zeros(0)))
    assert found is not None
    return found


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_no_plan_with_an_option_costs_less_than_it_reaches(seed: int) -> None:
    data = build_arrays(instance(seed, 3, 6))
    if len(data.empty_parts()) or relax(data) is None:
        return
    assert (reached(data, seed) <= least_with(data) + 1e-6).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_the_least_beside_an_item_is_what_trying_everything_finds(seed: int) -> None:
    draw = np.random.Generator(np.random.PCG64(seed))
    value, use, capacity = draw.integers(-20, 6, 7).astype(float), draw.integers(0, 9, 7), int(draw.integers(0, 16))
    least_value, beside = fixing.least_with_each_item(value, use, capacity)
    sets = [np.flatnonzero([mask >> at & 1 for at in range(7)]) for mask in range(2**7)]
    held = [(float(value[taken].sum()), set(taken.tolist())) for taken in sets if use[taken].sum() <= capacity]
    assert least_value == min(total for total, _ in held)
    for item in range(7):
        assert beside[item] == min((total for total, taken in held if item in taken), default=np.inf)


@pytest.mark.parametrize("seed", [1, 4, 9])
def test_a_core_holds_the_best_plan_and_none_below_it(seed: int) -> None:
    data = build_arrays(instance(seed, 3, 7))
    best, reach = int(least_with(data).min()), reached(data)
    effort = Effort(5.0)
    keep = usable_options(reach, best)
    assert 0 < keep.sum() < len(keep)
    at, below = (
        branch_core(data, keep, best, effort),
        branch_core(data, usable_options(reach, best - 1), best - 1, effort),
    )
    assert at is not None and at.choice is not None and below is not None
    assert build_plan(data, at.choice).cost == best  # type: ignore[union-attr]
    assert not at.is_target_unreachable and below.is_target_unreachable and below.choice is None
    found = search_core(data, keep, at.choice, best, effort)
    assert found.choice is not None and build_plan(data, found.choice).cost == best  # type: ignore[union-attr]
    assert search_core(data, usable_options(reach, best - 1), at.choice, best - 1, effort).is_target_unreachable


def test_few_sites_with_many_workloads_each_are_proven_optimal() -> None:
    problem = instance(2, 3, 60)
    solution = optimise(problem, WorkLimit(work=60))
    assert verify(problem, solution).is_verified
    assert solution.stop_reason == "optimal"
