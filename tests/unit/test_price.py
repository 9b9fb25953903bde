"""Prices: exact cost, safe bounds, declared before listed, unknown said clearly."""

from __future__ import annotations

from datetime import date

import msgspec
import pytest
from genai_prices import data_snapshot
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from groundplan.blueprint.model import Rates
from groundplan.catalog.money import Price
from groundplan.core.errors import Problem, Where
from groundplan.economics.price import FREE, batch_line_service, cost, cost_bound, find_rates, has_listed_price
from groundplan.ledger.model import Usage

TODAY = date(2026, 11, 25)
counts = st.integers(0, 2_000_000)
rate = st.integers(0, 10**14)
maybe_rate = st.none() | rate
SERVICES = ("standard", "batch", "priority", "auto")
all_rates = st.builds(
    Rates,
    input=rate,
    output=rate,
    cache_read=maybe_rate,
    cache_write=maybe_rate,
    reasoning=maybe_rate,
    input_audio=maybe_rate,
    output_audio=maybe_rate,
    request=st.integers(0, 10**12),
)


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    total_in, total_out = draw(counts), draw(counts)
    return Usage(
        input=total_in,
        output=total_out,
        cache_read=draw(st.integers(0, total_in)),
        cache_write=draw(st.integers(0, total_in)),
        input_audio=draw(st.integers(0, total_in)),
        reasoning=draw(st.integers(0, total_out)),
        output_audio=draw(st.integers(0, total_out)),
    )


@given(all_rates, usages())
def test_a_cost_is_never_above_the_bound_of_its_totals(rates: Rates, usage: Usage) -> None:
    assert 0 <= cost(rates, usage) <= cost_bound(rates, usage.input, usage.output)


@given(all_rates, counts, counts, counts, counts)
def test_disjoint_classes_cost_exactly_their_own_rates(
    rates: Rates, plain: int, cached: int, out: int, think: int
) -> None:
    usage = Usage(input=plain + cached, cache_read=cached, output=out + think, reasoning=think)
    read = rates.input if rates.cache_read is None else rates.cache_read
    reasoning = rates.output if rates.reasoning is None else rates.reasoning
    exact = plain * rates.input + cached * read + out * rates.output + think * reasoning
    charged = (cost(rates, usage) - rates.request) * 1_000_000
    assert exact <= charged < exact + 1_000_000


def test_one_token_of_a_known_model_costs_to_the_picodollar() -> None:
    rates = find_rates("openai/gpt-4.1-mini", TODAY)
    assert isinstance(rates, Rates)
    assert (rates.input, rates.output, rates.cache_read) == (400_000_000_000, 1_600_000_000_000, 100_000_000_000)
    assert rates.source.startswith("genai-prices ")
    assert cost(rates, Usage(input=1, output=1)) == 2_000_000
    assert cost(rates, Usage(input=100, cache_read=60, output=0)) == 40 * 400_000 + 60 * 100_000


def test_a_listed_price_is_that_of_its_day() -> None:
    before, after = find_rates("openai/o3", date(2025, 6, 9)), find_rates("openai/o3", date(2025, 6, 10))
    assert isinstance(before, Rates) and isinstance(after, Rates)
    assert (before.input, after.input) == (10 * 10**12, 2 * 10**12)
    assert after.effective == "2025-06-10"


def test_a_long_prompt_is_priced_at_its_own_tier() -> None:
    long = find_rates("anthropic/claude-sonnet-4-5", TODAY)
    assert isinstance(long, Rates) and long.long is not None
    short = msgspec.structs.replace(long, long=None)
    assert short.input == long.input == 3 * 10**12 < long.long.input
    assert cost(long, Usage(input=long.long_above)) == long.long_above * 3 * 10**6
    assert cost(long, Usage(input=long.long_above + 1)) == (long.long_above + 1) * long.long.input // 10**6
    assert cost_bound(long, 10, 10) == cost_bound(short, 10, 10)
    assert cost_bound(long, long.long_above + 1, 10) > cost_bound(short, long.long_above + 1, 10)


