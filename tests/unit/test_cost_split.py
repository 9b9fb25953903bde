"""What the cost of an attempt is made of: shares that sum exactly, and every class by its name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundplan.blueprint.model import PriceWindow, Rates
from groundplan.core.errors import Invalid
from groundplan.economics.price import BATCH, cost
from groundplan.economics.terms.apportion import shares
from groundplan.economics.terms.split import explain_cost, split_cost
from groundplan.ledger.model import Usage

amounts = st.integers(-(10**20), 10**20)
weights = st.lists(st.integers(0, 10**15), min_size=1, max_size=40)
rate = st.integers(0, 10**13)
counts = st.integers(0, 10**6)


@given(amounts, weights)
def test_shares_sum_exactly_and_are_within_one_of_their_due(amount: int, given_weights: list[int]) -> None:
    found = shares(amount, given_weights)
    assert sum(found) == amount
    total = sum(given_weights)
    if total:
        assert all(abs(share * total - amount * w) < total for share, w in zip(found, given_weights, strict=True))


def test_without_weight_everybody_has_the_same_and_the_rest_goes_to_the_first() -> None:
    assert shares(5, [0, 0, 0]) == [2, 2, 1]
    assert shares(-5, [1, 1]) == [-3, -2]


@pytest.mark.parametrize("bad", [[], [1, -1]])
def test_weights_that_divide_nothing_are_refused(bad: list[int]) -> None:
    with pytest.raises(Invalid, match="weights"):
        shares(1, bad)


rates = st.builds(Rates, input=rate, output=rate, cache_read=st.none() | rate, reasoning=st.none() | rate, request=rate)
usages = st.builds(
    lambda a, b, c, d: Usage(input=a + b, cache_read=b, output=c + d, reasoning=d), counts, counts, counts, counts
)


@given(rates, usages, st.integers(0, 10**15))
def test_the_parts_are_the_whole_cost_whatever_it_is(price: Rates, usage: Usage, paid: int) -> None:
    for amount in (paid, cost(price, usage)):
        found = split_cost(price, usage, amount)
        assert sum(share for _, share in found.values()) == amount
        assert all(share >= 0 for _, share in found.values())
    assert "bound" not in split_cost(price, usage, cost(price, usage))


def test_each_class_has_its_own_price() -> None:
    price = Rates(input=3_000_000, output=15_000_000, cache_read=300_000, request=7)
    usage = Usage(input=100, cache_read=40, output=10)
    assert split_cost(price, usage, cost(price, usage)) == {
        "input": (60, 180), "cache_read": (40, 12), "output": (10, 150), "requests": (1, 7),
    }  # fmt: skip


def test_each_search_unit_of_a_rerank_is_a_request() -> None:
    price = Rates(input=1_000_000, output=0, request=7)
    assert split_cost(price, Usage(input=30), 30 + 3 * 7) == {"input": (30, 30), "requests": (3, 21)}
    assert split_cost(price, Usage(), 2 * 7) == {"requests": (2, 14)}
    assert split_cost(price, Usage(input=30), 30 + 3 * 7 + 1) == {
        "input": (30, 30),
        "requests": (1, 7),
        "bound": (0, 15),
    }
    assert split_cost(price, Usage(input=30, output=1), 30 + 2 * 7)["bound"] == (0, 7), "no rerank"


def test_a_batch_is_told_by_what_it_cost() -> None:
    price = Rates(input=4_000_000, output=0, batch=Rates(input=2_000_000, output=1_000_000))
    usage = Usage(input=10, output=10)
    assert split_cost(price, usage, cost(price, usage, BATCH)) == {"input": (10, 20), "output": (10, 10)}


def test_the_tier_at_which_it_was_priced_is_told() -> None:
    night = Rates(input=1_000_000, output=2_000_000)
    price = Rates(
        input=4_000_000, output=8_000_000, long_above=100, long=Rates(input=9_000_000, output=10_000_000),
        batch=Rates(input=2_000_000, output=3_000_000), windows=[PriceWindow(start=0, end=60, rates=night)],
    )  # fmt: skip
    short, long = Usage(input=10, output=10), Usage(input=1000, output=10)
    assert explain_cost(price, short, cost(price, short))[1] == ""
    assert explain_cost(price, long, cost(price, long))[1] == "long"
    assert explain_cost(price, short, cost(price, short, BATCH))[1] == "batch"
    assert explain_cost(price, short, cost(night, short))[1] == "by time"
    assert explain_cost(price, short, 12345)[1] == "" and explain_cost(None, short, 7)[1] == ""


def test_flex_and_a_batch_for_the_same_price_are_told_by_the_tier_that_was_named() -> None:
    half = Rates(input=500_000, output=0)
    price = Rates(input=1_000_000, output=0, batch=half, flex=half)
    assert explain_cost(price, Usage(input=4), 2)[1] == "batch"
    assert explain_cost(price, Usage(input=4, service_tier="flex"), 2)[1] == "flex"
    assert explain_cost(Rates(input=1_000_000, output=0, flex=half), Usage(input=4), 2)[1] == "flex"


def test_a_fee_is_that_of_one_request() -> None:
    price = Rates(input=1_000_000, output=0, request=7, flagged=50)
    assert split_cost(price, Usage(), 50) == {"requests": (1, 50)}
    assert split_cost(price, Usage(), 51) == {"requests": (1, 7), "bound": (0, 44)}


def test_what_nobody_knows_is_charged_as_its_bound() -> None:
    assert split_cost(None, Usage(), 9) == {"bound": (0, 9)}
    assert split_cost(None, Usage(), 0) == {}
    assert split_cost(Rates(input=0, output=0), Usage(images_made=2), 80) == {"images_made": (2, 80)}
