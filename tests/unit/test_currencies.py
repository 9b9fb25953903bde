"""Amounts in other currencies are in USD at the declared rate of their day; missing and unknown rates are refused."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.integration.gateway_stack import blueprint
from tests.unit.test_catalog_check import BASE

from groundplan.blueprint import artifact
from groundplan.blueprint.model import Allocation, CurrencyRate, Rates
from groundplan.catalog.check import validate_files
from groundplan.catalog.currency import split_currency
from groundplan.core.errors import Invalid, Problem
from groundplan.core.money import PICO
from groundplan.economics.allocate.daily import allocate_days
from groundplan.economics.allocate.divide import amount_spent, divide
from groundplan.economics.allocate.model import Day, Use
from groundplan.economics.bills.parse import read_bill
from groundplan.economics.bills.reconcile import reconcile
from groundplan.economics.prices.currency import rate_on, rates_in_usd, to_usd
from groundplan.release.compile.budgets import compile_allocation
from groundplan.release.compile.pricing import declared_or_listed

DATED = {"EUR": [CurrencyRate(since="2026-01-01", rate=PICO), CurrencyRate(since="2026-03-01", rate=2 * PICO)]}
EUR = """\
currencies:
  EUR:
    source: reference rates of a central bank
    rates: [{from: 2026-01-01, rate: 1 USD}, {from: 2026-03-01, rate: 1.25 USD}]
