"""Knapsacks with several rows: the least that a site's parts can cost, by labels that a bound prunes.

A label is a set of options taken so far. Parts are decided one after the other for all labels at once; a label is
dropped when even the best of what is left, at the given prices of the rows, cannot bring it below the best one known.
Works on floats while columns are generated, and on integers where the result is a proof.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundplan.placement.problem import Ints

MOST_LABELS = 16_000
"""For a proof. Beyond, the worst are dropped, and the bound says so."""


@dataclass(frozen=True, slots=True, eq=False)
class Taken:
    """The best set found and how good any set can be; equal where the search was complete."""

    value: Any
    bound: Any
    options: Ints


def least(
    part: NDArray[Any], value: NDArray[Any], use: Ints, capacity: Ints, price: NDArray[Any], widest: int = MOST_LABELS
) -> Taken:
    """[n] parts (ascending), [n] values, [n, k] uses, [k] capacities and prices -> at most one option for each part."""
    nothing = np.zeros(0, dtype=np.int64)
    useful = np.flatnonzero((value < 0) & (use <= capacity).all(axis=1))
    if not len(useful):
        return Taken(value.dtype.type(0), value.dtype.type(0), nothing)
    dear = value[useful] + (use[useful] * price).sum(axis=1)
    groups = _groups(part[useful], dear)
    best_of = np.array([min(0, dear[group].min()) for group in groups], dtype=dear.dtype)
    rest = np.append(np.cumsum(best_of[::-1])[::-1], 0)
    room = (price * capacity).sum()
    used = np.zeros((1, use.shape[1]), dtype=np.int64)
    cost = np.zeros(1, dtype=value.dtype)
    greedy = _greedy(groups, useful, value, use, capacity)
    best, dropped = value[greedy].sum(), None
    steps: list[tuple[Ints, Ints]] = []
    for at, group in enumerate(groups):
        parents, taken, used, cost = _extend(used, cost, useful[group], value, use, capacity)
        best = min(best, cost.min())
        lower = cost + (used * price).sum(axis=1) + rest[at + 1] - room
        alive = np.flatnonzero((lower < best) | ((cost == best) & (best < value[greedy].sum())))
        if len(alive) > widest:
            order = alive[np.argsort(lower[alive], kind="stable")]
            lowest = lower[order[widest:]].min()
            dropped = lowest if dropped is None else min(dropped, lowest)
            alive = np.union1d(order[:widest], np.flatnonzero(cost == best)[:1])
        steps.append((parents[alive], taken[alive]))
        used, cost = used[alive], cost[alive]
        if not len(alive):
            break
    bound = best if dropped is None else min(best, dropped)
    if len(cost) and cost.min() == best:
        return Taken(best, bound, _trace(steps, int(np.argmin(cost))))
    return Taken(value[greedy].sum(), min(bound, value[greedy].sum()), np.sort(greedy))


def _greedy(groups: list[Ints], useful: Ints, value: NDArray[Any], use: Ints, capacity: Ints) -> Ints:
    """What fits, taken in the order of the groups: the first best to beat."""
    left, found = capacity.copy(), []
    for group in groups:
        for option in useful[group][np.argsort(value[useful[group]], kind="stable")]:
            if (use[option] <= left).all():
                left = left - use[option]
                found.append(option)
                break
    return np.array(found, dtype=np.int64)


def _groups(part: NDArray[Any], dear: NDArray[Any]) -> list[Ints]:
    """Positions by part, the parts that promise most first."""
    begins = np.flatnonzero(np.diff(part, prepend=-1))
    ends = np.append(begins[1:], len(part))
    order = np.argsort(np.minimum.reduceat(dear, begins), kind="stable")
    return [np.arange(begins[at], ends[at]) for at in order]


def _extend(
    used: Ints, cost: NDArray[Any], options: Ints, value: NDArray[Any], use: Ints, capacity: Ints
) -> tuple[Ints, Ints, Ints, NDArray[Any]]:
    """Every label as it is, and with each option that still fits."""
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


def _trace(steps: list[tuple[Ints, Ints]], label: int) -> Ints:
    found: list[int] = []
    for parents, taken in reversed(steps):
        if taken[label] >= 0:
            found.append(int(taken[label]))
        label = int(parents[label])
    return np.array(sorted(found), dtype=np.int64)
