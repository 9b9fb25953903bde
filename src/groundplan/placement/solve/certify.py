"""Turns float multipliers into an integer certificate, with the bound that it proves.

Rounding cannot make a bound wrong, only slightly smaller: any multipliers prove some bound.
"""

from __future__ import annotations

import numpy as np

from groundplan.placement.problem import Certificate, Flags, Ints, Problem
from groundplan.placement.solve.arrays import Arrays, Floats
from groundplan.placement.solve.knapsacks import Knapsacks

_INT64_LIMIT = 2.0**61
_MAX_SCALE = 10**6


def linear_certificate(data: Arrays, part: Floats, row: Floats) -> Certificate:
    """The certificate of these multipliers, with sites priced by their rows' multipliers alone."""
    scale = _scale(data, part, row)
    u = np.round(part * scale).astype(np.int64)
    v = np.round(np.maximum(row, 0.0) * scale).astype(np.int64)
    return Certificate("linear", scale, u, v, _linear_value(data, scale, u, v))


def _scale(data: Arrays, part: Floats, row: Floats) -> int:
    padded = np.append(row, 0.0)
    use = float(np.abs(padded[data.row] * data.use).sum(axis=1).max(initial=0.0))
    size = float(np.abs(data.price).max(initial=1.0)) + float(np.abs(part).max(initial=0.0)) + use + 1.0
    scale = 1
    while (
        scale < _MAX_SCALE
        and scale * 10 * size * 4 < _INT64_LIMIT
        and scale * 10 * float(row.max(initial=0.0)) < _INT64_LIMIT
    ):
        scale *= 10
    return scale


def _linear_value(data: Arrays, scale: int, u: Ints, v: Ints) -> int:
    padded = np.append(v, 0)
    reduced = data.cost * scale - u[data.part] + (padded[data.row] * data.use).sum(axis=1)
    inner = [0] * (data.site_count + 1)
    gain = np.minimum(reduced, 0)
    key = data.part.astype(np.int64) * (data.site_count + 1) + data.site
    order = np.argsort(key, kind="stable") if len(key) > 1 and (np.diff(key) < 0).any() else np.arange(len(key))
    begins = np.flatnonzero(np.diff(key[order], prepend=-1))
    least = np.minimum.reduceat(gain[order], begins) if len(begins) else gain[:0]
    at = key[order][begins] % (data.site_count + 1)
    for part in (0, 1):
        half = least & 0xFFFFFFFF if part == 0 else least >> 32
        sums = np.zeros(data.site_count + 1, dtype=np.int64)
        np.add.at(sums, at, half)
        for site in range(data.site_count + 1):
            inner[site] += int(sums[site]) << (32 * part)
    across = 0
    for number in range(data.row_count):
        value = row_contribution(data.problem, number, scale, int(v[number]))
        site = int(data.row_site[number])
        if site == data.site_count:
            across += value
        else:
            inner[site] += value
    closed = sum(min(0, scale * int(data.opening[site]) + inner[site]) for site in range(data.site_count))
    total: int = sum(u.tolist()) + across + inner[data.site_count] + closed
    return -(-total // scale)


def row_contribution(problem: Problem, row: int, scale: int, v: int) -> int:
    """The row's term of the bound, in units of 1 / scale: minus its multiplier times capacity, and its best tiers."""
    value = -v * int(problem.rows.capacity[row])
    for tier in np.flatnonzero(problem.tiers.row == row):
        each = scale * int(problem.tiers.price[tier]) - v * int(problem.tiers.size[tier])
        value += min(0, each) * int(problem.tiers.max_units[tier])
    return value


def knapsack_certificate(knapsacks: Knapsacks, part: Floats, row: Floats, max_labels: int) -> Certificate:
    """The certificate of these multipliers with each site's capacity priced exactly."""
    data = knapsacks.data
    most = max((len(options) for options in knapsacks.options), default=1) + 1
    scale = max(1, _scale(data, part, row) // 10 ** len(str(most)))
    u = np.round(part * scale).astype(np.int64)
    v = np.round(np.maximum(row, 0.0) * scale).astype(np.int64)
    padded = np.zeros(data.row_count + 1, dtype=np.int64)
    padded[knapsacks.shared] = v[knapsacks.shared]
    reduced = data.cost * scale - u[data.part] + (padded[data.row] * data.use).sum(axis=1)
    allowed: Flags = np.ones(len(data.index), dtype=np.bool_)
    total = sum(u.tolist()) + sum(row_contribution(data.problem, int(r), scale, int(v[r])) for r in knapsacks.shared)
    nowhere = np.flatnonzero(data.site == data.site_count)
    first = np.flatnonzero(np.diff(data.part[nowhere], prepend=-1))
    if len(first):
        total += sum(np.minimum(np.minimum.reduceat(reduced[nowhere], first), 0).tolist())
    for site in range(data.site_count):
        inner = int(knapsacks.solve_site(site, reduced, v, allowed, max_labels).bound)
        total += min(0, scale * int(data.opening[site]) + inner)
    return Certificate("knapsack", scale, u, v, -(-total // scale))


def trivial_certificate(problem: Problem) -> Certificate:
    """The certificate without multipliers: its bound is the sum of all negative option costs, else 0."""
    parts, rows = len(problem.parts.workload), len(problem.rows.names)
    zero = np.zeros(parts, dtype=np.int64)
    least = np.where(problem.allowed, problem.cost, np.int64(0))
    return Certificate("linear", 1, zero, np.zeros(rows, dtype=np.int64), min(0, int(np.minimum(least, 0).sum())))
