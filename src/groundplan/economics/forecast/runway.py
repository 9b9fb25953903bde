"""How long a budget lasts: the day on which forecast spending exceeds what remains. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime

from groundplan.core.money import PICO
from groundplan.economics.forecast.model import HOUR, Forecast


@dataclass(frozen=True, slots=True)
class Runway:
    """`ends` is None where the budget outlasts its period or the forecast; `earliest` and `latest` contain it in four
    of five cases. `expected`: picodollars by the end of the period."""

    ends: date | None
    earliest: date | None
    latest: date | None
    days: int | None
    expected: int


def runway(
    remaining: int, ahead: Forecast, until: datetime | None = None, today: int = 0, now: datetime | None = None,
    hourly_rate: int = 0,
) -> Runway:  # fmt: skip
    """`remaining` picodollars from `now` on, within the first step of `ahead` (USD a day), of which `today` picodollars
    are spent already; `until` is the moment after the period, which may be within a step: a month of Oslo or New York
    does not end with a day of UTC. `hourly_rate`: picodollars an hour by which a step goes on of which more is spent
    already than was to be expected of all of it; whether the next one does, nobody knows yet."""
    shares = _shares(ahead, until, now)
    scale = ahead.total / sum(ahead.middle) if sum(ahead.middle) else 1.0
    middle = [value * scale for value in ahead.middle[: len(shares)]]
    narrow = [(low + mean) / 2 for low, mean in zip(ahead.low, middle, strict=False)]
    wide = [(high + mean) / 2 for high, mean in zip(ahead.high, middle, strict=False)]
    beyond = _overrun(ahead, today, now, hourly_rate)
    middle, narrow, wide = (
        _remaining_values(values, today, shares, least)
        for values, least in ((middle, beyond), (narrow, 0.0), (wide, beyond))
    )
    ends, early, late = (_first_crossing(remaining, values) for values in (middle, wide, narrow))
    return Runway(
        ends=_day_at(ahead, ends),
        earliest=_day_at(ahead, early),
        latest=_day_at(ahead, late),
        days=ends,
        expected=round(sum(middle) * PICO),
    )


def _shares(ahead: Forecast, until: datetime | None, now: datetime | None) -> list[float]:
    """Share of each step's remaining time that lies within the period."""
    found = []
    for place in range(len(ahead.middle)):
        first, last = (ahead.start + (place + more) * ahead.step for more in (0, 1))
        begins = first if now is None else max(first, now)
        if until is not None and until <= begins:
            break
        found.append(1.0 if until is None or until >= last else (until - begins) / (last - begins))
    return found


def _overrun(ahead: Forecast, today: int, now: datetime | None, hourly_rate: int) -> float:
    """USD of the rest of the first step at the current rate if it already exceeds its forecast; else 0."""
    if now is None or not ahead.high or today <= ahead.high[0] * PICO:
        return 0.0
    return hourly_rate / PICO * max(0.0, (ahead.start + ahead.step - now) / HOUR)


def _remaining_values(values: list[float], today: int, shares: list[float], least: float) -> list[float]:
    rest = [max(least, values[0] - today / PICO), *values[1:]] if values else []
    return [value * share for value, share in zip(rest, shares, strict=True)]


def _first_crossing(remaining: int, values: list[float]) -> int | None:
    spent = 0.0
    for place, value in enumerate(values):
        spent += value * PICO
        if spent > remaining:
            return place
    return None


def _day_at(ahead: Forecast, place: int | None) -> date | None:
    return None if place is None else (ahead.start + place * ahead.step).date()
