"""Large-neighbourhood search: everything at a few sites is placed anew by CP-SAT, again and again.

Options that the bound rules out (bound + reduced price above the best plan) are left out, which loses nothing better.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from groundplan.placement.problem import Flags, Ints
from groundplan.placement.solve.arrays import Arrays, Floats
from groundplan.placement.solve.budget import Budget
from groundplan.placement.solve.price import priced
from groundplan.placement.solve.submodel import Effort, cost_of, search

_WORK = 1.0
"""deterministic time of one neighbourhood"""


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """A feasible choice [P] of local options with its exact price."""

    choice: Ints
    units: Ints
    cost: int


@dataclass(frozen=True, slots=True, eq=False)
class Bounds:
    """What is proven: `linear` goes with the reduced prices, `bound` may be the better one of another method."""

    bound: int
    linear: int
    reduced: Floats
    """[O]"""


def plan_of(data: Arrays, choice: Ints) -> Plan | None:
    """None where a row is exceeded."""
    found = priced(data, choice)
    return None if found is None else Plan(choice, found[1], found[0])


def promising(data: Arrays, reduced: Floats, bound: int, cost: int) -> Flags:
    """[O] options that a plan below `cost` may still use: bound plus what the option exceeds its part's least."""
    least = np.minimum.reduceat(reduced, data.first[:-1])
    slack = float(cost - bound)
    kept: Flags = reduced - least[data.part] <= slack + 1e-6 * abs(slack) + 1e-6
    return kept


def improve(data: Arrays, plan: Plan, bounds: Bounds, budget: Budget, rounds: int, seed: int, aim: int) -> Plan:
    """Search up to `rounds` neighbourhoods of about `aim` parts; the size follows what CP-SAT manages."""
    draw = np.random.Generator(np.random.PCG64(seed))
    size = float(aim)
    for number in range(rounds):
        if budget.over() or plan.cost <= bounds.bound:
            break
        free = around(data, plan.choice, draw, round(size))
        keep = promising(data, bounds.reduced, bounds.linear, plan.cost)
        keep[plan.choice] = True
        limit = None if len(data.problem.tiers.row) else cost_of(data, free, plan.choice) - 1
        effort = Effort(_WORK, budget.seconds_left, seed=seed + number)
        answer = search(data, free, keep, plan.choice, effort, limit)
        budget.spend()
        size = min(size * 1.03 + 0.3, float(data.parts)) if answer.complete else max(4.0, size * 0.96)
        found = None if answer.choice is None else plan_of(data, answer.choice)
        if found is not None and found.cost < plan.cost:
            plan = found
    return plan


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
