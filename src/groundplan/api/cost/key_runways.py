"""How long budgets of keys last. There may be thousands, so those that are nearest to their limit by a rough end are
forecast as every other budget is, and of the others it is told how many there are.
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
from groundplan.api.cost.runway import days_to, lasts
from groundplan.core.money import PICO, from_decimal
from groundplan.economics.forecast.model import DAY, Series
from groundplan.gateway.budgets.periods import ends
from groundplan.ledger import daily_attribution_store

MOST = 20
"""Budgets that are forecast."""
DAYS = 120
"""Days of history that they are forecast by."""
LATELY_DAYS = 7
Charged = tuple[Mapping[str, Any], str]
"""A budget of `queries.budget_use`, and the id of its key."""


def runways(
    conn: Connection[Any], now: datetime, known: cost_calendar.Known, charged: Sequence[Charged],
    workload: str | None = None,
) -> tuple[list[dict[str, Any]], int]:  # fmt: skip
    """The budgets, and how many more there are with a whole day of history, which are further from their limits."""
    midnight = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    since, lately = (midnight - timedelta(days=days) for days in (DAYS, LATELY_DAYS))
    keys = sorted({key for _, key in charged})
    called = (
        {row["key"]: row for row in daily_attribution_store.of_keys(conn, keys, now, since, lately, midnight)}
        if keys
        else {}
    )
    rows = [{**called[key], "use": use} for use, key in charged if key in called]
    rows = [row for row in rows if workload in (None, row["workload"])]
    rows.sort(key=lambda row: (-_rough(row, midnight, now), row["use"]["budget"], row["use"]["period"]))
    near = rows[:MOST]
    costs = daily_attribution_store.key_costs(conn, sorted({row["key"] for row in near}), since) if near else {}
    return [_lasts(row, costs[row["key"]], midnight, now, known) for row in near], len(rows) - len(near)


def key_of(budget: str, covers: str) -> str:
    """The id of the key that a budget is of: its own, or one that is declared for it; empty for any other."""
    kind, _, name = (budget if budget.startswith("key/") else covers).partition("/")
    with suppress(ValueError):
        return str(UUID(name)) if kind == "key" else ""
    return ""


def _rough(row: Mapping[str, Any], midnight: datetime, now: datetime) -> float:
    """The share of the limit that is spent at the end of the period, if it goes on as in the last days."""
    use, age = row["use"], min(LATELY_DAYS, (midnight.date() - row["first"]).days)
    ahead = float(row["lately_usd"]) / age * days_to(ends(use["period"]), now)
    return float((float(use["spent_usd"]) + ahead) / max(float(use["limit_usd"]), 1e-12))


def _lasts(
    row: Mapping[str, Any], costs: Mapping[date, Decimal], midnight: datetime, now: datetime, known: cost_calendar.Known
) -> dict[str, Any]:
    first, today = row["first"], midnight.date()
    values = [
        from_decimal(costs.get(first + timedelta(days=n), Decimal(0))) / PICO for n in range((today - first).days)
    ]
    past = Series(datetime(first.year, first.month, first.day, tzinfo=UTC), DAY, tuple(values))
    past = cost_calendar.ahead(past, known, [], row["workload"], lambda _: 0.0)
    spent = from_decimal(costs.get(today, Decimal(0)))
    rate = round(spent / max(1.0, (now - midnight) / timedelta(hours=1)))
    use, name = row["use"], f"key {row['name']}..."
    told = lasts(use, f"key/{row['key']}", past, spent, rate, now)
    title = name if use["budget"].startswith("key/") else f"{use['budget']} of {name}"
    return {"budget": use["budget"], "title": title, **told}
