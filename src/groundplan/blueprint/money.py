"""Costs beside the calls."""

from __future__ import annotations

import msgspec


class CurrencyRate(msgspec.Struct, frozen=True, kw_only=True):
    """What one unit of a currency costs from a day on, until the next rate."""

    since: str
    """ISO date"""
    rate: int
    """picodollars"""


class Allocation(msgspec.Struct, frozen=True, kw_only=True):
    """A cost beside the calls, and the rule by which workloads carry it."""

    name: str
    term: str
    amount: int | None = None
    """picodollars a period; with another currency, 10^-12 of its unit"""
    currency: str = "USD"
    period: str = "month"
    life_days: int = 0
    """Of an amount for the period `life`: so many days from `since` on."""
    how: str = ""
    """How the amount came about, where it was not written as such."""
    rate: int | None = None
    """picodollars for each unit, instead of an amount"""
    per: str = ""
    by: str = "cost"
    """cost | calls | tokens | equal | shares"""
    shares: dict[str, int] = {}
    covers: str = "company"
    capacity: int | None = None
    """Tokens a day that a deployment can make."""
    basis: str = "allocated"
    source: str = ""
    since: str = ""
    until: str = ""
    """ISO dates of the first and the last day; empty: open."""
