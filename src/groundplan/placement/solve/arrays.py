"""The problem in the solver's arrays: allowed options only, prices as floats, rows padded to one width."""

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
    """[O] the option's index in the problem, ascending"""
    part: Indices
    site: Indices
    cost: Ints
    price: Floats
    """[O] `cost` as floats"""
    part_start: Ints
    """[P + 1] where the options of each part begin"""
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
    def part_count(self) -> int:
        """The number of parts, P."""
        return len(self.part_start) - 1

    @property
    def site_count(self) -> int:
        """The number of sites, S."""
        return len(self.opening) - 1

    @property
    def row_count(self) -> int:
        """The number of rows, R."""
        return len(self.capacity) - 1

    def reduced_costs(self, part: Floats, row: Floats) -> Floats:
        """[O] price - u + sum of v x use."""
        padded = np.append(row, 0.0)
        values: Floats = self.price - part[self.part] + (padded[self.row] * self.use).sum(axis=1)
        return values

    def cheapest_options(self, value: NDArray[Any]) -> Ints:
        """[P] the option of the least value for each part, the first of equals; every part must have an option."""
        least = np.minimum.reduceat(value, self.part_start[:-1])
        hits = np.flatnonzero(value == least[self.part])
        owner = self.part[hits]
        found: Ints = hits[np.diff(owner, prepend=-1) != 0]
        return found

    def row_usage(self, choice: Ints) -> Ints:
        """[R + 1] how much of each row the chosen options use."""
        used = np.zeros(self.row_count + 1, dtype=np.int64)
        np.add.at(used, self.row[choice].reshape(-1), self.use[choice].reshape(-1))
        return used

    def empty_parts(self) -> Ints:
        """Parts without an allowed option."""
        found: Ints = np.flatnonzero(np.diff(self.part_start) == 0)
        return found


def build_arrays(problem: Problem) -> Arrays:
    """The problem's arrays, without options that a rule excludes or that alone exceed a row even when widened."""
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
    never = (use > max_capacity(problem)[row]) & ~rows_with_supply(problem)[row]
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
        part_start=np.searchsorted(part, np.arange(len(problem.parts.workload) + 1)).astype(np.int64),
        row=row[index],
        use=use[index],
        capacity=capacity,
        opening=np.append(problem.sites.opening, 0),
        row_site=np.append(np.where(rows.site < 0, len(problem.sites.names), rows.site), len(problem.sites.names)),
    )


def subset(data: Arrays, kept: Ints) -> Arrays:
    """The same arrays with only these options (ascending), which must include one of every part."""
    part = data.part[kept]
    return replace(
        data,
        index=data.index[kept],
        part=part,
        site=data.site[kept],
        cost=data.cost[kept],
        price=data.price[kept],
        part_start=np.searchsorted(part, np.arange(data.part_count + 1)).astype(np.int64),
        row=data.row[kept],
        use=data.use[kept],
    )


def max_capacity(problem: Problem) -> Ints:
    """[R + 1] the capacity of each row with all units that can be bought for it, at most 2^62."""
    tiers = problem.tiers
    widest = np.append(problem.rows.capacity.astype(np.float64), 2.0**62)
    np.add.at(widest, tiers.row, tiers.size.astype(np.float64) * tiers.max_units.astype(np.float64))
    found: Ints = np.minimum(widest, 2.0**62).astype(np.int64)
    return found


def rows_with_supply(problem: Problem) -> Flags:
    """[R + 1] rows that some option adds capacity to (a negative use): a large use of these may be balanced."""
    negative = np.zeros(len(problem.rows.names) + 1, dtype=np.bool_)
    negative[problem.options.row[problem.options.use < 0]] = True
    return negative
