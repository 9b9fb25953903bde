"""Outliers, days that say nothing of what comes: nothing at all where there always is something, or many times as much
as ever.

An interruption of some days, or a single event, is not how the days after it will be. Such days are replaced by what
is usual on their weekday, and a note names them. What lasts is none: a week of nothing at the end may be the end. Nor
is what a declared launch explains. Where days of nothing come again and again, as many are expected (`gaps`). Pure.
"""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import groupby
from statistics import median
from typing import Final

from groundplan.economics.forecast import gaps as gaps_again
from groundplan.economics.forecast.gaps import Gaps
from groundplan.economics.forecast.model import DAY, Series

LEAST: Final = 8
"""Fewest days to know what is usual."""
FEW: Final = 21
"""Days below which a single time without any may be one of many, and a weekday without any is a day of rest."""
NOTHING: Final = 0.02
"""Of what is usual on that weekday."""
RARE: Final = 0.35
"""Share of a weekday's values that are nothing, from which on that is usual."""
REST: Final = 2
"""Days of rest in a week, at most, where few weeks are known."""
ALIKE: Final = 8
"""Values of a weekday that the share of all days is worth."""
LONGEST, LAST = 28, 6
"""Days of an interruption, and of one that has not ended yet."""
TIMES: Final = 8.0
"""As much as the largest other day of `NEAR` days before and after, from which on it is a single event."""
NEAR: Final = 28
SINCE: Final = 3
"""Days after it by which it has passed, and days that it lasts at most."""


def remove_outliers(series: Series, horizon: int) -> tuple[Series, tuple[str, ...], Gaps | None]:
    """(the series without outliers, notes about them, those of them that recur within the `horizon`)"""
    if series.step != DAY or len(series.values) < LEAST:
        return series, (), None
    values = list(series.values)
    declared = {math.ceil((launch.at - series.start) / series.step) for launch in series.launches}
    gaps, events = (
        [place for run in _runs(found) if not any(_near(place, declared) for place in run) for place in run]
        for found in (_gaps(series, values), _events(values) if len(values) >= FEW else [])
    )
    for place in (*gaps, *events):
        values[place] = _like(values, place, {*gaps, *events})
    begun = next((place for place, value in enumerate(series.values) if value > 0), 0)
    again = gaps_again.find_gaps(_runs(gaps), begun, len(values), horizon, few=len(values) < FEW)
    told = (*(_told(series, gaps, _GAP) if again is None else ()), *_told(series, events, _EVENT))
    return replace(series, values=tuple(values)), told, again


_GAP: Final = "on {days} there was nothing, which is taken for an interruption"
_EVENT: Final = "on {days} there was many times as much as ever, which is taken for a single event"


def _near(place: int, launches: set[int]) -> bool:
    """Whether a launch, or an end, that is declared explains what is there."""
    return any(abs(place - launch) < SINCE for launch in launches)


def _runs(places: list[int]) -> list[list[int]]:
    """Those that follow each other, together."""
    found = groupby(enumerate(sorted(places)), key=lambda each: each[1] - each[0])
    return [[place for _, place in run] for _, run in found]


def _gaps(series: Series, values: list[float]) -> list[int]:
    """Places at which there is nothing, where that is rare for their weekday."""
    rare = _rare_on(values)
    empty = [
        place % 7 in rare and value <= rare[place % 7] and series.at(place).date().isoformat() not in series.holidays
        for place, value in enumerate(values)
    ]
    begun = next((place for place, value in enumerate(values) if value > 0), len(values))
    found: list[int] = []
    for is_empty, run in groupby(range(len(values)), key=lambda place: empty[place]):
        places = list(run)
        most = LAST if places[-1] == len(values) - 1 else LONGEST
        if is_empty and places[0] > begun and len(places) <= most:
            found += places
    return found


def _rare_on(values: list[float]) -> dict[int, float]:
    """Weekday with rare empty days -> amount below which a day counts as empty."""
    level: dict[int, float] = {}
    nothing: dict[int, int] = {}
    whole = median([value for value in values if value > 0] or [0.0])
    for phase in range(7):
        mine = values[phase::7]
        some = [value for value in mine if value > 0]
        level[phase] = NOTHING * (median(some) if some else whole)
        nothing[phase] = sum(value <= level[phase] for value in mine)
    every = sum(nothing.values()) / len(values)
    if len(values) < FEW:
        rest = {phase for phase in range(7) if nothing[phase] == len(values[phase::7])}
        return {phase: level[phase] for phase in range(7) if phase not in rest or len(rest) > REST}
    return {
        phase: level[phase]
        for phase in range(7)
        if nothing[phase] + ALIKE * every < RARE * (len(values[phase::7]) + ALIKE)
    }


def _events(values: list[float]) -> list[int]:
    """Places of days that are far above every other one around them, and over."""
    found = []
    for place in range(len(values) - SINCE):
        if values[place] <= 0:
            continue
        near = values[max(0, place - NEAR) : place + NEAR + 1]
        beside = sorted(near)[: -SINCE or None]  # an event may last a day or two
        if beside and values[place] > TIMES * beside[-1] > 0 and max(values[place + SINCE :]) < values[place] / TIMES:
            found.append(place)
    return found


def _like(values: list[float], place: int, out: set[int]) -> float:
    """The mean of the nearest ones of its weekday before and after."""
    before = next((values[at] for at in range(place - 7, -1, -7) if at not in out), None)
    after = next((values[at] for at in range(place + 7, len(values), 7) if at not in out), None)
    seen = [value for value in (before, after) if value is not None]
    if not seen:
        near = sorted((at for at in range(len(values)) if at not in out), key=lambda at: abs(at - place))
        seen = [values[at] for at in near[:2]]
    return sum(seen) / len(seen) if seen else values[place]


def _told(series: Series, places: list[int], text: str) -> tuple[str, ...]:
    """Each run of days by its first and its last."""
    spans = []
    for mine in _runs(places):
        first, last = (series.at(place).date().isoformat() for place in (mine[0], mine[-1]))
        spans.append(first if first == last else f"{first} to {last}")
    more = f" and {len(spans) - 3} times more" if len(spans) > 3 else ""
    return (text.format(days=", ".join(spans[:3]) + more),) if spans else ()
