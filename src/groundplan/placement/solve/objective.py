"""The exact cost of a choice: its options, the sites opened, and the cheapest units that cover the excess."""

from __future__ import annotations

import numpy as np

from groundplan.placement.problem import Ints, Problem
from groundplan.placement.solve.arrays import Arrays

_MAX_COUNTS = 100_000


def exact_cost(data: Arrays, choice: Ints) -> tuple[int, Ints] | None:
    """The cost and units [T] of a choice [P]; None where a row is exceeded by more than can be bought."""
    excess = data.row_usage(choice)[:-1] - data.capacity[:-1]
    units = cheapest_units(data.problem, excess)
    if units is None:
        return None
    cost = sum(data.cost[choice].tolist())
    cost += sum(int(n) * int(price) for n, price in zip(units, data.problem.tiers.price, strict=True))
    cost += sum(int(data.opening[site]) for site in np.unique(data.site[choice]))
    return cost, units


def cheapest_units(problem: Problem, excess: Ints) -> Ints | None:
    """The cheapest units [T] that cover the use above capacity [R]; None where there are not enough."""
    tiers = problem.tiers
    units = np.zeros(len(tiers.row), dtype=np.int64)
    for row in np.flatnonzero(excess > 0):
        row_tiers = np.flatnonzero(tiers.row == row)
        found = _cheapest_offers(
            int(excess[row]),
            [(int(tiers.size[t]), int(tiers.price[t]), int(tiers.max_units[t])) for t in row_tiers],
        )
        if found is None:
            return None
        units[row_tiers] = found
    return units


def _cheapest_offers(needed: int, offers: list[tuple[int, int, int]]) -> list[int] | None:
    """The cheapest units of each offer (size, price, most) that cover what is needed; exact for one or two offers.

    With more offers of different sizes the last two are exact and those before them are filled by price per size.
    """
    if not offers:
        return None
    order = sorted(range(len(offers)), key=lambda at: (offers[at][1] / offers[at][0], at))
    units = [0] * len(offers)
    for at in order[:-2]:
        size, _, most = offers[at]
        units[at] = min(most, -(-needed // size))
        needed -= units[at] * size
        if needed <= 0:
            return units
    last = order[-2:]
    best: tuple[int, list[int]] | None = None
    first = offers[last[0]]
    second = offers[last[1]] if len(last) > 1 else (1, 0, 0)
    top = min(first[2], -(-needed // first[0]))
    for count in range(top, max(-1, top - _MAX_COUNTS), -1):
        rest = max(0, needed - count * first[0])
        more = -(-rest // second[0])
        if more > second[2]:
            break
        price = count * first[1] + more * second[1]
        if best is None or price < best[0]:
            best = price, [count, more]
    if best is None:
        return None
    for at, count in zip(last, best[1], strict=False):
        units[at] = count
    return units
