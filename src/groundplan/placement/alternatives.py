"""What else could have been: the runner-up of a workload, and the demand at which the decision turns.

Everything else stays where it is, so that an answer can be checked by placing one workload again. Pure; words are made
elsewhere.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from groundplan.placement.problem import PRIMARY, Flags, Ints, Problem, Solution
from groundplan.placement.solve.arrays import Arrays, arrays
from groundplan.placement.solve.neighbourhoods import plan_of
from groundplan.placement.solve.submodel import Effort, search

GROWING = ("tokens", "egress", "storage", "carbon")
"""Terms that grow with demand, where the filler says nothing else."""

_EFFORT = 5.0


@dataclass(frozen=True, slots=True)
class RunnerUp:
    """The best placement of one workload with its primary load at other sites than now."""

    sites: tuple[int, ...]
    """of its primary parts"""
    options: tuple[int, ...]
    """of all its parts, in their order"""
    extra: int
    """what it costs more than the present one, openings and units included; negative: the plan is not the best"""


@dataclass(frozen=True, slots=True)
class BreakEven:
    """Where two ways to run a workload cost the same."""

    factor: Fraction
    """of today's demand"""
    above: bool
    """True: the other one wins above it; False: below it"""


def parts_of(problem: Problem, workload: int) -> Ints:
    """The parts of a workload."""
    found: Ints = np.flatnonzero(problem.parts.workload == workload)
    return found


def runner_up(problem: Problem, solution: Solution, workload: int) -> RunnerUp | None:
    """None where no rule and no capacity leaves another site to its primary load while all others stay."""
    data = arrays(problem)
    choice = _local(data, solution.choice)
    mine = parts_of(problem, workload)
    primary = mine[problem.parts.role[mine] == PRIMARY]
    now = set(data.site[choice[primary]].tolist())
    keep: Flags = np.ones(len(data.index), dtype=np.bool_)
    keep[np.isin(data.part, primary) & np.isin(data.site, list(now))] = False
    if any(not keep[data.first[part] : data.first[part + 1]].any() for part in mine):
        return None
    answer = search(data, mine, keep, choice, Effort(_EFFORT))
    if answer.choice is None or np.isin(data.site[answer.choice[primary]], list(now)).any():
        return None
    found, present = plan_of(data, answer.choice), plan_of(data, choice)
    if found is None or present is None:
        return None
    return RunnerUp(
        sites=tuple(int(site) for site in data.site[found.choice[primary]]),
        options=tuple(int(option) for option in data.index[found.choice[mine]]),
        extra=found.cost - present.cost,
    )


def break_even(
    problem: Problem, solution: Solution, workload: int, other: RunnerUp, growing: Collection[str] = GROWING
) -> BreakEven | None:
    """The demand at which the other way costs as much, with capacity, openings and units as they are in both.

    None where the difference does not change with demand, or only turns at none or less.
    """
    mine = parts_of(problem, workload)
    grows = np.array([term in growing for term in problem.terms], dtype=np.bool_)
    now = _sum(problem, solution.choice[mine].tolist(), grows)
    then = _sum(problem, other.options, grows)
    fixed = other.extra - (then - now)
    if then == now:
        return None
    factor = Fraction(-fixed, then - now)
    return BreakEven(factor, above=then < now) if factor > 0 else None


def _sum(problem: Problem, options: Collection[int], grows: Flags) -> int:
    return sum(int(cost) for option in options for cost in problem.options.terms[option][grows])


def _local(data: Arrays, choice: Ints | np.ndarray[tuple[int], np.dtype[np.int32]]) -> Ints:
    found: Ints = np.searchsorted(data.index, choice)
    return found
