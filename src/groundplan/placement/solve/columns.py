"""Column generation: each site's capacity is priced exactly, which bounds better than the relaxation; plans by diving.

A column is a set of options that one site can hold together. The master problem chooses at most one column for each
site so that every part is served and every row across sites holds; its prices lead to better columns until none is
left. A dive then fixes the column of the largest share, again and again. Not for sites at which units can be bought.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from groundplan.placement.problem import Ints
from groundplan.placement.solve.arrays import Floats
from groundplan.placement.solve.backends import module, quiet
from groundplan.placement.solve.knapsacks import Knapsacks
from groundplan.placement.solve.work_limit import Budget

_CLOSE = 0.05
"""Published prices are whole numbers: a gap of this much of one changes no bound after rounding up."""


_WIDEST = 600
"""labels while columns are generated"""
_ROUNDS = 20
"""of generation between two steps of a dive"""


@dataclass(frozen=True, slots=True, eq=False)
class Rest:
    """What a dive has not fixed yet."""

    sites: Ints
    options: Ints
    """of parts that are not placed"""
    taken: tuple[int, ...] = ()
    """columns fixed"""


@dataclass(frozen=True, slots=True, eq=False)
class Point:
    """Where column generation stands."""

    bound: float
    part: Floats
    row: Floats
    """[R] of rows across sites; those of sites keep the prices they came with"""
    share: Floats
    """of each column"""


class Master:
    """The restricted master problem in HiGHS, with the columns found so far."""

    def __init__(self, knapsacks: Knapsacks) -> None:
        self.knapsacks = knapsacks
        data = self.data = knapsacks.data
        self.money = knapsacks.money
        self.solver = quiet(module("highspy"))
        self.columns: list[tuple[int, Ints]] = []
        self._known: set[tuple[int, bytes]] = set()
        nothing, none = np.zeros(0, dtype=np.int32), np.zeros(0)
        for _ in range(data.parts):
            self.solver.addRow(1.0, 1.0, 0, nothing, none)
        for _ in range(data.sites):
            self.solver.addRow(-np.inf, 1.0, 0, nothing, none)
        self.shared = knapsacks.shared
        self._shared_at = np.full(data.rows + 1, -1, dtype=np.int64)
        self._shared_at[self.shared] = data.parts + data.sites + np.arange(len(self.shared))
        for row in self.shared:
            self.solver.addRow(-np.inf, float(data.capacity[row]) / knapsacks.size[row], 0, nothing, none)
        unserved = 3.0 * (float(np.abs(data.price).max(initial=0.0)) + float(data.opening.max())) / self.money + 1.0
        for part in range(data.parts):
            self.solver.addCol(unserved, 0.0, np.inf, 1, np.array([part], np.int32), np.ones(1))
        for option in np.flatnonzero(data.site == data.sites):
            self.add(data.sites, np.array([option]))

    def add(self, site: int, options: Ints) -> bool:
        """A set of options for a site; False where it is known."""
        key = (site, options.tobytes())
        if key in self._known:
            return False
        self._known.add(key)
        self.columns.append((site, options))
        data = self.data
        weight = np.zeros(data.parts + data.sites + len(self.shared))
        weight[data.part[options]] = 1.0
        cost = float(data.price[options].sum())
        if site < data.sites:
            weight[data.parts + site] = 1.0
            cost += float(data.opening[site]) if len(options) else 0.0
        rows, uses = data.row[options].reshape(-1), data.use[options].reshape(-1)
        real = self._shared_at[rows] >= 0
        np.add.at(weight, self._shared_at[rows[real]], uses[real] / self.knapsacks.size[rows[real]])
        at = np.flatnonzero(weight)
        self.solver.addCol(cost / self.money, 0.0, np.inf, len(at), at.astype(np.int32), weight[at])
        return True

    def bound_column(self, column: int, low: float) -> None:
        """Fix a column (1) or free it again (0)."""
        self.solver.changeColBounds(self.data.parts + column, low, np.inf)

    def solve(self) -> tuple[float, Floats, Floats, Floats]:
        """Value, part multipliers, [R] row multipliers and column shares."""
        self.solver.run()
        answer, data = self.solver.getSolution(), self.data
        dual = np.array(answer.row_dual) * self.money
        row = np.zeros(data.rows)
        row[self.shared] = np.maximum(0.0, -dual[data.parts + data.sites :]) / self.knapsacks.size[self.shared]
        value = float(self.solver.getInfo().objective_function_value) * self.money
        return value, dual[: data.parts], row, np.array(answer.col_value)[data.parts :]


def generate(master: Master, rest: Rest, start: Point, budget: Budget, rounds: int, close: float = _CLOSE) -> Point:
    """Add columns until the bound of the rest is within `close` of its value; smoothed towards the best multipliers.

    The bound is one of the whole problem only while nothing is fixed; in a dive it only steers.
    """
    data = master.data
    open_parts = np.unique(data.part[rest.options])
    fixed = sum(float(data.price[master.columns[at][1]].sum()) for at in rest.taken)
    fixed += sum(float(data.opening[master.columns[at][0]]) for at in rest.taken)
    part, row, smooth = start.part, start.row, 0.7
    best = Point(-np.inf, part, row, np.zeros(0))
    for _ in range(rounds):
        bound, new = _priced(master, rest, part, row)
        bound += float(part[open_parts].sum()) - float((row[master.shared] * data.capacity[master.shared]).sum())
        if bound > best.bound:
            best = Point(bound, part, row, best.share)
        value, dual, dual_row, share = master.solve()
        best = Point(best.bound, best.part, best.row, share)
        if value - fixed - best.bound < close * master.knapsacks.grain or budget.over():
            break
        smooth = smooth if new else max(0.0, smooth - 0.3)
        part = smooth * best.part + (1 - smooth) * dual
        row = row.copy()
        row[master.shared] = (smooth * best.row + (1 - smooth) * dual_row)[master.shared]
    return best


def _priced(master: Master, rest: Rest, part: Floats, row: Floats) -> tuple[float, bool]:
    """The sum of the sites' least costs at these multipliers, and whether any column is new."""
    knapsacks, data = master.knapsacks, master.data
    reduced = knapsacks.reduced(part, row)
    allowed = np.zeros(len(data.index), dtype=np.bool_)
    allowed[rest.options] = True
    nowhere = rest.options[data.site[rest.options] == data.sites]
    value, new = float(np.minimum(reduced[nowhere], 0.0).sum()), False
    for site in rest.sites:
        taken = knapsacks.least(int(site), reduced, row, allowed, _WIDEST)
        whole = float(taken.bound) + float(data.opening[site])
        value += min(0.0, whole)
        if whole < 0 and len(taken.options):
            new |= master.add(int(site), taken.options)
    return value, new


