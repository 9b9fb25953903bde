"""Checks that a placement keeps every rule, and that its cost and its bound are right.

Reads the declared arrays only. Roles, domains and levels are checked by their meaning, not only as rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from groundplan.placement.problem import BURST, FALLBACK, POOL, PRIMARY, Problem, Solution
from groundplan.placement.verify.bound import proven_bound
from groundplan.placement.verify.exact import exact_group_sums, exact_sum


@dataclass(frozen=True, slots=True)
class Violation:
    """One violation by a placement."""

    kind: str
    """choice, excluded, row, units, apart, burst, pool, cost, bound"""
    message: str


@dataclass(frozen=True, slots=True)
class Report:
    """The verifier's result for a placement."""

    violations: tuple[Violation, ...]
    cost: int | None
    """recomputed; None where there is no well-formed placement"""
    bound: int | None
    """recomputed from the multipliers; a claimed bound is not in it"""
    proof: str
    """`dual multipliers` or `solver-claimed`: what `Solution.bound` rests on"""

    @property
    def is_verified(self) -> bool:
        """Whether there are no violations. A placement that is not verified is never shown."""
        return not self.violations


def verify(problem: Problem, solution: Solution) -> Report:
    """Check a solution; one without a placement is checked for its bound only."""
    certificate = solution.certificate
    bound = proven_bound(problem, certificate)
    found = list(_bound_violations(solution, bound))
    cost: int | None = None
    if len(solution.choice):
        format_violations = list(_format_violations(problem, solution))
        found += format_violations
        if not format_violations:
            cost = _recompute_cost(problem, solution)
            found += _placement_violations(problem, solution, cost)
    return Report(tuple(found), cost, bound, certificate.proof)


def _bound_violations(solution: Solution, bound: int | None) -> Iterator[Violation]:
    certificate = solution.certificate
    if bound is None:
        yield Violation("bound", "the multipliers are malformed")
    elif certificate.value > bound:
        yield Violation("bound", f"the multipliers prove {bound}, not {certificate.value}")
    if len(solution.choice) and solution.bound > solution.cost:
        yield Violation("bound", f"the bound {solution.bound} is above the cost {solution.cost}")
    if solution.stop_reason == "optimal" and len(solution.choice) and solution.bound != solution.cost:
        yield Violation("bound", f"called optimal at {solution.cost} with a bound of {solution.bound}")


def _format_violations(problem: Problem, solution: Solution) -> Iterator[Violation]:
    choice, units, options = solution.choice, solution.units, problem.options
    parts = len(problem.parts.workload)
    if choice.dtype.kind != "i" or choice.shape != (parts,):
        yield Violation("choice", f"{choice.shape} choices for {parts} parts")
    elif parts and (choice.min() < 0 or choice.max() >= len(options.part)):
        yield Violation("choice", "a chosen option is not there")
    elif (options.part[choice] != np.arange(parts)).any():
        yield Violation("choice", f"part {int(np.argmax(options.part[choice] != np.arange(parts)))} takes another's")
    if units.dtype.kind != "i" or units.shape != problem.tiers.max_units.shape:
        yield Violation("units", "the bought units are not one number for each tier")


def _recompute_cost(problem: Problem, solution: Solution) -> int:
    cost = exact_sum(problem.options.terms[solution.choice].reshape(-1))
    bought = sum(int(n) * int(price) for n, price in zip(solution.units, problem.tiers.price, strict=True))
    used = {int(site) for site in problem.options.site[solution.choice] if site >= 0}
    return cost + bought + sum(int(problem.sites.opening[site]) for site in used)


def _placement_violations(problem: Problem, solution: Solution, cost: int) -> Iterator[Violation]:
    if solution.cost != cost:
        yield Violation("cost", f"it costs {cost}, not {solution.cost}")
    yield from _rule_violations(problem, solution)
    yield from _unit_violations(problem, solution)
    yield from _row_violations(problem, solution)
    yield from _combination_violations(problem, solution)
    yield from _pool_violations(problem, solution)


