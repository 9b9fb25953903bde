"""Why there is no placement: the smallest set of rules that cannot hold together, and what relaxing each would cost.

A set is found by its opposite: each placement of everything breaks some rules; the smallest set that shares a rule with
every way out (a minimum hitting set) and admits no placement itself is the smallest conflict. Each answer is a proof:
what is named admits no placement, and every smaller set does. Pure; words are made elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from groundplan.placement.problem import Flags, Ints, Options, Problem, Rows, WorkLimit
from groundplan.placement.solve.arrays import arrays
from groundplan.placement.solve.heavy import module
from groundplan.placement.solve.neighbourhoods import plan_of
from groundplan.placement.solve.optimise import optimise
from groundplan.placement.solve.shift import Shift
from groundplan.placement.solve.submodel import Effort, search

_NO_LIMIT = 2**61
_MOST_CHECKS = 120
_EFFORT = 10.0
TIED = ("burst", "pool")
"""Rows that hold a decision together, and are no rules"""


@dataclass(frozen=True, slots=True)
class Relaxed:
    """One rule of a conflict, and the cost of the best placement found without it."""

    rule: str
    cost: int | None
    """None: without it there is still no placement, because of other rules"""
    bound: int | None
    """no placement without the rule costs less"""


@dataclass(frozen=True, slots=True)
class Conflict:
    """Rules that cannot hold together."""

    rules: tuple[Relaxed, ...]
    smallest: bool
    """False: none of them can be left out, but a smaller set may exist elsewhere"""


def conflict(problem: Problem, limit: WorkLimit | None = None) -> Conflict | None:
    """None where there is a placement, or where no proof was found that there is none. `limit` is for each price."""
    names = rules_of(problem)
    found = _smallest(problem, names)
    if found is None:
        return None
    chosen, smallest = found
    return Conflict(tuple(_relaxed(problem, names[at], limit or WorkLimit(work=6)) for at in chosen), smallest)


def rules_of(problem: Problem) -> tuple[str, ...]:
    """Everything that can be relaxed: rules that exclude options, and rows but those that tie bursts together."""
    rows = [name for name, kind in zip(problem.rows.names, problem.rows.kind, strict=True) if kind not in TIED]
    grouped = [_row_rule(name) for name in rows]
    return tuple(dict.fromkeys([*problem.rules, *grouped]))


def without(problem: Problem, dropped: Sequence[str]) -> Problem:
    """The same problem without these rules."""
    gone = set(dropped)
    keep_rule = np.array([name not in gone for name in problem.rules], dtype=np.bool_)
    free = np.array([_row_rule(name) in gone for name in problem.rows.names], dtype=np.bool_)
    return replace(problem, options=_options(problem, keep_rule), rows=_rows(problem, free))


def _row_rule(name: str) -> str:
    """Rows of one rule in several failure domains are one rule."""
    return name.partition(" in domain ")[0] if ": fallback apart in domain " in name else name


def _options(problem: Problem, keep: Flags) -> Options:
    options = problem.options
    owner = np.repeat(np.arange(len(options.part)), np.diff(options.rule_start))
    stays = keep[options.rule] if len(options.rule) else np.zeros(0, dtype=np.bool_)
    starts = np.append(0, np.cumsum(np.bincount(owner[stays], minlength=len(options.part)))).astype(np.int64)
    return replace(options, rule_start=starts, rule=options.rule[stays])


def _rows(problem: Problem, free: Flags) -> Rows:
    return replace(problem.rows, capacity=np.where(free, np.int64(_NO_LIMIT), problem.rows.capacity))


def _smallest(problem: Problem, names: tuple[str, ...]) -> tuple[list[int], bool] | None:
    """Indices of the rules of a smallest conflict."""
    ways_out: list[frozenset[int]] = []
    for _ in range(_MOST_CHECKS):
        held = _hitting(ways_out, len(names))
        broken = _broken(problem, names, held)
        if broken is None:
            return sorted(held), True
        if not broken:
            return None
        ways_out.append(_shrunk(problem, names, broken))
    everything = frozenset(range(len(names)))
    if _broken(problem, names, everything) is not None:
        return None
    return _irreducible(problem, names), False


def _hitting(ways_out: Sequence[frozenset[int]], count: int) -> frozenset[int]:
    """The fewest rules that share one with every way out; the earliest of them among equals."""
    if not ways_out:
        return frozenset()
    lib = module("ortools.sat.python.cp_model")
    model = lib.CpModel()
    members = sorted(frozenset().union(*ways_out))
    held = {at: model.new_bool_var("") for at in members}
    for way in ways_out:
        model.add_bool_or([held[at] for at in sorted(way)])
    model.minimize(lib.LinearExpr.weighted_sum(list(held.values()), [count * count + at for at in members]))
    solver = lib.CpSolver()
    solver.parameters.num_workers = 1
    solver.solve(model)
    return frozenset(at for at, variable in held.items() if solver.boolean_value(variable))


def _broken(problem: Problem, names: tuple[str, ...], held: frozenset[int]) -> frozenset[int] | None:
    """Rules that one placement which keeps `held` breaks; None: no placement keeps them. Empty: it keeps all."""
    choice = _any(without(problem, [name for at, name in enumerate(names) if at not in held]))
    if choice is None:
        return None
    number = {name: at for at, name in enumerate(names)}
    options = problem.options
    found: set[int] = set()
    for option in choice:
        begin, end = int(options.rule_start[option]), int(options.rule_start[option + 1])
        found.update(number[problem.rules[rule]] for rule in options.rule[begin:end])
    used = np.zeros(len(problem.rows.names), dtype=np.int64)
    for option in choice:
        begin, end = int(options.row_start[option]), int(options.row_start[option + 1])
        used[options.row[begin:end]] += options.use[begin:end]
    widest = problem.rows.capacity.copy()
    np.add.at(widest, problem.tiers.row, problem.tiers.size * np.minimum(problem.tiers.most, 2**20))
    for row in np.flatnonzero(used > widest):
        if problem.rows.kind[row] not in TIED:
            found.add(number[_row_rule(problem.rows.names[row])])
    return frozenset(found)


def _shrunk(problem: Problem, names: tuple[str, ...], broken: frozenset[int]) -> frozenset[int]:
    """Keep more rules as long as some placement still keeps them: the fewer are broken, the more this way out says."""
    for _ in range(3):
        for at in sorted(broken):
            fewer = _broken(problem, names, frozenset(range(len(names))) - (broken - {at}))
            if fewer:
                broken = fewer
                break
        else:
            break
    return broken


def _irreducible(problem: Problem, names: tuple[str, ...]) -> list[int]:
    held = list(range(len(names)))
    for at in list(held):
        fewer = [each for each in held if each != at]
        if _broken(problem, names, frozenset(fewer)) is None:
            held = fewer
    return held


def _any(problem: Problem) -> Ints | None:
    """Some placement [P], or None where there is none."""
    data = arrays(problem)
    if len(data.empty_parts()):
        return None
    shift = Shift(data, data.cheapest(data.price), data.price)
    if shift.mend(30 + data.parts) and plan_of(data, shift.choice) is not None:
        return data.index[shift.choice]
    everything: Flags = np.ones(len(data.index), dtype=np.bool_)
    answer = search(data, np.arange(data.parts), everything, None, Effort(_EFFORT, first=True))
    return None if answer.choice is None else data.index[answer.choice]


def _relaxed(problem: Problem, rule: str, limit: WorkLimit) -> Relaxed:
    solution = optimise(without(problem, [rule]), limit)
    if not solution.found:
        return Relaxed(rule, None, None)
    return Relaxed(rule, solution.cost, solution.bound)