def dive(master: Master, start: Point, budget: Budget, draw: np.random.Generator, leave: int) -> tuple[Ints, Rest]:
    """Fix columns until `leave` parts are left. Returns [P] the option of each fixed part, else -1, and the rest."""
    data = master.data
    rest = Rest(np.arange(data.sites), np.arange(len(data.index)))
    placed: Ints = np.full(data.parts, -1, dtype=np.int64)
    point = start
    while (placed < 0).sum() > leave and len(rest.sites) and not budget.over():
        point = generate(master, rest, point, budget, _ROUNDS, 10 * _CLOSE)
        share = point.share.copy()
        share[list(rest.taken)] = 0.0
        picked = _picked(share, None if rest.taken else draw)
        before = len(rest.taken)
        for column in picked:
            site, options = master.columns[column]
            fits = np.isin(options, rest.options).all() and (site == data.sites or site in rest.sites)
            if not fits or (placed < 0).sum() <= leave:
                continue
            master.bound_column(column, 1.0)
            placed[data.part[options]] = options
            left = rest.options[placed[data.part[rest.options]] < 0]
            if site < data.sites:
                left = left[data.site[left] != site]
            rest = Rest(rest.sites[rest.sites != site], left, (*rest.taken, column))
        if len(rest.taken) == before:
            break
    for column in rest.taken:
        master.bound_column(column, 0.0)
    return placed, rest


def _picked(share: Floats, draw: np.random.Generator | None) -> list[int]:
    """All columns that are whole, after the one of the largest share, or one drawn among the five largest."""
    whole = np.flatnonzero(share > 0.999)
    largest = np.argsort(-share, kind="stable")[:5]
    largest = largest[share[largest] > 1e-9]
    if not len(largest):
        return []
    weights = share[largest]
    first = int(largest[0]) if draw is None else int(draw.choice(largest, p=weights / weights.sum()))
    return list(dict.fromkeys([first, *whole.tolist()]))
