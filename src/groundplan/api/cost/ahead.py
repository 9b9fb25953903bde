"""What is ahead: forecasts of calls, tokens and cost from the ledger's days, and budgets' runway."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from psycopg import Connection

from groundplan.api.budgets import budget_use
from groundplan.api.cost import calendar as cost_calendar
from groundplan.api.cost import key_runways
from groundplan.api.cost.book import Days
from groundplan.api.cost.lasting import HISTORY_DAYS, lasts
from groundplan.api.served import current_blueprint, current_or_none, known_workload
from groundplan.core.errors import Invalid
from groundplan.core.money import PICO, format_usd, from_decimal
from groundplan.economics.forecast.adoption import Adoption, adoption
from groundplan.economics.forecast.model import DAY, Forecast, Series
from groundplan.gateway.budgets.periods import key_at
from groundplan.ledger import days_store, rollup_store

ADOPTION_WEEKS = 26
WHATS = ("cost", "calls", "tokens")


def series(
    conn: Connection[Any], what: str, today: date, workload: str | None, known: cost_calendar.Known | None = None
) -> Series:
    """The whole days before `today`, from the first one on which anything was asked, with what is known of the time to
    come. Raises `Invalid`, `NotFound` for a workload that is not served and had no calls."""
    if what not in WHATS:
        raise Invalid(f"'{what[:20]}' is not forecast", code="forecast_unknown", hint=f"Use {', '.join(WHATS)}.")
    known = known or cost_calendar.Known()
    rows = {row["day"]: row for row in rollup_store.calls_by(conn, ["day"], _history(today, workload))}
    if workload is not None and not rows:
        known_workload(current_blueprint(conn), workload)
    parts: list[dict[str, Any]] = []
    if workload is None and known.launches:
        parts = rollup_store.calls_by(conn, ["day", "workload"], _history(today, None))
    return cost_calendar.ahead(_series(rows, what, today), known, parts, workload, lambda row: _value(row, what))


def known_days(conn: Connection[Any]) -> cost_calendar.Known:
    """What the blueprint that is served declares of the time to come."""
    blueprint = current_or_none(conn)
    return cost_calendar.Known() if blueprint is None else cost_calendar.declared(blueprint.calendar)


def _history(today: date, workload: str | None) -> dict[str, Any]:
    return _of(today - timedelta(days=HISTORY_DAYS), today - timedelta(days=1), workload)


def _of(first: date, last: date, workload: str | None) -> dict[str, Any]:
    days = Days(first, last)
    return {
        "since": days.since, "until": days.until, "workload": workload, "status": None, "deployment": None,
        "demo": None,
    }  # fmt: skip


def grown(conn: Connection[Any], today: date, workload: str | None) -> Adoption:
    """The curve of adoption of the last whole weeks. Raises `Invalid`."""
    monday = datetime(today.year, today.month, today.day, tzinfo=UTC) - timedelta(days=today.weekday())
    since = monday - ADOPTION_WEEKS * timedelta(days=7)
    weeks = days_store.people_weeks(conn, since, monday, workload)
    return adoption([weeks.get(since + place * timedelta(days=7), 0) for place in range(ADOPTION_WEEKS)])


def _series(rows: Mapping[date, dict[str, Any]], what: str, today: date) -> Series:
    first = min(rows, default=today)
    values = [_value(rows.get(first + timedelta(days=place)), what) for place in range((today - first).days)]
    return Series(datetime(first.year, first.month, first.day, tzinfo=UTC), DAY, tuple(values))


def _covered(rows: Sequence[dict[str, Any]], kind: str, name: str) -> dict[date, dict[str, Any]]:
    """day -> cost of what a budget covers: company, team/NAME or workload/NAME."""
    found: dict[date, dict[str, Any]] = {}
    for row in _within(rows, kind, name):
        found.setdefault(row["day"], {"cost_usd": Decimal(0)})["cost_usd"] += row["cost_usd"]
    return found


def _within(rows: Sequence[dict[str, Any]], kind: str, name: str) -> list[dict[str, Any]]:
    return [row for row in rows if kind == "company" or row[kind] == name]


def forecast_json(made: Forecast, what: str, past: Series) -> dict[str, Any]:
    """Steps and totals; money is USD with 12 decimals, everything else a number."""
    shown = (lambda value: format_usd(round(value * PICO))) if what == "cost" else (lambda value: round(value, 1))
    return {
        "what": what,
        "from": made.start.date().isoformat(),
        "days": [
            {"day": (made.start + place * DAY).date().isoformat(), "middle": shown(middle), "low": shown(low),
             "high": shown(high)}
            for place, (middle, low, high) in enumerate(zip(made.middle, made.low, made.high, strict=True))
        ],
        "past": [
            {"day": past.at(place).date().isoformat(), "value": shown(value)}
            for place, value in enumerate(past.values)
        ][-90:],
        "total": shown(made.total), "total_low": shown(made.total_low), "total_high": shown(made.total_high),
        "method": made.method, "mase": made.error, "interval": 0.8, "notes": list(made.notes),
    }  # fmt: skip


def runways(conn: Connection[Any], now: datetime, workload: str | None = None) -> dict[str, Any]:
    """`budgets`: each in its period of now with the day on which it ends at this rate, or None; those without a whole
    day of history are left out, and so are periods in which one was declared otherwise. Of keys those that are nearest
    to their limits; `more` are further from theirs."""
    blueprint = current_blueprint(conn)
    declared = {(each.name, key_at(each.period, each.starts, each.timezone, now)): each for each in blueprint.budgets}
    known = cost_calendar.declared(blueprint.calendar)
    covered, keys = [], []
    for row in budget_use(conn, blueprint, now):
        covers = "" if (mine := declared.get((row["budget"], row["period"]))) is None else mine.covers
        if covers.partition("/")[0] in ("company", "team", "workload"):
            covered.append((row, covers))
        elif key := key_runways.key_of(row["budget"], covers):
            keys.append((row, key))
    found, more = key_runways.runways(conn, now, known, keys, workload)
    return {"budgets": [*_covering(conn, now, known, covered, workload), *found], "more": more}


def _covering(
    conn: Connection[Any], now: datetime, known: cost_calendar.Known, charged: Sequence[tuple[dict[str, Any], str]],
    workload: str | None,
) -> list[dict[str, Any]]:  # fmt: skip
    """Those of the company, of teams and of workloads."""
    by = ["day", "workload", "team"]
    days = rollup_store.calls_by(conn, by, _history(now.date(), None))
    begun = rollup_store.calls_by(conn, by, _of(now.date(), now.date(), None))
    lately, hours = _lately(conn, now)
    found = []
    for row, covers in charged:
        kind, _, name = covers.partition("/")
        if workload is not None and name != workload:
            continue
        past = _series(_covered(days, kind, name), "cost", now.date())
        if not past.values:
            continue
        alone = name if kind == "workload" else None
        past = cost_calendar.ahead(past, known, _within(days, kind, name), alone, _cost)
        today = sum(from_decimal(each["cost_usd"]) for each in _covered(begun, kind, name).values())
        rate = round(sum(from_decimal(each["cost_usd"]) for each in _within(lately, kind, name)) / hours)
        found.append({"budget": row["budget"], "title": row["budget"], **lasts(row, covers, past, today, rate, now)})
    return found


def _lately(conn: Connection[Any], now: datetime) -> tuple[list[dict[str, Any]], float]:
    """What this hour and the one before it cost, by workload and team, and how many hours that is."""
    since = now.replace(minute=0, second=0, microsecond=0) - timedelta(hours=1)
    wanted = {**_of(now.date(), now.date(), None), "since": since, "until": now}
    return rollup_store.calls_by(conn, ["hour", "workload", "team"], wanted), (now - since) / timedelta(hours=1)


def _cost(row: dict[str, Any]) -> float:
    return _value(row, "cost")


def _value(row: dict[str, Any] | None, what: str) -> float:
    if row is None:
        return 0.0
    if what == "cost":
        return from_decimal(row["cost_usd"]) / PICO
    return float(row["calls"] or 0) if what == "calls" else float(row["prompt_tokens"] + row["completion_tokens"])
