"""Demand curves: calls of each hour of a week, as multiples of the mean. Pure; a trace is passed as text.

The busiest hour is `peak` times the mean. Each curve has a fixed shape, stretched so that its top is the declared peak:
`steady` hardly varies, `business-hours` is weekdays 8 to 18, `spiky` has short peaks on a low level, `campaign` is
three days, `burst` is one block of eight hours a week.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import cos, pi

from groundplan.core.errors import Invalid
from groundplan.placement.terms.facts import HOURS

WEEK = 168
MAX_ROWS = 200_000


def _shape(curve: str, hour: int) -> float:
    """The height above the base level, 0..1."""
    day, of_day = divmod(hour, 24)
    if curve == "steady":
        return 0.5 + 0.5 * cos((of_day - 14) / 12 * pi)
    if curve == "business-hours":
        inside = day < 5 and 8 <= of_day < 18
        return (0.6 + 0.4 * cos((of_day - 11) / 5 * pi)) if inside else 0.0
    if curve == "spiky":
        return 1.0 if (hour * 7919) % 97 < 3 else 0.1
    if curve == "campaign":
        return 1.0 if 24 <= hour < 96 else 0.0
    return 1.0 if 32 <= hour < 40 else 0.0


def weekly_curve(curve: str, peak: float) -> tuple[float, ...]:
    """168 multiples of the mean whose maximum is `peak`; where the shape cannot reach it, the steepest one possible."""
    plain = [_shape(curve, hour) for hour in range(WEEK)]
    shape, mean = plain, sum(plain) / WEEK
    for power in range(2, 9):
        if peak * mean <= 1:
            break
        shape = [each**power for each in plain]
        mean = sum(shape) / WEEK
    if peak <= 1 or mean >= 1:
        return (1.0,) * WEEK
    # level + rise * shape has mean 1 and top `peak`; never below zero
    rise = min((peak - 1) / (1 - mean), 1 / mean)
    level = max(0.0, 1 - rise * mean)
    return tuple(level + rise * each for each in shape)


@dataclass(frozen=True, slots=True)
class ObservedLoad:
    """The observed load of a workload."""

    curve: tuple[float, ...]
    """168 multiples of the mean"""
    calls_month: float
    days: int
    """the number of days observed"""


def load_from_facts(calls: Mapping[datetime, float], until: datetime) -> ObservedLoad | None:
    """The load from the calls of each hour (UTC), from the day of the first one to `until`; None for fewer than seven
    days, since every hour of the week must be covered."""
    if not calls:
        return None
    first = min(calls).replace(hour=0, minute=0, second=0, microsecond=0)
    hours = int((until - first) / timedelta(hours=1))
    if hours < WEEK or not sum(calls.values()):
        return None
    every = [calls.get(first + timedelta(hours=at), 0.0) for at in range(hours)]
    begin = first.weekday() * 24
    sums, counts = [0.0] * WEEK, [0] * WEEK
    for at, value in enumerate(every):
        sums[(begin + at) % WEEK] += value
        counts[(begin + at) % WEEK] += 1
    week_ = [total / count for total, count in zip(sums, counts, strict=True)]
    mean = sum(week_) / WEEK
    return ObservedLoad(tuple(round(each / mean, 4) for each in week_), mean * HOURS, hours // 24)


def curve_from_trace(text: str, name: str) -> tuple[float, ...]:
    """The mean week of a CSV with a row for each hour from Monday 00:00 and its `calls`. Raises `Invalid`
    (`placement_trace`)."""
    calls: list[float] = []
    for line, row in enumerate(csv.DictReader(text.splitlines()), 2):
        try:
            value = float((row.get("calls") or "").strip())
        except ValueError:
            value = -1.0
        if not 0 <= value < 1e12 or line > MAX_ROWS:
            raise Invalid(
                "a trace has a row without a count of calls",
                code="placement_trace",
                hint="Write a column calls with a number for each hour, the first being Monday 00:00.",
                where=f"{name}:{line}",
            )
        calls.append(value)
    if len(calls) < 24 or sum(calls) == 0:
        raise Invalid(
            f"a trace of {len(calls)} hours does not cover a week",
            code="placement_trace",
            hint="Write at least 24 hours with calls; a week or more is better.",
            where=name,
        )
    return _mean_week(calls)


def _mean_week(calls: Sequence[float]) -> tuple[float, ...]:
    sums, counts = [0.0] * WEEK, [0] * WEEK
    span = WEEK if len(calls) >= WEEK else 24
    for hour, value in enumerate(calls):
        for at in range(hour % span, WEEK, span):
            sums[at] += value
            counts[at] += 1
    mean = sum(calls) / len(calls)
    return tuple(total / count / mean if count else 1.0 for total, count in zip(sums, counts, strict=True))


def share_above_level(curve: Sequence[float], level: float) -> float:
    """The share of all calls above `level` times the top of the curve: those that would burst."""
    top = max(curve) * level
    return sum(max(0.0, each - top) for each in curve) / sum(curve)
