"""Prices to the picodollar, and bounds that no usage within them exceeds."""

from __future__ import annotations

import json
from fractions import Fraction
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace

from groundplan.blueprint.model import Deployment, Rates
from groundplan.economics import price as formula
from groundplan.economics.prices.provider_usage import ChatUsage
from groundplan.gateway.call import pricing
from groundplan.gateway.call.ask import Ask
from groundplan.gateway.call.feature import feature_of
from groundplan.gateway.surfaces import embeddings
from groundplan.gateway.surfaces.chat import surface as chat
from groundplan.gateway.surfaces.chat.surface import CHAT
from groundplan.gateway.surfaces.embeddings import EMBEDDINGS
from groundplan.gateway.surfaces.messages import surface as messages
from groundplan.gateway.surfaces.messages.surface import MESSAGES
from groundplan.ledger.model import Usage

rate = st.integers(0, 10**14)
tokens = st.integers(0, 10**6)
rates = st.builds(
    Rates,
    input=rate,
    output=rate,
    cache_read=st.none() | rate,
    cache_write=st.none() | rate,
    reasoning=st.none() | rate,
    input_audio=st.none() | rate,
    output_audio=st.none() | rate,
    request=rate,
)


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    read, write, audio, plain = draw(tokens), draw(tokens), draw(tokens), draw(tokens)
    reasoning, spoken, said = draw(tokens), draw(tokens), draw(tokens)
    return Usage(
        input=read + write + audio + plain, output=reasoning + spoken + said, cache_read=read, cache_write=write,
        reasoning=reasoning, input_audio=audio, output_audio=spoken,
    )  # fmt: skip


def either(own: int | None, parent: int) -> int:
    return parent if own is None else own


@given(usages(), rates)
def test_cost_is_exact_and_rounded_up_once(usage: Usage, price: Rates) -> None:
    exact = Fraction(
        (usage.input - usage.cache_read - usage.cache_write - usage.input_audio) * price.input
        + usage.cache_read * either(price.cache_read, price.input)
        + usage.cache_write * either(price.cache_write, price.input)
        + usage.input_audio * either(price.input_audio, price.input)
        + (usage.output - usage.reasoning - usage.output_audio) * price.output
        + usage.reasoning * either(price.reasoning, price.output)
        + usage.output_audio * either(price.output_audio, price.output),
        1_000_000,
    )
    cost = formula.cost(price, usage) - price.request
    assert 0 <= cost - exact < 1


@given(usages(), rates)
def test_no_usage_within_its_bound_costs_more_than_the_bound(usage: Usage, price: Rates) -> None:
    assert formula.cost(price, usage) <= formula.cost_bound(price, usage.input, usage.output)


def test_contradictory_and_impossible_reports() -> None:
    price = Rates(input=1_000_000, output=2_000_000)
    assert formula.cost(price, Usage(input=5, cache_read=9)) == 9
    assert ChatUsage(prompt_tokens=-1, completion_tokens=4).usage() is None
    assert ChatUsage(prompt_tokens=3, completion_tokens=1 << 50).usage() is None
    assert ChatUsage(prompt_tokens=3, completion_tokens=4).usage() == Usage(input=3, output=4)


def test_a_feature_is_a_short_name() -> None:
    assert feature_of(b"refund-form/v2") == "refund-form/v2"
    for odd in (None, b"", b"two words", b"a" * 65, b"=cmd()", "caf\u00e9".encode()):
        assert feature_of(odd) == ""


def place(rates: Rates, serves: list[str] | None = None, **more: Any) -> Deployment:
    return Deployment(
        name="one", site="s", model="m", upstream_model="m", url="http://h/v1", rates=rates, serves=serves or [], **more
    )


def ask(service: str, line: bool) -> Ask:
    return Ask(
        fields={}, model="m", messages=1, query="", stream=False, include_usage=False, cap=20, copies=1, size=9,
        service=service, is_batch_line=line,
    )  # fmt: skip


