"""Costs outside calls."""

from __future__ import annotations

import msgspec


class CurrencyRate(msgspec.Struct, frozen=True, kw_only=True):
    """USD for one unit of a currency from a day on, until the next rate."""

    since: str
    """ISO date"""
    rate: int
    """picodollars"""


class Allocation(msgspec.Struct, frozen=True, kw_only=True):
    """A cost outside calls, and the rule by which it is divided among workloads."""

    name: str
    term: str
    amount: int | None = None
    """picodollars a period; with another currency, 10^-12 of its unit"""
    currency: str = "USD"
    period: str = "month"
    life_days: int = 0
    """For the period `life`: the number of days from `since` on over which the amount is spread."""
    how: str = ""
    """How the amount was computed, if it was not declared as such."""
    rate: int | None = None
    """picodollars for each unit, instead of an amount"""
    per: str = ""
    by: str = "cost"
    """cost | calls | tokens | equal | shares"""
    shares: dict[str, int] = {}
    covers: str = "company"
    capacity: int | None = None
    """Tokens a day that a deployment can generate."""
    basis: str = "allocated"
    source: str = ""
    since: str = ""
    until: str = ""
    """ISO dates of the first and the last day; empty: open."""
