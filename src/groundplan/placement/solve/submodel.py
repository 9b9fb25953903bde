"""A neighbourhood solved by CP-SAT: some parts are placed anew, all others stay where they are.

Amounts and prices are scaled to a range that CP-SAT handles well. Uses are rounded up and capacities down, so that its
plans are feasible; the caller prices them exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from groundplan.placement.problem import Flags, Ints
from groundplan.placement.solve.arrays import Arrays
from groundplan.placement.solve.backends import import_solver

_MAX_OBJECTIVE = 2**40
_MAX_ROW_TOTAL = 2**45


@dataclass(frozen=True, slots=True)
class SubmodelResult:
    """The result of one neighbourhood."""

    choice: Ints | None
    """[P] or None: nothing better found"""
    complete: bool
    """the search was complete"""
    bound: int | None
    """a lower bound on the cost of these parts over the kept options; None where amounts had to be rounded"""
    work: float
    """deterministic time"""


@dataclass(frozen=True, slots=True)
class Effort:
    """How long one neighbourhood may be searched."""

    work: float
    seconds: float | None = None
    seed: int = 0
    threads: int = 1
    stops_at_first: bool = False
    """stop at the first plan"""


def solve_submodel(
    data: Arrays, free: Ints, keep: Flags, choice: Ints | None, effort: Effort, limit: int | None = None
) -> SubmodelResult:
    """Place the free parts [f] over the kept options [O]; `choice` [P] is the present plan (None: all parts are free).

    `limit`: only plans whose neighbourhood costs at most this much, in exact prices.
    """
    lib = import_solver("ortools.sat.python.cp_model")
    model = lib.CpModel()
    inside = np.zeros(data.part_count, dtype=np.bool_)
    inside[free] = True
    options = np.flatnonzero(keep & inside[data.part])
    variables = [model.new_bool_var("") for _ in options]
    starts = np.searchsorted(data.part[options], free)
    ends = np.searchsorted(data.part[options], free, side="right")
    for begin, end in zip(starts, ends, strict=True):
        model.add_exactly_one(variables[begin:end])
    stay = np.zeros(0, dtype=np.int64) if choice is None else choice[~inside]
    rows = _RowConstraints(lib, model, data, options, variables)
    rows.add(data.row_usage(stay))
    opens, opening = _add_opening_variables(model, data, options, variables, stay)
    weights = [*data.cost[options].tolist(), *rows.prices, *opening]
    unit = max(1, sum(abs(weight) for weight in weights) // _MAX_OBJECTIVE)
    objective = lib.LinearExpr.weighted_sum([*variables, *rows.units, *opens], [weight // unit for weight in weights])
    model.minimize(objective)
    if limit is not None:
        model.add(objective <= limit // unit)
    if choice is not None:
        now = set(choice[free].tolist())
        for option, variable in zip(options.tolist(), variables, strict=True):
            model.add_hint(variable, option in now)
    status, solver = _run_cp_sat(lib, model, effort)
    complete = status in (lib.OPTIMAL, lib.INFEASIBLE)
    work = float(solver.response_proto.deterministic_time)
    if status not in (lib.OPTIMAL, lib.FEASIBLE):
        return SubmodelResult(None, complete, None, work)
    taken = options[[solver.boolean_value(variable) for variable in variables]]
    found = np.zeros(data.part_count, dtype=np.int64) if choice is None else choice.copy()
    found[data.part[taken]] = taken
    bound = int(np.ceil(solver.best_objective_bound - 1e-6)) * unit
    return SubmodelResult(found, complete, bound if rows.exact else None, work)


def _run_cp_sat(lib: Any, model: Any, effort: Effort) -> tuple[Any, Any]:
    solver = lib.CpSolver()
    parameters = solver.parameters
    # several workers are deterministic only when they take turns, which gains nothing
    parameters.num_workers = 1 if effort.seconds is None else effort.threads
    parameters.max_deterministic_time = effort.work
    parameters.random_seed = effort.seed
    parameters.stop_after_first_solution = effort.stops_at_first
    if effort.seconds is not None:
        parameters.max_time_in_seconds = max(0.01, effort.seconds)
    return solver.solve(model), solver


class _RowConstraints:
    """The constraints of the rows that the options use, with integer variables for the units to buy."""

    def __init__(self, lib: Any, model: Any, data: Arrays, options: Ints, variables: list[Any]) -> None:
        self.lib, self.model, self.data = lib, model, data
        self.options, self.variables = options, variables
        self.units: list[Any] = []
        self.prices: list[int] = []
        self.exact = True

    def add(self, used: Ints) -> None:
        """Constrain each row: the options fit beside `used`, the amounts that fixed parts use."""
        rows, uses = self.data.row[self.options].reshape(-1), self.data.use[self.options].reshape(-1)
        number = np.repeat(np.arange(len(self.options)), self.data.row.shape[1])
        real = np.flatnonzero((rows < self.data.row_count) & (uses != 0))
        order = real[np.argsort(rows[real], kind="stable")]
        if not len(order):
            return
        begins = np.flatnonzero(np.diff(rows[order], prepend=-1))
        for begin, end in zip(begins, np.append(begins[1:], len(order)), strict=True):
            at = order[begin:end]
            row = int(rows[at[0]])
            self._row(row, number[at], uses[at], int(self.data.capacity[row]) - int(used[row]))

    def _row(self, row: int, number: Ints, uses: Ints, left: int) -> None:
        tiers = self.data.problem.tiers
        row_tiers = np.flatnonzero(tiers.row == row)
        positive = int(uses[uses > 0].astype(object).sum())
        if not len(row_tiers) and positive <= left:
            return
        total = int(np.abs(uses).astype(object).sum()) + abs(left)
        grain = max(1, total // _MAX_ROW_TOTAL)
        self.exact &= grain == 1
        units = [self.model.new_int_var(0, int(min(tiers.max_units[tier], 2**31)), "") for tier in row_tiers]
        self.units += units
        self.prices += [int(tiers.price[tier]) for tier in row_tiers]
        expression = self.lib.LinearExpr.weighted_sum(
            [*(self.variables[at] for at in number), *units],
            [*(-(-uses // grain)).tolist(), *(-(int(tiers.size[tier]) // grain) for tier in row_tiers)],
        )
        self.model.add(expression <= left // grain)


def _add_opening_variables(
    model: Any, data: Arrays, options: Ints, variables: list[Any], stay: Ints
) -> tuple[list[Any], list[int]]:
    """A variable for each site that only these options would open, and its opening cost."""
    used = np.zeros(data.site_count + 1, dtype=np.bool_)
    used[data.site[stay]] = True
    opens: dict[int, Any] = {}
    for option, variable in zip(options, variables, strict=True):
        site = int(data.site[option])
        if data.opening[site] > 0 and not used[site]:
            if site not in opens:
                opens[site] = model.new_bool_var("")
            model.add_implication(variable, opens[site])
    return list(opens.values()), [int(data.opening[site]) for site in opens]


def neighbourhood_cost(data: Arrays, free: Ints, choice: Ints) -> int:
    """The present cost of these parts and of the sites that only they open, without units bought."""
    inside = np.zeros(data.part_count, dtype=np.bool_)
    inside[free] = True
    others = np.zeros(data.site_count + 1, dtype=np.bool_)
    others[data.site[choice[~inside]]] = True
    sites = np.unique(data.site[choice[free]])
    cost: int = sum(data.cost[choice[free]].tolist())
    return cost + sum(int(data.opening[site]) for site in sites if not others[site])
