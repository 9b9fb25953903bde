"""The continuous relaxation by HiGHS: where the bound, the prices of capacity and a first idea of the plan come from.

Formulation with strong links: a part uses a site at most as far as the site is open. Options may be left out (`keep`);
the multipliers are then checked against all options by `certify`, so that leaving out never makes a bound wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundplan.placement.problem import Ints
from groundplan.placement.solve.arrays import Arrays, Floats
from groundplan.placement.solve.backends import highs

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
    data: Arrays, keep: Ints | None = None, *, seconds: float | None = None, whole: bool = False
) -> Relaxation | None:
    """Solve it over all options or those of `keep` (ascending). None: infeasible over them, or out of time.

    With `whole` only the parts are divided: sites are open or not and units are whole; there are no multipliers then.
    """
    kept = np.arange(len(data.index)) if keep is None else keep
    money = _typical(data.price[kept])
    size = _row_sizes(data, kept)
    columns = _Columns([], [], [])
    x = columns.add(data.price[kept] / money, np.full(len(kept), np.inf))
    columns.enter(data.part[kept], x, np.ones(len(kept)))
    for k in range(data.row.shape[1]):
        row = data.row[kept, k]
        real = row < data.rows
        columns.enter(data.parts + row[real], x[real], data.use[kept, k][real] / size[row[real]])
    lower = np.concatenate([np.ones(data.parts), np.full(data.rows, -np.inf)])
    room = np.where(_loose(data), np.inf, data.capacity[:-1] / size[:-1])
    upper = np.concatenate([np.ones(data.parts), room])
    y, extra = _openings(data, kept, x, columns, money, upper)
    units = _bought(data, columns, money, size)
    upper = np.append(upper, np.zeros(extra))
    lower = np.append(lower, np.full(extra, -np.inf))
    answer = highs(
        np.concatenate(columns.price),
        np.concatenate(columns.upper),
        lower,
        upper,
        columns.entries,
        simplex=columns.count < _SIMPLEX_BELOW,
        seconds=seconds,
        whole=np.arange(len(kept), columns.count) if whole else None,
    )
    if answer is None:
        return None
    value, primal, dual = answer
    share = np.zeros(len(data.index))
    share[kept] = primal[x]
    opened = np.ones(data.sites + 1)
    opened[y] = primal[len(kept) : len(kept) + len(y)]
    prices = np.maximum(0.0, -dual[data.parts : data.parts + data.rows]) * money / size[:-1]
    return Relaxation(value * money, dual[: data.parts] * money, prices, share, opened, primal[units])


def _typical(price: Floats) -> float:
    positive = price[price > 0]
    return float(np.median(positive)) if len(positive) else 1.0


def _row_sizes(data: Arrays, kept: Ints) -> Floats:
    """[R + 1] what to divide a row by, so that its numbers are near 1."""
    size = np.ones(data.rows + 1)
    np.maximum.at(size, data.row[kept].reshape(-1), np.abs(data.use[kept].reshape(-1)).astype(np.float64))
    return size


def _loose(data: Arrays) -> NDArray[np.bool_]:
    """[R] rows that could hold every option at once: left out, since huge numbers would spoil the others."""
    uses = np.maximum(data.use.reshape(-1), 0).astype(np.float64)
    total = np.bincount(data.row.reshape(-1), uses, data.rows + 1)
    found: NDArray[np.bool_] = data.capacity[:-1] >= total[:-1]
    return found


def _openings(
    data: Arrays,
    kept: Ints,
    x: Ints,
    columns: _Columns,
    money: float,
    upper: Floats,
) -> tuple[Ints, int]:
    """Sites that cost something to open get a column; their rows begin at nothing. Returns sites and further rows."""
    priced = np.flatnonzero(data.opening > 0)
    y = columns.add(data.opening[priced] / money, np.ones(len(priced)))
    number = np.full(data.sites + 1, -1)
    number[priced] = y
    rows = np.flatnonzero((number[data.row_site[:-1]] >= 0) & np.isfinite(upper[data.parts : data.parts + data.rows]))
    columns.enter(data.parts + rows, number[data.row_site[rows]], -upper[data.parts + rows])
    upper[data.parts + rows] = 0.0
    mine = np.flatnonzero(number[data.site[kept]] >= 0)
    key = data.part[kept[mine]].astype(np.int64) * (data.sites + 1) + data.site[kept[mine]]
    pairs, link = np.unique(key, return_inverse=True)
    base = data.parts + data.rows
    columns.enter(base + link, x[mine], np.ones(len(mine)))
    columns.enter(base + np.arange(len(pairs)), number[pairs % (data.sites + 1)], -np.ones(len(pairs)))
    return priced, len(pairs)


def _bought(data: Arrays, columns: _Columns, money: float, size: Floats) -> Ints:
    tiers = data.problem.tiers
    numbers = columns.add(tiers.price / money, tiers.max_units.astype(np.float64))
    columns.enter(data.parts + tiers.row, numbers, -tiers.size / size[tiers.row])
    return numbers
