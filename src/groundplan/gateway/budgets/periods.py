"""Calendar periods of budgets and limits: their key, when they end, and that as text. Pure; times are aware.

A key names one period for good: `2026-11-25T14:33`, `2026-11-25T14`, `2026-11-25`, `2026-11`, `2026`, `total`, or
`now` for what is in flight. A period that is not one of UTC's own calendar has its first moment and the one after its
last: `2026-11-23..2026-11-30`, with a time where that is not midnight UTC.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import lru_cache
from math import ceil
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from groundplan.core import months

if TYPE_CHECKING:
    from groundplan.blueprint.model import Budget

LENGTHS = {"minute": 16, "hour": 13, "day": 10, "month": 7, "year": 4}
"""Characters of an ISO time that name each of UTC's own periods."""
ENDLESS = ("total", "now")
WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_CACHED = 1000

Spec = tuple[str, str, str]
"""(period, starts, timezone) as a budget declares them"""
Span = tuple[str, float, float]
"""(key, its first moment, the one after its last), in seconds since the epoch"""
_current: dict[Spec, Span] = {}


def current_key(period: str, starts: str, timezone: str, now: float) -> str:
    """Return the key of the period that `now` (seconds since the epoch) is in; remembered until that ends."""
    return _span((period, starts, timezone), now)[0]


def _span(spec: Spec, now: float) -> Span:
    known = _current.get(spec)
    if known is not None and known[1] <= now < known[2]:
        return known
    key = key_at(*spec, datetime.fromtimestamp(now, UTC))
    start, end = begins(key), ends(key)
    if len(_current) >= _CACHED:
        _current.clear()
    known = _current[spec] = (
        key, float("-inf") if start is None else start.timestamp(), float("inf") if end is None else end.timestamp(),
    )  # fmt: skip
    return known


def spans(specs: Sequence[Spec], now: float) -> list[Span]:
    """Return the period of each that `now` (seconds since the epoch) is in."""
    return [_span(spec, now) for spec in specs]


class DatedBudgets:
    """Budgets with their current periods, looked up again only when the first of these ends."""

    __slots__ = ("_budgets", "_dated", "_since", "_until")

    def __init__(self, budgets: Sequence[Budget]) -> None:
        self._budgets = budgets
        self._dated: tuple[tuple[Budget, str], ...] = ()
        self._since = self._until = float("inf")

    def at(self, now: float) -> tuple[tuple[Budget, str], ...]:
        """Return each budget with the key of its period at `now`, seconds since the epoch."""
        if not self._since <= now < self._until:
            found = spans([(each.period, each.starts, each.timezone) for each in self._budgets], now)
            self._dated = tuple((each, key) for each, (key, _, _) in zip(self._budgets, found, strict=True))
            self._since = max((start for _, start, _ in found), default=float("-inf"))
            self._until = min((end for _, _, end in found), default=float("inf"))
        return self._dated


def key_at(period: str, starts: str, timezone: str, at: datetime) -> str:
    """Return the key of the period that `at` is in.

    `starts`: empty, a weekday for a week, a day of the month for a month, MM-DD for a quarter or year.
    """
    if period in ENDLESS:
        return period
    if period in ("minute", "hour") or (timezone == "UTC" and not starts and period in LENGTHS):
        return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M")[: LENGTHS[period]]
    zone = UTC if timezone == "UTC" else ZoneInfo(timezone)  # UTC needs no time zone database
    first = _first_day(period, starts, at.astimezone(zone).date())
    after = _next_first(period, first)
    return f"{_moment(first, zone)}..{_moment(after, zone)}"


def begins(key: str) -> datetime | None:
    """Return the first moment of a period; None for an endless one."""
    if key in ENDLESS:
        return None
    text = key.partition("..")[0]
    if len(text) == 4:
        text += "-01"
    if len(text) == 7:
        text += "-01"
    if len(text) == 13:
        text += ":00"
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@lru_cache(_CACHED)
def ends(key: str) -> datetime | None:
    """Return the first moment after a period; None for an endless one."""
    if key in ENDLESS:
        return None
    end = key.partition("..")[2]
    if end:
        return begins(end)
    start = begins(key)
    assert start is not None
    if len(key) in (16, 13, 10):
        return start + {16: timedelta(minutes=1), 13: timedelta(hours=1), 10: timedelta(days=1)}[len(key)]
    return months.add_months(start, 1 if len(key) == 7 else 12)


@lru_cache(_CACHED)
def next_key(period: str, starts: str, timezone: str, key: str) -> str | None:
    """Return the key of the period after that of `key`; None for an endless one."""
    end = ends(key)
    return None if end is None else key_at(period, starts, timezone, end)


def seconds_left(end: float, now: float) -> int:
    """Return the whole seconds from `now` until `end` (both since the epoch), rounded up; 0 once it is over."""
    return max(0, ceil(end - now))


@lru_cache(_CACHED)
def header_duration(seconds: int) -> bytes:
    """Return a duration as OpenAI's headers write it: `1s`, `6m0s`, `2h0m0s`."""
    minutes, rest = divmod(seconds, 60)
    if not minutes:
        return b"%ds" % rest
    hours, minutes = divmod(minutes, 60)
    return b"%dh%dm%ds" % (hours, minutes, rest) if hours else b"%dm%ds" % (minutes, rest)


def is_over(key: str, now: float) -> bool:
    """Whether a period has ended at `now`, in seconds since the epoch."""
    end = ends(key)
    return end is not None and end.timestamp() <= now


def has_ended(key: str, now: str) -> bool:
    """Whether a period has ended at `now`, an ISO time in UTC or its beginning (`2026-11-25`)."""
    if key in ENDLESS:
        return False
    end = key.partition("..")[2]
    return end <= now if end else key < now[: len(key)]


def end_text(end: datetime) -> str:
    """Return the end of a period in UTC, for a hint."""
    return f"{end:%Y-%m-%d %H:%M} UTC" if (end.hour, end.minute) != (0, 0) else f"{end:%Y-%m-%d} UTC"


def _moment(day: date, zone: tzinfo) -> str:
    at = datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC)
    return f"{at:%Y-%m-%d}" if (at.hour, at.minute) == (0, 0) else f"{at:%Y-%m-%dT%H:%M}"


def _first_day(period: str, starts: str, day: date) -> date:
    if period == "day":
        return day
    if period == "week":
        return day - timedelta(days=(day.weekday() - WEEKDAYS.index(starts or "monday")) % 7)
    if period == "month":
        first = day.replace(day=int(starts or "1"))
        return first if first <= day else months.add_months(first, -1)
    month, number = (int(part) for part in (starts or "01-01").split("-"))
    step = 3 if period == "quarter" else 12
    first = date(day.year, month, number)
    while first > day:
        first = months.add_months(first, -step)
    while (after := months.add_months(first, step)) <= day:
        first = after
    return first


def _next_first(period: str, first: date) -> date:
    if period in ("day", "week"):
        return first + timedelta(days=1 if period == "day" else 7)
    return months.add_months(first, {"month": 1, "quarter": 3, "year": 12}[period])
