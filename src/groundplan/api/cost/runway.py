"""How long one budget lasts, by the days of what it covers."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from groundplan.core.money import format_usd, from_text
from groundplan.economics.forecast.model import Forecast, Series
from groundplan.gateway.budgets.periods import begins, ends

HISTORY_DAYS = 400
UNENDING_DAYS = 120


@lru_cache(maxsize=512)
def foreseen(past: Series, horizon: int) -> Forecast:
    """`predict.forecast`, remembered: whole days that are over seldom change, and a company has many budgets."""
    from groundplan.economics.forecast.predict import forecast  # noqa: PLC0415 -- numpy, for this alone

    return forecast(past, horizon)


def lasts(row: Mapping[str, Any], covers: str, past: Series, today: int, rate: int, now: datetime) -> dict[str, Any]:
    """The end of a budget in its period of now. `row`: of `queries.budget_use`. `today` picodollars are spent of today,
    which goes on by `rate` an hour where that is more than was to be expected of all of it."""
    from groundplan.economics.forecast.runway import runway  # noqa: PLC0415

    until = ends(row["period"])
    left = from_text(row["limit_usd"]) - from_text(row["spent_usd"])
    told = runway(left, _lasting(past, days_to(until, now)), until, today, now, rate)
    return {
        "covers": covers, "period": row["period"],
        "limit_usd": row["limit_usd"], "a_day_usd": _a_day(row),
        "spent_usd": row["spent_usd"], "expected_usd": format_usd(from_text(row["spent_usd"]) + told.expected),
        "ends": told.ends.isoformat() if told.ends else None, "days": told.days,
        "earliest": told.earliest.isoformat() if told.earliest else None,
        "latest": told.latest.isoformat() if told.latest else None,
        "history_days": len(past.values),
    }  # fmt: skip


def _lasting(past: Series, horizon: int) -> Forecast:
    """As `foreseen`; of fewer days what they tell, since a budget may end before there are enough."""
    from groundplan.economics.forecast.short_runway import LEAST, of_few  # noqa: PLC0415 -- numpy

    return foreseen(past, horizon) if len(past.values) >= LEAST else of_few(past, horizon)


def days_to(until: datetime | None, now: datetime) -> int:
    """Days of UTC, today the first, in which a period goes on; those that are looked at where it does not end."""
    if until is None:
        return UNENDING_DAYS
    return max(1, min(HISTORY_DAYS, ((until - timedelta(microseconds=1)).date() - now.date()).days + 1))


def _a_day(row: Mapping[str, Any]) -> str | None:
    """What a budget allows on each day of its period, USD; None where that does not end."""
    first, end = begins(row["period"]), ends(row["period"])
    if first is None or end is None:
        return None
    return format_usd(int(from_text(row["limit_usd"]) / ((end - first) / timedelta(days=1))))
