"""The least that a plan with an option costs, where every site is one knapsack: by tables filled from either end.

The least that a site's other items can cost beside an item follows from the table of the items before it and that of
those after it. An option whose least is above a target is in no plan within the target, so that what is left, the core,
is small (variable fixing: Posta, Ferland and Michelon, "An exact method with variable fixing for solving the
generalized assignment problem", Computational Optimization and Applications 52, 2012). It searches nothing.
"""

from __future__ import annotations

import numpy as np

from groundplan.placement.problem import Ints
from groundplan.placement.solve.arrays import Floats
from groundplan.placement.solve.columns import Point
from groundplan.placement.solve.knapsacks import Knapsacks

_MOST_CELLS = 20_000_000
"""of one site's table"""


def reach(sets: Knapsacks, point: Point) -> Floats | None:
    """[O] at these multipliers, no plan that takes the option costs less; None: tables would be too large."""
    data = sets.data
    cells = [len(sets.options[site]) * (int(data.capacity[sets.rows[site]][0]) + 1) for site in range(data.sites)]
    if max(cells, default=0) > _MOST_CELLS:
        return None
    reduced = sets.reduced(point.part, point.row)
    bound = float(point.part.sum()) - float((point.row[sets.shared] * data.capacity[sets.shared]).sum())
    above = np.zeros(len(data.index))
    for site in range(data.sites):
        at, opening = sets.options[site], float(data.opening[site])
        least, taken = beside(reduced[at], sets.use[site][:, 0], int(data.capacity[sets.rows[site]][0]))
        now = min(0.0, opening + least)
        bound += now
        above[at] = opening + taken - now
    nowhere = np.flatnonzero(data.site == data.sites)
    least_nowhere = np.zeros(data.parts)
    np.minimum.at(least_nowhere, data.part[nowhere], reduced[nowhere])
    above[nowhere] = reduced[nowhere] - least_nowhere[data.part[nowhere]]
    found: Floats = bound + float(least_nowhere.sum()) + above
    return found


def beside(value: Floats, use: Ints, capacity: int) -> tuple[float, Floats]:
    """The least sum of values within capacity, and [n] the least of the sets that hold each item (inf: too large)."""
    before = np.zeros((len(value) + 1, capacity + 1))
    for at, (worth, amount) in enumerate(zip(value, use, strict=True)):
        before[at + 1] = before[at]
        _offer(before[at + 1], before[at], float(worth), int(amount))
    after, taken = np.zeros(capacity + 1), np.full(len(value), np.inf)
    for at in range(len(value) - 1, -1, -1):
        worth, amount = float(value[at]), int(use[at])
        room = capacity + 1 - amount
        if room > 0:
            taken[at] = float((before[at][:room] + after[:room][::-1]).min()) + worth
        now = after.copy()
        _offer(now, after, worth, amount)
        after = now
    return float(before[-1][capacity]), taken


def _offer(into: Floats, of: Floats, worth: float, amount: int) -> None:
    """A table with one more item."""
    if worth < 0 and amount < len(into):
        np.minimum(into[amount:], of[: len(of) - amount] + worth, out=into[amount:])
