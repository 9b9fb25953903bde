"""Why there is no placement: the smallest set of rules that cannot hold together, and what relaxing each would cost.

A set is found by its opposite: each placement of everything breaks some rules; the smallest set that shares a rule with
every way out (a minimum hitting set) and admits no placement itself is the smallest conflict. A way out is a placement
that breaks as few rules as one can that keeps what is held; from each hitting set on, ways out that share nothing are
taken until there is none (J. Davies, F. Bacchus, CP 2011). Each answer is a proof: what is named admits no placement,
and every smaller set does. Pure; words are made elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from groundplan.placement.problem import Flags, Options, Problem, Rows, WorkLimit
from groundplan.placement.solve.heavy import module
from groundplan.placement.solve.optimise import optimise

_NO_LIMIT = 2**61
_MOST_CHECKS = 120
_EFFORT = 10.0
"""deterministic time of each check"""
_LARGE_USE = 2**60
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
    """Indices of the rules of a smallest conflict, and whether it is proven to be one; None where there is none, or
    where the search was too short to say."""
    model = _Breakable(problem, names)
    ways_out: list[frozenset[int]] = []
    checks = 0
    while checks < _MOST_CHECKS:
        held = _hitting(ways_out, len(names))
        way = model.fewest(held)
        checks += 1
        if way is None:
            return (sorted(held), model.exact) if model.proven else None
        while way is not None and checks < _MOST_CHECKS:
            if not way:
                return None
            ways_out.append(way)
            held |= way
            way = model.fewest(held)
            checks += 1
    everything = frozenset(range(len(names)))
    if model.fewest(everything) is not None or not model.proven:
        return None
    return _irreducible(model, len(names)), False


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


class _Breakable:
    """The whole as one model of CP-SAT in which each rule may be broken: options that it excludes may be taken, rows
    that it is hold whatever is put on them."""

    def __init__(self, problem: Problem, names: tuple[str, ...]) -> None:
        self.lib = module("ortools.sat.python.cp_model")
        self.model = self.lib.CpModel()
        self.proven, self.exact = False, True
        self.broken = [self.model.new_bool_var("") for _ in names]
        number = dict(zip(names, self.broken, strict=True))
        options = problem.options
        taken = [self.model.new_bool_var("") for _ in options.part]
        for begin, end in pairwise(problem.first.tolist()):
            self.model.add_exactly_one(taken[begin:end])
        for option, variable in enumerate(taken):
            for rule in options.rule[options.rule_start[option] : options.rule_start[option + 1]]:
                self.model.add_implication(variable, number[problem.rules[rule]])
        self._rows(problem, number, taken)
        self.model.minimize(self.lib.LinearExpr.sum(self.broken))

    def _rows(self, problem: Problem, number: Mapping[str, Any], taken: Sequence[Any]) -> None:
        options, rows, tiers = problem.options, problem.rows, problem.tiers
        option = np.repeat(np.arange(len(options.part)), np.diff(options.row_start))
        order = np.argsort(options.row, kind="stable")
        begins = np.searchsorted(options.row[order], np.arange(len(rows.names) + 1))
        for row, (begin, end) in enumerate(pairwise(begins.tolist())):
            at, mine = order[begin:end], np.flatnonzero(tiers.row == row)
            terms = [(taken[each], int(use)) for each, use in zip(option[at], options.use[at], strict=True)]
            for tier in mine:
                units = self.model.new_int_var(0, int(min(tiers.most[tier], 2**20)), "")
                terms.append((units, -int(tiers.size[tier])))
            self._row(
                terms, int(rows.capacity[row]), None if rows.kind[row] in TIED else number[_row_rule(rows.names[row])]
            )

    def _row(self, terms: Sequence[tuple[Any, int]], capacity: int, broken: Any) -> None:
        """What is put on it is at most its capacity, unless it is broken."""
        grain = max(1, (sum(abs(use) for _, use in terms) + abs(capacity)) // _LARGE_USE)
        self.exact &= grain == 1
        used = self.lib.LinearExpr.weighted_sum([each for each, _ in terms], [-(-use // grain) for _, use in terms])
        held = self.model.add(used <= capacity // grain)
        if broken is not None:
            held.only_enforce_if(broken.negated())

    def fewest(self, held: frozenset[int]) -> frozenset[int] | None:
        """The fewest rules that a placement which keeps `held` breaks; None: none keeps them where `proven` says so,
        else none was found. Empty: it keeps all."""
        self.model.clear_assumptions()
        self.model.add_assumptions([self.broken[at].negated() for at in sorted(held)])
        solver = self.lib.CpSolver()
        solver.parameters.num_workers = 1
        solver.parameters.max_deterministic_time = _EFFORT
        status = solver.solve(self.model)
        self.proven = status == self.lib.INFEASIBLE
        if status not in (self.lib.OPTIMAL, self.lib.FEASIBLE):
            return None
        return frozenset(at for at, each in enumerate(self.broken) if solver.boolean_value(each))


def _irreducible(model: _Breakable, count: int) -> list[int]:
    held = list(range(count))
    for at in list(held):
        fewer = [each for each in held if each != at]
        if model.fewest(frozenset(fewer)) is None and model.proven:
            held = fewer
    return held


def _relaxed(problem: Problem, rule: str, limit: WorkLimit) -> Relaxed:
    solution = optimise(without(problem, [rule]), limit)
    if not solution.found:
        return Relaxed(rule, None, None)
    return Relaxed(rule, solution.cost, solution.bound)
