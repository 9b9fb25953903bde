"""What a company would cost if every workload could be divided at will: the least that splitting can still save.

Units are whole and sites are open or not; only parts are divided. It is told with the headroom that is left, since an
optimum that uses every bought unit to its last drop cannot be run.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from groundplan.placement.problem import Ints, Problem
from groundplan.placement.solve.arrays import Floats, build_arrays
from groundplan.placement.solve.relax import relax

_TINY = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class Division:
    """A placement in shares."""

    cost: int
    """rounded to a whole price; found by branching, not proven by multipliers"""
    share: Floats
    """[O] of each part"""
    units: Ints
    """[T]"""
    headroom: dict[str, float]
    """row -> what is left of its capacity with bought units, as a fraction; rows that nothing uses are left out"""


def divided(problem: Problem, seconds: float | None = None) -> Division | None:
    """The cheapest placement in shares, or None where there is none or the time was too short."""
    data = build_arrays(problem)
    if len(data.empty_parts()):
        return None
    found = relax(data, seconds=seconds, whole=True)
    if found is None:
        return None
    share = np.zeros(len(problem.options.part))
    share[data.index] = found.share
    units = np.round(found.units).astype(np.int64)
    used = np.zeros(data.row_count + 1)
    np.add.at(used, data.row.reshape(-1), (data.use * found.share[:, None]).reshape(-1))
    room = data.capacity[:-1].astype(np.float64)
    np.add.at(room, problem.tiers.row, (problem.tiers.size * units).astype(np.float64))
    left = {
        name: (0.0 if abs(room[row] - used[row]) < _TINY * room[row] else float((room[row] - used[row]) / room[row]))
        for row, name in enumerate(problem.rows.names)
        if used[row] > _TINY and room[row] > 0
    }
    return Division(round(found.value), share, units, left)
