"""Runways of budgets of keys. There may be thousands: those nearest to their limits by a rough projection are forecast
like every other budget, the others are only counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from psycopg import Connection

from groundplan.api.cost import calendar as cost_calendar
from groundplan.api.cost.runway import days_until, runway_json
from groundplan.core.money import PICO, from_decimal
from groundplan.economics.forecast.model import DAY, Series
from groundplan.gateway.budgets.periods import ends
from groundplan.ledger import daily_attribution_store

MAX_KEYS = 20
"""The most budgets that are forecast."""
HISTORY_DAYS = 120
"""Days of history of a forecast."""
RECENT_DAYS = 7
KeyBudget = tuple[Mapping[str, Any], str]
"""(row of `queries.budget_use`, id of the key)"""


def key_runways(
    conn: Connection[Any], now: datetime, known: cost_calendar.KnownDays, charged: Sequence[KeyBudget],
    workload: str | None = None,
) -> tuple[list[dict[str, Any]], int]:  # fmt: skip
    """(runways of the budgets nearest to their limits, number of further budgets with a whole day of history)"""
    midnight = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    since, recent = (midnight - timedelta(days=days) for days in (HISTORY_DAYS, RECENT_DAYS))
    keys = sorted({key for _, key in charged})
    called = (
        {row["key"]: row for row in daily_attribution_store.recent_key_costs(conn, keys, now, since, recent, midnight)}
        if keys
        else {}
    )
    rows = [{**called[key], "use": use} for use, key in charged if key in called]
    rows = [row for row in rows if workload in (None, row["workload"])]
    rows.sort(key=lambda row: (-_projected_share(row, midnight, now), row["use"]["budget"], row["use"]["period"]))
    nearest = rows[:MAX_KEYS]
    costs = daily_attribution_store.key_costs(conn, sorted({row["key"] for row in nearest}), since) if nearest else {}
    return [_runway_json(row, costs[row["key"]], midnight, now, known) for row in nearest], len(rows) - len(nearest)


def key_of_budget(budget: str, covers: str) -> str:
    """The id of the key that a budget belongs to, by its own name or by what it covers; empty for other budgets."""
    kind, _, name = (budget if budget.startswith("key/") else covers).partition("/")
    with suppress(ValueError):
        return str(UUID(name)) if kind == "key" else ""
    return ""


def _projected_share(row: Mapping[str, Any], midnight: datetime, now: datetime) -> float:
    """The share of the limit spent by the end of the period, at the rate of the last days."""
    use, age = row["use"], min(RECENT_DAYS, (midnight.date() - row["first"]).days)
    expected_cost = float(row["lately_usd"]) / age * days_until(ends(use["period"]), now)
    return float((float(use["spent_usd"]) + expected_cost) / max(float(use["limit_usd"]), 1e-12))


def _runway_json(
    row: Mapping[str, Any],
    costs: Mapping[date, Decimal],
    midnight: datetime,
    now: datetime,
    known: cost_calendar.KnownDays,
) -> dict[str, Any]:
    first, today = row["first"], midnight.date()
    values = [
        from_decimal(costs.get(first + timedelta(days=n), Decimal(0))) / PICO for n in range((today - first).days)
    ]
    past = Series(datetime(first.year, first.month, first.day, tzinfo=UTC), DAY, tuple(values))
    past = cost_calendar.with_known_days(past, known, [], row["workload"], lambda _: 0.0)
    spent = from_decimal(costs.get(today, Decimal(0)))
    rate = round(spent / max(1.0, (now - midnight) / timedelta(hours=1)))
    use, name = row["use"], f"key {row['name']}..."
    value = runway_json(use, f"key/{row['key']}", past, spent, rate, now)
    title = name if use["budget"].startswith("key/") else f"{use['budget']} of {name}"
    return {"budget": use["budget"], "title": title, **value}
