"""The problem as the solver computes with it: allowed options only, prices as floats, rows padded to one width."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundplan.placement.problem import Flags, Indices, Ints, Problem

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Arrays:
    """O allowed options of P parts at S sites (site S: nowhere), with R rows (row R: a row without limit)."""

    problem: Problem
    index: Ints
    """[O] their number in the problem"""
    part: Indices
    site: Indices
    cost: Ints
    price: Floats
    """[O] `cost` as floats"""
    first: Ints
    """[P + 1]"""
    row: Indices
    """[O, K] padded with R"""
    use: Ints
    """[O, K] padded with 0"""
    capacity: Ints
    """[R + 1]"""
    opening: Ints
    """[S + 1]"""
    row_site: Indices
    """[R + 1] S: across sites"""

    @property
    def parts(self) -> int:
        """P."""
        return len(self.first) - 1

    @property
    def sites(self) -> int:
        """S."""
        return len(self.opening) - 1

    @property
    def rows(self) -> int:
        """R."""
        return len(self.capacity) - 1

    def reduced(self, part: Floats, row: Floats) -> Floats:
        """[O] price - u + sum of v x use."""
        padded = np.append(row, 0.0)
        values: Floats = self.price - part[self.part] + (padded[self.row] * self.use).sum(axis=1)
        return values

    def cheapest(self, value: NDArray[Any]) -> Ints:
        """[P] the first option of the least value for each part; every part must have an option."""
        least = np.minimum.reduceat(value, self.first[:-1])
        hits = np.flatnonzero(value == least[self.part])
        owner = self.part[hits]
        found: Ints = hits[np.diff(owner, prepend=-1) != 0]
        return found

    def used(self, choice: Ints) -> Ints:
        """[R + 1] what chosen options use of each row."""
        used = np.zeros(self.rows + 1, dtype=np.int64)
        np.add.at(used, self.row[choice].reshape(-1), self.use[choice].reshape(-1))
        return used

    def empty_parts(self) -> Ints:
        """Parts that no allowed option serves."""
        found: Ints = np.flatnonzero(np.diff(self.first) == 0)
        return found


def arrays(problem: Problem) -> Arrays:
    """Leave out what rules exclude and what alone exceeds a row that nothing can widen."""
    options, rows = problem.options, problem.rows
    widths = np.diff(options.row_start)
    width = int(widths.max(initial=0))
    count, limit = len(options.part), len(rows.names)
    row = np.full((count, width), limit, dtype=np.int32)
    use = np.zeros((count, width), dtype=np.int64)
    option = np.repeat(np.arange(count), widths)
    at = np.arange(len(options.row)) - options.row_start[option]
    row[option, at] = options.row
    use[option, at] = options.use
    capacity = np.append(rows.capacity, np.int64(2**62))
    never = (use > most(problem)[row]) & ~given(problem)[row]
    keep: Flags = problem.allowed & ~never.any(axis=1)
    index = np.flatnonzero(keep)
    part = options.part[index]
    cost = problem.cost[index]
    site = options.site[index]
    return Arrays(
        problem=problem,
        index=index,
        part=part,
        site=np.where(site < 0, len(problem.sites.names), site).astype(np.int32),
        cost=cost,
        price=cost.astype(np.float64),
        first=np.searchsorted(part, np.arange(len(problem.parts.workload) + 1)).astype(np.int64),
        row=row[index],
        use=use[index],
        capacity=capacity,
        opening=np.append(problem.sites.opening, 0),
        row_site=np.append(np.where(rows.site < 0, len(problem.sites.names), rows.site), len(problem.sites.names)),
    )


def subset(data: Arrays, kept: Ints) -> Arrays:
    """The same problem with only these options (ascending); every part keeps at least one."""
    part = data.part[kept]
    return replace(
        data,
        index=data.index[kept],
        part=part,
        site=data.site[kept],
        cost=data.cost[kept],
        price=data.price[kept],
        first=np.searchsorted(part, np.arange(data.parts + 1)).astype(np.int64),
        row=data.row[kept],
        use=data.use[kept],
    )


def most(problem: Problem) -> Ints:
    """[R + 1] the capacity of each row with all that can be bought for it, at most 2^62."""
    tiers = problem.tiers
    widest = np.append(problem.rows.capacity.astype(np.float64), 2.0**62)
    np.add.at(widest, tiers.row, tiers.size.astype(np.float64) * tiers.max_units.astype(np.float64))
    found: Ints = np.minimum(widest, 2.0**62).astype(np.int64)
    return found


def given(problem: Problem) -> Flags:
    """[R + 1] rows that some option gives to instead of taking from: a large use there may be balanced."""
    negative = np.zeros(len(problem.rows.names) + 1, dtype=np.bool_)
    negative[problem.options.row[problem.options.use < 0]] = True
    return negative
