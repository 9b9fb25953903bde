"""Operating points: the highest worth of cost at which held-out predictions still keep a share of the best score.

Pure. Proven by the lower end of a one-sided interval over groups, so that few or uneven groups cost savings, not
quality.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt

import numpy as np

from groundplan.economics.routing.decide.choose import best_columns, with_bonus
from groundplan.economics.routing.model import Doubles, Integers, LossRange, Matrix, Point, Router

MARGIN = 1.0
"""Standard errors between the observed share and the promised one."""
STEPS = 80
BONUSES = (0.0, 0.02, 0.04, 0.07, 0.1, 0.15, 0.2, 0.3)
"""Bonuses of the strongest model that are tried at every price."""
PARTS = 10
"""Parts, by expected loss, of the prompts that go to other models; each is judged separately."""
LEAST_OF_PART = 40
"""Fewest prompts of a part to judge."""
SURE = 2.58
"""Standard errors by which a part must be worse than expected."""
SLACK = 0.02
"""Loss of score that is tolerated."""


def prices() -> Doubles:
    """Prices that are tried: score points per cost of one call of the strongest model."""
    return np.concatenate([[0.0], np.geomspace(1e-5, 3.0, STEPS)])


def operating_points(
    matrix: Matrix, predictions: Doubles, router: Router, keeps: Sequence[float], margin: float = MARGIN
) -> dict[str, Point]:
    """The operating point of each share to keep that these held-out predictions (scores next to relative costs)
    prove."""
    count = len(matrix.models)
    costs = np.clip(predictions[:, count:], 0.1, 10.0) * router.mean_costs
    unit = float(router.mean_costs[router.strongest])
    groups = group_numbers([sample.group for sample in matrix.samples])
    rows = np.arange(len(matrix.samples))
    tried: dict[bytes, tuple[Point, Integers]] = {}
    for bonus in BONUSES:
        scores = with_bonus(predictions[:, :count], router.strongest, bonus)
        for price in prices():
            picked = best_columns(scores, costs, float(price), unit)
            # most choose as another one did
            tried.setdefault(picked.astype(np.uint16).tobytes(), ((float(price), bonus), picked))
    cheapest = sorted(tried.values(), key=lambda each: float(matrix.costs[rows, each[1]].sum()))
    found: dict[str, Point] = {}
    for keep in keeps:
        goal = keep * matrix.scores[:, router.strongest]
        for point, picked in cheapest:
            if lowest(matrix.scores[rows, picked] - goal, groups, margin) >= 0:
                found[label(keep)] = point
                break
    return found


def doubtful_ranges(
    matrix: Matrix, predictions: Doubles, router: Router, points: Mapping[str, Point]
) -> dict[str, list[LossRange]]:
    """For each operating point, where expectations cannot be relied on: losses that were expected of those prompts,
    left out, that would not go to the strongest model, in tenths, where what was seen is surely worse by more than
    `SLACK`."""
    count, strongest = len(matrix.models), router.strongest
    costs = np.clip(predictions[:, count:], 0.1, 10.0) * router.mean_costs
    unit = float(router.mean_costs[strongest])
    groups, rows = group_numbers([sample.group for sample in matrix.samples]), np.arange(len(matrix.samples))
    found: dict[str, list[LossRange]] = {}
    for name, (price, bonus) in points.items():
        picked = best_columns(with_bonus(predictions[:, :count], strongest, bonus), costs, price, unit)
        away = np.flatnonzero(picked != strongest)
        loss = predictions[away, strongest] - predictions[away, picked[away]]
        seen = matrix.scores[rows, strongest][away] - matrix.scores[rows, picked][away]
        order = np.argsort(loss, kind="stable")
        parts = [part for part in np.array_split(order, PARTS) if len(part) >= LEAST_OF_PART]
        gaps = seen - loss
        worse = [part for part in parts if _surely_worse(gaps[part], groups[away][part])]
        if worse:
            found[name] = [(float(loss[part].min()), float(loss[part].max())) for part in worse]
    return found


def _surely_worse(gaps: Doubles, groups: Integers) -> bool:
    _, own = np.unique(groups, return_inverse=True)
    return bool(gaps.mean() - SURE * error_of_mean(gaps, np.asarray(own, dtype=np.int64)) > SLACK)


def lowest(values: Doubles, groups: Integers, times: float) -> float:
    """The lower end of an interval of a mean, so many standard errors wide. Few losses, or none, among so many prompts
    do not show that there are as few: Wilson's (1927), which leaves room for those that as many may pass over."""
    room = times / (2 * len(values))
    return float(values.mean() - times * (room + sqrt(error_of_mean(values, groups) ** 2 + room**2)))


def label(keep: float) -> str:
    """Name of an operating point: `0.99`."""
    return f"{keep:g}"


def group_numbers(groups: Sequence[str]) -> Integers:
    """A number for each group name, row by row."""
    _, numbers = np.unique(np.asarray(groups), return_inverse=True)
    return np.asarray(numbers, dtype=np.int64)


def error_of_mean(values: Doubles, groups: Integers) -> float:
    """Standard error of the mean of values that come in groups (rows of a group are not independent)."""
    sums = np.bincount(groups, weights=values - values.mean())
    count = len(sums)
    if count < 2:
        return float("inf")
    return float(np.sqrt(np.square(sums).sum() * count / (count - 1)) / len(values))
