"""Why there is no placement: the smallest set of rules that cannot hold together, and what relaxing each would cost.

A set is found by its opposite: each placement of everything breaks some rules; the smallest set that shares a rule with
every way out (a minimum hitting set) and admits no placement itself is the smallest conflict. A way out is a placement
that breaks as few rules as a short search finds; from each hitting set on, ways out that share nothing are taken until
there is none (J. Davies, F. Bacchus, CP 2011). The search begins with few workloads that cannot be placed even alone:
their conflict is the smallest of all as soon as as many ways out of the whole share nothing. Each answer is a proof:
what is named admits no placement, and every smaller set does. Pure; words are made elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from groundplan.placement.problem import POOL, Flags, Ints, Options, Problem, Rows, WorkLimit
from groundplan.placement.solve.arrays import build_arrays
from groundplan.placement.solve.backends import import_solver
from groundplan.placement.solve.optimise import optimise

_NO_LIMIT = 2**61
_MAX_CHECKS = 120
_EFFORTS = (0.5, 10.0)
"""deterministic time of each check: more only where a short one says nothing"""
_MAX_WORKLOADS = 500
"""workloads of which each is asked whether it has a place alone"""
_LARGE_USE = 2**60
_WHOLE_SEARCH, _LEAVING_OUT = 30.0, 15.0
"""deterministic time of all checks of a search, and of leaving out what may be left out where it found nothing"""
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
    """False: the search was too short to say; a smaller set may exist"""


def find_conflict(problem: Problem, limit: WorkLimit | None = None) -> Conflict | None:
    """None where there is a placement, or where no proof was found that there is none. `limit` is for each price."""
    names = rules_of(problem)
    found = _smallest(problem, names)
    if found is None:
        return None
    chosen, smallest = found
    return Conflict(tuple(_price_relaxed(problem, names[at], limit or WorkLimit(work=6)) for at in chosen), smallest)


def rules_of(problem: Problem) -> tuple[str, ...]:
    """Everything that can be relaxed: rules that exclude options, and rows but those that tie bursts together."""
    rows = [name for name, kind in zip(problem.rows.names, problem.rows.kind, strict=True) if kind not in TIED]
    grouped = [_row_rule(name) for name in rows]
    return tuple(dict.fromkeys([*problem.rules, *grouped]))


def without_rules(problem: Problem, dropped: Sequence[str]) -> Problem:
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
    """Indices of the rules of a conflict, and whether it is proven to be a smallest one; None where there is none, or
    where the search was too short to say."""
    work = _Work(_WHOLE_SEARCH)
    few = _unplaceable_parts(problem, names, work)
    if few is None:
        return None
    model = _BreakableModel(problem, names, work, few)
    found, proven = _smallest_conflict(model, len(names), None)
    if found is None:
        model.work = _Work(_LEAVING_OUT)
        found = _irreducible_rules(model)
    if len(few) == len(problem.parts.workload) or not found:
        return found, proven
    smaller, proven_whole = _smallest_conflict(_BreakableModel(problem, names, work), len(names), len(found))
    return (found, proven and proven_whole) if smaller is None else (smaller, proven_whole)


@dataclass(slots=True)
class _Work:
    """Deterministic time that is left."""

    left: float


def _unplaceable_parts(problem: Problem, names: tuple[str, ...], work: _Work) -> Ints | None:
    """Parts of a few workloads that cannot be placed even without the others: as few as short checks find.
    None where that is not proven of all of them together."""
    pool = problem.parts.role == POOL
    every = [int(each) for each in np.unique(problem.parts.workload[~pool])]

    def parts(kept: Sequence[int]) -> Ints:
        found: Ints = np.flatnonzero(pool | np.isin(problem.parts.workload, kept))
        return found

    def impossible(kept: Sequence[int], efforts: Sequence[float] = _EFFORTS[:1]) -> bool:
        model = _BreakableModel(problem, names, work, parts(kept))
        return model.fewest(frozenset(range(len(names))), efforts) is None and model.proven

    nowhere = problem.parts.workload[build_arrays(problem).empty_parts()].tolist()
    if not nowhere and not impossible(every, _EFFORTS):
        return None
    alone = nowhere[:1] or [each for each in every[:_MAX_WORKLOADS] if impossible([each])][:1]
    if alone:
        return parts(alone)
    size, enough = len(every) // 2, work.left / 2
    while size and work.left > enough:
        at = 0
        while at < len(every) and work.left > enough:
            fewer = every[:at] + every[at + size :]
            if fewer and impossible(fewer):
                every = fewer
            else:
                at += size
        size //= 2
    return parts(every)


def _smallest_conflict(model: _BreakableModel, count: int, most: int | None) -> tuple[list[int] | None, bool]:
    """(the smallest conflict, proven to be). None: there is none of fewer than `most` rules where that is proven, else
    none was found in so many checks."""
    ways_out: list[frozenset[int]] = []
    checks = 0
    while checks < _MAX_CHECKS:
        held = _smallest_hitting_set(ways_out, count)
        if most is not None and len(held) >= most:
            return None, True
        way = model.fewest(held)
        checks += 1
        if way is None:
            return (sorted(held), model.exact) if model.proven else (None, False)
        apart = 0
        while way and checks < _MAX_CHECKS:
            ways_out.append(way)
            apart += 1
            if most is not None and apart >= most:
                return None, True
            held |= way
            way = model.fewest(held)
            checks += 1
    return None, False


def _smallest_hitting_set(ways_out: Sequence[frozenset[int]], count: int) -> frozenset[int]:
    """The fewest rules that share one with every way out; the earliest of them among equals."""
    if not ways_out:
        return frozenset()
    lib = import_solver("ortools.sat.python.cp_model")
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


class _BreakableModel:
    """The whole as one model of CP-SAT in which each rule may be broken: options that it excludes may be taken, rows
    that it is hold whatever is put on them."""

    def __init__(self, problem: Problem, names: tuple[str, ...], work: _Work, parts: Ints | None = None) -> None:
        """`parts`: only of these parts; None: of all."""
        self.lib = import_solver("ortools.sat.python.cp_model")
        self.model = self.lib.CpModel()
        self.proven, self.exact, self.work = False, True, work
        self.number = {name: at for at, name in enumerate(names)}
        self.broken: dict[int, Any] = {}
        first, options = problem.part_start, problem.options
        taken: dict[int, Any] = {}
        for part in range(len(first) - 1) if parts is None else parts.tolist():
            mine = {option: self.model.new_bool_var("") for option in range(int(first[part]), int(first[part + 1]))}
            self.model.add_exactly_one(mine.values())
            taken |= mine
        for option, variable in taken.items():
            for rule in options.rule[options.rule_start[option] : options.rule_start[option + 1]]:
                self.model.add_implication(variable, self._rule(problem.rules[rule]))
        self._rows(problem, taken)
        self.model.minimize(self.lib.LinearExpr.sum(list(self.broken.values())))

    def _rule(self, name: str) -> Any:
        """Whether it is broken."""
        at = self.number[name]
        if at not in self.broken:
            self.broken[at] = self.model.new_bool_var("")
        return self.broken[at]

    def _rows(self, problem: Problem, taken: Mapping[int, Any]) -> None:
        options, rows, tiers = problem.options, problem.rows, problem.tiers
        found: dict[int, list[tuple[Any, int]]] = {}
        for option, variable in taken.items():
            for at in range(int(options.row_start[option]), int(options.row_start[option + 1])):
                found.setdefault(int(options.row[at]), []).append((variable, int(options.use[at])))
        mine = np.isin(tiers.row, list(found))
        for tier in np.flatnonzero(mine):
            units = self.model.new_int_var(0, int(min(tiers.max_units[tier], 2**20)), "")
            found[int(tiers.row[tier])].append((units, -int(tiers.size[tier])))
        for row, terms in sorted(found.items()):
            name = _row_rule(rows.names[row])
            self._row(terms, int(rows.capacity[row]), None if rows.kind[row] in TIED else self._rule(name))

    def _row(self, terms: Sequence[tuple[Any, int]], capacity: int, broken: Any) -> None:
        """What is put on it is at most its capacity, unless it is broken."""
        grain = max(1, (sum(abs(use) for _, use in terms) + abs(capacity)) // _LARGE_USE)
        self.exact &= grain == 1
        used = self.lib.LinearExpr.weighted_sum([each for each, _ in terms], [-(-use // grain) for _, use in terms])
        held = self.model.add(used <= capacity // grain)
        if broken is not None:
            held.only_enforce_if(broken.negated())

    def fewest(self, held: frozenset[int], efforts: Sequence[float] = _EFFORTS) -> frozenset[int] | None:
        """Few rules that a placement which keeps `held` breaks, as few as a short search finds; None: no placement
        keeps them where `proven` says so, else none was found. Empty: it keeps all."""
        self.model.clear_assumptions()
        self.model.add_assumptions([each.negated() for at, each in self.broken.items() if at in held])
        self.proven = False
        for effort in efforts:
            if self.work.left <= 0:
                return None
            solver = self.lib.CpSolver()
            solver.parameters.num_workers = 1
            solver.parameters.max_deterministic_time = effort
            status = solver.solve(self.model)
            self.work.left -= float(solver.response_proto.deterministic_time)
            self.proven = status == self.lib.INFEASIBLE
            if status != self.lib.UNKNOWN:
                break
        if status not in (self.lib.OPTIMAL, self.lib.FEASIBLE):
            return None
        return frozenset(at for at, each in self.broken.items() if solver.boolean_value(each))


def _irreducible_rules(model: _BreakableModel) -> list[int]:
    """Rules of a conflict of which none can be left out."""
    held = sorted(model.broken)
    for at in list(held):
        fewer = [each for each in held if each != at]
        if model.fewest(frozenset(fewer)) is None and model.proven:
            held = fewer
    return held


def _price_relaxed(problem: Problem, rule: str, limit: WorkLimit) -> Relaxed:
    solution = optimise(without_rules(problem, [rule]), limit)
    if not solution.is_found:
        return Relaxed(rule, None, None)
    return Relaxed(rule, solution.cost, solution.bound)
