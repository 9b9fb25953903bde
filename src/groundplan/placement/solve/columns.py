"""Column generation: prices each site's capacity exactly, which bounds better than the relaxation; plans by diving.

A column is a set of options that one site can hold together. The master problem chooses at most one column per site so
that every part is served and every row across sites holds; its prices lead to better columns until there are none. A
dive then repeatedly fixes the column of the largest share. Not for sites at which units can be bought.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from groundplan.placement.problem import Ints
from groundplan.placement.solve.arrays import Floats
from groundplan.placement.solve.backends import import_solver, quiet_highs
from groundplan.placement.solve.knapsacks import Knapsacks
from groundplan.placement.solve.work_limit import WorkBudget

_CLOSE_ENOUGH = 0.05
"""Published prices are integers: a gap of this fraction of 1 changes no bound after rounding up."""
_MAX_LABELS_GENERATING = 600
"""labels per site while columns are generated"""
_ROUNDS_PER_DIVE_STEP = 20
"""rounds of generation between two steps of a dive"""


@dataclass(frozen=True, slots=True, eq=False)
class Unfixed:
    """The sites and options that a dive has not fixed."""

    sites: Ints
    options: Ints
    """of parts that are not placed"""
    taken: tuple[int, ...] = ()
    """the fixed columns"""


@dataclass(frozen=True, slots=True, eq=False)
class GenerationState:
    """The multipliers, bound and column shares that column generation has reached."""

    bound: float
    part: Floats
    row: Floats
    """[R] multipliers of rows across sites; those of a site's own rows keep their initial values"""
    share: Floats
    """[number of columns] the share of each in the master's solution"""


class MasterProblem:
    """The restricted master problem in HiGHS, with the columns found so far."""

    def __init__(self, knapsacks: Knapsacks) -> None:
        self.knapsacks = knapsacks
        data = self.data = knapsacks.data
        self.price_scale = knapsacks.price_scale
        self.solver = quiet_highs(import_solver("highspy"))
        self.columns: list[tuple[int, Ints]] = []
        self._known_columns: set[tuple[int, bytes]] = set()
        nothing, none = np.zeros(0, dtype=np.int32), np.zeros(0)
        for _ in range(data.part_count):
            self.solver.addRow(1.0, 1.0, 0, nothing, none)
        for _ in range(data.site_count):
            self.solver.addRow(-np.inf, 1.0, 0, nothing, none)
        self.shared = knapsacks.shared
        self._shared_row = np.full(data.row_count + 1, -1, dtype=np.int64)
        self._shared_row[self.shared] = data.part_count + data.site_count + np.arange(len(self.shared))
        for row in self.shared:
            self.solver.addRow(-np.inf, float(data.capacity[row]) / knapsacks.size[row], 0, nothing, none)
        unserved = (
            3.0 * (float(np.abs(data.price).max(initial=0.0)) + float(data.opening.max())) / self.price_scale + 1.0
        )
        for part in range(data.part_count):
            self.solver.addCol(unserved, 0.0, np.inf, 1, np.array([part], np.int32), np.ones(1))
        for option in np.flatnonzero(data.site == data.site_count):
            self.add_column(data.site_count, np.array([option]))

    def add_column(self, site: int, options: Ints) -> bool:
        """Add the set of options as a column of the site; False where it was added before."""
        key = (site, options.tobytes())
        if key in self._known_columns:
            return False
        self._known_columns.add(key)
        self.columns.append((site, options))
        data = self.data
        weight = np.zeros(data.part_count + data.site_count + len(self.shared))
        weight[data.part[options]] = 1.0
        cost = float(data.price[options].sum())
        if site < data.site_count:
            weight[data.part_count + site] = 1.0
            cost += float(data.opening[site]) if len(options) else 0.0
        rows, uses = data.row[options].reshape(-1), data.use[options].reshape(-1)
        real = self._shared_row[rows] >= 0
        np.add.at(weight, self._shared_row[rows[real]], uses[real] / self.knapsacks.size[rows[real]])
        indices = np.flatnonzero(weight)
        self.solver.addCol(
            cost / self.price_scale, 0.0, np.inf, len(indices), indices.astype(np.int32), weight[indices]
        )
        return True

    def bound_column(self, column: int, low: float) -> None:
        """Set a column's lower bound: 1 fixes it, 0 frees it."""
        self.solver.changeColBounds(self.data.part_count + column, low, np.inf)

    def solve(self) -> tuple[float, Floats, Floats, Floats]:
        """Value, part multipliers, [R] row multipliers and column shares."""
        self.solver.run()
        answer, data = self.solver.getSolution(), self.data
        dual = np.array(answer.row_dual) * self.price_scale
        row = np.zeros(data.row_count)
        row[self.shared] = (
            np.maximum(0.0, -dual[data.part_count + data.site_count :]) / self.knapsacks.size[self.shared]
        )
        value = float(self.solver.getInfo().objective_function_value) * self.price_scale
        return value, dual[: data.part_count], row, np.array(answer.col_value)[data.part_count :]


