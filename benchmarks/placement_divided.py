"""The cost of a company if every workload could be divided at will: a bound on what splitting can still save.

Units are integers and sites are open or closed; only parts are divided. The result includes the headroom of each row,
since an optimum that uses every bought unit completely cannot be run.
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
    """rounded to an integer; found by branching, not proven by multipliers"""
    share: Floats
    """[O] the share of its part that each option takes"""
    units: Ints
    """[T]"""
    headroom: dict[str, float]
    """row -> the unused fraction of its capacity with bought units; unused rows are left out"""


def solve_divided(problem: Problem, seconds: float | None = None) -> Division | None:
    """The cheapest placement in shares; None where there is none or the time was too short."""
    data = build_arrays(problem)
    if len(data.empty_parts()):
        return None
    relaxed = relax(data, seconds=seconds, has_integer_units=True)
    if relaxed is None:
        return None
    share = np.zeros(len(problem.options.part))
    share[data.index] = relaxed.share
    units = np.round(relaxed.units).astype(np.int64)
    used = np.zeros(data.row_count + 1)
    np.add.at(used, data.row.reshape(-1), (data.use * relaxed.share[:, None]).reshape(-1))
    capacity = data.capacity[:-1].astype(np.float64)
    np.add.at(capacity, problem.tiers.row, (problem.tiers.size * units).astype(np.float64))
    headroom = {
        name: (
            0.0
            if abs(capacity[row] - used[row]) < _TINY * capacity[row]
            else float((capacity[row] - used[row]) / capacity[row])
        )
        for row, name in enumerate(problem.rows.names)
        if used[row] > _TINY and capacity[row] > 0
    }
    return Division(round(relaxed.value), share, units, headroom)
