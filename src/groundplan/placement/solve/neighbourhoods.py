"""Large-neighbourhood search: CP-SAT repeatedly places everything anew that runs at a few sites.

Options that no better plan can use are left out, which loses nothing.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from groundplan.placement.problem import Flags, Ints
from groundplan.placement.solve.arrays import Arrays, Floats
from groundplan.placement.solve.objective import exact_cost
from groundplan.placement.solve.submodel import Effort, neighbourhood_cost, solve_submodel
from groundplan.placement.solve.work_limit import WorkBudget

_MANY_SITES, _NEAR = 12, 5


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """A feasible choice [P] of options of `Arrays` with its exact cost."""

    choice: Ints
    units: Ints
    cost: int


@dataclass(frozen=True, slots=True, eq=False)
class ProvenBounds:
    """Lower bounds of the cost: of any plan, and of any plan that takes an option."""

    bound: int
    option_bounds: Floats
    """[O] no plan that takes the option costs less"""


def build_plan(data: Arrays, choice: Ints) -> Plan | None:
    """The plan of a choice; None where a row is exceeded. The choice is copied: the caller may go on changing it."""
    found = exact_cost(data, choice)
    return None if found is None else Plan(choice.copy(), found[1], found[0])


def bound_increase(data: Arrays, reduced: Floats) -> Floats:
    """[O] by how much taking an option raises the bound of linear multipliers at least."""
    least = np.minimum.reduceat(reduced, data.part_start[:-1])
    found: Floats = reduced - least[data.part]
    return found


def usable_options(reach: Floats, cost: int) -> Flags:
    """[O] options that a plan of at most `cost` can use."""
    kept: Flags = reach <= cost + 1e-6 + 1e-9 * abs(cost)
    return kept


def lowest_per_part(data: Arrays, reach: Floats, each: int) -> Flags:
    """[O] the options with the lowest bounds, `each` of every part."""
    order = np.lexsort((reach, data.part))
    found: Flags = np.zeros(len(order), dtype=np.bool_)
    found[order] = np.arange(len(order)) - data.part_start[data.part[order]] < each
    return found


def improve_plan(
    data: Arrays, plan: Plan, bounds: ProvenBounds, budget: WorkBudget, tuner: NeighbourhoodTuner, rounds: int
) -> Plan:
    """Search up to `rounds` rounds of neighbourhoods; their size follows what CP-SAT manages.

    Where there are many sites, three of four use only the options with the lowest bounds.
    """
    nearest = lowest_per_part(data, bounds.option_bounds, _NEAR)
    with ThreadPoolExecutor(budget.limit.threads) as pool:
        for _ in range(rounds):
            if budget.is_exhausted() or plan.cost <= bounds.bound:
                break
            plan = _search_round(data, plan, bounds, nearest, budget, tuner, pool)
    return plan


def _search_round(
    data: Arrays,
    plan: Plan,
    bounds: ProvenBounds,
    nearest: Flags,
    budget: WorkBudget,
    tuner: NeighbourhoodTuner,
    pool: ThreadPoolExecutor,
) -> Plan:
    """Search one neighbourhood of the same plan per thread; improvements are combined where they fit together.

    CP-SAT computes outside of Python, one worker each, so that the same input gives the same answer with any timing.
    """
    searches = []
    for _ in range(budget.limit.threads):
        free = pick_neighbourhood(data, plan.choice, tuner.rng, round(tuner.size))
        keep = usable_options(bounds.option_bounds, plan.cost)
        effort = Effort(tuner.work, budget.wall_seconds_left, seed=tuner.next_seed())
        if effort.seed % 4 and data.site_count > _MANY_SITES:
            keep &= nearest
        keep[plan.choice] = True
        limit = None if len(data.problem.tiers.row) else neighbourhood_cost(data, free, plan.choice) - 1
        searches.append(pool.submit(solve_submodel, data, free, keep, plan.choice, effort, limit))
    best = plan
    for each in searches:
        answer = each.result()
        budget.record_work()
        found = None if answer.choice is None else build_plan(data, answer.choice)
        better = found is not None and found.cost < plan.cost
        tuner.record_result(answer.complete, better, answer.work, data.part_count)
        if found is not None and better:
            combined = build_plan(data, np.where(found.choice != plan.choice, found.choice, best.choice))
            best = min((best, found, combined or best), key=lambda one: one.cost)
    return best


class NeighbourhoodTuner:
    """Sets the size of neighbourhoods: larger while they are searched completely and fast, else smaller."""

    def __init__(self, seed: int, size: float, work: float) -> None:
        self.rng = np.random.Generator(np.random.PCG64(seed))
        self.seed = seed
        self.size = size
        self.work = work
        """deterministic time of one neighbourhood"""
        self.rounds_without_gain = 0
        """neighbourhoods since the last gain"""

    def next_seed(self) -> int:
        """A new seed for each neighbourhood."""
        self.seed += 1
        return self.seed

    def record_result(self, complete: bool, better: bool, work: float, parts: int) -> None:
        """Adapt the size to the result of one neighbourhood."""
        self.rounds_without_gain = 0 if better else self.rounds_without_gain + 1
        if not complete:
            self.size = max(4.0, self.size * 0.9)
        elif not better and work < self.work / 4:
            self.size = min(self.size * 1.1 + 0.2, float(parts))


def pick_neighbourhood(data: Arrays, choice: Ints, draw: np.random.Generator, size: int) -> Ints:
    """All parts of the workloads at randomly chosen sites: at least two sites, about `size` parts."""
    at = data.site[choice]
    workload = data.problem.parts.workload
    chosen = np.zeros(len(data.problem.workloads), dtype=np.bool_)
    count = 0
    for number, site in enumerate(draw.permutation(np.unique(at))):
        if number >= 2 and count >= size:
            break
        chosen[workload[at == site]] = True
        count = int(chosen[workload].sum())
    found: Ints = np.flatnonzero(chosen[workload])
    if len(found) > 2 * size + 8:
        wanted = draw.permutation(np.unique(workload[found]))[: max(2, size)]
        found = np.flatnonzero(np.isin(workload, wanted))
    return found
