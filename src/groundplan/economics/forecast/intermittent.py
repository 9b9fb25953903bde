"""Forecasts intermittent series, with usage on few days only, such as a run on the first of each month: the median day
tells nothing, so the mean is used. Pure.

Recognised by days with many times the usage of the same weekday a week before and after. A launch, an end or a single
event is not intermittent.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Final

import numpy as np

from groundplan.economics.forecast.model import DAY, Forecast, Series
from groundplan.economics.forecast.smooth import Floats

WEEK: Final = 7
LEAST: Final = 21
"""Fewest days to recognise an intermittent series."""
NOTHING: Final = 0.02
"""Share of a day below which another day counts as empty."""
SHARE: Final = 0.3
"""Lowest share of all usage on days without usage a week before or after."""
EVENTS, APART = 3, 14
"""The fewest of them, and the days from the first to the last."""
ENDED: Final = 2
"""Times the longest time between two, after which it has ended."""
HALF_LIFE: Final = 60.0
"""Days after which what was counts half."""
FEW: Final = 2.0
SEEN: Final = 6
"""Multiple of the horizon from which on past sums give the interval."""


def is_rare(series: Series) -> bool:
    """Whether most usage is on days that do not follow the weekday."""
    values = series.values
    count = len(values)
    if series.step != DAY or count < LEAST or not (whole := sum(values)):
        return False
    alone, events = 0.0, []
    for place, value in enumerate(values):
        near = [values[at] for at in (place - WEEK, place + WEEK) if value > 0 and 0 <= at < count]
        empty = sum(other <= NOTHING * value for other in near)
        alone += value * empty / len(near) if near else 0.0
        if near and empty == len(near):
            events.append(place)
    events = [place for place, before in zip(events, [-WEEK, *events], strict=False) if place - before > 1]
    if alone < SHARE * whole or len(events) < EVENTS or events[-1] - events[0] < APART:
        return False
    return count - events[-1] <= ENDED * max(two - one for one, two in pairwise(events))


def forecast(series: Series, horizon: int, growth: Floats, origins: list[int]) -> Forecast:
    """The mean of each day, newer ones counting more, and the interval that sums of so many days had."""
    level = levels(series, horizon)
    count = len(series.values)
    begun = next(place for place, value in enumerate(series.values) if value > 0)
    values = np.array(series.values)[begun:] * level[count - 1] / level[begun:count]
    ahead = level[count:] / level[count - 1] * np.exp(growth)
    mean = _mean(values)
    total = mean * float(ahead.sum())
    low, high = (total + (each - mean * horizon) * float(ahead.mean()) for each in _sums(values, mean, horizon))
    seen = [float(np.quantile(values, share)) for share in (0.1, 0.9)]
    return Forecast(
        start=series.at(count),
        step=series.step,
        middle=tuple((mean * ahead).tolist()),
        low=tuple((min(seen[0], mean) * ahead).tolist()),
        high=tuple((max(seen[1], mean) * ahead).tolist()),
        total=total,
        total_low=min(max(0.0, low), total),
        total_high=max(high, total),
        method="mean of days, newer ones counting more",
        error=_error(series.values, horizon, origins),
        notes=("on most days there is little or nothing: each day is the mean of all, and the total says more",),
        detail={"holiday_factors": {}, "origins": len(origins), "cycle": 1},
    )


def levels(series: Series, horizon: int) -> Floats:
    """How many times as much there is on each day, past and ahead, by the launches that are declared."""
    count = len(series.values) + horizon
    found: Floats = np.ones(count)
    for launch in series.launches:
        place = math.ceil((launch.at - series.start) / series.step)
        if 0 < place < count:
            found[place:] *= max(launch.factor, 1e-6)
    return found


def _mean(values: Floats) -> float:
    weights = 0.5 ** (np.arange(len(values))[::-1] / HALF_LIFE)
    return float((values * weights).sum() / weights.sum())


def _sums(values: Floats, mean: float, horizon: int) -> tuple[float, float]:
    """Interval of the sum of so many days: from past sums if there are `SEEN` times as many days, else as if days were
    independent."""
    count = len(values)
    if count < SEEN * horizon:
        spread = 1.28 * math.sqrt(float(values.var()) * horizon * (1 + horizon / count))
        return mean * horizon - spread, mean * horizon + spread
    sums = np.convolve(values, np.ones(horizon), "valid")
    wider = math.sqrt(1 + FEW * horizon / count)
    low, high = (mean * horizon + (float(np.quantile(sums, each)) - mean * horizon) * wider for each in (0.1, 0.9))
    return low, high


def _error(values: tuple[float, ...], horizon: int, origins: list[int]) -> float | None:
    known = np.array(values)
    scale = float(np.abs(known[WEEK:] - known[:-WEEK]).mean())
    if not origins or not scale:
        return None
    found = [np.abs(known[place : place + horizon] - _mean(known[:place])).mean() for place in origins]
    return round(float(np.mean(found)) / scale, 4)
