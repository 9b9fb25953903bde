"""Amounts of money as people and programs write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundplan.core.errors import Invalid
from groundplan.core.money import MAX_AMOUNT, format_usd, parse_usd


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


def test_zeros_in_front_change_nothing() -> None:
    assert parse_usd("0" * 5000 + "7.50") == parse_usd("7.5")