@given(all_rates, all_rates, st.none() | all_rates, counts, usages(), st.integers(0, 5), st.sampled_from(SERVICES))
def test_tiers_images_and_classes_of_service_stay_within_their_bound(
    rates: Rates, long: Rates, other: Rates | None, above: int, usage: Usage, images: int, service: str
) -> None:
    long = msgspec.structs.replace(long, image=rates.request)
    rates = msgspec.structs.replace(rates, long=long, long_above=above, priority=other, image=rates.request)
    usage = msgspec.structs.replace(usage, images=images)
    found = cost(rates, usage, service)
    assert found <= cost_bound(rates, usage.input, usage.output, images, service)
    assert found <= cost_bound(rates, usage.input + 7, usage.output + 7, images, service)
    assert cost(rates, usage) == cost(rates, msgspec.structs.replace(usage, images=0)) + images * rates.image
    either = max(cost(rates, usage), 0 if other is None else cost(other, usage))
    assert either <= cost_bound(rates, usage.input, usage.output, images, "auto"), "a provider's setting decides"
    if service == "priority" and other is not None:
        assert found == cost(other, usage)
    elif usage.input > above:
        assert found == cost(long, usage)


def test_flex_is_listed_and_nowhere_dearer_than_the_ordinary_tier() -> None:
    """What is reserved for a call that may end at either is the ordinary price."""
    found = 0
    for provider in data_snapshot.get_snapshot().providers:
        for model in provider.models:
            rates = find_rates(f"{provider.id}/{model.id}", TODAY)
            if not isinstance(rates, Rates) or rates.flex is None:
                continue
            found += 1
            tokens = [(1, 0), (0, 1), (rates.long_above + 1, 0), (rates.long_above + 1, 10**6)]
            assert all(cost_bound(rates.flex, *each) <= cost_bound(rates, *each) for each in tokens), model.id
    assert found >= 20


@pytest.mark.parametrize(("said", "refused"), [("input: 2 USD/Mtok", True), ("cache_read: 1 USD/Mtok", False)])
def test_a_declared_price_of_flex_is_at_most_the_ordinary_one(said: str, refused: bool) -> None:
    value, _, amount = said.partition(": ")
    told = {"input": "1 USD/Mtok", "output": "3 USD/Mtok", "flex": {value: amount}}
    if refused:
        with pytest.raises(ValidationError, match="flex: input costs more"):
            Price.model_validate(told)
    else:
        assert Price.model_validate(told).flex is not None


def test_an_embedding_model_has_no_output_price() -> None:
    rates = find_rates("openai/text-embedding-3-small", TODAY)
    assert isinstance(rates, Rates)
    assert (rates.input, rates.output) == (20_000_000_000, 0)


def test_the_newest_declared_price_in_force_wins_over_the_list() -> None:
    old = Rates(input=10**12, output=2 * 10**12)
    new = Rates(input=150_000_000_000, output=1, effective="2026-01-01", source="declared a:3")
    later = Rates(input=9, output=9, effective="2027-01-01")
    rates = find_rates("openai/gpt-4.1-mini", TODAY, declared=(old, new, later))
    assert isinstance(rates, Rates)
    assert (rates.input, rates.source, rates.effective) == (150_000_000_000, "declared a:3", "2026-01-01")


def test_calls_of_a_batch_cost_less_only_where_somebody_declared_so_of_calls() -> None:
    half = Rates(input=5, output=5)
    declared, plain = Rates(input=10, output=10, batch=half, source="declared sites.yaml"), Rates(input=10, output=10)
    listed = find_rates("openai/gpt-4.1-mini", TODAY)
    assert isinstance(listed, Rates) and listed.batch is not None and listed.batch.input < listed.input
    assert batch_line_service(declared, ()) == "batch" and batch_line_service(declared, ["responses"]) == "batch"
    assert batch_line_service(declared, ["batches"]) == "standard", "that price is of the batch endpoint"
    assert (
        batch_line_service(listed, ())
        == batch_line_service(listed, ["batches"])
        == batch_line_service(plain, ())
        == "standard"
    )


def test_free_is_zero_and_says_so() -> None:
    rates = find_rates("smollm2-135m-instruct", TODAY, declared=(FREE,))
    assert isinstance(rates, Rates)
    assert cost(rates, Usage(input=1000, output=1000)) == 0
    assert rates.source == "declared free"


def test_an_unknown_price_is_a_problem_with_place_and_remedy() -> None:
    later = Rates(input=9, output=9, effective="2027-01-01")
    problem = find_rates("acme/secret-model", TODAY, declared=(later,), where=Where("sites.yaml", 7, 3))
    assert isinstance(problem, Problem)
    assert problem.code == "price_missing"
    assert "2027-01-01" in problem.message
    assert "for the time before" in problem.hint and str(problem).startswith("sites.yaml:7:3")
    without = find_rates("acme/secret-model", TODAY)
    assert isinstance(without, Problem) and "price: {" in without.hint


def test_known_price_is_what_the_catalog_asks() -> None:
    assert has_listed_price("openai/gpt-4.1-mini", TODAY)
    assert not has_listed_price("acme/secret-model", TODAY)
