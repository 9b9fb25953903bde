"""Arithmetic with calendar months. Does not handle time zones."""

from __future__ import annotations

from datetime import date
from typing import TypeVar

Day = TypeVar("Day", bound=date)
"""A date or a datetime."""


def add_months(day: Day, months: int) -> Day:
    """The same day (and time) of the month `months` later. Raises `ValueError` where that month is too short; never for
    days 1 to 28."""
    index = day.year * 12 + day.month - 1 + months
    return day.replace(year=index // 12, month=index % 12 + 1)


def first_of_next_month(day: Day) -> Day:
    """The first day of the month after that of `day`, at the same time."""
    return add_months(day.replace(day=1), 1)
