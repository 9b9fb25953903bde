"""How long a budget lasts: the day on which the forecast of what is spent crosses what is left. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from groundplan.core.money import PICO
from groundplan.economics.forecast.model import Forecast


@dataclass(frozen=True, slots=True)
class Runway:
    """`ends` is None where the budget outlasts its period or what was forecast; `earliest` and `latest` hold it in four
    of five cases. `expected` is picodollars by the end of the period."""

    ends: date | None
    earliest: date | None
    latest: date | None
    days: int | None
    expected: int


def runway(left: int, ahead: Forecast, until: date | None = None, today: int = 0) -> Runway:
    """`left` picodollars from now on, within the first step of `ahead` (USD a day), of which `today` picodollars are
    spent already; `until` is the last day of the period."""
    count = len(ahead.middle)
    if until is not None:
        count = max(0, min(count, (until - ahead.start.date()).days + 1))
    scale = ahead.total / sum(ahead.middle) if sum(ahead.middle) else 1.0
    middle = [value * scale for value in ahead.middle[:count]]
    narrow = [(low + mean) / 2 for low, mean in zip(ahead.low[:count], middle, strict=True)]
    wide = [(high + mean) / 2 for high, mean in zip(ahead.high[:count], middle, strict=True)]
    middle, narrow, wide = (_rest(values, today) for values in (middle, narrow, wide))
    ends, early, late = (_crosses(left, values) for values in (middle, wide, narrow))
    return Runway(
        ends=_day(ahead, ends),
        earliest=_day(ahead, early),
        latest=_day(ahead, late),
        days=ends,
        expected=round(sum(middle) * PICO),
    )


def _rest(values: list[float], today: int) -> list[float]:
    return [max(0.0, values[0] - today / PICO), *values[1:]] if values else []


def _crosses(left: int, values: list[float]) -> int | None:
    spent = 0.0
    for place, value in enumerate(values):
        spent += value * PICO
        if spent > left:
            return place
    return None


def _day(ahead: Forecast, place: int | None) -> date | None:
    return None if place is None else (ahead.start + place * ahead.step).date()
