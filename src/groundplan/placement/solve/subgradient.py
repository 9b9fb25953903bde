"""First prices of capacity for large problems, by subgradient steps over the rows alone: cheap, rough, deterministic.

They choose which options the relaxation begins with; no bound rests on them.
"""

from __future__ import annotations

import numpy as np

from groundplan.placement.problem import Ints
from groundplan.placement.solve.arrays import Arrays, Floats
from groundplan.placement.solve.work_limit import Budget

_HOPE = 0.06
"""the bound is hoped to rise by this fraction at first"""
_PATIENCE = 5


def row_prices(data: Arrays, steps: int, budget: Budget, begin: Floats | None = None, hope: float = _HOPE) -> Floats:
    """[R] multipliers after so many steps, the best of them."""
    value, best, idle = -np.inf, np.zeros(data.rows) if begin is None else begin, 0
    prices, direction = best.copy(), np.zeros(data.rows)
    size = np.maximum(1.0, np.abs(data.capacity[:-1]).astype(np.float64))
    for _ in range(steps):
        if budget.over():
            break
        bound, slope = _bound(data, prices)
        if bound > value:
            value, best, idle = bound, prices.copy(), 0
        else:
            idle += 1
        if idle > _PATIENCE:
            hope, idle, prices, direction = hope * 0.6, 0, best.copy(), np.zeros(data.rows)
            continue
        direction = 0.7 * slope / size + 0.3 * direction
        length = float(direction @ direction)
        if length < 1e-12:
            break
        step = (max(value, bound) + hope * abs(value) - bound) / length
        prices = np.maximum(0.0, prices + step * direction / size)
    return best


def _bound(data: Arrays, prices: Floats) -> tuple[float, Floats]:
    """The Lagrangian bound of row prices, and how it changes with each."""
    padded = np.append(prices, 0.0)
    reduced = data.price + (padded[data.row] * data.use).sum(axis=1)
    chosen = data.cheapest(reduced)
    used = data.used(chosen)[:-1].astype(np.float64)
    tiers = data.problem.tiers
    gain = np.minimum(0.0, tiers.price - prices[tiers.row] * tiers.size) * tiers.max_units
    room = data.capacity[:-1].astype(np.float64)
    back = -prices * room
    np.add.at(back, tiers.row, gain)
    np.add.at(room, tiers.row, np.where(gain < 0, tiers.size * tiers.max_units, 0).astype(np.float64))
    site = data.opening.astype(np.float64)
    np.add.at(site, data.row_site[:-1], back)
    opens = site < 0
    opens[data.sites] = True
    value = float(reduced[chosen].sum()) + float(site[opens].sum())
    return value, used - room * opens[data.row_site[:-1]]


def nearest(data: Arrays, prices: Floats, each: int) -> Ints:
    """The options of the least reduced price, `each` of every part and all ties beyond, ascending."""
    padded = np.append(prices, 0.0)
    reduced = data.price + (padded[data.row] * data.use).sum(axis=1)
    order = np.lexsort((reduced, data.part))
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order)) - data.first[data.part[order]]
    found: Ints = np.flatnonzero(rank < each)
    return found