"""
WITH_EUR = BASE.replace("name: acme\n", f"name: acme\n{EUR}", 1)
RACK = "---\nkind: allocation\nname: rack\nterm: capacity\ncost: 310 EUR/month\nsource: contract\n"


def refused(text: str) -> Problem:
    with pytest.raises(Invalid) as wrong:
        validate_files({"a.yaml": text})
    (problem,) = wrong.value.problems
    assert problem.hint and problem.where is not None
    return problem


def test_each_day_is_at_its_own_rate() -> None:
    rule = Allocation(name="r", term="capacity", amount=31 * PICO, period="month", currency="EUR", by="equal")
    assert amount_spent(rule, date(2026, 1, 1), date(2026, 1, 31), DATED) == 31 * PICO
    assert amount_spent(rule, date(2026, 3, 1), date(2026, 3, 31), DATED) == 62 * PICO
    days = [date(2026, 2, 28), date(2026, 3, 1)]
    lines = allocate_days([Day(day, 1, [rule], [Use("a"), Use("b")], DATED) for day in days])
    assert sum(line.amount for line in lines) == amount_spent(rule, days[0], days[1], DATED)
    paid = Allocation(name="r", term="review", rate=PICO, per="review hour", currency="EUR")
    worked = [Use("a", units={"review hour": Decimal(2)})]
    assert [part.amount for day in days for part in divide(paid, worked, day, DATED)] == [2 * PICO, 4 * PICO]
    (line,) = allocate_days([Day(day, 1, [paid], worked, DATED) for day in days])
    assert line.amount == 6 * PICO


@given(
    st.integers(0, 10**17), st.lists(st.integers(1, 10**13), min_size=1, max_size=4), st.integers(0, 40),
    st.integers(0, 40),
)  # fmt: skip
def test_days_of_any_rates_sum_exactly_to_all_of_them(amount: int, rates: list[int], start: int, more: int) -> None:
    begins = [date(2026, 1, 1) + timedelta(days=17 * n) for n in range(len(rates))]
    dated = {"EUR": [CurrencyRate(since=d.isoformat(), rate=r) for d, r in zip(begins, rates, strict=True)]}
    rule = Allocation(name="r", term="logs", amount=amount, period="month", currency="EUR")
    days = [date(2026, 1, 1) + timedelta(days=start + n) for n in range(more + 1)]
    assert amount_spent(rule, days[0], days[-1], dated) == sum(amount_spent(rule, day, day, dated) for day in days)
    lines = allocate_days([Day(day, 1, [rule], [Use("a", cost=3)], dated) for day in days])
    assert sum(line.amount for line in lines) == amount_spent(rule, days[0], days[-1], dated)


def test_amounts_of_currencies_with_small_units_may_be_large() -> None:
    """A server of 150,000 dollars costs 22 million yen, and a hundred of them are more than 64 bits hold."""
    yen = BASE.replace(
        "name: acme\n",
        "name: acme\ncurrencies: {JPY: {source: bank, rates: [{from: 2026-01-01, rate: 0.0067 USD}]}}\n",
        1,
    )
    rent = RACK.replace("310 EUR/month", "31000000 JPY/month\nfrom: 2026-01-01")
    servers = (
        RACK.replace("name: rack", "name: servers")
        .replace("source: contract", "source: invoice")
        .replace("cost: 310 EUR/month", "purchase: 22000000 JPY\nlife: 1000d\ncount: 100\nfrom: 2026-01-01")
    )
    made = validate_files({"a.yaml": yen + rent + servers}).allocations
    dated = {"JPY": [CurrencyRate(since="2026-01-01", rate=PICO * 67 // 10_000)]}
    day = date(2026, 1, 1)
    rules = [compile_allocation(doc) for doc in made.values()]
    lines = allocate_days([Day(day, 1, rules, [Use("a")], dated)])
    assert {line.allocation: line.amount for line in lines} == {"rack": 6_700 * PICO, "servers": 14_740 * PICO}
    read = artifact.decode(artifact.encode(replace(blueprint(1, [], []), allocations=rules, currencies=dated)))
    assert read.allocations == rules
    assert "at most 1,000,000,000,000;" in (refused(yen + RACK.replace("310 EUR", f"{10**13} JPY")).hint or "")


@pytest.mark.parametrize(
    ("currency", "day", "code"),
    [("NOK", date(2026, 5, 1), "currency_unknown"), ("EUR", date(2025, 12, 31), "currency_rate_missing")],
)
def test_a_rate_that_is_not_there_is_refused(currency: str, day: date, code: str) -> None:
    with pytest.raises(Invalid) as wrong:
        rate_on(DATED, currency, day)
    assert wrong.value.code == code and currency in wrong.value.hint


def test_what_is_declared_in_euro_has_its_currency_and_price() -> None:
    priced = "url: https://acme.example/v1\nprice: {input: 0.40 EUR/Mtok, output: 1.60 EUR/Mtok, request: 0.001 EUR}"
    text = WITH_EUR.replace("url: https://acme.example/v1", priced, 1) + RACK + "from: 2026-01-01\n"
    workspace = validate_files({"a.yaml": text})
    rack = workspace.allocations["rack"]
    assert (rack.currency, rack.cost.amount if rack.cost else 0, str(rack.cost)) == ("EUR", 310 * PICO, "310 USD/month")
    rates = declared_or_listed(workspace, workspace.deployments["gpt"], date(2026, 11, 25))
    assert isinstance(rates, Rates)
    assert (rates.input, rates.output, rates.request) == (PICO // 2, 2 * PICO, PICO * 125 // 100_000)
    assert "EUR at 1.25" in rates.source
    earlier = declared_or_listed(workspace, workspace.deployments["gpt"], date(2026, 2, 1))
    assert isinstance(earlier, Rates) and earlier.input == PICO * 4 // 10
    before = declared_or_listed(workspace, workspace.deployments["gpt"], date(2025, 2, 1))
    assert isinstance(before, Problem) and before.code == "currency_rate_missing"


@pytest.mark.parametrize(
    ("text", "code", "told"),
    [
        (BASE + RACK, "currency_unknown", "EUR"),
        (WITH_EUR + RACK, "currency_rate_missing", "from: 2026-01-01"),
        (WITH_EUR + RACK + "from: 2025-06-01\n", "currency_rate_missing", "2026-01-01"),
        (WITH_EUR + RACK.replace("EUR", "EUX"), "value", "ISO 4217"),
        (WITH_EUR.replace("rate: 1 USD", "rate: 0 USD"), "value", ""),
        (WITH_EUR.replace("from: 2026-03-01", "from: 2026-01-01"), "value", "same day"),
        (WITH_EUR.replace("EUR:", "EUX:"), "value", "ISO 4217"),
        (WITH_EUR.replace("rate: 1 USD", "rate: 1 NOK"), "value", ""),
    ],
)
def test_unknown_and_missing_rates_are_told_with_their_place(text: str, code: str, told: str) -> None:
    problem = refused(text)
    assert code in (problem.code, "value")
    assert told in problem.message + problem.hint


@pytest.mark.parametrize("value", [{"a": "1 EUR", "b": "2 NOK"}, {"a": "1 EUX"}, {"a": "1 USD", "currency": "EUR"}])
def test_currencies_are_not_mixed(value: Any) -> None:
    with pytest.raises(ValueError, match=r"currency|currencies"):
        split_currency(value)


def test_text_that_is_no_amount_stays_as_it_is() -> None:
    value = {"a": "12 EUR/month", "note": "ABC 5", "hours": "16:30-00:30", "n": 3}
    assert split_currency(value) == ({**value, "a": "12 USD/month"}, "EUR")
    assert split_currency({"a": "12 USD/month"}) == ({"a": "12 USD/month"}, "USD")


def test_every_rate_of_a_price_is_converted_and_rounded_up() -> None:
    rates = Rates(
        input=3, output=5, cache_read=1, image=7, images={"any": 9}, long=Rates(input=5, output=5), long_above=8
    )
    made = rates_in_usd(rates, PICO * 3 // 2)
    assert (made.input, made.output, made.cache_read, made.image, made.images) == (5, 8, 2, 11, {"any": 14})
    assert made.long is not None and (made.long.input, made.long_above) == (8, 8)
    assert to_usd(5, PICO // 2) == 2


def test_a_bill_in_euro_is_compared_at_the_rate_of_each_line_s_day() -> None:
    text = "date,cost,currency,model\n2026-02-28,10,EUR,m\n2026-03-01,10,EUR,m\n2026-03-01,10,NOK,m\n"
    found = reconcile(read_bill(text, "bill.csv", {}), [], {}, provider="m", dated_exchange_rates=DATED)
    assert found.bill == 30
    assert any("1 line in NOK left out, since it has no rate" in note for note in found.notes)
