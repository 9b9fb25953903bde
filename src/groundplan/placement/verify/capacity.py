"""A proven lower bound on the cost of parts that fit at one site: by a full table, or by a pruned enumeration.

Integers only. The enumeration is breadth-first over the parts. When it grows too wide the least promising states are
dropped, and the best values that they could have reached limit the bound.
"""

from __future__ import annotations

import numpy as np

from groundplan.placement.problem import Ints, Problem
from groundplan.placement.verify.exact import SAFE, Numbers, as_python_ints, largest

LARGEST_TABLE = 60_000
MAX_STATES = 50_000


def site_minimum(problem: Problem, rows: Ints, options: Ints, value: Numbers, multipliers: list[int]) -> int:
    """The least sum of values of a set of the options, at most one per part, that fits into the site's rows; at most 0.

    Takes [k] rows of the site, [n] options there with their values. The rows' multipliers only prune.
    """
    uses = _row_uses(problem, rows, options)
    capacity = np.array([int(problem.rows.capacity[row]) for row in rows], dtype=np.int64)
    parts = problem.options.part[options]
    useful = np.flatnonzero(value < 0)
    if len(rows) == 1 and capacity[0] <= LARGEST_TABLE:
        return _table_minimum(parts[useful], value[useful], uses[useful, 0], int(capacity[0]))
    useful = useful[(uses[useful] <= capacity).all(axis=1)]
    price = np.array(multipliers, dtype=np.int64)
    size = len(useful) * (largest(value) + len(rows) * largest(price) * max(largest(uses), largest(capacity)))
    if size >= SAFE:
        return _enumeration_minimum(
            parts[useful],
            as_python_ints(value[useful]),
            as_python_ints(uses[useful]),
            as_python_ints(capacity),
            as_python_ints(price),
        )
    return _enumeration_minimum(parts[useful], value[useful], uses[useful], capacity, price)


def _table_minimum(parts: Numbers, value: Numbers, use: Numbers, capacity: int) -> int:
    best = np.zeros(capacity + 1, dtype=value.dtype)
    if value.dtype != object and len(value) * largest(value) >= SAFE:
        best, value = as_python_ints(best), as_python_ints(value)
    groups: dict[int, list[tuple[int, int]]] = {}
    for part, amount, worth in zip(parts, use, value, strict=True):
        if amount <= capacity:
            groups.setdefault(int(part), []).append((int(amount), int(worth)))
    for choices in groups.values():
        before = best.copy()
        for amount, worth in choices:
            np.minimum(best[amount:], before[: capacity + 1 - amount] + worth, out=best[amount:])
    return int(best[capacity])


def _enumeration_minimum(parts: Numbers, value: Numbers, use: Numbers, capacity: Numbers, price: Numbers) -> int:
    """States are (value, remaining capacity of each row); each part extends them by its options, and states that cannot
    beat the best value are pruned."""
    priced_value = value + (use * price).sum(axis=1)
    members: dict[int, list[int]] = {}
    for at, part in enumerate(parts.tolist()):
        members.setdefault(part, []).append(at)
    promise = {part: min(0, min(int(priced_value[at]) for at in each)) for part, each in members.items()}
    order = sorted(members, key=lambda part: (promise[part], part))
    remaining = sum(promise.values())
    worth, left = np.zeros(1, dtype=value.dtype), capacity.reshape(1, -1)
    best = _greedy_value(order, members, value, use, capacity)
    dropped_bound = 0
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
        kept = np.flatnonzero(reach < best)
        if len(kept) > MAX_STATES:
            by_reach = kept[np.argsort(reach[kept], kind="stable")]
            dropped_bound = min(dropped_bound, int(reach[by_reach[MAX_STATES]]))
            kept = by_reach[:MAX_STATES]
        if not len(kept):
            break
        worth, left = worth[kept], left[kept]
    return min(best, dropped_bound)


def _greedy_value(
    order: list[int], members: dict[int, list[int]], value: Numbers, use: Numbers, capacity: Numbers
) -> int:
    """The value of a greedy set: of each part, the most promising first, the best option that fits."""
    left, worth = capacity, 0
    for part in order:
        for at in sorted(members[part], key=lambda at: int(value[at])):
            if (use[at] <= left).all():
                left, worth = left - use[at], worth + int(value[at])
                break
    return worth


def _row_uses(problem: Problem, rows: Ints, options: Ints) -> Ints:
    """[n, k] how much of each row each option uses."""
    starts = problem.options.row_start
    number = {int(row): at for at, row in enumerate(rows)}
    found = np.zeros((len(options), len(rows)), dtype=np.int64)
    for index, option in enumerate(options):
        for at in range(int(starts[option]), int(starts[option + 1])):
            column = number.get(int(problem.options.row[at]))
            if column is not None:
                found[index, column] = problem.options.use[at]
    return found
