"""Days without any that come again and again, on no weekday in particular: as many of them come as there were. Pure.

One interruption, or two, is none of them (`outliers`); where most happens on few days, `intermittent` says what comes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

import numpy as np

from groundplan.economics.forecast.model import Forecast
from groundplan.economics.forecast.smooth import Floats

TIMES, APART = 3, 14
"""The fewest of them, and the days from the first to the last."""
ENDED: Final = 2
"""Times the longest time between two, after which there are no more of them."""
HALF_LIFE: Final = 60.0
"""Days after which what was counts half."""
ALIKE: Final = 4.0
"""Days of a weekday that what is known of all days is worth."""
SELDOM: Final = 0.1
"""Share of days without any, from which on nothing is the lower end of a day."""


@dataclass(frozen=True, slots=True)
class Gaps:
    """`some`: of each day ahead how surely there is something."""

    some: Floats
    note: str
    together: float
    """Days that follow each other without any, on average."""
    known: float
    """Days that this is known from, older ones counting less."""

    def apply_to(self, usual: Forecast) -> Forecast:
        """What comes with as many days without any; `usual` is what comes without them."""
        middle = np.array(usual.middle)
        with_gaps = middle * self.some
        share = float(with_gaps.sum() / whole) if (whole := float(middle.sum())) else 1.0
        days = float((middle**2 * self.some * (1 - self.some)).sum()) * (2 * self.together - 1)
        spread = 1.28 * math.sqrt(days * (1 + len(middle) / self.known))
        total = usual.total * share
        below, above = (
            math.hypot(abs(end - usual.total) * share, spread) for end in (usual.total_low, usual.total_high)
        )
        lows = np.where(self.some > 1 - SELDOM, np.minimum(np.array(usual.low), with_gaps), 0.0)
        return replace(
            usual,
            middle=tuple(with_gaps.tolist()),
            low=tuple(lows.tolist()),
            total=total,
            total_low=max(0.0, total - below),
            total_high=total + above,
            notes=(self.note, *usual.notes),
        )


def find_gaps(runs: Sequence[Sequence[int]], begun: int, count: int, horizon: int, *, few: bool) -> Gaps | None:
    """Of runs of days without any, in order, among `count` days of which the first `begun` were before anything was.
    None where there are too few to come again, or no more of them come; of a `few` days any may come again."""
    starts = [run[0] for run in runs]
    if not runs or (not few and (len(runs) < TIMES or starts[-1] - starts[0] < APART)):
        return None
    if not few and count - starts[-1] > ENDED * max(two - one for one, two in pairwise(starts)):
        return None
    places = [place for run in runs for place in run]
    there: Floats = np.ones(count)
    there[places] = 0.0
    weight: Floats = 0.5 ** (np.arange(count)[::-1] / HALF_LIFE)
    weight[:begun] = 0.0
    every = float((there * weight).sum() / weight.sum())
    of_weekday = [
        float(((there * weight)[day::7].sum() + ALIKE * every) / (weight[day::7].sum() + ALIKE)) for day in range(7)
    ]
    note = f"on {len(places)} of {count - begun} days there was nothing, and as many such days are expected"
    some: Floats = np.array([of_weekday[place % 7] for place in range(count, count + horizon)])
    return Gaps(some, note, len(places) / len(runs), float(weight.sum()))
