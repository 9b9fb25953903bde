"""Aligns past hours with a change of clocks, twice a year, after which usage begins an hour sooner or later. Pure.

The time zones of callers are unknown, so the change is found in their usage: hours since some Sunday that match those
before it once these are shifted by an hour. Other changes of a day's shape are ignored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from groundplan.economics.anomaly.model import Hour

SUNDAY: Final = 6
WEEK: Final = 7 * 24
LEAST_HOURS, LEAST_CALLS = 30, 100
"""Hours and calls since a Sunday from which on a change is looked for; a week of hours must precede it."""
MAX_DISTANCE_RATIO: Final = 0.5
"""Ratio of shifted to unshifted distance below which a shift is accepted."""
MIN_DISTANCE: Final = 0.15
"""Share of calls by which hours must differ from those before."""


def align_to_daylight_saving(hours: Sequence[Hour]) -> list[Hour]:
    """Shift the hours before a change of clocks. `hours` must be consecutive."""
    nearest, change, shift = MAX_DISTANCE_RATIO, 0, 0
    for begin in range(WEEK, len(hours) - LEAST_HOURS + 1):
        if hours[begin].at.weekday() == SUNDAY and hours[begin].at.hour == 0:
            ratio, hours_later = _best_shift(hours[:begin], hours[begin:])
            if ratio < nearest:
                nearest, change, shift = ratio, begin, hours_later
    offset = timedelta(hours=shift)
    return [*(replace(hour, at=hour.at + offset) for hour in hours[:change]), *hours[change:]]


def _best_shift(before: Sequence[Hour], after: Sequence[Hour]) -> tuple[float, int]:
    """(how near hours are to those before once these are moved, beside how near as they were; by how many hours)."""
    calls = sum(hour.calls for hour in after)
    if calls < LEAST_CALLS:
        return 1.0, 0
    week: dict[int, list[int]] = {}
    for hour in before:
        week.setdefault(_hour_of_week(hour.at), []).append(hour.calls)
    usual = {place: sum(each) / len(each) for place, each in week.items()}
    unshifted = _distance(usual, after, 0)
    if unshifted <= MIN_DISTANCE * calls:
        return 1.0, 0
    return min((_distance(usual, after, by) / unshifted, by) for by in (1, -1))


def _distance(usual: dict[int, float], after: Sequence[Hour], by: int) -> float:
    """Calls in other hours than usual, if the usual ones are shifted by `by` hours; the level of usage is ignored."""
    then = [usual.get((_hour_of_week(hour.at) - by) % WEEK, 0.0) for hour in after]
    whole = sum(then)
    times = sum(hour.calls for hour in after) / whole if whole else 0.0
    return sum(abs(hour.calls - times * each) for hour, each in zip(after, then, strict=True))


def _hour_of_week(at: datetime) -> int:
    return at.weekday() * 24 + at.hour
