"""Initial row prices for large problems, by subgradient steps over the rows alone: cheap, approximate, deterministic.

They choose the options that the relaxation starts with; no bound depends on their quality.
"""

from __future__ import annotations

import numpy as np

from groundplan.placement.problem import Ints
from groundplan.placement.solve.arrays import Arrays, Floats
from groundplan.placement.solve.work_limit import WorkBudget

_EXPECTED_RISE = 0.06
"""the fraction by which the bound is expected to rise at first; it sets the step size"""
_PATIENCE = 5


def row_prices(
    data: Arrays, steps: int, budget: WorkBudget, begin: Floats | None = None, expected_rise: float = _EXPECTED_RISE
) -> Floats:
    """[R] the best multipliers found in `steps` steps."""
    value, best, idle = -np.inf, np.zeros(data.row_count) if begin is None else begin, 0
    prices, direction = best.copy(), np.zeros(data.row_count)
    size = np.maximum(1.0, np.abs(data.capacity[:-1]).astype(np.float64))
    for _ in range(steps):
        if budget.is_exhausted():
            break
        bound, slope = _lagrangian_bound(data, prices)
        if bound > value:
            value, best, idle = bound, prices.copy(), 0
        else:
            idle += 1
        if idle > _PATIENCE:
            expected_rise, idle, prices, direction = expected_rise * 0.6, 0, best.copy(), np.zeros(data.row_count)
            continue
        direction = 0.7 * slope / size + 0.3 * direction
        length = float(direction @ direction)
        if length < 1e-12:
            break
        step = (max(value, bound) + expected_rise * abs(value) - bound) / length
        prices = np.maximum(0.0, prices + step * direction / size)
    return best


def _lagrangian_bound(data: Arrays, prices: Floats) -> tuple[float, Floats]:
    """The Lagrangian bound of row prices, and [R] its subgradient."""
    padded = np.append(prices, 0.0)
    reduced = data.price + (padded[data.row] * data.use).sum(axis=1)
    chosen = data.cheapest_options(reduced)
    used = data.row_usage(chosen)[:-1].astype(np.float64)
    tiers = data.problem.tiers
    gain = np.minimum(0.0, tiers.price - prices[tiers.row] * tiers.size) * tiers.max_units
    room = data.capacity[:-1].astype(np.float64)
    back = -prices * room
    np.add.at(back, tiers.row, gain)
    np.add.at(room, tiers.row, np.where(gain < 0, tiers.size * tiers.max_units, 0).astype(np.float64))
    site = data.opening.astype(np.float64)
    np.add.at(site, data.row_site[:-1], back)
    opens = site < 0
    opens[data.site_count] = True
    value = float(reduced[chosen].sum()) + float(site[opens].sum())
    return value, used - room * opens[data.row_site[:-1]]


def cheapest_per_part(data: Arrays, prices: Floats, each: int) -> Ints:
    """The options of the least reduced price, `each` of every part, ascending."""
    padded = np.append(prices, 0.0)
    reduced = data.price + (padded[data.row] * data.use).sum(axis=1)
    order = np.lexsort((reduced, data.part))
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order)) - data.part_start[data.part[order]]
    found: Ints = np.flatnonzero(rank < each)
    return found
