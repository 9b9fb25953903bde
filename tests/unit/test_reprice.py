"""Pricing the same tokens otherwise: back again gives the first amount, and every class has its rate."""

from __future__ import annotations

from datetime import date

from hypothesis import given
from hypothesis import strategies as st

from groundplan.api.prices_look import findings_of
from groundplan.blueprint.model import Deployment, RateDetails, Rates
from groundplan.economics.price import cost
from groundplan.economics.prices import listed
from groundplan.economics.prices.reprice import priced, rate_of, repriced
from groundplan.economics.terms.split import split
from groundplan.ledger.model import Usage

rate = st.integers(0, 10**13)
maybe = st.none() | rate
prices = st.builds(Rates, input=rate, output=rate, cache_read=maybe, cache_write=maybe, reasoning=maybe, request=rate)
counts = st.integers(0, 10**6)
usages = st.builds(
    lambda a, b, c, d, e: Usage(input=a + b + e, cache_read=b, cache_write=e, output=c + d, reasoning=d),
    *(counts,) * 5,
)


@given(prices, prices, usages)
def test_pricing_is_reversible(then: Rates, now: Rates, usage: Usage) -> None:
    """The counts that the ledger keeps are enough: at the price of the call they give its cost again."""
    paid = cost(then, usage)
    kept = {name: count for name, (count, _) in split(then, usage, paid).items()}
    told = repriced(kept, then, now)
    back = repriced(kept, now, then)
    assert (told.then, told.now) == (back.now, back.then)
    assert told.then == paid
    assert told.difference == -back.difference


def test_a_class_without_a_rate_costs_as_its_side() -> None:
    price = Rates(input=3, output=7, cache_write=4, details=RateDetails(input_image=9))
    names = ("input_audio", "reasoning", "cache_write_1h", "input_image")
    assert [rate_of(price, name) for name in names] == [3, 7, 4, 9]
    assert priced({"input": 1_000_000, "bound": 5}, price) == 3


def test_a_listed_price_that_changed_says_what_last_month_would_have_cost() -> None:
    served = listed.rates("openai/o3", date(2025, 6, 9), 1000)
    assert served is not None
    deployment = Deployment(
        name="o3-eu", site="eu", model="openai/o3", upstream_model="o3", url="http://x/v1", rates=served,
        context_tokens=1000,
    )  # fmt: skip
    used = {"o3-eu": {"input": 1_000_000, "output": 0}}
    found = [each for each in findings_of(deployment, used, date(2025, 7, 1)) if each.kind == "cost.repriced"]
    assert [each.mark for each in found] == ["now"]
    assert "would have cost $2.00 instead of $10.00" in found[0].message
    before = [each for each in findings_of(deployment, used, date(2025, 6, 1)) if each.kind == "cost.repriced"]
    assert [(each.mark, str(each.due)) for each in before] == [("2025-06-10", "2025-06-10")]
