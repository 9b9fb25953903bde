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
from groundplan.api.cost.key_runways import LATELY_DAYS
from groundplan.api.cost.runway import HISTORY_DAYS, days_to, lasts
from groundplan.api.served_blueprint import current_blueprint, current_or_none, require_workload
from groundplan.core.errors import Invalid
from groundplan.core.money import PICO, format_usd, from_decimal
from groundplan.economics.forecast.adoption import Adoption, adoption
from groundplan.economics.forecast.model import DAY, Forecast, Series
from groundplan.gateway.budgets.periods import ends, key_at
from groundplan.ledger import daily_attribution_store, rollup_store

ADOPTION_WEEKS = 26
WHATS = ("cost", "calls", "tokens")
MOST = 100
"""Budgets of the company, of teams and of workloads that are forecast: a forecast takes milliseconds."""


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
        require_workload(current_blueprint(conn), workload)
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
    weeks = daily_attribution_store.people_weeks(conn, since, monday, workload)
    return adoption([weeks.get(since + place * timedelta(days=7), 0) for place in range(ADOPTION_WEEKS)])


def _series(rows: Mapping[date, dict[str, Any]], what: str, today: date) -> Series:
    first = min(rows, default=today)
    values = [_value(rows.get(first + timedelta(days=place)), what) for place in range((today - first).days)]
    return Series(datetime(first.year, first.month, first.day, tzinfo=UTC), DAY, tuple(values))


class Covered:
    """Rows by workload and team, by what budgets cover: company, team/NAME or workload/NAME."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self._rows: dict[str, list[dict[str, Any]]] = {"company": rows}
        for row in rows:
            for kind in ("team", "workload"):
                self._rows.setdefault(f"{kind}/{row[kind]}", []).append(row)

    def of(self, covers: str) -> list[dict[str, Any]]:
        return self._rows.get(covers, [])

    def first(self, covers: str) -> date:
        """The first day; the last there is without any."""
        return min((row["day"] for row in self.of(covers)), default=date.max)

    def cost(self, covers: str) -> int:
        """picodollars"""
        return sum(from_decimal(row["cost_usd"]) for row in self.of(covers))


def _by_day(rows: Sequence[dict[str, Any]]) -> dict[date, dict[str, Any]]:
    """day -> cost."""
    found: dict[date, dict[str, Any]] = {}
    for row in rows:
        found.setdefault(row["day"], {"cost_usd": Decimal(0)})["cost_usd"] += row["cost_usd"]
    return found


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
    day of history are left out, and so are periods in which one was declared otherwise. Of many those that are nearest
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
    asked = [each for each in covered if workload is None or each[1].partition("/")[2] == workload]
    lasting, further = _covering(conn, now, known, asked)
    return {"budgets": [*lasting, *found], "more": more + further}


def _covering(
    conn: Connection[Any], now: datetime, known: cost_calendar.Known, charged: Sequence[tuple[dict[str, Any], str]]
) -> tuple[list[dict[str, Any]], int]:
    """Those of the company, of teams and of workloads, and how many more there are with a whole day of history."""
    by = ["day", "workload", "team"]
    days = Covered(rollup_store.calls_by(conn, by, _history(now.date(), None)))
    begun = Covered(rollup_store.calls_by(conn, by, _of(now.date(), now.date(), None)))
    rows, hours = _lately(conn, now)
    lately = Covered(rows)
    told = [each for each in charged if days.first(each[1]) < now.date()]
    near = nearest(told, days, now, MOST)
    found = []
    for row, covers in near:
        kind, _, name = covers.partition("/")
        past = _series(_by_day(days.of(covers)), "cost", now.date())
        past = cost_calendar.ahead(past, known, days.of(covers), name if kind == "workload" else None, _cost)
        today = begun.cost(covers)
        rate = round(lately.cost(covers) / hours)
        found.append({"budget": row["budget"], "title": row["budget"], **lasts(row, covers, past, today, rate, now)})
    return found, len(told) - len(near)


def nearest(
    charged: Sequence[tuple[dict[str, Any], str]], days: Covered, now: datetime, most: int
) -> Sequence[tuple[dict[str, Any], str]]:
    """Of more budgets those that are nearest to their limits, in their order. Each has a day of history."""
    if len(charged) <= most:
        return charged
    rough = [_rough(each, days, now) for each in charged]
    near = sorted(range(len(charged)), key=lambda place: -rough[place])[:most]
    return [charged[place] for place in sorted(near)]


def _rough(charged: tuple[dict[str, Any], str], days: Covered, now: datetime) -> float:
    """The share of the limit that is spent at the end of the period, if it goes on as in the last days."""
    use, covers = charged
    since = max(days.first(covers), now.date() - timedelta(days=LATELY_DAYS))
    lately = sum(row["cost_usd"] for row in days.of(covers) if row["day"] >= since)
    ahead = float(lately) / (now.date() - since).days * days_to(ends(use["period"]), now)
    return float((float(use["spent_usd"]) + ahead) / max(float(use["limit_usd"]), 1e-12))


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