def test_what_a_provider_says_of_tools_by_itself_is_reserved_for() -> None:
    """Anthropic's instructions about tools are hundreds of tokens, whatever the tools are."""
    body = {"model": "auto", "messages": [{"role": "user", "content": "a"}]}
    tool = {"type": "function", "function": {"name": "f"}}
    for api, extra in (("openai", 0), ("anthropic", chat.TOOL_TOKENS), ("cohere", chat.TOOL_TOKENS)):
        for fields, added in (({}, 0), ({"tools": [tool]}, extra), ({"response_format": {"type": "text"}}, extra)):
            raw = json.dumps(body | fields).encode()
            usage, _ = CHAT.estimate(chat.read(raw), place(Rates(input=1, output=1), api=api), 0, 0, 20)
            assert usage.input == len(raw) + 3 * 16 + added


@given(
    usages(), rates, st.none() | rates, st.none() | rates, st.sampled_from(["auto", "standard", "priority", "flex"]),
    st.booleans(), st.sampled_from([None, "batches"]), st.sampled_from(["", "default", "priority", "scale", "flex"]),
)  # fmt: skip
@example(
    Usage(input=9, output=1), Rates(input=2, output=2), None, Rates(input=1, output=1), "auto", True, None, "priority",
)  # fmt: skip
def test_whatever_class_an_answer_is_of_was_reserved(
    usage: Usage, price: Rates, dear: Rates | None, half: Rates | None, asked: str, line: bool, serves: str | None,
    tier: str,
) -> None:  # fmt: skip
    cheap = replace(price, input=price.input // 2)
    one = place(replace(price, priority=dear, batch=half, flex=cheap), None if serves is None else [serves])
    this = ask(asked, line and asked not in ("priority", "flex"))
    cost, known = pricing.answer_cost(this, one, replace(usage, service_tier=tier))
    assert known == (tier != "scale" and (tier != "priority" or dear is not None))
    if tier != "priority" or asked not in ("standard", "flex"):
        assert cost <= pricing.cost_bound(this, one, usage.input, usage.output), "whatever it names"
    if tier == "scale":
        return
    if this.is_batch_line and half is not None and serves is None and tier != "priority":
        assert cost == formula.cost(half, usage)
    elif tier == "flex" or (asked == "flex" and not tier):
        assert cost == formula.cost(cheap, usage)
    elif tier != "priority" and asked != "priority":
        assert cost == formula.cost(price, usage), "a call at the ordinary endpoint is billed in full"
    elif tier == "priority" or (asked == "priority" and not tier):
        own = half if this.is_batch_line and half is not None and serves is None else price
        assert cost == formula.cost(dear or own, usage), "also where the answer does not name it"


def test_a_line_whose_price_of_batches_is_the_dearest_is_reserved_at_it() -> None:
    plain = Rates(input=0, output=0)
    one = place(replace(plain, priority=plain, batch=replace(plain, request=7)))
    assert (
        pricing.answer_cost(ask("auto", line=True), one, Usage())[0]
        == 7
        == pricing.cost_bound(ask("auto", line=True), one, 0, 0)
    )


def test_a_line_that_can_end_in_no_other_class_is_reserved_at_its_price_of_batches_alone() -> None:
    plain = Rates(input=0, output=10 * 10**6)
    one = place(replace(plain, batch=replace(plain, output=5 * 10**6)))
    for asked in ("auto", "standard"):
        assert pricing.cost_bound(ask(asked, line=True), one, 0, 20) == 100


def test_a_tier_without_a_price_costs_the_dearest_that_has_one() -> None:
    one = place(Rates(input=10**12, output=0, priority=Rates(input=2 * 10**12, output=0)))
    usage = Usage(input=5, service_tier="scale")
    assert pricing.answer_cost(ask("auto", line=False), one, usage) == (10 * 10**6, False)
    assert pricing.answer_cost(ask("auto", line=False), one, replace(usage, service_tier="on_demand")) == (
        5 * 10**6,
        True,
    )
    assert pricing.answer_cost(ask("standard", line=False), one, usage) == (5 * 10**6, False), (
        "nothing dearer was reserved"
    )


def test_a_line_whose_tier_has_no_price_costs_what_was_reserved_for_it() -> None:
    """Else the workload of a batch was stopped for a name."""
    one, usage = place(Rates(input=10**7, output=0, batch=Rates(input=5 * 10**6, output=0))), Usage(input=9)
    for asked in ("auto", "standard"):
        told = pricing.answer_cost(ask(asked, line=True), one, replace(usage, service_tier="scale"))
        assert told == (45, False) and told[0] == pricing.cost_bound(ask(asked, line=True), one, 9, 0)


def test_a_line_that_is_called_reserves_the_dearer_tier_in_which_it_may_end() -> None:
    half, dear = Rates(input=5 * 10**6, output=0), Rates(input=20 * 10**6, output=0)
    one = place(Rates(input=10**7, output=0, batch=half, priority=dear))
    line, asked = ask("auto", line=True), ask("standard", line=True)
    assert (pricing.cost_bound(line, one, 1, 0), pricing.cost_bound(asked, one, 1, 0)) == (20, 5)
    assert pricing.answer_cost(line, one, Usage(input=1, service_tier="priority")) == (20, True)
    assert pricing.answer_cost(line, one, Usage(input=1, service_tier="default")) == (5, True)
    assert pricing.cost_bound(line, place(one.rates, ["batches"]), 1, 0) == 20
    assert pricing.answer_cost(line, place(one.rates, ["batches"]), Usage(input=1)) == (10, True)


ONE = Rates(input=10**6, output=10**6)
"""A picodollar for each token."""


@given(st.integers(1, 10**8), st.integers(1, 10**7))
def test_a_bound_by_bytes_is_exact(millionths: int, size: int) -> None:
    one = place(ONE, tokens_per_byte=millionths / 10**6, input_overhead_tokens=7)
    assert pricing.text_bound(one, size) == -(-size * millionths // 10**6)
    assert pricing.input_bound(one, size, 3) == pricing.text_bound(one, size) + 7 * 5


def test_prompts_and_answers_are_bounded_by_what_is_declared_of_the_tokenizer() -> None:
    body = json.dumps({"model": "auto", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 20}).encode()
    asked, plain = chat.read(body), place(ONE)
    more = place(ONE, tokens_per_byte=1.5, input_overhead_tokens=20)
    assert CHAT.cost_bound(asked, plain, 9, 20) == len(body) + 9 + 16 * 3 + 20
    assert CHAT.cost_bound(asked, more, 9, 20) == -(-(len(body) + 9) * 3 // 2) + 20 * 3 + 20
    for each in (plain, more):
        found = CHAT.cost_bound(asked, each, 9, 20), CHAT.token_bound(asked, each, 9, 20)
        assert CHAT.cost_and_token_bounds(asked, each, 9, 20) == found
    assert CHAT.estimate(asked, plain, 0, 7, 20)[0].output == 7
    assert CHAT.estimate(asked, more, 0, 7, 20)[0].output == 11, "what streamed has so many tokens at most"
    assert CHAT.estimate(asked, more, 0, 70, 20)[0].output == 20
    most, _ = CHAT.estimate(asked, more, 9, 0, 20)
    assert CHAT.token_bound(asked, more, 9, 20) == most.input + most.output, "what limits count is what is reserved for"


def test_what_is_no_text_counts_whatever_the_tokenizer_makes_of_texts() -> None:
    few = place(ONE, tokens_per_byte=0.25)
    ids = list(range(100_000, 100_080))
    for told, most in ((ids, 80 + 16 * 3), ([ids, ids[:20]], 100 + 16 * 4)):
        asked_for = embeddings.read(json.dumps({"model": "auto", "input": told}).encode())
        assert EMBEDDINGS.cost_bound(asked_for, few, 0, 0) == most, (
            "each number is one token, however long it is written"
        )
    mixed = json.dumps({"model": "auto", "input": ["a", ids]}).encode()
    assert EMBEDDINGS.cost_bound(embeddings.read(mixed), few, 0, 0) == len(mixed)
    tool = {"name": "look", "input_schema": {"type": "object"}}
    asked = {"model": "auto", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 20, "tools": [tool]}
    body = json.dumps(asked).encode()
    assert MESSAGES.cost_bound(messages.read(body, {}), few, 0, 20) == -(-len(body) // 4) + 1024 + 16 * 3 + 20
