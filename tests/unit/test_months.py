"""Months of the calendar: the same day of another one, and the first day of the next."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from groundplan.core import months


@pytest.mark.parametrize(
    ("day", "first"),
    [
        (date(2026, 1, 31), date(2026, 2, 1)), (date(2028, 2, 29), date(2028, 3, 1)),
        (date(2026, 12, 1), date(2027, 1, 1)), (date(2026, 11, 30), date(2026, 12, 1)),
    ],
)  # fmt: skip
def test_the_first_day_of_the_next_month(day: date, first: date) -> None:
    assert months.first_of_next_month(day) == first


def test_a_moment_keeps_its_time() -> None:
    at = datetime(2026, 12, 15, 13, 30, tzinfo=UTC)
    assert months.first_of_next_month(at) == datetime(2027, 1, 1, 13, 30, tzinfo=UTC)
    assert months.add_months(at, -12) == datetime(2025, 12, 15, 13, 30, tzinfo=UTC)


def test_the_same_day_of_other_months() -> None:
    day = date(2026, 1, 28)
    found = [months.add_months(day, number) for number in (-1, 0, 1, 11, 12, -25)]
    assert [each.isoformat()[:7] for each in found] == [
        "2025-12",
        "2026-01",
        "2026-02",
        "2026-12",
        "2027-01",
        "2023-12",
    ]
    assert {each.day for each in found} == {28}
    with pytest.raises(ValueError, match="day"):
        months.add_months(date(2026, 1, 31), 1)
