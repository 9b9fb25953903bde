"""A problem as one knapsack per site; rows across sites are kept apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundplan.placement.problem import Flags, Ints
from groundplan.placement.solve.arrays import Arrays, Floats
from groundplan.placement.solve.knapsack import LARGEST_TABLE, solve_by_table
from groundplan.placement.solve.labels import MAX_LABELS, KnapsackResult, solve_by_labels

_MAX_PARTS = 700
_MAX_OPTIONS_AT_SITE = 400


@dataclass(frozen=True, slots=True, eq=False)
class Knapsacks:
    """Options and rows by site."""

    data: Arrays
    options: tuple[Ints, ...]
    """[S] the options at each site, by part"""
    rows: tuple[Ints, ...]
    """[S] the rows of each site"""
    use: tuple[Ints, ...]
    """[S] [n, k] what these options use of these rows"""
    shared: Ints
    """rows across sites"""
    size: Floats
    """[R + 1] the largest use of each row"""
    price_scale: float
    """the divisor of prices for HiGHS"""

    @property
    def price_grain(self) -> float:
        """The smallest difference in price that is distinguished."""
        return 1.0 if self.price_scale == 1.0 else self.price_scale * 0.1

    def reduced_costs(self, part: Floats, row: Floats) -> Floats:
        """[O] price - u + v x use of rows across sites."""
        shared_prices = np.zeros(self.data.row_count)
        shared_prices[self.shared] = row[self.shared]
        return self.data.reduced_costs(part, shared_prices)

    def can_use_table(self, site: int) -> bool:
        """Whether the site has one row, one option per part and a capacity small enough for a table."""
        capacity = self.data.capacity[self.rows[site]]
        parts = self.data.part[self.options[site]]
        return len(capacity) == 1 and int(capacity[0]) <= LARGEST_TABLE and bool((np.diff(parts) != 0).all())

    def solve_site(
        self, site: int, reduced: NDArray[Any], row: NDArray[Any], allowed: Flags, max_labels: int = MAX_LABELS
    ) -> KnapsackResult:
        """The set of allowed options with the least sum of values that the site's rows hold, without its opening."""
        at = np.flatnonzero(allowed[self.options[site]])
        options, rows = self.options[site][at], self.rows[site]
        value, use, capacity = reduced[options], self.use[site][at], self.data.capacity[rows]
        if self.can_use_table(site):
            cost, taken = solve_by_table(value, use[:, 0], int(capacity[0]))
            return KnapsackResult(cost, cost, options[taken])
        found = solve_by_labels(self.data.part[options], value, use, capacity, row[rows], max_labels)
        return KnapsackResult(found.value, found.bound, options[found.options])


def build_knapsacks(data: Arrays) -> Knapsacks | None:
    """The problem's knapsacks; None where units can be bought, or where there would be too many columns."""
    problem = data.problem
    counts = np.bincount(data.site, minlength=data.site_count + 1)[: data.site_count]
    too_large = data.part_count > _MAX_PARTS or int(counts.max(initial=0)) > _MAX_OPTIONS_AT_SITE
    if len(problem.tiers.row) or too_large or not data.site_count:
        return None
    options = tuple(np.flatnonzero(data.site == site) for site in range(data.site_count))
    rows = tuple(np.flatnonzero(data.row_site[:-1] == site) for site in range(data.site_count))
    size = np.ones(data.row_count + 1)
    np.maximum.at(size, data.row.reshape(-1), np.abs(data.use.reshape(-1)).astype(np.float64))
    dearest = float(np.abs(data.price).max(initial=1.0))
    return Knapsacks(
        data=data,
        options=options,
        rows=rows,
        use=tuple(
            _row_uses(data, site_options, site_rows) for site_options, site_rows in zip(options, rows, strict=True)
        ),
        shared=np.flatnonzero(data.row_site[:-1] == data.site_count),
        size=size,
        price_scale=1.0 if dearest < 1e6 else float(np.median(np.abs(data.price))) + 1.0,
    )


def _row_uses(data: Arrays, options: Ints, rows: Ints) -> Ints:
    """[n, k] how much of each row each option uses."""
    found: Ints = np.zeros((len(options), len(rows)), dtype=np.int64)
    for at, row in enumerate(rows):
        found[:, at] = np.where(data.row[options] == row, data.use[options], 0).sum(axis=1)
    return found
