"""Amounts of money as people and programs write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundplan.api.watch import budget_crossings
from groundplan.cli import cost_ahead
from groundplan.core.errors import Invalid
from groundplan.core.money import MAX_AMOUNT, format_usd, from_usd_text, parse_usd


@given(st.integers(0, MAX_AMOUNT))
def test_an_amount_is_read_as_it_is_written(amount: int) -> None:
    assert parse_usd(format_usd(amount)) == parse_usd(f" {format_usd(amount)} USD ") == amount


@pytest.mark.parametrize(
    ("text", "code"),
    [
        *(
            (text, "money_syntax")
            for text in ("", "-1", "+1", "1e3", "NaN", "inf", "0,5", "1_0", "١", "1 EUR", "1.", "$1")
        ),
        ("0.0000000000001", "money_precision"),
        ("9300000", "money_range"),
        ("9" * 5000, "money_range"),
        ("9" * 5000 + ".5 USD", "money_range"),
    ],
)
def test_anything_else_is_refused_with_why(text: str, code: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_usd(text)
    assert caught.value.code == code and len(caught.value.message) < 120


@given(st.integers(-(10**24), 10**24))
def test_a_sum_is_read_as_it_is_written(amount: int) -> None:
    assert from_usd_text(format_usd(amount)) == amount


def test_a_sum_may_be_more_than_one_record_can_carry() -> None:
    """Of a large company in a year, or of a budget that only warns."""
    assert cost_ahead._short_usd("12500000.000000000000") == "$12,500,000.00"
    row = {"budget": "all", "period": "2026", "spent_usd": "9300000.000000000000", "limit_usd": "9000000.000000000000"}
    assert "$9,300,000.00 of $9,000,000.00 were spent" in budget_crossings._message(row)


def test_zeros_in_front_change_nothing() -> None:
    assert parse_usd("0" * 5000 + "7.50") == parse_usd("7.5")
