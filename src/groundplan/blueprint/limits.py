"""Budgets, limits, grants and caps. Amounts of money are picodollars (int)."""

from __future__ import annotations

import msgspec


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    covers: str
    """company | team/NAME | workload/NAME | key/ID"""
    limit: int
    """picodollars per period"""
    period: str
    """minute | hour | day | week | month | quarter | year | total"""
    starts: str = ""
    """First day of a period that does not follow the calendar: weekday of a week, day of a month, MM-DD of a quarter or
    year."""
    timezone: str = "UTC"
    hard: bool = True
    """False: exceeding it warns and refuses nothing."""


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """One number of a declared limit."""

    name: str
    covers: str
    """company | team/NAME | workload/NAME | key/ID | user/EMAIL | model/NAME | deployment/NAME; `user`, `key`: each"""
    type: str
    """requests | tokens | concurrent | cost"""
    amount: int
    """a count; picodollars for cost"""
    period: str
    """minute | hour | day | month (UTC); now for concurrent"""


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """The people to whom something is allowed."""

    name: str
    to: list[str]
    """Groups and teams by name, people by e-mail address; `everyone`."""
    until: str | None = None
    """ISO date of the last day (UTC)."""


class Caps(msgspec.Struct, frozen=True, kw_only=True):
    """The extent up to which an experiment or a pilot needs no approval. None: no cap."""

    people: int | None = 25
    calls_per_day: int | None = 1000
    days: int | None = 90
    sensitivity: str = "internal"
