"""Pricing the same tokens otherwise: back again gives the first amount, and every class has its rate."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.test_catalog_check import BASE

from groundplan.api.prices_look import declared_prices, findings_of, listed_prices
from groundplan.blueprint.model import Deployment, RateDetails, Rates
from groundplan.catalog.check import validate_files
from groundplan.economics.price import cost
from groundplan.economics.prices import listed
from groundplan.economics.prices.reprice import priced, rate_of, repriced
from groundplan.economics.terms.split import split
from groundplan.ledger.finding import Finding
from groundplan.ledger.model import Usage
from groundplan.release.priced import declared_or_listed

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

    def of(today: date) -> list[Finding]:
        made = findings_of(deployment, used, today, listed_prices(deployment, today))
        return [each for each in made if each.kind == "cost.repriced"]

    found = of(date(2025, 7, 1))
    assert [each.mark for each in found] == ["now"]
    assert "would have cost $2.00 instead of $10.00" in found[0].message
    before = of(date(2025, 6, 1))
    assert [(each.mark, str(each.due)) for each in before] == [("2025-06-10", "2025-06-10")]


DATED = BASE.replace(
    "url: https://acme.example/v1",
    "url: https://acme.example/v1\nprice: [{input: 1 USD/Mtok, output: 2 USD/Mtok}, "
    "{input: 1.50 USD/Mtok, output: 2 USD/Mtok, from: 2026-12-01}]",
    1,
)


def test_a_declared_price_that_will_hold_says_what_last_month_would_have_cost() -> None:
    workspace = validate_files({"acme.yaml": DATED})
    name = next(name for name, item in workspace.deployments.items() if len(item.price) == 2)
    served = declared_or_listed(workspace, workspace.deployments[name], date(2026, 11, 1))
    assert isinstance(served, Rates)
    deployment = Deployment(
        name=name, site="eu", model="acme/m", upstream_model="m", url="http://x/v1", rates=served, context_tokens=1000
    )
    used = {name: {"input": 2_000_000, "output": 1_000_000}}

    def of(today: date) -> list[Finding]:
        return list(findings_of(deployment, used, today, declared_prices(workspace, deployment, today)))

    (told,) = of(date(2026, 11, 20))
    assert (told.mark, str(told.due)) == ("2026-12-01", "2026-12-01")
    assert "would have cost $5.00 instead of $4.00" in told.message
    assert [each.mark for each in of(date(2026, 12, 1))] == ["now"]
    assert of(date(2026, 9, 1)) == [], "what is far ahead is not told yet"


@pytest.mark.parametrize(("model", "used", "severity"), [
    ("avian/deepseek/deepseek-v3.2", True, "high"), ("avian/deepseek/deepseek-v3.2", False, "medium"),
    ("openai/gpt-4.1-mini", True, ""),
])  # fmt: skip
def test_a_model_that_its_provider_is_about_to_retire_is_told(model: str, used: bool, severity: str) -> None:
    rates = listed.rates(model, date(2026, 11, 1), 1000)
    assert rates is not None and rates.source.startswith("genai-prices")
    place = Deployment(
        name="d", site="eu", model=model, upstream_model="m", url="http://x/v1", rates=rates, context_tokens=1000
    )
    told = [each for each in findings_of(place, {"d": {"input": 1}} if used else {}, date(2026, 11, 1), {})]
    assert [(each.kind, each.severity) for each in told] == ([("cost.retired", severity)] if severity else [])
