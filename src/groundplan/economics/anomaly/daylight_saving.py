"""Past hours by the clocks of now: they change twice a year, and what people ask begins an hour sooner or later. Pure.

Which zones callers are in is not known, so it is seen in what they ask: hours since some Sunday that are like those
before it once these are an hour earlier or later. Other changes of a day's shape are none.
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
"""Since a Sunday, from which on a change is seen; and before it a week."""
NEARER: Final = 0.5
"""Of the distance to hours as they were, below which those of another clock must be."""
APART: Final = 0.15
"""Share of calls by which hours differ from those before at least."""


def by_now(hours: Sequence[Hour]) -> list[Hour]:
    """`hours` follow each other. Those before a change are moved by it."""
    nearest, place, by = NEARER, 0, 0
    for at in range(WEEK, len(hours) - LEAST_HOURS + 1):
        if hours[at].at.weekday() == SUNDAY and hours[at].at.hour == 0:
            near, later = _moved(hours[:at], hours[at:])
            if near < nearest:
                nearest, place, by = near, at, later
    moved = timedelta(hours=by)
    return [*(replace(hour, at=hour.at + moved) for hour in hours[:place]), *hours[place:]]


def _moved(before: Sequence[Hour], after: Sequence[Hour]) -> tuple[float, int]:
    """(how near hours are to those before once these are moved, beside how near as they were; by how many hours)."""
    calls = sum(hour.calls for hour in after)
    if calls < LEAST_CALLS:
        return 1.0, 0
    week: dict[int, list[int]] = {}
    for hour in before:
        week.setdefault(_place(hour.at), []).append(hour.calls)
    usual = {place: sum(each) / len(each) for place, each in week.items()}
    as_were = _distance(usual, after, 0)
    if as_were <= APART * calls:
        return 1.0, 0
    return min((_distance(usual, after, by) / as_were, by) for by in (1, -1))


def _distance(usual: dict[int, float], after: Sequence[Hour], by: int) -> float:
    """Calls that are in other hours than usual, were these `by` hours later: how many there are is let out."""
    then = [usual.get((_place(hour.at) - by) % WEEK, 0.0) for hour in after]
    whole = sum(then)
    times = sum(hour.calls for hour in after) / whole if whole else 0.0
    return sum(abs(hour.calls - times * each) for hour, each in zip(after, then, strict=True))


def _place(at: datetime) -> int:
    return at.weekday() * 24 + at.hour
