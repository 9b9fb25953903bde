"""Generalised assignment instances in the format of OR-Library, as placement problems.

Numbers separated by white space: agents m and jobs n; for each agent the cost of each job; for each agent the amount
that each job uses; the capacity of each agent. Files with several instances begin with their number. Costs are
minimised (as published for types d and e, and for all types in the later literature).
Formulation: agents are sites with one capacity each, jobs are workloads with one option at every agent.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from groundplan.core.errors import Invalid
from groundplan.placement.problem import Indices, Ints, Options, Parts, Problem, Rows, Sites, Tiers

_MAX_NUMBERS = 20_000_000


def read_assignments(path: Path) -> list[Problem]:
    """Every instance of a file. Raises `Invalid`, naming the file, if it has another format."""
    try:
        numbers = [_integer(word) for word in path.read_text(encoding="utf-8").split()]
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise _format_error(path, str(error)) from error
    position, count = (0, 1) if _is_single_instance(numbers) else (1, numbers[0] if numbers else 0)
    problems: list[Problem] = []
    for _ in range(count):
        if position + 2 > len(numbers):
            raise _format_error(path, f"it ends in the middle of instance {len(problems) + 1}")
        agents, jobs = numbers[position], numbers[position + 1]
        size = 2 * agents * jobs + agents
        if agents < 1 or jobs < 1 or size > _MAX_NUMBERS or position + 2 + size > len(numbers):
            raise _format_error(path, f"{agents} agents and {jobs} jobs need {size} numbers after them")
        problems.append(
            _parse_problem(np.array(numbers[position + 2 : position + 2 + size], dtype=np.int64), agents, jobs)
        )
        position += 2 + size
    if not problems:
        raise _format_error(path, "it holds no instance")
    return problems


def _integer(word: str) -> int:
    value = float(word)
    if value != int(value):
        raise ValueError(f"{word} is not an integer")
    return int(value)


def _is_single_instance(numbers: list[int]) -> bool:
    """Whether the numbers are a single instance, without the number of instances in front."""
    if len(numbers) < 2:
        return False
    agents, jobs = numbers[0], numbers[1]
    return agents > 0 and jobs > 0 and len(numbers) == 2 + 2 * agents * jobs + agents


def _parse_problem(numbers: Ints, agents: int, jobs: int) -> Problem:
    cost = numbers[: agents * jobs].reshape(agents, jobs)
    use = numbers[agents * jobs : 2 * agents * jobs].reshape(agents, jobs)
    return assignment(cost, use, numbers[2 * agents * jobs :])


def assignment(cost: Ints, use: Ints, capacity: Ints) -> Problem:
    """The problem of costs [agents, jobs], uses [agents, jobs] and capacities [agents]. A job that fits no agent makes
    it infeasible."""
    agents, jobs = cost.shape
    count = agents * jobs
    part: Indices = np.repeat(np.arange(jobs, dtype=np.int32), agents)
    site: Indices = np.tile(np.arange(agents, dtype=np.int32), jobs)
    return Problem(
        workloads=tuple(f"job-{job}" for job in range(jobs)),
        sites=Sites(
            names=tuple(f"agent-{agent}" for agent in range(agents)),
            domain=np.arange(agents, dtype=np.int32),
            opening=np.zeros(agents, dtype=np.int64),
        ),
        parts=Parts(
            workload=np.arange(jobs, dtype=np.int32),
            role=np.zeros(jobs, dtype=np.int8),
            current=np.full(jobs, -1, dtype=np.int32),
        ),
        options=Options(
            part=part,
            site=site,
            config=(),
            level=np.zeros(count, dtype=np.int8),
            terms=np.ascontiguousarray(cost.T).reshape(count, 1),
            row_start=np.arange(count + 1, dtype=np.int64),
            row=site.copy(),
            use=np.ascontiguousarray(use.T).reshape(count),
            rule_start=np.zeros(count + 1, dtype=np.int64),
            rule=np.zeros(0, dtype=np.int32),
        ),
        rows=Rows(
            names=tuple(f"agent-{agent}" for agent in range(agents)),
            kind=("capacity",) * agents,
            site=np.arange(agents, dtype=np.int32),
            capacity=capacity.astype(np.int64),
        ),
        tiers=no_tiers(),
        terms=("cost",),
    )


def no_tiers() -> Tiers:
    """Empty tiers: no units can be bought."""
    empty = np.zeros(0, dtype=np.int64)
    return Tiers((), empty.astype(np.int32), empty, empty, empty)


def _format_error(path: Path, why: str) -> Invalid:
    return Invalid(
        f"{path} is not a generalised assignment instance: {why}",
        code="placement_instance",
        hint="The format is OR-Library's: m n, costs by agent, uses by agent, capacities; all whole numbers.",
    )
