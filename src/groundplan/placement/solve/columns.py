"""Where every site is one knapsack: column generation, its bound, and plans found by diving.

A column is a set of parts that one site may hold. The master problem chooses at most one column for each site so that
every part is in one; its prices lead to better columns (exact knapsacks) until none is left. Its value is the best
bound that part multipliers alone can prove. A dive then fixes the column of the largest share, again and again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from groundplan.placement.problem import Indices, Ints
from groundplan.placement.solve.arrays import Arrays, Floats
from groundplan.placement.solve.budget import Budget
from groundplan.placement.solve.heavy import module, quiet
from groundplan.placement.solve.knapsack import LARGEST_TABLE, fill

_CLOSE = 0.05
"""Prices are whole numbers: a gap of this much of one changes no bound after rounding up."""


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """[m, n] by site and part; `option` -1 and a use above the capacity where there is none."""

    cost: Ints
    use: Ints
    capacity: Ints
    option: Ints


def table(data: Arrays) -> Table | None:
    """The problem as knapsacks, or None where it has more in it: openings, tiers, quotas, several resources."""
    problem = data.problem
    owned = problem.rows.site
    counts = np.bincount(owned[owned >= 0], minlength=data.sites)
    plain = (
        (owned >= 0).all()
        and (counts == 1).all()
        and not len(problem.tiers.row)
        and not data.opening.any()
        and (data.site < data.sites).all()
        and data.row.shape[1] == 1
        and (data.row[:, 0] < data.rows).all()
        and (problem.rows.capacity <= LARGEST_TABLE).all()
    )
    key = data.site.astype(np.int64) * data.parts + data.part
    if not plain or len(np.unique(key)) < len(key):
        return None
    size = data.sites * data.parts
    capacity = np.zeros(data.sites, dtype=np.int64)
    capacity[owned] = problem.rows.capacity
    use = np.repeat(capacity + 1, data.parts)
    cost = np.full(size, int(data.cost.max(initial=0)), dtype=np.int64)
    option = np.full(size, -1, dtype=np.int64)
    use[key], cost[key], option[key] = data.use[:, 0], data.cost, np.arange(len(key))
    shape = (data.sites, data.parts)
    return Table(cost.reshape(shape), use.reshape(shape), capacity, option.reshape(shape))


@dataclass(frozen=True, slots=True, eq=False)
class Rest:
    """What a dive has not fixed yet."""

    sites: Ints
    parts: Ints
    taken: tuple[int, ...]
    """columns fixed"""
    cost: int
    """of these"""


@dataclass(frozen=True, slots=True, eq=False)
class Point:
    """Where column generation stands."""

    value: float
    """of the master problem"""
    bound: float
    center: Floats
    """[P] the multipliers of the bound"""
    share: Floats
    """of each column"""


class Master:
    """The restricted master problem in HiGHS, with the columns found so far."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.sites, self.parts = table.cost.shape
        lib = module("highspy")
        self.solver = quiet(lib)
        self.columns: list[tuple[int, Ints]] = []
        self._known: set[tuple[int, bytes]] = set()
        nothing, none = np.zeros(0, dtype=np.int32), np.zeros(0)
        for _ in range(self.parts):
            self.solver.addRow(1.0, 1.0, 0, nothing, none)
        for _ in range(self.sites):
            self.solver.addRow(-np.inf, 1.0, 0, nothing, none)
        unserved = 3.0 * (float(np.abs(table.cost).max()) + 1.0)
        for part in range(self.parts):
            self.solver.addCol(unserved, 0.0, np.inf, 1, np.array([part], np.int32), np.ones(1))

    def add(self, site: int, parts: Ints) -> bool:
        """A set of parts for a site; False where it is known."""
        key = (site, parts.tobytes())
        if key in self._known:
            return False
        self._known.add(key)
        self.columns.append((site, parts))
        rows = np.append(parts, self.parts + site).astype(np.int32)
        cost = float(self.table.cost[site, parts].sum())
        self.solver.addCol(cost, 0.0, np.inf, len(rows), rows, np.ones(len(rows)))
        return True

    def bound_column(self, column: int, low: float) -> None:
        """Fix a column (1) or free it again (0)."""
        self.solver.changeColBounds(self.parts + column, low, np.inf)

    def solve(self) -> tuple[float, Floats, Floats]:
        """Value, part multipliers and column shares."""
        self.solver.run()
        answer = self.solver.getSolution()
        value = float(self.solver.getInfo().objective_function_value)
        return value, np.array(answer.row_dual)[: self.parts], np.array(answer.col_value)[self.parts :]


