"""A problem seen as one knapsack for each site, with what ties the sites together left outside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundplan.placement.problem import Flags, Ints
from groundplan.placement.solve.arrays import Arrays, Floats
from groundplan.placement.solve.knapsack import LARGEST_TABLE, fill
from groundplan.placement.solve.labels import MOST_LABELS, Taken, least

_MOST_PARTS = 700
_MOST_AT_SITE = 400


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
    money: float
    """what prices are divided by for HiGHS"""

    @property
    def grain(self) -> float:
        """The smallest difference in price that matters."""
        return 1.0 if self.money == 1.0 else self.money * 0.1

    def reduced(self, part: Floats, row: Floats) -> Floats:
        """[O] price - u + v x use of rows across sites."""
        across = np.zeros(self.data.rows)
        across[self.shared] = row[self.shared]
        return self.data.reduced(part, across)

    def plain(self, site: int) -> bool:
        """One row, one option for each part, and a table that can be filled."""
        capacity = self.data.capacity[self.rows[site]]
        parts = self.data.part[self.options[site]]
        return len(capacity) == 1 and int(capacity[0]) <= LARGEST_TABLE and bool((np.diff(parts) != 0).all())

    def least(
        self, site: int, reduced: NDArray[Any], row: NDArray[Any], allowed: Flags, widest: int = MOST_LABELS
    ) -> Taken:
        """The least that allowed options can cost at a site without its opening, and which do."""
        at = np.flatnonzero(allowed[self.options[site]])
        options, rows = self.options[site][at], self.rows[site]
        value, use, capacity = reduced[options], self.use[site][at], self.data.capacity[rows]
        if self.plain(site):
            cost, taken = fill(value, use[:, 0], int(capacity[0]))
            return Taken(cost, cost, options[taken])
        found = least(self.data.part[options], value, use, capacity, row[rows], widest)
        return Taken(found.value, found.bound, options[found.options])


def knapsacks(data: Arrays) -> Knapsacks | None:
    """None where units can be bought, or where columns would be too many to be of use."""
    problem = data.problem
    counts = np.bincount(data.site, minlength=data.sites + 1)[: data.sites]
    too_large = data.parts > _MOST_PARTS or int(counts.max(initial=0)) > _MOST_AT_SITE
    if len(problem.tiers.row) or too_large or not data.sites:
        return None
    options = tuple(np.flatnonzero(data.site == site) for site in range(data.sites))
    rows = tuple(np.flatnonzero(data.row_site[:-1] == site) for site in range(data.sites))
    size = np.ones(data.rows + 1)
    np.maximum.at(size, data.row.reshape(-1), np.abs(data.use.reshape(-1)).astype(np.float64))
    dearest = float(np.abs(data.price).max(initial=1.0))
    return Knapsacks(
        data=data,
        options=options,
        rows=rows,
        use=tuple(_uses(data, mine, own) for mine, own in zip(options, rows, strict=True)),
        shared=np.flatnonzero(data.row_site[:-1] == data.sites),
        size=size,
        money=1.0 if dearest < 1e6 else float(np.median(np.abs(data.price))) + 1.0,
    )


def _uses(data: Arrays, options: Ints, rows: Ints) -> Ints:
    """[n, k] what options use of rows."""
    found: Ints = np.zeros((len(options), len(rows)), dtype=np.int64)
    for at, row in enumerate(rows):
        found[:, at] = np.where(data.row[options] == row, data.use[options], 0).sum(axis=1)
    return found
