"""Exact 0-1 knapsacks by tables: the least cost of a site's items within its single capacity.

Works on floats while columns are generated, and on integers where the result is a proof.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundplan.placement.problem import Flags, Ints

LARGEST_TABLE = 60_000


def solve_by_table(value: NDArray[Any], use: Ints, capacity: int) -> tuple[Any, Flags]:
    """[n] values and uses -> the least sum of values within capacity, and which items [n] it takes."""
    taken = np.zeros(len(value), dtype=np.bool_)
    useful = np.flatnonzero((value < 0) & (use <= capacity))
    if not len(useful):
        return value.dtype.type(0), taken
    if int(use[useful].sum()) <= capacity:
        taken[useful] = True
        return value[useful].sum(), taken
    best = np.zeros(capacity + 1, dtype=value.dtype)
    better = np.zeros((len(useful), capacity + 1), dtype=np.bool_)
    for position, item in enumerate(useful):
        amount = int(use[item])
        candidate = best[: capacity + 1 - amount] + value[item]
        gain = candidate < best[amount:]
        better[position, amount:] = gain
        np.copyto(best[amount:], candidate, where=gain)
    left = capacity
    for position in range(len(useful) - 1, -1, -1):
        if better[position, left]:
            item = useful[position]
            taken[item] = True
            left -= int(use[item])
    return best[capacity], taken
