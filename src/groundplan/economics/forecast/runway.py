"""How long a budget lasts: the day on which the forecast of what is spent crosses what is left. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime

from groundplan.core.money import PICO
from groundplan.economics.forecast.model import HOUR, Forecast


@dataclass(frozen=True, slots=True)
class Runway:
    """`ends` is None where the budget outlasts its period or what was forecast; `earliest` and `latest` hold it in four
    of five cases. `expected` is picodollars by the end of the period."""

    ends: date | None
    earliest: date | None
    latest: date | None
    days: int | None
    expected: int


def runway(
    left: int, ahead: Forecast, until: datetime | None = None, today: int = 0, now: datetime | None = None,
    lately: int = 0,
) -> Runway:  # fmt: skip
    """`left` picodollars from `now` on, within the first step of `ahead` (USD a day), of which `today` picodollars are
    spent already; `until` is the moment after the period, which may be within a step: a month of Oslo or New York does
    not end with a day of UTC. `lately`: picodollars an hour by which a step goes on of which more is spent already than
    was to be expected of all of it; whether the next one does, nobody knows yet."""
    shares = _shares(ahead, until, now)
    scale = ahead.total / sum(ahead.middle) if sum(ahead.middle) else 1.0
    middle = [value * scale for value in ahead.middle[: len(shares)]]
    narrow = [(low + mean) / 2 for low, mean in zip(ahead.low, middle, strict=False)]
    wide = [(high + mean) / 2 for high, mean in zip(ahead.high, middle, strict=False)]
    beyond = _beyond(ahead, today, now, lately)
    middle, narrow, wide = (
        _rest(values, today, shares, least) for values, least in ((middle, beyond), (narrow, 0.0), (wide, beyond))
    )
    ends, early, late = (_crosses(left, values) for values in (middle, wide, narrow))
    return Runway(
        ends=_day(ahead, ends),
        earliest=_day(ahead, early),
        latest=_day(ahead, late),
        days=ends,
        expected=round(sum(middle) * PICO),
    )


def _shares(ahead: Forecast, until: datetime | None, now: datetime | None) -> list[float]:
    """Of each step, how much of what is still to come of it is within the period."""
    found = []
    for place in range(len(ahead.middle)):
        first, last = (ahead.start + (place + more) * ahead.step for more in (0, 1))
        begins = first if now is None else max(first, now)
        if until is not None and until <= begins:
            break
        found.append(1.0 if until is None or until >= last else (until - begins) / (last - begins))
    return found


def _beyond(ahead: Forecast, today: int, now: datetime | None, lately: int) -> float:
    """USD that the first step still costs at the rate of now, where it was not foreseen; else 0."""
    if now is None or not ahead.high or today <= ahead.high[0] * PICO:
        return 0.0
    return lately / PICO * max(0.0, (ahead.start + ahead.step - now) / HOUR)


def _rest(values: list[float], today: int, shares: list[float], least: float) -> list[float]:
    rest = [max(least, values[0] - today / PICO), *values[1:]] if values else []
    return [value * share for value, share in zip(rest, shares, strict=True)]


def _crosses(left: int, values: list[float]) -> int | None:
    spent = 0.0
    for place, value in enumerate(values):
        spent += value * PICO
        if spent > left:
            return place
    return None


def _day(ahead: Forecast, place: int | None) -> date | None:
    return None if place is None else (ahead.start + place * ahead.step).date()
