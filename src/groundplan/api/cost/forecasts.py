"""Forecasts of calls, tokens and cost from the ledger's daily sums, and the runway of budgets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from psycopg import Connection

from groundplan.api.budgets import current_budget_use
from groundplan.api.cost import calendar as cost_calendar
from groundplan.api.cost import key_runways
from groundplan.api.cost.book import Days
from groundplan.api.cost.key_runways import RECENT_DAYS
from groundplan.api.cost.runway import HISTORY_DAYS, days_until, runway_json
from groundplan.api.served_blueprint import current_blueprint, current_or_none, require_workload
from groundplan.core.errors import Invalid
from groundplan.core.money import PICO, format_usd, from_decimal
from groundplan.economics.forecast.adoption import Adoption, adoption
from groundplan.economics.forecast.model import DAY, Forecast, Series
from groundplan.gateway.budgets.periods import ends, key_at
from groundplan.ledger import daily_attribution_store, rollup_store

ADOPTION_WEEKS = 26
MEASURES = ("cost", "calls", "tokens")
MAX_BUDGETS = 100
"""The most budgets of the company, teams and workloads that are forecast: each takes milliseconds."""


def daily_series(
    conn: Connection[Any], what: str, today: date, workload: str | None, known: cost_calendar.KnownDays | None = None
) -> Series:
    """The series of whole days before `today`, from the day of the first call, with the known future days. Raises
    `Invalid`, and `NotFound` for a workload that is not served and had no calls."""
    if what not in MEASURES:
        raise Invalid(f"'{what[:20]}' is not forecast", code="forecast_unknown", hint=f"Use {', '.join(MEASURES)}.")
    known = known or cost_calendar.KnownDays()
    rows = {row["day"]: row for row in rollup_store.calls_by(conn, ["day"], _history_query(today, workload))}
    if workload is not None and not rows:
        require_workload(current_blueprint(conn), workload)
    parts: list[dict[str, Any]] = []
    if workload is None and known.launches:
        parts = rollup_store.calls_by(conn, ["day", "workload"], _history_query(today, None))
    return cost_calendar.with_known_days(
        _series(rows, what, today), known, parts, workload, lambda row: _measure(row, what)
    )


def known_days(conn: Connection[Any]) -> cost_calendar.KnownDays:
    """The known future days that the served blueprint declares."""
    blueprint = current_or_none(conn)
    return cost_calendar.KnownDays() if blueprint is None else cost_calendar.declared_days(blueprint.calendar)


def _history_query(today: date, workload: str | None) -> dict[str, Any]:
    return _query(today - timedelta(days=HISTORY_DAYS), today - timedelta(days=1), workload)


def _query(first: date, last: date, workload: str | None) -> dict[str, Any]:
    days = Days(first, last)
    return {
        "since": days.since, "until": days.until, "workload": workload, "status": None, "deployment": None,
        "demo": None,
    }  # fmt: skip


def adoption_curve(conn: Connection[Any], today: date, workload: str | None) -> Adoption:
    """The adoption curve of the last whole weeks. Raises `Invalid`."""
    monday = datetime(today.year, today.month, today.day, tzinfo=UTC) - timedelta(days=today.weekday())
    since = monday - ADOPTION_WEEKS * timedelta(days=7)
    weeks = daily_attribution_store.people_by_week(conn, since, monday, workload)
    return adoption([weeks.get(since + week * timedelta(days=7), 0) for week in range(ADOPTION_WEEKS)])


def _series(rows: Mapping[date, dict[str, Any]], what: str, today: date) -> Series:
    first = min(rows, default=today)
    values = [_measure(rows.get(first + timedelta(days=offset)), what) for offset in range((today - first).days)]
    return Series(datetime(first.year, first.month, first.day, tzinfo=UTC), DAY, tuple(values))


class RowsByCover:
    """Rows of the ledger grouped by what budgets cover: `company`, `team/NAME` or `workload/NAME`."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self._rows: dict[str, list[dict[str, Any]]] = {"company": rows}
        for row in rows:
            for kind in ("team", "workload"):
                self._rows.setdefault(f"{kind}/{row[kind]}", []).append(row)

    def of(self, covers: str) -> list[dict[str, Any]]:
        return self._rows.get(covers, [])

    def first(self, covers: str) -> date:
        """The first day with a row; `date.max` without any."""
        return min((row["day"] for row in self.of(covers)), default=date.max)

    def cost(self, covers: str) -> int:
        """picodollars"""
        return sum(from_decimal(row["cost_usd"]) for row in self.of(covers))


def _by_day(rows: Sequence[dict[str, Any]]) -> dict[date, dict[str, Any]]:
    """Rows summed by day: day -> `{"cost_usd"}`."""
    by_day: dict[date, dict[str, Any]] = {}
    for row in rows:
        by_day.setdefault(row["day"], {"cost_usd": Decimal(0)})["cost_usd"] += row["cost_usd"]
    return by_day


