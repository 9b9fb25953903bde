"""The continuous relaxation by HiGHS: it gives the bound, the prices of capacity and a fractional plan to round.

The formulation has strong links: a part uses a site at most as far as the site is open. Options may be left out
(`keep`); `certify` then checks the multipliers against all options, so that leaving some out never makes a bound wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundplan.placement.problem import Ints
from groundplan.placement.solve.arrays import Arrays, Floats
from groundplan.placement.solve.backends import solve_highs

_SIMPLEX_BELOW = 20_000
"""columns; above, the interior point method with crossover is faster (measured: 1.7 s against 10.4 s at 40,000)"""


@dataclass(frozen=True, slots=True, eq=False)
class Relaxation:
    """An optimal fractional plan and its prices."""

    value: float
    part: Floats
    """[P] u"""
    row: Floats
    """[R] v, not negative"""
    share: Floats
    """[O] of each option, 0 where left out"""
    open: Floats
    """[S + 1]"""
    units: Floats
    """[T]"""


@dataclass(slots=True)
class _Columns:
    """Columns of the LP as they are collected: prices, upper limits, and entries (row, column, value)."""

    price: list[Floats]
    upper: list[Floats]
    entries: list[tuple[NDArray[Any], NDArray[Any], Floats]]
    count: int = 0

    def add(self, price: Floats, upper: Floats) -> Ints:
        numbers = np.arange(self.count, self.count + len(price))
        self.price.append(price)
        self.upper.append(upper)
        self.count += len(price)
        return numbers

    def enter(self, row: NDArray[Any], column: NDArray[Any], value: Floats) -> None:
        self.entries.append((row, column, value))


def relax(
    data: Arrays, keep: Ints | None = None, *, seconds: float | None = None, has_integer_units: bool = False
) -> Relaxation | None:
    """Solve the relaxation over all options or those of `keep` (ascending). None: infeasible, or out of time.

    With `has_integer_units` only parts are fractional: sites are open or closed, units are integers, and there are no
    multipliers.
    """
    kept = np.arange(len(data.index)) if keep is None else keep
    money = _median_price(data.price[kept])
    size = _row_sizes(data, kept)
    columns = _Columns([], [], [])
    x = columns.add(data.price[kept] / money, np.full(len(kept), np.inf))
    columns.enter(data.part[kept], x, np.ones(len(kept)))
    for k in range(data.row.shape[1]):
        row = data.row[kept, k]
        real = row < data.row_count
        columns.enter(data.part_count + row[real], x[real], data.use[kept, k][real] / size[row[real]])
    lower = np.concatenate([np.ones(data.part_count), np.full(data.row_count, -np.inf)])
    room = np.where(_never_binding_rows(data), np.inf, data.capacity[:-1] / size[:-1])
    upper = np.concatenate([np.ones(data.part_count), room])
    y, extra = _add_opening_columns(data, kept, x, columns, money, upper)
    units = _add_tier_columns(data, columns, money, size)
    upper = np.append(upper, np.zeros(extra))
    lower = np.append(lower, np.full(extra, -np.inf))
    answer = solve_highs(
        np.concatenate(columns.price),
        np.concatenate(columns.upper),
        lower,
        upper,
        columns.entries,
        simplex=columns.count < _SIMPLEX_BELOW,
        seconds=seconds,
        integer_columns=np.arange(len(kept), columns.count) if has_integer_units else None,
    )
    if answer is None:
        return None
    value, primal, dual = answer
    share = np.zeros(len(data.index))
    share[kept] = primal[x]
    opened = np.ones(data.site_count + 1)
    opened[y] = primal[len(kept) : len(kept) + len(y)]
    prices = np.maximum(0.0, -dual[data.part_count : data.part_count + data.row_count]) * money / size[:-1]
    return Relaxation(value * money, dual[: data.part_count] * money, prices, share, opened, primal[units])


def _median_price(price: Floats) -> float:
    positive = price[price > 0]
    return float(np.median(positive)) if len(positive) else 1.0


def _row_sizes(data: Arrays, kept: Ints) -> Floats:
    """[R + 1] the divisor of each row, so that its numbers are near 1."""
    size = np.ones(data.row_count + 1)
    np.maximum.at(size, data.row[kept].reshape(-1), np.abs(data.use[kept].reshape(-1)).astype(np.float64))
    return size


def _never_binding_rows(data: Arrays) -> NDArray[np.bool_]:
    """[R] rows that can hold every option at once: left out, since huge numbers would spoil the scaling."""
    uses = np.maximum(data.use.reshape(-1), 0).astype(np.float64)
    total = np.bincount(data.row.reshape(-1), uses, data.row_count + 1)
    found: NDArray[np.bool_] = data.capacity[:-1] >= total[:-1]
    return found


def _add_opening_columns(
    data: Arrays,
    kept: Ints,
    x: Ints,
    columns: _Columns,
    money: float,
    upper: Floats,
) -> tuple[Ints, int]:
    """Add a column for every site that costs something to open; rows of such a site have no capacity until it opens.
    Returns these sites and the number of rows added."""
    priced = np.flatnonzero(data.opening > 0)
    y = columns.add(data.opening[priced] / money, np.ones(len(priced)))
    number = np.full(data.site_count + 1, -1)
    number[priced] = y
    rows = np.flatnonzero(
        (number[data.row_site[:-1]] >= 0) & np.isfinite(upper[data.part_count : data.part_count + data.row_count])
    )
    columns.enter(data.part_count + rows, number[data.row_site[rows]], -upper[data.part_count + rows])
    upper[data.part_count + rows] = 0.0
    at_priced_sites = np.flatnonzero(number[data.site[kept]] >= 0)
    key = data.part[kept[at_priced_sites]].astype(np.int64) * (data.site_count + 1) + data.site[kept[at_priced_sites]]
    pairs, link = np.unique(key, return_inverse=True)
    base = data.part_count + data.row_count
    columns.enter(base + link, x[at_priced_sites], np.ones(len(at_priced_sites)))
    columns.enter(base + np.arange(len(pairs)), number[pairs % (data.site_count + 1)], -np.ones(len(pairs)))
    return priced, len(pairs)


def _add_tier_columns(data: Arrays, columns: _Columns, money: float, size: Floats) -> Ints:
    tiers = data.problem.tiers
    numbers = columns.add(tiers.price / money, tiers.max_units.astype(np.float64))
    columns.enter(data.part_count + tiers.row, numbers, -tiers.size / size[tiers.row])
    return numbers
