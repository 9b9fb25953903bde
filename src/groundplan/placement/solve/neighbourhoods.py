"""Large-neighbourhood search: everything at a few sites is placed anew by CP-SAT, again and again.

Options with which no plan is below the best one are left out, which loses nothing better.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from groundplan.placement.problem import Flags, Ints
from groundplan.placement.solve.arrays import Arrays, Floats
from groundplan.placement.solve.objective import priced
from groundplan.placement.solve.submodel import Effort, cost_of, search
from groundplan.placement.solve.work_limit import Budget

_MANY, _NEAR = 12, 5


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """A feasible choice [P] of local options with its exact price."""

    choice: Ints
    units: Ints
    cost: int


@dataclass(frozen=True, slots=True, eq=False)
class Bounds:
    """What is proven."""

    bound: int
    reach: Floats
    """[O] no plan that takes the option costs less"""


def plan_of(data: Arrays, choice: Ints) -> Plan | None:
    """None where a row is exceeded. The choice is copied: what moves on must not move the plan."""
    found = priced(data, choice)
    return None if found is None else Plan(choice.copy(), found[1], found[0])


def above_least(data: Arrays, reduced: Floats) -> Floats:
    """[O] by how much the bound of linear multipliers rises at least when an option is taken."""
    least = np.minimum.reduceat(reduced, data.first[:-1])
    found: Floats = reduced - least[data.part]
    return found


def promising(reach: Floats, cost: int) -> Flags:
    """[O] options that a plan of at most `cost` may still use."""
    kept: Flags = reach <= cost + 1e-6 + 1e-9 * abs(cost)
    return kept


def near(data: Arrays, reach: Floats, each: int) -> Flags:
    """[O] the options that reach least, so many of every part."""
    order = np.lexsort((reach, data.part))
    found: Flags = np.zeros(len(order), dtype=np.bool_)
    found[order] = np.arange(len(order)) - data.first[data.part[order]] < each
    return found


def improve(data: Arrays, plan: Plan, bounds: Bounds, budget: Budget, pace: Pace, rounds: int) -> Plan:
    """Search up to `rounds` neighbourhoods; their size follows what CP-SAT manages.

    Three of four look only at the options that reach least, where there are many sites.
    """
    nearest = near(data, bounds.reach, _NEAR)
    with ThreadPoolExecutor(budget.limit.threads) as pool:
        for _ in range(rounds):
            if budget.over() or plan.cost <= bounds.bound:
                break
            plan = _round(data, plan, bounds, nearest, budget, pace, pool)
    return plan


def _round(
    data: Arrays, plan: Plan, bounds: Bounds, nearest: Flags, budget: Budget, pace: Pace, pool: ThreadPoolExecutor
) -> Plan:
    """One neighbourhood for each thread, all of the same plan; what they find is put together where it goes together.

    CP-SAT computes outside of Python, one worker each, so that the same input gives the same answer with any timing.
    """
    asked = []
    for _ in range(budget.limit.threads):
        free = around(data, plan.choice, pace.draw, round(pace.size))
        keep = promising(bounds.reach, plan.cost)
        effort = Effort(pace.work, budget.clock_left, seed=pace.next_seed())
        if effort.seed % 4 and data.sites > _MANY:
            keep &= nearest
        keep[plan.choice] = True
        limit = None if len(data.problem.tiers.row) else cost_of(data, free, plan.choice) - 1
        asked.append(pool.submit(search, data, free, keep, plan.choice, effort, limit))
    best = plan
    for each in asked:
        answer = each.result()
        budget.spend()
        found = None if answer.choice is None else plan_of(data, answer.choice)
        better = found is not None and found.cost < plan.cost
        pace.learn(answer.complete, better, answer.work, data.parts)
        if found is not None and better:
            together = plan_of(data, np.where(found.choice != plan.choice, found.choice, best.choice))
            best = min((best, found, together or best), key=lambda one: one.cost)
    return best


class Pace:
    """How large neighbourhoods are: larger while they are searched through quickly, smaller when they are not."""

    def __init__(self, seed: int, size: float, work: float) -> None:
        self.draw = np.random.Generator(np.random.PCG64(seed))
        self.seed = seed
        self.size = size
        self.work = work
        """deterministic time of one neighbourhood"""
        self.idle = 0
        """neighbourhoods since the last gain"""

    def next_seed(self) -> int:
        """Another seed for each neighbourhood."""
        self.seed += 1
        return self.seed

    def learn(self, complete: bool, better: bool, work: float, parts: int) -> None:
        """Take note of one neighbourhood."""
        self.idle = 0 if better else self.idle + 1
        if not complete:
            self.size = max(4.0, self.size * 0.9)
        elif not better and work < self.work / 4:
            self.size = min(self.size * 1.1 + 0.2, float(parts))


def around(data: Arrays, choice: Ints, draw: np.random.Generator, size: int) -> Ints:
    """All parts of the workloads at some sites, at least two of these, about `size` parts."""
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
