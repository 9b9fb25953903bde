"""The runway of one budget, by the daily costs of what it covers."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from groundplan.core.money import format_usd, from_usd_text
from groundplan.economics.forecast.model import Forecast, Series
from groundplan.gateway.budgets.periods import begins, ends

HISTORY_DAYS = 400
UNLIMITED_DAYS = 120


@lru_cache(maxsize=512)
def cached_forecast(past: Series, horizon: int) -> Forecast:
    """`predict.forecast`, cached: past days seldom change, and a company has many budgets."""
    from groundplan.economics.forecast.predict import forecast  # noqa: PLC0415 -- numpy, for this alone

    return forecast(past, horizon)


def runway_json(
    row: Mapping[str, Any], covers: str, past: Series, today: int, rate: int, now: datetime
) -> dict[str, Any]:
    """When a budget runs out in its current period. `row`: of `queries.budget_use`; `today`: picodollars spent today;
    `rate`: picodollars per hour that are assumed for the rest of today, if that exceeds the forecast."""
    from groundplan.economics.forecast.runway import runway  # noqa: PLC0415

    until = ends(row["period"])
    remaining = from_usd_text(row["limit_usd"]) - from_usd_text(row["spent_usd"])
    result = runway(remaining, _forecast(past, days_until(until, now)), until, today, now, rate)
    return {
        "covers": covers, "period": row["period"],
        "limit_usd": row["limit_usd"], "a_day_usd": _daily_limit(row),
        "spent_usd": row["spent_usd"], "expected_usd": format_usd(from_usd_text(row["spent_usd"]) + result.expected),
        "ends": result.ends.isoformat() if result.ends else None, "days": result.days,
        "earliest": result.earliest.isoformat() if result.earliest else None,
        "latest": result.latest.isoformat() if result.latest else None,
        "history_days": len(past.values),
    }  # fmt: skip


def _forecast(past: Series, horizon: int) -> Forecast:
    """As `cached_forecast`, with a simpler method for a short history: a budget may run out before it is longer."""
    from groundplan.economics.forecast.short_runway import MIN_VALUES, forecast_short_series  # noqa: PLC0415 -- numpy

    return cached_forecast(past, horizon) if len(past.values) >= MIN_VALUES else forecast_short_series(past, horizon)


def days_until(until: datetime | None, now: datetime) -> int:
    """Days (UTC, today included) until a period ends, at most `HISTORY_DAYS`; `UNLIMITED_DAYS` where it never ends."""
    if until is None:
        return UNLIMITED_DAYS
    return max(1, min(HISTORY_DAYS, ((until - timedelta(microseconds=1)).date() - now.date()).days + 1))


def _daily_limit(row: Mapping[str, Any]) -> str | None:
    """The limit of a budget divided by the days of its period, in USD; None if the period never ends."""
    first, end = begins(row["period"]), ends(row["period"])
    if first is None or end is None:
        return None
    return format_usd(int(from_usd_text(row["limit_usd"]) / ((end - first) / timedelta(days=1))))