def generate(master: Master, rest: Rest, center: Floats, budget: Budget, rounds: int, close: float = _CLOSE) -> Point:
    """Add columns until the bound of the rest is within `close` of its value; smoothed towards the best multipliers."""
    best, bound, smooth = center, -np.inf, 0.7
    at = Point(np.inf, bound, best, np.zeros(0))
    table = master.table
    for _ in range(rounds):
        value, new = float(center[rest.parts].sum()), False
        for site in rest.sites:
            least, taken = fill(
                (table.cost[site] - center)[rest.parts], table.use[site, rest.parts], int(table.capacity[site])
            )
            value += float(least)
            new |= master.add(int(site), rest.parts[taken])
        if value > bound:
            bound, best = value, center
        whole, dual, share = master.solve()
        at = Point(whole, bound, best, share)
        if whole - rest.cost - bound < close or budget.over():
            break
        smooth = smooth if new else max(0.0, smooth - 0.3)
        center = smooth * best + (1 - smooth) * dual
    return at


def dive(master: Master, center: Floats, budget: Budget, draw: np.random.Generator, leave: int) -> tuple[Indices, Rest]:
    """Fix columns until `leave` sites are left. Returns [P] the site of each fixed part, else -1, and the rest."""
    rest = Rest(np.arange(master.sites), np.arange(master.parts), (), 0)
    placed: Indices = np.full(master.parts, -1, dtype=np.int32)
    while len(rest.sites) > leave and len(rest.parts) and not budget.over():
        point = generate(master, rest, center, budget, 60, 0.5)
        center = point.center
        share = point.share.copy()
        share[list(rest.taken)] = 0.0
        for column in _picked(share, draw if not rest.taken else None, master, rest):
            if len(rest.sites) <= leave:
                break
            site, parts = master.columns[column]
            if site not in rest.sites or not np.isin(parts, rest.parts).all():
                continue
            master.bound_column(column, 1.0)
            placed[parts] = site
            rest = Rest(
                rest.sites[rest.sites != site],
                np.setdiff1d(rest.parts, parts),
                (*rest.taken, column),
                rest.cost + int(master.table.cost[site, parts].sum()),
            )
    for column in rest.taken:
        master.bound_column(column, 0.0)
    return placed, rest


def _picked(share: Floats, draw: np.random.Generator | None, master: Master, rest: Rest) -> list[int]:
    """All columns that are whole; else the one of the largest share, or one drawn among the five largest."""
    whole = np.flatnonzero(share > 0.999)
    largest = np.argsort(-share, kind="stable")[:5]
    weights = np.maximum(share[largest], 1e-9)
    first = int(largest[0]) if draw is None else int(draw.choice(largest, p=weights / weights.sum()))
    if share[first] <= 1e-9:
        # nothing is left to choose from: the site with the fewest parts in reach is given up
        return [_empty(master, int(rest.sites[0]))]
    return list(dict.fromkeys([first, *whole.tolist()]))


def _empty(master: Master, site: int) -> int:
    nothing = np.zeros(0, dtype=np.int64)
    master.add(site, nothing)
    return next(at for at, (owner, parts) in enumerate(master.columns) if owner == site and not len(parts))