def forecast_json(forecast: Forecast, what: str, past: Series) -> dict[str, Any]:
    """A forecast as JSON: steps and totals. Money is USD with 12 decimals, everything else a number."""
    format_value = (
        (lambda value: format_usd(round(value * PICO))) if what == "cost" else (lambda value: round(value, 1))
    )
    return {
        "what": what,
        "from": forecast.start.date().isoformat(),
        "days": [
            {"day": (forecast.start + step * DAY).date().isoformat(), "middle": format_value(middle),
             "low": format_value(low), "high": format_value(high)}
            for step, (middle, low, high) in enumerate(zip(forecast.middle, forecast.low, forecast.high, strict=True))
        ],
        "past": [
            {"day": past.at(step).date().isoformat(), "value": format_value(value)}
            for step, value in enumerate(past.values)
        ][-90:],
        "total": format_value(forecast.total), "total_low": format_value(forecast.total_low),
        "total_high": format_value(forecast.total_high),
        "method": forecast.method, "mase": forecast.error, "interval": 0.8, "notes": list(forecast.notes),
    }  # fmt: skip


def runways(conn: Connection[Any], now: datetime, workload: str | None = None) -> dict[str, Any]:
    """`budgets`: each in its current period with the day on which it runs out at this rate, or None. Budgets without a
    whole day of history, and former periods of changed budgets, are omitted. Of many budgets only those nearest to
    their limits are included; `more` counts the others."""
    blueprint = current_blueprint(conn)
    declared = {(item.name, key_at(item.period, item.starts, item.timezone, now)): item for item in blueprint.budgets}
    known = cost_calendar.declared_days(blueprint.calendar)
    covered, keys = [], []
    for row in current_budget_use(conn, blueprint, now):
        covers = "" if (budget := declared.get((row["budget"], row["period"]))) is None else budget.covers
        if covers.partition("/")[0] in ("company", "team", "workload"):
            covered.append((row, covers))
        elif key := key_runways.key_of_budget(row["budget"], covers):
            keys.append((row, key))
    key_rows, more = key_runways.key_runways(conn, now, known, keys, workload)
    selected = [item for item in covered if workload is None or item[1].partition("/")[2] == workload]
    lasting, further = _budget_runways(conn, now, known, selected)
    return {"budgets": [*lasting, *key_rows], "more": more + further}


def _budget_runways(
    conn: Connection[Any], now: datetime, known: cost_calendar.KnownDays, charged: Sequence[tuple[dict[str, Any], str]]
) -> tuple[list[dict[str, Any]], int]:
    """(runways of budgets of the company, teams and workloads, number of further budgets with a day of history)"""
    by = ["day", "workload", "team"]
    days = RowsByCover(rollup_store.calls_by(conn, by, _history_query(now.date(), None)))
    begun = RowsByCover(rollup_store.calls_by(conn, by, _query(now.date(), now.date(), None)))
    rows, hours = _recent_costs(conn, now)
    by_cover = RowsByCover(rows)
    with_history = [item for item in charged if days.first(item[1]) < now.date()]
    nearest = nearest_to_limit(with_history, days, now, MAX_BUDGETS)
    results = []
    for row, covers in nearest:
        kind, _, name = covers.partition("/")
        past = _series(_by_day(days.of(covers)), "cost", now.date())
        past = cost_calendar.with_known_days(past, known, days.of(covers), name if kind == "workload" else None, _cost)
        today = begun.cost(covers)
        rate = round(by_cover.cost(covers) / hours)
        results.append(
            {"budget": row["budget"], "title": row["budget"], **runway_json(row, covers, past, today, rate, now)}
        )
    return results, len(with_history) - len(nearest)


def nearest_to_limit(
    charged: Sequence[tuple[dict[str, Any], str]], days: RowsByCover, now: datetime, most: int
) -> Sequence[tuple[dict[str, Any], str]]:
    """The `most` budgets that are nearest to their limits, in their given order. Each has a day of history."""
    if len(charged) <= most:
        return charged
    shares = [_projected_share(item, days, now) for item in charged]
    nearest = sorted(range(len(charged)), key=lambda index: -shares[index])[:most]
    return [charged[index] for index in sorted(nearest)]


def _projected_share(charged: tuple[dict[str, Any], str], days: RowsByCover, now: datetime) -> float:
    """The share of the limit spent by the end of the period, at the rate of the last days."""
    use, covers = charged
    since = max(days.first(covers), now.date() - timedelta(days=RECENT_DAYS))
    recent_cost = sum(row["cost_usd"] for row in days.of(covers) if row["day"] >= since)
    expected_cost = float(recent_cost) / (now.date() - since).days * days_until(ends(use["period"]), now)
    return float((float(use["spent_usd"]) + expected_cost) / max(float(use["limit_usd"]), 1e-12))


def _recent_costs(conn: Connection[Any], now: datetime) -> tuple[list[dict[str, Any]], float]:
    """(costs of this hour and the one before by workload and team, number of hours that is)"""
    since = now.replace(minute=0, second=0, microsecond=0) - timedelta(hours=1)
    query = {**_query(now.date(), now.date(), None), "since": since, "until": now}
    return rollup_store.calls_by(conn, ["hour", "workload", "team"], query), (now - since) / timedelta(hours=1)


def _cost(row: dict[str, Any]) -> float:
    return _measure(row, "cost")


def _measure(row: dict[str, Any] | None, what: str) -> float:
    if row is None:
        return 0.0
    if what == "cost":
        return from_decimal(row["cost_usd"]) / PICO
    return float(row["calls"] or 0) if what == "calls" else float(row["prompt_tokens"] + row["completion_tokens"])
