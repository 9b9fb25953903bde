"""How fast use grows, from how many people it has: a curve that slows as everybody who wants it has it. Pure.

Verhulst's curve of 1838 in steps: from one week to the next the logarithm of the people grows by `a - b x people`. Both
are fitted by least squares to the weeks that were seen, newer ones weighing more; where people are no fewer the more
there are (`b` is not above zero), growth goes on as it was lately, at most doubling a month. Knows people, not what
each of them asks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from groundplan.core.errors import Invalid

LEAST: Final = 6
"""Weeks with people below which no curve is drawn."""
NEWER: Final = 0.85
"""Weight of a week relative to the next one."""
WEEKS_A_MONTH: Final = 30 / 7
MOST: Final = math.log(2) / WEEKS_A_MONTH


@dataclass(frozen=True, slots=True)
class Adoption:
    """Fitted growth. `people`: in the newest week; `ceiling`: limit of the curve, None if it shows none;
    `growth_per_month`: of the next 30 days, 0.1 is a tenth more."""

    people: int
    ceiling: float | None
    growth_per_month: float


def adoption(weeks: Sequence[int]) -> Adoption:
    """`weeks`: people of each whole week, the oldest first. Raises `Invalid` (`adoption_unknown`) for fewer than
    `LEAST` weeks with anybody."""
    begun = next((place for place, people in enumerate(weeks) if people > 0), len(weeks))
    seen = [max(1, people) for people in weeks[begun:]]
    if len(seen) < LEAST:
        raise Invalid(
            f"{len(seen)} weeks with people show no curve of adoption",
            code="adoption_unknown",
            hint=f"Wait until there are {LEAST} whole weeks, or name a growth: --growth 0.05.",
        )
    a, b = _fitted(seen)
    now, after = float(seen[-1]), float(seen[-1])
    for _ in range(round(WEEKS_A_MONTH)):
        after *= math.exp(min(MOST, max(-MOST, a - b * after)))
    return Adoption(seen[-1], a / b if a > 0 and b > 0 else None, after / now - 1)


def _fitted(seen: Sequence[int]) -> tuple[float, float]:
    """(a, b) of the weighted least squares of growth on people; b is never below zero."""
    steps = [(float(one), math.log(other / one)) for one, other in pairwise(seen)]
    weights = [NEWER ** (len(steps) - 1 - place) for place in range(len(steps))]
    whole = sum(weights)
    mean_x = sum(w * x for w, (x, _) in zip(weights, steps, strict=True)) / whole
    mean_y = sum(w * y for w, (_, y) in zip(weights, steps, strict=True)) / whole
    spread = sum(w * (x - mean_x) ** 2 for w, (x, _) in zip(weights, steps, strict=True))
    slope = sum(w * (x - mean_x) * (y - mean_y) for w, (x, y) in zip(weights, steps, strict=True))
    b = max(0.0, -slope / spread) if spread > 0 else 0.0
    return mean_y + b * mean_x, b
