"""Pricing the same tokens otherwise: back again gives the first amount, and every class has its rate."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.unit.test_catalog_check import BASE

from groundplan.api.watch.price_changes import declared_prices, deployment_findings, listed_prices
from groundplan.blueprint.model import Deployment, RateDetails, Rates
from groundplan.catalog.check import validate_files
from groundplan.economics.price import cost
from groundplan.economics.prices import price_list
from groundplan.economics.prices.reprice import RepricedUsage, class_rate, cost_of_counts, reprice
from groundplan.economics.prices.time_of_day import rates_at, with_windows
from groundplan.economics.terms.split import explain_cost, split_cost
from groundplan.ledger.finding import Finding
from groundplan.ledger.model import Usage
from groundplan.release.compile.pricing import declared_or_listed

rate = st.integers(0, 10**13)
maybe = st.none() | rate
prices = st.builds(Rates, input=rate, output=rate, cache_read=maybe, cache_write=maybe, reasoning=maybe, request=rate)
counts = st.integers(0, 10**6)
usages = st.builds(
    lambda a, b, c, d, e: Usage(input=a + b + e, cache_read=b, cache_write=e, output=c + d, reasoning=d),
    *(counts,) * 5,
)

ALL: tuple[str, int | None] = ("", None)
BATCH: tuple[str, int | None] = ("batch", None)


@given(prices, prices, usages)
def test_pricing_is_reversible(then: Rates, now: Rates, usage: Usage) -> None:
    """The counts that the ledger keeps are enough: at the price of the call they give its cost again."""
    paid = cost(then, usage)
    kept = {ALL: {name: count for name, (count, _) in split_cost(then, usage, paid).items()}}
    told = reprice(kept, then, now)
    back = reprice(kept, now, then)
    assert (told.old_cost, told.new_cost) == (back.new_cost, back.old_cost)
    assert told.old_cost == paid
    assert told.difference == -back.difference


windows = st.lists(st.tuples(st.integers(0, 1439), st.integers(0, 1439), prices), max_size=3)
by_times = st.builds(
    lambda base, some: with_windows(base, [each for each in some if each[0] != each[1]]), prices, windows
)


@given(by_times, by_times, st.lists(st.tuples(st.integers(0, 1439), usages), max_size=6))
def test_pricing_by_time_of_day_is_reversible(then: Rates, now: Rates, calls: list[tuple[int, Usage]]) -> None:
    """Also at three prices a day; in hours that have one price what was paid comes out again, rounded up for each."""
    kept: dict[tuple[str, int | None], dict[str, int]] = {}
    paid = 0
    for minute, usage in calls:
        rates = rates_at(then, minute * 60_000)
        amount = cost(rates, usage)
        mine = kept.setdefault((explain_cost(then, usage, amount)[1], minute // 60), {})
        for name, (count, _) in split_cost(then, usage, amount).items():
            mine[name] = mine.get(name, 0) + count
        paid += amount
    told, back = reprice(kept, then, now), reprice(kept, now, then)
    assert (told.old_cost, told.new_cost) == (back.new_cost, back.old_cost)
    edges = {edge for window in then.windows for edge in (window.start, window.end)}
    if all(edge % 60 == 0 for edge in edges):
        assert paid - len(calls) <= told.old_cost <= paid + len(calls)


def test_a_price_by_time_of_day_counts_for_what_was_asked_then() -> None:
    flat = Rates(input=10, output=10)
    day = with_windows(flat, [(16 * 60 + 30, 30, Rates(input=4, output=4)), (6 * 60, 8 * 60, Rates(input=1, output=1))])
    each = {"input": 1_000_000}
    whole: dict[tuple[str, int | None], dict[str, int]] = {("", hour): each for hour in range(24)}
    assert reprice(whole, flat, day) == RepricedUsage(240, 15 * 10 + 7 * 4 + 2 * 1), "never less in hours that are cut"
    # the tier tells which calls of an hour were before half past four
    assert reprice({("", 16): each, ("by time", 16): each}, day, flat) == RepricedUsage(14, 20)
    assert reprice({("by time", None): each}, day, flat).old_cost == 1, "without hours the cheapest"


def test_a_class_without_a_rate_costs_as_its_side() -> None:
    price = Rates(input=3, output=7, cache_write=4, details=RateDetails(input_image=9))
    names = ("input_audio", "reasoning", "cache_write_1h", "input_image")
    assert [class_rate(price, name) for name in names] == [3, 7, 4, 9]
    assert cost_of_counts({"input": 1_000_000, "bound": 5}, price) == 3


def test_a_listed_price_that_changed_says_what_last_month_would_have_cost() -> None:
    served = price_list.rates("openai/o3", date(2025, 6, 9))
    assert served is not None
    deployment = Deployment(
        name="o3-eu", site="eu", model="openai/o3", upstream_model="o3", url="http://x/v1", rates=served,
        context_tokens=1000,
    )  # fmt: skip
    used = {"o3-eu": {ALL: {"input": 1_000_000, "output": 0}}}

    def of(today: date) -> list[Finding]:
        made = deployment_findings(deployment, used, today, listed_prices(deployment, today))
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
    used = {name: {ALL: {"input": 2_000_000, "output": 1_000_000}}}

    def of(today: date) -> list[Finding]:
        return list(deployment_findings(deployment, used, today, declared_prices(workspace, deployment, today)))

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
    rates = price_list.rates(model, date(2026, 11, 1))
    assert rates is not None and rates.source.startswith("genai-prices")
    place = Deployment(
        name="d", site="eu", model=model, upstream_model="m", url="http://x/v1", rates=rates, context_tokens=1000
    )
    told = [
        each for each in deployment_findings(place, {"d": {ALL: {"input": 1}}} if used else {}, date(2026, 11, 1), {})
    ]
    assert [(each.kind, each.severity) for each in told] == ([("cost.retired", severity)] if severity else [])


TIERS = Rates(
    input=4_000_000, output=8_000_000, image=5, images={"any": 40, "1024x1024": 50}, characters=3_000_000, minute=120,
    batch=Rates(input=2_000_000, output=4_000_000), long_above=1000, long=Rates(input=6_000_000, output=9_000_000),
)  # fmt: skip


@pytest.mark.parametrize(
    ("tier", "used", "cost"),
    [
        ("", {"input": 10}, 40),
        ("batch", {"input": 10, "output": 1}, 24),
        ("long", {"input": 10}, 60),
        ("", {"images": 3, "images_made": 2}, 115),
        ("", {"characters": 7}, 21),
        ("", {"seconds": 31}, 62),
        ("", {"bound": 9}, 0),
    ],
)
def test_each_tier_and_unit_is_priced_as_such(tier: str, used: dict[str, int], cost: int) -> None:
    assert cost_of_counts(used, TIERS, tier) == cost


@pytest.mark.parametrize(
    "change",
    [
        {"batch": Rates(input=1_000_000, output=4_000_000)},
        {"long": Rates(input=5_000_000, output=9_000_000)},
        {"images": {"any": 41, "1024x1024": 50}},
        {"minute": 121},
        {"image": 6},
        {"characters": 4_000_000},
    ],
)
def test_a_change_of_any_price_is_told(change: dict[str, Any]) -> None:
    place = Deployment(
        name="d", site="eu", model="acme/m", upstream_model="m", url="http://x/v1", rates=TIERS, context_tokens=1000
    )
    today = date(2026, 11, 20)
    same = replace(TIERS, source="elsewhere", effective="2026-01-01")
    assert list(deployment_findings(place, {}, today, {today: same})) == []
    told = list(deployment_findings(place, {"d": {BATCH: {"input": 10}}}, today, {today: replace(TIERS, **change)}))
    assert [each.kind for each in told] == ["cost.repriced"]
    assert told[0].detail["then"] == 20
    assert told[0].detail["now"] == (10 if "batch" in change else 20)