def _pool_violations(problem: Problem, solution: Solution) -> Iterator[Violation]:
    """Only pool parts add to rows of kind `pool`, and they add to no other rows."""
    options = problem.options
    for part, option in enumerate(solution.choice):
        for at in range(int(options.row_start[option]), int(options.row_start[option + 1])):
            pool = problem.parts.role[part] == POOL
            kind = problem.rows.kind[options.row[at]]
            if (kind == "pool" and (options.use[at] < 0) != pool and options.use[at] != 0) or (pool and kind != "pool"):
                yield Violation("pool", f"part {part} gives to or takes from {problem.rows.names[options.row[at]]}")


def _rule_violations(problem: Problem, solution: Solution) -> Iterator[Violation]:
    starts = problem.options.rule_start
    for part, option in enumerate(solution.choice):
        if starts[option + 1] > starts[option]:
            rule = problem.rules[problem.options.rule[starts[option]]]
            yield Violation("excluded", f"part {part} takes option {int(option)} against {rule}")


def _unit_violations(problem: Problem, solution: Solution) -> Iterator[Violation]:
    used = {int(site) for site in problem.options.site[solution.choice]}
    for tier, bought in enumerate(solution.units):
        if not 0 <= bought <= problem.tiers.max_units[tier]:
            yield Violation("units", f"{int(bought)} units of {problem.tiers.names[tier]}")
        site = int(problem.rows.site[problem.tiers.row[tier]])
        if bought > 0 and site >= 0 and site not in used:
            yield Violation("units", f"{problem.tiers.names[tier]} is bought at a site that nothing uses")


def _row_violations(problem: Problem, solution: Solution) -> Iterator[Violation]:
    options, rows, tiers = problem.options, problem.rows, problem.tiers
    begins, ends = options.row_start[solution.choice], options.row_start[solution.choice + 1]
    at: Any = np.concatenate([np.arange(b, e) for b, e in zip(begins, ends, strict=True)] or [np.zeros(0, np.int64)])
    at = at.astype(np.int64)
    used = exact_group_sums(options.use[at], options.row[at], len(rows.names))
    bought = [0] * len(rows.names)
    for row, size, count in zip(tiers.row, tiers.size, solution.units, strict=True):
        bought[row] += int(size) * int(count)
    for row, amount in enumerate(used):
        limit = int(rows.capacity[row]) + bought[row]
        if amount > limit:
            yield Violation("row", f"{rows.names[row]}: {amount} of {limit}")


def _optional_fallbacks(problem: Problem) -> set[int]:
    """Workloads with an availability row: their fallback may be nowhere if the row holds without it."""
    options, kinds = problem.options, problem.rows.kind
    rows = [row for row, kind in enumerate(kinds) if kind == "availability"]
    option = np.repeat(np.arange(len(options.part)), np.diff(options.row_start))
    users = option[np.isin(options.row, rows)]
    return {int(each) for each in problem.parts.workload[options.part[users]]}


def _combination_violations(problem: Problem, solution: Solution) -> Iterator[Violation]:
    """Fallbacks are in another failure domain than their primary, and a burst has its primary's level."""
    site, level = problem.options.site[solution.choice], problem.options.level[solution.choice]
    optional = _optional_fallbacks(problem)
    parts_by_role: dict[tuple[int, int], list[int]] = {}
    for part, (workload, role) in enumerate(zip(problem.parts.workload, problem.parts.role, strict=True)):
        parts_by_role.setdefault((int(workload), int(role)), []).append(part)
    for (workload, role), parts in parts_by_role.items():
        primaries = parts_by_role.get((workload, PRIMARY), [])
        name = problem.workloads[workload]
        if role == FALLBACK:
            taken = {int(problem.sites.domain[site[part]]) for part in primaries if site[part] >= 0}
            if any(site[part] >= 0 and int(problem.sites.domain[site[part]]) in taken for part in parts):
                yield Violation("apart", f"{name} falls back to the failure domain that it must stand in for")
        if role == POOL:
            if any(site[part] >= 0 for part in parts):
                yield Violation("choice", f"{name} holds units at a site instead of for all")
            continue
        if role == BURST and any(level[one] != level[other] for one in parts for other in primaries):
            yield Violation("burst", f"{name} bursts at another level than its primary leaves")
        idle = role == FALLBACK and workload in optional
        if not idle and any(site[part] < 0 and (role != BURST or level[part] != 0) for part in parts):
            yield Violation("choice", f"{name} has a part that runs nowhere")
