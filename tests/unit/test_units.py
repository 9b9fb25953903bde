"""Values with units: what is read, what is refused, and that nothing is rounded."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundplan.catalog import units
from groundplan.core.money import format_usd


@pytest.mark.parametrize(
    ("text", "expected"),
    [("800ms", 800), ("2s", 2000), ("2 s", 2000), ("1.5h", 5_400_000), ("15min", 900_000), ("90d", 7_776_000_000)],
)
def test_durations_are_milliseconds(text: str, expected: int) -> None:
    assert units.duration_ms(text) == expected


@pytest.mark.parametrize(
    "text", ["800", 800, "0.1ms", "-1s", "1 year", "1e3s", "", None, True, "٣s", "1s2", "9" * 19 + "s"]
)
def test_other_durations_are_refused(text: object) -> None:
    with pytest.raises(ValueError, match="write a duration"):
        units.duration_ms(text)


@pytest.mark.parametrize(
    ("text", "expected"), [("6000 B", 6000), ("8 KiB", 8192), ("1.5MB", 1_500_000), ("2 GiB", 2**31)]
)
def test_sizes_are_bytes(text: str, expected: int) -> None:
    assert units.size_bytes(text) == expected


def test_a_size_needs_its_unit_and_whole_bytes() -> None:
    for text in ("6000", "0.5 B", "5 Mtok"):
        with pytest.raises(ValueError, match="write a size"):
            units.size_bytes(text)


def test_percentages_are_fractions() -> None:
    assert units.fraction("99.5%") == 0.995
    assert units.fraction("0 %") == 0
    for text in ("99.5", "101%", "-1%", 0.5):
        with pytest.raises(ValueError, match="percentage"):
            units.fraction(text)


@pytest.mark.parametrize(
    ("text", "expected"), [(1000, 1000), ("1000", 1000), ("1,000", 1000), ("10k", 10_000), ("2M", 2_000_000)]
)
def test_counts(text: object, expected: int) -> None:
    assert units.count(text) == expected


@pytest.mark.parametrize("text", ["10K", "1,00", "1.5", 1.5, True, -1, "ten"])
def test_other_counts_are_refused(text: object) -> None:
    with pytest.raises(ValueError, match="whole number"):
        units.count(text)


@pytest.mark.parametrize(
    ("parse", "value", "most"),
    [
        (units.limit, "10000000 USD/year", "9,000,000;"),
        (units.usd, "10000000 USD", "9,000,000;"),
        (units.money_rates, "10000000 USD/day", "9,000,000;"),
        (units.amount, "10000000 USD", "9,000,000;"),
        (units.periodic_cost, "2000000000000 USD/year", "1,000,000,000,000;"),
    ],
)
def test_an_amount_that_is_too_large_is_told_how_large_it_may_be(
    parse: Callable[[object], object], value: str, most: str
) -> None:
    with pytest.raises(ValueError, match=f"write at most {most}"):
        parse(value)


def test_unlimited() -> None:
    assert units.count_or_unlimited("unlimited") is None
    assert units.count_or_unlimited("25") == 25
    with pytest.raises(ValueError, match="or unlimited"):
        units.count_or_unlimited("many")


def test_frequencies_convert_to_months_of_thirty_days() -> None:
    assert units.frequency("2000/day").per_month == 60_000
    assert units.frequency("10/hour").per_day == 240
    assert str(units.frequency("1k/week")) == "1000/week"
    for text in ("2000", "2000/year", "x/day", 7):
        with pytest.raises(ValueError, match="how often"):
            units.frequency(text)


def test_limits_keep_the_picodollar() -> None:
    limit = units.limit("0.000000000001 USD/month")
    assert (limit.amount, limit.period) == (1, "month")
    assert str(units.limit("200 USD/month")) == "200 USD/month"
    assert str(units.limit("0.5 USD/total")) == "0.50 USD/total"
    for text in ("200 USD", "200 EUR/month", "200/month", "200 USD/fortnight", "0.0000000000001 USD/day", 200):
        with pytest.raises(ValueError, match="write a limit"):
            units.limit(text)


def test_prices_are_picodollars_for_a_million_tokens() -> None:
    assert units.token_price("0.40 USD/Mtok") == 400_000_000_000
    assert units.token_price("0.0004 USD/ktok") == units.token_price("0.4 USD/Mtok")
    for text in ("0.40", "0.40 USD", "0.40 USD/token", "free", 0):
        with pytest.raises(ValueError, match="write a price"):
            units.token_price(text)


def test_dates() -> None:
    assert units.iso_date("2026-01-31").isoformat() == "2026-01-31"
    for text in ("2026-02-30", "20260131", "2026-W01-1", 20260131):
        with pytest.raises(ValueError, match="write a date"):
            units.iso_date(text)


@given(st.integers(0, 9_000_000 * 10**12), st.sampled_from(units.PERIODS))
def test_a_limit_survives_being_written(amount: int, period: str) -> None:
    limit = units.limit(f"{format_usd(amount)} USD/{period}")
    assert limit.amount == amount
    assert units.limit(str(limit)) == limit


@given(st.integers(0, 10**9), st.sampled_from(sorted(units.DAYS_PER_PERIOD)))
def test_a_frequency_is_exact(count: int, period: str) -> None:
    frequency = units.frequency(f"{count}/{period}")
    assert frequency.per_day * units.DAYS_PER_PERIOD[period] == pytest.approx(Decimal(count), rel=Decimal("1e-20"))


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("10.0.0.0/8", "10.0.0.0/8"), (" 192.0.2.7 ", "192.0.2.7/32"), ("2001:DB8::/32", "2001:db8::/32"),
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"), ("::ffff:192.0.2.7", "192.0.2.7/32"), ("::1", "::1/128"),
        ("::/0", "::/0"), ("::ffff:0:0/96", "0.0.0.0/0"),
    ],
)  # fmt: skip
def test_a_network_is_told_as_addresses_in_it_are_read(text: str, network: str) -> None:
    assert units.network(text) == network


@pytest.mark.parametrize("text", ["10.0.0.1/8", "10.0.0.0/33", "here", "", 7, None, "::ffff:10.0.0.1/104"])
def test_any_other_network_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="write a network"):
        units.network(text)


@given(st.text(max_size=30) | st.integers() | st.floats() | st.booleans() | st.none() | st.lists(st.integers()))
def test_anything_else_is_a_value_error(value: object) -> None:
    readers = (
        units.duration_ms,
        units.size_bytes,
        units.fraction,
        units.count,
        units.count_or_unlimited,
        units.frequency,
        units.usd,
        units.limit,
        units.token_price,
        units.iso_date,
        units.network,
    )
    for read in readers:
        try:
            read(value)
        except ValueError as error:
            assert str(error).startswith("write ")


@pytest.mark.parametrize("value", ["500 EUR/month", "200 NOK/month", "20 €/day"])
def test_limits_of_money_are_in_dollars_and_say_so(value: str) -> None:
    for read in (units.limit, units.money_rates):
        with pytest.raises(ValueError, match="in USD: what is reserved"):
            read(value)
        with pytest.raises(ValueError, match="write") as plain:
            read("200 USD/fortnight")
        assert "reserved" not in str(plain.value)
