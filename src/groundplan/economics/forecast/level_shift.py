"""Detects a shift of level, as by an undeclared launch or end: since some day usage is much higher, or lower, than
expected. Pure.

It must hold on every day since then, for at least three days (seven for less usage, since people have holidays), and
for longer than any such period in the past.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from groundplan.economics.forecast.smooth import Floats, smoothed_paths

MUCH: Final = math.log(1.8)
"""Of every day; the median is at least `SURE`."""
SURE: Final = math.log(2.2)
MOST_TOLD: Final = 100
MORE_DAYS, LESS_DAYS, LONGEST, LEAST_BEFORE = 3, 7, 28, 8


@dataclass(frozen=True, slots=True)
class LevelShift:
    """`place` is the first day of the new level, `size` the logarithm of how many times as much there is."""

    place: int
    size: float

    def unsure(self, count: int) -> float:
        """Uncertainty of the interval: 1 for a shift seen for the fewest days, falling towards 0."""
        return math.sqrt(MORE_DAYS / (count - self.place))

    @property
    def text(self) -> str:
        factor = math.exp(abs(self.size))
        times = f"{factor:.1f}" if factor < MOST_TOLD else f"more than {MOST_TOLD}"
        return f"{times} times {'as much' if self.size > 0 else 'less'}"


def find_level_shift(logs: Floats, cycle: int, jumps: dict[int, float]) -> LevelShift | None:
    """The longest time up to now in which all was otherwise. `logs`: a day each, NaN on holidays."""
    count = len(logs)
    spans = range(MORE_DAYS, min(LONGEST, count - LEAST_BEFORE) + 1)
    if not spans:
        return None
    made = smoothed_paths(logs, cycle, [count - span for span in spans], LONGEST, jumps)
    away = logs - _usual(logs, cycle)
    for span in reversed(spans):
        seen = logs[count - span :] - np.median(made[count - span], axis=0)[:span]
        open_ = np.isfinite(seen)
        for sign, least in ((1, MORE_DAYS), (-1, LESS_DAYS)):
            more = np.minimum(sign * seen, sign * away[count - span :])[open_]
            long = len(more) >= max(least, _passed(sign * away[: count - span]) + 1)
            if long and float(more.min()) > MUCH and float(np.median(sign * seen[open_])) > SURE:
                return LevelShift(count - span, float(np.median(seen[open_])))
    return None


def _usual(logs: Floats, cycle: int) -> Floats:
    """The median of its weekday, of each day."""
    phases = np.arange(len(logs)) % cycle
    each = [logs[(phases == phase) & np.isfinite(logs)] for phase in range(cycle)]
    found: Floats = np.array([np.median(mine) if len(mine) else 0.0 for mine in each])[phases]
    return found


def _passed(away: Floats) -> int:
    """Days of the longest time that was much above what is usual, and ended."""
    longest = run = 0
    for each in (away > MUCH).tolist():
        longest, run = (longest, run + 1) if each else (max(longest, run), 0)
    return longest
