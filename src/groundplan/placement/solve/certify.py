"""From multipliers in floats to a certificate in integers, with the bound that it proves.

Rounding cannot make a bound wrong, only a little smaller: any multipliers prove some bound.
"""

from __future__ import annotations

import numpy as np

from groundplan.placement.problem import Certificate, Flags, Ints, Problem
from groundplan.placement.solve.arrays import Arrays, Floats
from groundplan.placement.solve.knapsacks import Knapsacks

_ROOM = 2.0**61
_FINEST = 10**6


def linear(data: Arrays, part: Floats, row: Floats) -> Certificate:
    """The bound of these multipliers, sites priced by their rows' multipliers alone."""
    scale = _scale(data, part, row)
    u = np.round(part * scale).astype(np.int64)
    v = np.round(np.maximum(row, 0.0) * scale).astype(np.int64)
    return Certificate("linear", scale, u, v, _linear_value(data, scale, u, v))


def _scale(data: Arrays, part: Floats, row: Floats) -> int:
    padded = np.append(row, 0.0)
    use = float(np.abs(padded[data.row] * data.use).sum(axis=1).max(initial=0.0))
    size = float(np.abs(data.price).max(initial=1.0)) + float(np.abs(part).max(initial=0.0)) + use + 1.0
    scale = 1
    while scale < _FINEST and scale * 10 * size * 4 < _ROOM and scale * 10 * float(row.max(initial=0.0)) < _ROOM:
        scale *= 10
    return scale


def _linear_value(data: Arrays, scale: int, u: Ints, v: Ints) -> int:
    padded = np.append(v, 0)
    reduced = data.cost * scale - u[data.part] + (padded[data.row] * data.use).sum(axis=1)
    inner = [0] * (data.sites + 1)
    gain = np.minimum(reduced, 0)
    key = data.part.astype(np.int64) * (data.sites + 1) + data.site
    order = np.argsort(key, kind="stable") if len(key) > 1 and (np.diff(key) < 0).any() else np.arange(len(key))
    begins = np.flatnonzero(np.diff(key[order], prepend=-1))
    least = np.minimum.reduceat(gain[order], begins) if len(begins) else gain[:0]
    at = key[order][begins] % (data.sites + 1)
    for part in (0, 1):
        half = least & 0xFFFFFFFF if part == 0 else least >> 32
        sums = np.zeros(data.sites + 1, dtype=np.int64)
        np.add.at(sums, at, half)
        for site in range(data.sites + 1):
            inner[site] += int(sums[site]) << (32 * part)
    across = 0
    for number in range(data.rows):
        value = row_value(data.problem, number, scale, int(v[number]))
        site = int(data.row_site[number])
        if site == data.sites:
            across += value
        else:
            inner[site] += value
    closed = sum(min(0, scale * int(data.opening[site]) + inner[site]) for site in range(data.sites))
    whole: int = sum(u.tolist()) + across + inner[data.sites] + closed
    return -(-whole // scale)


def row_value(problem: Problem, row: int, scale: int, v: int) -> int:
    """What a row's multiplier gives back."""
    value = -v * int(problem.rows.capacity[row])
    for tier in np.flatnonzero(problem.tiers.row == row):
        each = scale * int(problem.tiers.price[tier]) - v * int(problem.tiers.size[tier])
        value += min(0, each) * int(problem.tiers.max_units[tier])
    return value


def columns(knapsacks: Knapsacks, part: Floats, row: Floats, widest: int) -> Certificate:
    """The bound of these multipliers with each site's capacity priced exactly."""
    data = knapsacks.data
    most = max((len(options) for options in knapsacks.options), default=1) + 1
    scale = max(1, _scale(data, part, row) // 10 ** len(str(most)))
    u = np.round(part * scale).astype(np.int64)
    v = np.round(np.maximum(row, 0.0) * scale).astype(np.int64)
    padded = np.zeros(data.rows + 1, dtype=np.int64)
    padded[knapsacks.shared] = v[knapsacks.shared]
    reduced = data.cost * scale - u[data.part] + (padded[data.row] * data.use).sum(axis=1)
    allowed: Flags = np.ones(len(data.index), dtype=np.bool_)
    whole = sum(u.tolist()) + sum(row_value(data.problem, int(r), scale, int(v[r])) for r in knapsacks.shared)
    nowhere = np.flatnonzero(data.site == data.sites)
    first = np.flatnonzero(np.diff(data.part[nowhere], prepend=-1))
    if len(first):
        whole += sum(np.minimum(np.minimum.reduceat(reduced[nowhere], first), 0).tolist())
    for site in range(data.sites):
        inner = int(knapsacks.least(site, reduced, v, allowed, widest).bound)
        whole += min(0, scale * int(data.opening[site]) + inner)
    return Certificate("knapsack", scale, u, v, -(-whole // scale))


def nothing(problem: Problem) -> Certificate:
    """The bound that needs no multipliers: no cost of any option below its part's least one, nor below nothing."""
    parts, rows = len(problem.parts.workload), len(problem.rows.names)
    zero = np.zeros(parts, dtype=np.int64)
    least = np.where(problem.allowed, problem.cost, np.int64(0))
    return Certificate("linear", 1, zero, np.zeros(rows, dtype=np.int64), min(0, int(np.minimum(least, 0).sum())))
