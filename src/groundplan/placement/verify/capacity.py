"""How little parts can pay at one site whose rows hold them, proven: by a full table, or by a pruned enumeration.

Integers only. The enumeration goes breadth first over the parts. When it grows too wide the least promising beginnings
are let go, and what they could have reached at best limits what is proven.
"""

from __future__ import annotations

import numpy as np

from groundplan.placement.problem import Ints, Problem
from groundplan.placement.verify.exact import SAFE, Numbers, largest, wide

LARGEST_TABLE = 60_000
WIDEST = 50_000


def site_minimum(problem: Problem, rows: Ints, options: Ints, value: Numbers, multipliers: list[int]) -> int:
    """[k] rows of the site, [n] options there with their values; multipliers of the rows only prune. <= 0."""
    uses = _uses(problem, rows, options)
    capacity = np.array([int(problem.rows.capacity[row]) for row in rows], dtype=np.int64)
    parts = problem.options.part[options]
    useful = np.flatnonzero(value < 0)
    if len(rows) == 1 and capacity[0] <= LARGEST_TABLE:
        return _table(parts[useful], value[useful], uses[useful, 0], int(capacity[0]))
    useful = useful[(uses[useful] <= capacity).all(axis=1)]
    price = np.array(multipliers, dtype=np.int64)
    size = len(useful) * (largest(value) + len(rows) * largest(price) * max(largest(uses), largest(capacity)))
    if size >= SAFE:
        return _enumerate(parts[useful], wide(value[useful]), wide(uses[useful]), wide(capacity), wide(price))
    return _enumerate(parts[useful], value[useful], uses[useful], capacity, price)


def _table(parts: Numbers, value: Numbers, use: Numbers, capacity: int) -> int:
    best = np.zeros(capacity + 1, dtype=value.dtype)
    if value.dtype != object and len(value) * largest(value) >= SAFE:
        best, value = wide(best), wide(value)
    groups: dict[int, list[tuple[int, int]]] = {}
    for part, amount, worth in zip(parts, use, value, strict=True):
        if amount <= capacity:
            groups.setdefault(int(part), []).append((int(amount), int(worth)))
    for choices in groups.values():
        before = best.copy()
        for amount, worth in choices:
            np.minimum(best[amount:], before[: capacity + 1 - amount] + worth, out=best[amount:])
    return int(best[capacity])


def _enumerate(parts: Numbers, value: Numbers, use: Numbers, capacity: Numbers, price: Numbers) -> int:
    """Beginnings are (value, what is left of each row); each part doubles them, the promise prunes them."""
    dear = value + (use * price).sum(axis=1)
    members: dict[int, list[int]] = {}
    for at, part in enumerate(parts.tolist()):
        members.setdefault(part, []).append(at)
    promise = {part: min(0, min(int(dear[at]) for at in each)) for part, each in members.items()}
    order = sorted(members, key=lambda part: (promise[part], part))
    remaining = sum(promise.values())
    worth, left = np.zeros(1, dtype=value.dtype), capacity.reshape(1, -1)
    best = _filled(order, members, value, use, capacity)
    gone = 0
    for part in order:
        remaining -= promise[part]
        every = [(worth, left)]
        for at in members[part]:
            after = left - use[at]
            fits = (after >= 0).all(axis=1)
            every.append((worth[fits] + value[at], after[fits]))
        worth, left = np.concatenate([each for each, _ in every]), np.concatenate([each for _, each in every])
        best = min(best, int(worth.min()))
        reach = worth - (left * price).sum(axis=1) + remaining
        alive = np.flatnonzero(reach < best)
        if len(alive) > WIDEST:
            by_reach = alive[np.argsort(reach[alive], kind="stable")]
            gone = min(gone, int(reach[by_reach[WIDEST]]))
            alive = by_reach[:WIDEST]
        if not len(alive):
            break
        worth, left = worth[alive], left[alive]
    return min(best, gone)


def _filled(order: list[int], members: dict[int, list[int]], value: Numbers, use: Numbers, capacity: Numbers) -> int:
    """What one obtains by taking what fits, the most promising parts first."""
    left, worth = capacity, 0
    for part in order:
        for at in sorted(members[part], key=lambda at: int(value[at])):
            if (use[at] <= left).all():
                left, worth = left - use[at], worth + int(value[at])
                break
    return worth


def _uses(problem: Problem, rows: Ints, options: Ints) -> Ints:
    """[n, k] what each option uses of each row."""
    starts = problem.options.row_start
    number = {int(row): at for at, row in enumerate(rows)}
    found = np.zeros((len(options), len(rows)), dtype=np.int64)
    for index, option in enumerate(options):
        for at in range(int(starts[option]), int(starts[option + 1])):
            column = number.get(int(problem.options.row[at]))
            if column is not None:
                found[index, column] = problem.options.use[at]
    return found
