"""Why there is no placement: the smallest set of rules that cannot hold together, and the cost of relaxing each.

The set is found through its dual. Each placement of all workloads breaks some rules, its "way out". The smallest set
that shares a rule with every way out (a minimum hitting set), and that admits no placement itself, is the smallest
conflict. A way out is a placement that breaks as few rules as a short search finds; from each hitting set on, disjoint
ways out are collected until there are none (J. Davies, F. Bacchus, CP 2011). The search starts with a few workloads
that cannot be placed even alone: their conflict is a smallest one of all workloads once as many disjoint ways out of
the whole problem are found. Each answer is a proof: its rules admit no placement, and every smaller set does. Pure;
sentences are made elsewhere.
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
_CHECK_EFFORTS = (0.5, 10.0)
"""deterministic time of each check: the longer one only where the short one is inconclusive"""
_MAX_WORKLOADS = 500
"""workloads up to which each is checked for a placement of its own"""
_LARGE_USE = 2**60
_SEARCH_WORK, _REDUCE_WORK = 30.0, 15.0
"""deterministic time of all checks of a search, and of reducing the set of all rules where the search found none"""
LINKING_KINDS = ("burst", "pool")
"""kinds of rows that link the parts of one decision, and are not rules"""


@dataclass(frozen=True, slots=True)
class Relaxed:
    """One rule of a conflict, and the cost of the best placement found without it."""

    rule: str
    cost: int | None
    """None: without the rule there is still no placement, because of other rules"""
    bound: int | None
    """a lower bound of the cost without the rule"""


@dataclass(frozen=True, slots=True)
class Conflict:
    """A set of rules that cannot hold together."""

    rules: tuple[Relaxed, ...]
    smallest: bool
    """False: the search was too short to say; a smaller set may exist"""


def find_conflict(problem: Problem, limit: WorkLimit | None = None) -> Conflict | None:
    """The smallest conflict; None where there is a placement, or no proof that there is none. `limit`: for the
    placement without each rule."""
    names = relaxable_rules(problem)
    found = _find_conflict_rules(problem, names)
    if found is None:
        return None
    chosen, smallest = found
    return Conflict(tuple(_price_relaxed(problem, names[at], limit or WorkLimit(work=6)) for at in chosen), smallest)


def relaxable_rules(problem: Problem) -> tuple[str, ...]:
    """All rules that can be relaxed: those that exclude options, and rows other than linking ones."""
    rows = [name for name, kind in zip(problem.rows.names, problem.rows.kind, strict=True) if kind not in LINKING_KINDS]
    grouped = [_row_rule(name) for name in rows]
    return tuple(dict.fromkeys([*problem.rules, *grouped]))


def without_rules(problem: Problem, dropped: Sequence[str]) -> Problem:
    """The same problem without these rules."""
    dropped_rules = set(dropped)
    keep_rule = np.array([name not in dropped_rules for name in problem.rules], dtype=np.bool_)
    free = np.array([_row_rule(name) in dropped_rules for name in problem.rows.names], dtype=np.bool_)
    return replace(problem, options=_keep_rules(problem, keep_rule), rows=_lift_rows(problem, free))


def _row_rule(name: str) -> str:
    """The rule of a row: the rows of one rule in several failure domains are one rule."""
    return name.partition(" in domain ")[0] if ": fallback apart in domain " in name else name


def _keep_rules(problem: Problem, keep: Flags) -> Options:
    options = problem.options
    owner = np.repeat(np.arange(len(options.part)), np.diff(options.rule_start))
    stays = keep[options.rule] if len(options.rule) else np.zeros(0, dtype=np.bool_)
    starts = np.append(0, np.cumsum(np.bincount(owner[stays], minlength=len(options.part)))).astype(np.int64)
    return replace(options, rule_start=starts, rule=options.rule[stays])


def _lift_rows(problem: Problem, free: Flags) -> Rows:
    return replace(problem.rows, capacity=np.where(free, np.int64(_NO_LIMIT), problem.rows.capacity))


def _find_conflict_rules(problem: Problem, names: tuple[str, ...]) -> tuple[list[int], bool] | None:
    """Indices of the rules of a conflict, and whether it is proven to be a smallest one; None where there is none, or
    where the search was too short to say."""
    work = _RemainingWork(_SEARCH_WORK)
    core_parts = _unplaceable_parts(problem, names, work)
    if core_parts is None:
        return None
    model = _BreakableModel(problem, names, work, core_parts)
    found, proven = _smallest_conflict(model, len(names), None)
    if found is None:
        model.work = _RemainingWork(_REDUCE_WORK)
        found = _irreducible_rules(model)
    if len(core_parts) == len(problem.parts.workload) or not found:
        return found, proven
    smaller, proven_whole = _smallest_conflict(_BreakableModel(problem, names, work), len(names), len(found))
    return (found, proven and proven_whole) if smaller is None else (smaller, proven_whole)


@dataclass(slots=True)
class _RemainingWork:
    """The remaining deterministic time."""

    left: float


def _unplaceable_parts(problem: Problem, names: tuple[str, ...], work: _RemainingWork) -> Ints | None:
    """The parts of a few workloads that cannot be placed even without the others: as few as short checks find.
    None where it is not proven that all workloads together cannot be placed."""
    pool = problem.parts.role == POOL
    every = [int(each) for each in np.unique(problem.parts.workload[~pool])]

    def parts(workloads: Sequence[int]) -> Ints:
        found: Ints = np.flatnonzero(pool | np.isin(problem.parts.workload, workloads))
        return found

    def impossible(workloads: Sequence[int], efforts: Sequence[float] = _CHECK_EFFORTS[:1]) -> bool:
        model = _BreakableModel(problem, names, work, parts(workloads))
        return model.find_broken_rules(frozenset(range(len(names))), efforts) is None and model.proven

    nowhere = problem.parts.workload[build_arrays(problem).empty_parts()].tolist()
    if not nowhere and not impossible(every, _CHECK_EFFORTS):
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
    """(the smallest conflict, whether it is proven to be smallest). (None, True): there is no conflict of fewer than
    `most` rules; (None, False): none was found in `_MAX_CHECKS` checks."""
    ways_out: list[frozenset[int]] = []
    checks = 0
    while checks < _MAX_CHECKS:
        kept = _smallest_hitting_set(ways_out, count)
        if most is not None and len(kept) >= most:
            return None, True
        broken = model.find_broken_rules(kept)
        checks += 1
        if broken is None:
            return (sorted(kept), model.exact) if model.proven else (None, False)
        disjoint = 0
        while broken and checks < _MAX_CHECKS:
            ways_out.append(broken)
            disjoint += 1
            if most is not None and disjoint >= most:
                return None, True
            kept |= broken
            broken = model.find_broken_rules(kept)
            checks += 1
    return None, False


def _smallest_hitting_set(ways_out: Sequence[frozenset[int]], count: int) -> frozenset[int]:
    """The smallest set that shares a rule with every way out; of equal ones the earliest rules."""
    if not ways_out:
        return frozenset()
    lib = import_solver("ortools.sat.python.cp_model")
    model = lib.CpModel()
    members = sorted(frozenset().union(*ways_out))
    kept = {at: model.new_bool_var("") for at in members}
    for broken in ways_out:
        model.add_bool_or([kept[at] for at in sorted(broken)])
    model.minimize(lib.LinearExpr.weighted_sum(list(kept.values()), [count * count + at for at in members]))
    solver = lib.CpSolver()
    solver.parameters.num_workers = 1
    solver.solve(model)
    return frozenset(at for at, variable in kept.items() if solver.boolean_value(variable))


class _BreakableModel:
    """The problem as a CP-SAT model in which each rule may be broken: then options that it excludes may be taken, and
    its rows have no limit."""

    def __init__(
        self, problem: Problem, names: tuple[str, ...], work: _RemainingWork, parts: Ints | None = None
    ) -> None:
        """`parts`: the parts in the model; None: all of them."""
        self.lib = import_solver("ortools.sat.python.cp_model")
        self.model = self.lib.CpModel()
        self.proven, self.exact, self.work = False, True, work
        self.rule_index = {name: at for at, name in enumerate(names)}
        self.broken: dict[int, Any] = {}
        first, options = problem.part_start, problem.options
        taken: dict[int, Any] = {}
        for part in range(len(first) - 1) if parts is None else parts.tolist():
            part_variables = {
                option: self.model.new_bool_var("") for option in range(int(first[part]), int(first[part + 1]))
            }
            self.model.add_exactly_one(part_variables.values())
            taken |= part_variables
        for option, variable in taken.items():
            for rule in options.rule[options.rule_start[option] : options.rule_start[option + 1]]:
                self.model.add_implication(variable, self._broken_variable(problem.rules[rule]))
        self._add_rows(problem, taken)
        self.model.minimize(self.lib.LinearExpr.sum(list(self.broken.values())))

    def _broken_variable(self, name: str) -> Any:
        """The variable that says whether a rule is broken."""
        at = self.rule_index[name]
        if at not in self.broken:
            self.broken[at] = self.model.new_bool_var("")
        return self.broken[at]

    def _add_rows(self, problem: Problem, taken: Mapping[int, Any]) -> None:
        options, rows, tiers = problem.options, problem.rows, problem.tiers
        found: dict[int, list[tuple[Any, int]]] = {}
        for option, variable in taken.items():
            for at in range(int(options.row_start[option]), int(options.row_start[option + 1])):
                found.setdefault(int(options.row[at]), []).append((variable, int(options.use[at])))
        used_tiers = np.isin(tiers.row, list(found))
        for tier in np.flatnonzero(used_tiers):
            units = self.model.new_int_var(0, int(min(tiers.max_units[tier], 2**20)), "")
            found[int(tiers.row[tier])].append((units, -int(tiers.size[tier])))
        for row, terms in sorted(found.items()):
            name = _row_rule(rows.names[row])
            self._add_row(
                terms, int(rows.capacity[row]), None if rows.kind[row] in LINKING_KINDS else self._broken_variable(name)
            )

    def _add_row(self, terms: Sequence[tuple[Any, int]], capacity: int, broken: Any) -> None:
        """The row's use is at most its capacity, unless the variable `broken` is true."""
        grain = max(1, (sum(abs(use) for _, use in terms) + abs(capacity)) // _LARGE_USE)
        self.exact &= grain == 1
        used = self.lib.LinearExpr.weighted_sum([each for each, _ in terms], [-(-use // grain) for _, use in terms])
        constraint = self.model.add(used <= capacity // grain)
        if broken is not None:
            constraint.only_enforce_if(broken.negated())

    def find_broken_rules(
        self, kept: frozenset[int], efforts: Sequence[float] = _CHECK_EFFORTS
    ) -> frozenset[int] | None:
        """The rules broken by a placement that keeps `kept`, as few as a short search finds; empty: it breaks none.
        None: no placement keeps `kept` if `proven`, else none was found."""
        self.model.clear_assumptions()
        self.model.add_assumptions([each.negated() for at, each in self.broken.items() if at in kept])
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
    """The rules of a conflict from which none can be left out."""
    kept = sorted(model.broken)
    for at in list(kept):
        fewer = [each for each in kept if each != at]
        if model.find_broken_rules(frozenset(fewer)) is None and model.proven:
            kept = fewer
    return kept


def _price_relaxed(problem: Problem, rule: str, limit: WorkLimit) -> Relaxed:
    solution = optimise(without_rules(problem, [rule]), limit)
    if not solution.is_found:
        return Relaxed(rule, None, None)
    return Relaxed(rule, solution.cost, solution.bound)
