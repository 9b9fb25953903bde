"""Calendar periods: keys, ends, fiscal years, weeks and time zones with their summer time."""

from __future__ import annotations

import zoneinfo
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundplan.blueprint.model import Budget
from groundplan.gateway.budgets import periods

AT = datetime(2026, 11, 25, 14, 33, tzinfo=UTC)


@pytest.mark.parametrize(
    ("spec", "key"),
    [
        (("minute", "", "UTC"), "2026-11-25T14:33"),
        (("hour", "", "UTC"), "2026-11-25T14"),
        (("day", "", "UTC"), "2026-11-25"),
        (("month", "", "UTC"), "2026-11"),
        (("year", "", "UTC"), "2026"),
        (("total", "", "UTC"), "total"),
        (("now", "", "UTC"), "now"),
        (("week", "", "UTC"), "2026-11-23..2026-11-30"),
        (("week", "sunday", "UTC"), "2026-11-22..2026-11-29"),
        (("month", "26", "UTC"), "2026-10-26..2026-11-26"),
        (("month", "25", "UTC"), "2026-11-25..2026-12-25"),
        (("quarter", "", "UTC"), "2026-10-01..2027-01-01"),
        (("quarter", "02-01", "UTC"), "2026-11-01..2027-02-01"),
        (("year", "04-01", "UTC"), "2026-04-01..2027-04-01"),
        (("year", "12-01", "UTC"), "2025-12-01..2026-12-01"),
        (("day", "", "Europe/Oslo"), "2026-11-24T23:00..2026-11-25T23:00"),
        (("month", "", "America/New_York"), "2026-11-01T04:00..2026-12-01T05:00"),
    ],
)
def test_a_moment_is_in_its_period(spec: tuple[str, str, str], key: str) -> None:
    assert periods.key_at(*spec, AT) == key
    assert periods.current_key(*spec, AT.timestamp()) == key


def test_utc_is_known_where_a_system_has_no_time_zones(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a small image may: each call of a week or of a fiscal year in UTC would fail of it."""

    def nowhere(key: str) -> zoneinfo.ZoneInfo:
        raise zoneinfo.ZoneInfoNotFoundError(key)

    monkeypatch.setattr(periods, "ZoneInfo", nowhere)
    assert periods.key_at("week", "", "UTC", AT) == "2026-11-23..2026-11-30"
    assert periods.key_at("year", "04-01", "UTC", AT) == "2026-04-01..2027-04-01"


SPECS = st.sampled_from(
    [
        ("minute", "", "UTC"), ("hour", "", "UTC"), ("day", "", "Europe/Oslo"), ("week", "friday", "Asia/Kolkata"),
        ("month", "28", "America/New_York"), ("quarter", "01-15", "UTC"), ("year", "04-06", "Europe/London"),
        ("month", "", "UTC"), ("year", "", "UTC"), ("day", "", "UTC"),
    ]
)  # fmt: skip


@given(at=st.integers(1_577_836_800, 2_208_988_800).map(lambda second: datetime.fromtimestamp(second, UTC)), spec=SPECS)
def test_periods_follow_each_other_without_gap(at: datetime, spec: tuple[str, str, str]) -> None:
    key = periods.key_at(*spec, at)
    begin, end = periods.begins(key), periods.ends(key)
    assert begin is not None and end is not None and begin <= at < end
    following = periods.key_at(*spec, end)
    assert periods.begins(following) == end and periods.next_key(*spec, key) == following
    assert periods.current_key(*spec, at.timestamp()) == key
    assert periods.current_key(*spec, end.timestamp()) == following
    assert periods.current_key(*spec, at.timestamp()) == key  # also back again
    text = "%Y-%m-%dT%H:%M"
    assert not periods.has_ended(key, (end - timedelta(minutes=1)).strftime(text))
    assert periods.has_ended(key, end.strftime(text))


@given(
    specs=st.lists(SPECS | st.just(("total", "", "UTC")), max_size=4),
    begin=st.integers(1_577_836_800, 2_208_988_800),
    steps=st.lists(st.sampled_from([0.0, 0.5, 59.5, 3600.0, 86_400.0, 2_700_000.0, -1.0, -7200.0]), max_size=12),
)
def test_dated_budgets_have_the_periods_of_each(
    specs: list[tuple[str, str, str]], begin: int, steps: list[float]
) -> None:
    budgets = [
        Budget(name=f"b{at}", covers="company", limit=1, period=period, starts=starts, timezone=zone)
        for at, (period, starts, zone) in enumerate(specs)
    ]
    dated, now = periods.DatedBudgets(budgets), float(begin)
    for step in (0.0, *steps):
        now += step
        assert dated.at(now) == tuple(
            (each, periods.current_key(*spec, now)) for each, spec in zip(budgets, specs, strict=True)
        )


def test_what_does_not_end_says_so() -> None:
    assert periods.ends("total") is None and periods.begins("now") is None
    assert periods.next_key("total", "", "UTC", "total") is None


@pytest.mark.parametrize(
    ("period", "text"), [("2026-11-25T14:33", "2026-11-25 14:34 UTC"), ("2026-11", "2026-12-01 UTC")]
)
def test_a_hint_tells_the_end_of_a_period_in_utc(period: str, text: str) -> None:
    end = periods.ends(period)
    assert end is not None and periods.end_text(end) == text


@given(
    st.integers(0, 366 * 86_400_000),
    st.sampled_from(["minute", "hour", "day", "month"]),
)
def test_who_waits_for_the_seconds_that_are_left_is_in_the_next_period(milliseconds: int, period: str) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC).timestamp() + milliseconds / 1000
    ((key, _, end),) = periods.spans([(period, "", "UTC")], now)
    left = periods.seconds_left(end, now)
    assert periods.current_key(period, "", "UTC", now + left) != key
    assert periods.current_key(period, "", "UTC", now + left - 1) == key
