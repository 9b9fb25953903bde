"""Knapsacks with several rows: the least cost of a site's parts, by extending labels that a bound prunes.

A label is a set of options taken so far. Parts are decided one after the other for all labels at once; a label is
dropped when even the best of the remaining parts, at the given prices of the rows, cannot bring it below the best known
one. Works on floats while columns are generated, and on integers where the result is a proof.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundplan.placement.problem import Ints

MAX_LABELS = 16_000
"""For a proof. Beyond that number the worst labels are dropped, and the bound is lowered accordingly."""


@dataclass(frozen=True, slots=True, eq=False)
class KnapsackResult:
    """The best set found, its value and a lower bound of any set's value; equal where the search was complete."""

    value: Any
    bound: Any
    options: Ints


def solve_by_labels(
    part: NDArray[Any],
    value: NDArray[Any],
    use: Ints,
    capacity: Ints,
    price: NDArray[Any],
    max_labels: int = MAX_LABELS,
) -> KnapsackResult:
    """The best set with at most one option per part. Takes [n] parts (ascending), [n] values, [n, k] uses, [k]
    capacities and prices of rows."""
    nothing = np.zeros(0, dtype=np.int64)
    useful = np.flatnonzero((value < 0) & (use <= capacity).all(axis=1))
    if not len(useful):
        return KnapsackResult(value.dtype.type(0), value.dtype.type(0), nothing)
    priced_value = value[useful] + (use[useful] * price).sum(axis=1)
    groups = _group_by_part(part[useful], priced_value)
    best_of = np.array([min(0, priced_value[group].min()) for group in groups], dtype=priced_value.dtype)
    rest = np.append(np.cumsum(best_of[::-1])[::-1], 0)
    room = (price * capacity).sum()
    used = np.zeros((1, use.shape[1]), dtype=np.int64)
    cost = np.zeros(1, dtype=value.dtype)
    greedy = _greedy_set(groups, useful, value, use, capacity)
    best, dropped = value[greedy].sum(), None
    steps: list[tuple[Ints, Ints]] = []
    for at, group in enumerate(groups):
        parents, taken, used, cost = _extend_labels(used, cost, useful[group], value, use, capacity)
        best = min(best, cost.min())
        lower = cost + (used * price).sum(axis=1) + rest[at + 1] - room
        alive = np.flatnonzero((lower < best) | ((cost == best) & (best < value[greedy].sum())))
        if len(alive) > max_labels:
            order = alive[np.argsort(lower[alive], kind="stable")]
            lowest = lower[order[max_labels:]].min()
            dropped = lowest if dropped is None else min(dropped, lowest)
            alive = np.union1d(order[:max_labels], np.flatnonzero(cost == best)[:1])
        steps.append((parents[alive], taken[alive]))
        used, cost = used[alive], cost[alive]
        if not len(alive):
            break
    bound = best if dropped is None else min(best, dropped)
    if len(cost) and cost.min() == best:
        return KnapsackResult(best, bound, _trace_options(steps, int(np.argmin(cost))))
    return KnapsackResult(value[greedy].sum(), min(bound, value[greedy].sum()), np.sort(greedy))


def _greedy_set(groups: list[Ints], useful: Ints, value: NDArray[Any], use: Ints, capacity: Ints) -> Ints:
    """A first set to beat: of each group in turn the best option that fits."""
    left, found = capacity.copy(), []
    for group in groups:
        for option in useful[group][np.argsort(value[useful[group]], kind="stable")]:
            if (use[option] <= left).all():
                left = left - use[option]
                found.append(option)
                break
    return np.array(found, dtype=np.int64)


def _group_by_part(part: NDArray[Any], priced_value: NDArray[Any]) -> list[Ints]:
    """Positions by part, the parts with the lowest values first."""
    begins = np.flatnonzero(np.diff(part, prepend=-1))
    ends = np.append(begins[1:], len(part))
    order = np.argsort(np.minimum.reduceat(priced_value, begins), kind="stable")
    return [np.arange(begins[at], ends[at]) for at in order]


def _extend_labels(
    used: Ints, cost: NDArray[Any], options: Ints, value: NDArray[Any], use: Ints, capacity: Ints
) -> tuple[Ints, Ints, Ints, NDArray[Any]]:
    """Every label unchanged, and extended by each option that still fits. Returns parents, options taken (-1: none),
    uses and costs."""
    parents, taken = [np.arange(len(cost))], [np.full(len(cost), -1)]
    uses, costs = [used], [cost]
    for option in options:
        more = used + use[option]
        fits = np.flatnonzero((more <= capacity).all(axis=1))
        parents.append(fits)
        taken.append(np.full(len(fits), option))
        uses.append(more[fits])
        costs.append(cost[fits] + value[option])
    return np.concatenate(parents), np.concatenate(taken), np.concatenate(uses), np.concatenate(costs)


def _trace_options(steps: list[tuple[Ints, Ints]], label: int) -> Ints:
    found: list[int] = []
    for parents, taken in reversed(steps):
        if taken[label] >= 0:
            found.append(int(taken[label]))
        label = int(parents[label])
    return np.array(sorted(found), dtype=np.int64)