def generate_columns(
    master: MasterProblem,
    unfixed: Unfixed,
    start: GenerationState,
    budget: WorkBudget,
    rounds: int,
    close: float = _CLOSE_ENOUGH,
) -> GenerationState:
    """Add columns until the bound of what is unfixed is within `close` of its value; multipliers are smoothed towards
    the best ones.

    The bound is valid for the whole problem only while nothing is fixed; in a dive it only guides.
    """
    data = master.data
    unfixed_parts = np.unique(data.part[unfixed.options])
    fixed = sum(float(data.price[master.columns[column][1]].sum()) for column in unfixed.taken)
    fixed += sum(float(data.opening[master.columns[column][0]]) for column in unfixed.taken)
    part, row, smoothing = start.part, start.row, 0.7
    best = GenerationState(-np.inf, part, row, np.zeros(0))
    for _ in range(rounds):
        bound, has_new = _price_sites(master, unfixed, part, row)
        bound += float(part[unfixed_parts].sum()) - float((row[master.shared] * data.capacity[master.shared]).sum())
        if bound > best.bound:
            best = GenerationState(bound, part, row, best.share)
        master_value, dual, dual_row, share = master.solve()
        best = GenerationState(best.bound, best.part, best.row, share)
        if master_value - fixed - best.bound < close * master.knapsacks.price_grain or budget.is_exhausted():
            break
        smoothing = smoothing if has_new else max(0.0, smoothing - 0.3)
        part = smoothing * best.part + (1 - smoothing) * dual
        row = row.copy()
        row[master.shared] = (smoothing * best.row + (1 - smoothing) * dual_row)[master.shared]
    return best


def _price_sites(master: MasterProblem, unfixed: Unfixed, part: Floats, row: Floats) -> tuple[float, bool]:
    """The sum of the sites' least costs at these multipliers, and whether any column is new."""
    knapsacks, data = master.knapsacks, master.data
    reduced = knapsacks.reduced_costs(part, row)
    allowed = np.zeros(len(data.index), dtype=np.bool_)
    allowed[unfixed.options] = True
    nowhere = unfixed.options[data.site[unfixed.options] == data.site_count]
    bound, has_new = float(np.minimum(reduced[nowhere], 0.0).sum()), False
    for site in unfixed.sites:
        taken = knapsacks.solve_site(int(site), reduced, row, allowed, _MAX_LABELS_GENERATING)
        site_cost = float(taken.bound) + float(data.opening[site])
        bound += min(0.0, site_cost)
        if site_cost < 0 and len(taken.options):
            has_new |= master.add_column(int(site), taken.options)
    return bound, has_new


def dive(
    master: MasterProblem, start: GenerationState, budget: WorkBudget, rng: np.random.Generator, leave: int
) -> tuple[Ints, Unfixed]:
    """Fix columns until `leave` parts are left. Returns [P] the option of each fixed part, else -1, and the rest."""
    data = master.data
    unfixed = Unfixed(np.arange(data.site_count), np.arange(len(data.index)))
    placed: Ints = np.full(data.part_count, -1, dtype=np.int64)
    point = start
    while (placed < 0).sum() > leave and len(unfixed.sites) and not budget.is_exhausted():
        point = generate_columns(master, unfixed, point, budget, _ROUNDS_PER_DIVE_STEP, 10 * _CLOSE_ENOUGH)
        share = point.share.copy()
        share[list(unfixed.taken)] = 0.0
        picked = _pick_columns(share, None if unfixed.taken else rng)
        before = len(unfixed.taken)
        for column in picked:
            site, options = master.columns[column]
            fits = np.isin(options, unfixed.options).all() and (site == data.site_count or site in unfixed.sites)
            if not fits or (placed < 0).sum() <= leave:
                continue
            master.bound_column(column, 1.0)
            placed[data.part[options]] = options
            left = unfixed.options[placed[data.part[unfixed.options]] < 0]
            if site < data.site_count:
                left = left[data.site[left] != site]
            unfixed = Unfixed(unfixed.sites[unfixed.sites != site], left, (*unfixed.taken, column))
        if len(unfixed.taken) == before:
            break
    for column in unfixed.taken:
        master.bound_column(column, 0.0)
    return placed, unfixed


def _pick_columns(share: Floats, rng: np.random.Generator | None) -> list[int]:
    """The column of the largest share, or with `rng` one drawn among the five largest; then all with share 1."""
    integral = np.flatnonzero(share > 0.999)
    largest = np.argsort(-share, kind="stable")[:5]
    largest = largest[share[largest] > 1e-9]
    if not len(largest):
        return []
    weights = share[largest]
    first = int(largest[0]) if rng is None else int(rng.choice(largest, p=weights / weights.sum()))
    return list(dict.fromkeys([first, *integral.tolist()]))
