"""A lower bound on the cost of any plan that takes an option, where every site is one knapsack (variable fixing).

The least cost of a site's other items beside an item follows from two tables: of the items before it and of those after
it. An option whose bound is above a target is in no plan within the target, so that the remaining options, the core,
are few (Posta, Ferland and Michelon, "An exact method with variable fixing for solving the generalized assignment
problem", Computational Optimization and Applications 52, 2012). Nothing is searched here.
"""

from __future__ import annotations

import numpy as np

from groundplan.placement.problem import Ints
from groundplan.placement.solve.arrays import Floats
from groundplan.placement.solve.columns import GenerationState
from groundplan.placement.solve.knapsacks import Knapsacks

_MAX_CELLS = 20_000_000
"""of the table of one site"""


def option_bounds(sets: Knapsacks, point: GenerationState) -> Floats | None:
    """[O] the bound by these multipliers: no plan that takes the option costs less; None: tables would be too large."""
    data = sets.data
    cells = [len(sets.options[site]) * (int(data.capacity[sets.rows[site]][0]) + 1) for site in range(data.site_count)]
    if max(cells, default=0) > _MAX_CELLS:
        return None
    reduced = sets.reduced_costs(point.part, point.row)
    bound = float(point.part.sum()) - float((point.row[sets.shared] * data.capacity[sets.shared]).sum())
    above = np.zeros(len(data.index))
    for site in range(data.site_count):
        at, opening = sets.options[site], float(data.opening[site])
        least, taken = least_with_each_item(reduced[at], sets.use[site][:, 0], int(data.capacity[sets.rows[site]][0]))
        now = min(0.0, opening + least)
        bound += now
        above[at] = opening + taken - now
    nowhere = np.flatnonzero(data.site == data.site_count)
    least_nowhere = np.zeros(data.part_count)
    np.minimum.at(least_nowhere, data.part[nowhere], reduced[nowhere])
    above[nowhere] = reduced[nowhere] - least_nowhere[data.part[nowhere]]
    found: Floats = bound + float(least_nowhere.sum()) + above
    return found


def least_with_each_item(value: Floats, use: Ints, capacity: int) -> tuple[float, Floats]:
    """The least sum of values within capacity, and [n] the least sum of a set that holds each item (inf: none fits)."""
    before = np.zeros((len(value) + 1, capacity + 1))
    for at, (worth, amount) in enumerate(zip(value, use, strict=True)):
        before[at + 1] = before[at]
        _add_item(before[at + 1], before[at], float(worth), int(amount))
    after, taken = np.zeros(capacity + 1), np.full(len(value), np.inf)
    for at in range(len(value) - 1, -1, -1):
        worth, amount = float(value[at]), int(use[at])
        room = capacity + 1 - amount
        if room > 0:
            taken[at] = float((before[at][:room] + after[:room][::-1]).min()) + worth
        now = after.copy()
        _add_item(now, after, worth, amount)
        after = now
    return float(before[-1][capacity]), taken


def _add_item(into: Floats, of: Floats, worth: float, amount: int) -> None:
    """Update the table `into`, a copy of `of`, with one more item."""
    if worth < 0 and amount < len(into):
        np.minimum(into[amount:], of[: len(of) - amount] + worth, out=into[amount:])
