"""Usage as providers report it is read once for all: whole bodies and the gateways' types give the same counts."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import msgspec
import pytest
from benchmarks import metering_bodies as bodies
from benchmarks.metering_shapes import GeminiUsage
from hypothesis import given
from hypothesis import strategies as st

from groundplan.blueprint.model import RateDetails, Rates
from groundplan.core.errors import Invalid, NotFound
from groundplan.economics.price import cost, cost_bound
from groundplan.economics.prices import price_list
from groundplan.economics.prices.parts import usage_parts
from groundplan.economics.prices.provider_usage import (
    MAX_TOKENS,
    ChatUsage,
    MessagesUsage,
    RealtimeUsage,
    ResponsesUsage,
)
from groundplan.ledger.model import Usage, UsageDetails

TODAY = date(2026, 11, 25)
counts = st.integers(0, 2_000_000)
rate = st.integers(0, 10**14)
maybe = st.none() | rate


def chat(prompt: int, completion: int, reasoning: int, total: int, **into: int) -> dict[str, Any]:
    return {
        "usage": {
            "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": total,
            "prompt_tokens_details": into, "completion_tokens_details": {"reasoning_tokens": reasoning},
        }
    }  # fmt: skip


def test_a_chat_answer_is_read_as_its_provider_counts() -> None:
    body = chat(100, 20, 7, 120, cached_tokens=60, audio_tokens=3)
    read = bodies.read_usage(body, "openai", "chat")
    assert read == Usage(input=100, output=20, cache_read=60, reasoning=7, input_audio=3)
    assert read == msgspec.convert(body["usage"], ChatUsage).usage()
    assert bodies.read_usage(body, "cerebras", "chat") == Usage(input=100, output=20, reasoning=7)
    assert bodies.read_usage(body, "x-ai", "chat").output == 27
    assert bodies.read_usage(body, "openai", "embeddings") == Usage(input=100)


def test_reasoning_that_the_totals_leave_out_is_counted_where_the_total_tells() -> None:
    beside = msgspec.convert(chat(100, 20, 7, 127)["usage"], ChatUsage).usage()
    within = msgspec.convert(chat(100, 20, 7, 120)["usage"], ChatUsage).usage()
    assert beside is not None and within is not None
    assert (beside.output, within.output) == (27, 20)


def test_what_a_total_has_above_the_counts_was_generated_where_nobody_says_by_what() -> None:
    """Gemini's OpenAI-shaped address tells thoughts by the total alone."""
    told: dict[str, Any] = {"prompt_tokens": 20, "completion_tokens": 424, "total_tokens": 1016}
    assert msgspec.convert(told, ChatUsage).usage() == Usage(input=20, output=996)
    assert msgspec.convert(told | {"total_tokens": 444}, ChatUsage).usage() == Usage(input=20, output=424)
    assert msgspec.convert(told | {"total_tokens": 3}, ChatUsage).usage() == Usage(input=20, output=424)
    assert msgspec.convert(told | {"total_tokens": 1 << 41}, ChatUsage).usage() is None
    assert msgspec.convert(told | {"completion_tokens": -1}, ChatUsage).usage() is None
    cached = told | {"prompt_tokens_details": {"cached_tokens": 16}}
    assert msgspec.convert(cached, ChatUsage).usage() == Usage(input=20, output=996, cache_read=16)
    response: dict[str, Any] = {"input_tokens": 32, "output_tokens": 9, "total_tokens": 135}
    response |= {"output_tokens_details": {"reasoning_tokens": 94}}
    assert msgspec.convert(response, ResponsesUsage).usage() == Usage(input=32, output=103, reasoning=94)
    assert msgspec.convert(response | {"output_tokens": -1}, ResponsesUsage).usage() is None


def test_what_a_cache_read_and_wrote_may_be_in_the_total_alone() -> None:
    """As Portkey tells of Claude. It is of the prompt, and nothing of it was generated."""
    told: dict[str, Any] = {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 6030}
    told |= {"cache_read_input_tokens": 5000, "cache_creation_input_tokens": 1000}
    expected = Usage(input=6010, output=20, cache_read=5000, cache_write=1000)
    assert msgspec.convert(told, ChatUsage).usage() == expected
    assert msgspec.convert(told | {"total_tokens": 6031}, ChatUsage).usage() == Usage(
        input=10, output=6021, cache_read=5000, cache_write=1000
    ), "any other total is not known to be that"
    assert msgspec.convert(told | {"prompt_tokens": -10, "total_tokens": 6010}, ChatUsage).usage() is None


@pytest.mark.parametrize("name", ["cached_tokens", "cache_read_input_tokens"])
def test_what_a_cache_read_is_told_beside_the_totals_too(name: str) -> None:
    told: dict[str, Any] = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120, name: 60}
    told |= {"reasoning_tokens": 7}
    assert msgspec.convert(told, ChatUsage).usage() == Usage(input=100, output=20, cache_read=60, reasoning=7)
    written = told | {"cache_creation_input_tokens": 30}
    both = Usage(input=100, output=20, cache_read=60, cache_write=30, reasoning=7)
    assert msgspec.convert(written, ChatUsage).usage() == both
    within = told | {"prompt_tokens_details": {"cached_tokens": 40}}
    assert msgspec.convert(within, ChatUsage).usage() == Usage(input=100, output=20, cache_read=40, reasoning=7)
    none = told | {name: 0, "reasoning_tokens": None}
    assert msgspec.convert(none, ChatUsage).usage() == Usage(input=100, output=20)
    assert msgspec.convert(told | {name: -1}, ChatUsage).usage() is None
    for other in ({"text": 3}, "60", 0.5, True):
        odd = told | {name: other, "reasoning_tokens": other}
        assert msgspec.convert(odd, ChatUsage).usage() == Usage(input=100, output=20), "it is something else there"


def test_what_the_cache_wrote_for_an_hour_is_told_from_the_rest() -> None:
    told = {
        "input_tokens": 3, "output_tokens": 44, "cache_read_input_tokens": 9511, "cache_creation_input_tokens": 1956,
        "cache_creation": {"ephemeral_5m_input_tokens": 956, "ephemeral_1h_input_tokens": 1000},
        "server_tool_use": {"web_search_requests": 2},
    }  # fmt: skip
    read = bodies.read_usage({"usage": told}, "anthropic")
    assert read == msgspec.convert(told, MessagesUsage).usage()
    assert (read.input, read.cache_write) == (3 + 9511 + 1956, 1956)
    assert read.details == UsageDetails(cache_write_5m=956, cache_write_1h=1000, searches=2)
    rates = price_list.rates("anthropic/claude-sonnet-4-5", TODAY)
    assert rates is not None and rates.cache_write is not None
    plain = cost(rates, msgspec.structs.replace(read, details=None))
    hour = cost(rates, read)
    assert rates.details is not None and rates.details.cache_write_1h is not None
    extra = 1000 * (rates.details.cache_write_1h - rates.cache_write) // 1_000_000
    assert hour - plain == extra + 2 * rates.details.search


def test_thoughts_and_prompts_of_tools_are_added_to_the_totals_of_gemini() -> None:
    told = {
        "promptTokenCount": 238, "candidatesTokenCount": 30, "thoughtsTokenCount": 151, "toolUsePromptTokenCount": 9,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 125}, {"modality": "AUDIO", "tokenCount": 113}],
    }  # fmt: skip
    read = bodies.read_usage({"usageMetadata": told}, "google")
    assert read == msgspec.convert(told, GeminiUsage).usage()
    assert (read.input, read.output, read.reasoning, read.input_audio) == (247, 181, 151, 113)
    assert bodies.count_by_class(read)["input_text_tokens"] == 125


def test_other_shapes_give_the_same_totals() -> None:
    converse = {"usage": {"inputTokens": 3, "outputTokens": 5, "cacheReadInputTokens": 7, "cacheWriteInputTokens": 11}}
    assert bodies.read_usage(converse, "aws") == Usage(input=21, output=5, cache_read=7, cache_write=11)
    billed = {"usage": {"billed_units": {"input_tokens": 5.0, "output_tokens": 2.0}, "tokens": {"input_tokens": 71.0}}}
    assert bodies.read_usage(billed, "cohere") == Usage(input=5, output=2)
    assert bodies.read_usage(billed, "cohere", "tokens") == Usage(input=71)
    responses = {"input_tokens": 9, "output_tokens": 4, "input_tokens_details": {"cached_tokens": 2}}
    assert bodies.read_usage({"usage": responses}, "openai", "responses") == Usage(input=9, output=4, cache_read=2)
    assert msgspec.convert(responses, ResponsesUsage).usage() == Usage(input=9, output=4, cache_read=2)
    talk = {"input_tokens": 9, "output_tokens": 4, "input_token_details": {"audio_tokens": 6}}
    assert bodies.read_usage({"response": {"usage": talk}}, "openai", "realtime").input_audio == 6
    assert msgspec.convert(talk, RealtimeUsage).usage() == Usage(input=9, output=4, input_audio=6)
    plural = {"input_tokens_details": {"audio_tokens": 6}, "output_tokens_details": {"audio_tokens": 3}}
    told = msgspec.convert({"input_tokens": 9, "output_tokens": 4} | plural, RealtimeUsage).usage()
    assert told == Usage(input=9, output=4, input_audio=6, output_audio=3), "as DashScope's sessions report it"


@pytest.mark.parametrize("usage", [{"prompt_tokens": -1}, {"prompt_tokens": MAX_TOKENS}, {"prompt_tokens": "many"}, []])
def test_what_cannot_be_true_is_refused(usage: Any) -> None:
    with pytest.raises(Invalid, match="cannot be read"):
        bodies.read_usage({"usage": usage}, "openai", "chat")


def test_an_unknown_api_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(NotFound) as refused:
        bodies.read_usage({}, "openai", "telepathy")
    assert "responses" in refused.value.hint


@st.composite
def fine_usages(draw: st.DrawFn) -> Usage:
    into, out = draw(counts), draw(counts)
    part = st.integers(0, into)
    back = st.integers(0, out)
    return Usage(
        input=into,
        output=out,
        cache_read=draw(part),
        cache_write=draw(part),
        input_audio=draw(part),
        reasoning=draw(back),
        output_audio=draw(back),
        details=UsageDetails(
            cache_write_1h=draw(part),
            cache_read_audio=draw(part),
            cache_read_image=draw(part),
            input_image=draw(part),
            input_video=draw(part),
            output_image=draw(back),
            citations=draw(back),
        ),
    )


fine_rates = st.builds(
    Rates,
    input=rate,
    output=rate,
    cache_read=maybe,
    cache_write=maybe,
    reasoning=maybe,
    input_audio=maybe,
    output_audio=maybe,
    details=st.none()
    | st.builds(
        RateDetails,
        cache_write_1h=maybe,
        cache_read_audio=maybe,
        cache_read_image=maybe,
        input_image=maybe,
        input_video=maybe,
        output_image=maybe,
        citations=maybe,
    ),
)


@given(fine_rates, fine_usages())
def test_every_token_is_counted_once_and_the_parts_are_the_cost(rates: Rates, usage: Usage) -> None:
    found = usage_parts(rates, usage)
    assert sum(part.count for part in found if part.side == "input") == usage.input
    assert sum(part.count for part in found if part.side == "output") == usage.output
    whole = sum(part.count * part.rate for part in found)
    assert cost(rates, usage) == -(-whole // 1_000_000) <= cost_bound(rates, usage.input, usage.output)


@given(fine_usages())
def test_classes_are_read_back_as_they_were(usage: Usage) -> None:
    read = bodies.usage_from_classes(bodies.count_by_class(usage))
    assert bodies.count_by_class(read) == bodies.count_by_class(usage)
    assert (read.details or UsageDetails()) == usage.details


def test_a_day_has_the_dearest_hour_and_a_time_its_own() -> None:
    day = price_list.provider_rates("deepseek", "deepseek-chat", TODAY)
    hours = {
        rates.input
        for hour in range(24)
        if (rates := price_list.provider_rates("deepseek", "deepseek-chat", datetime(2025, 5, 1, hour, tzinfo=UTC)))
    }
    assert day is not None and len(hours) >= 1
    past = price_list.provider_rates("deepseek", "deepseek-chat", datetime(2025, 5, 1, tzinfo=UTC).date())
    assert past is not None and past.input == max(hours)


def test_usages_are_added_with_their_details() -> None:
    one = Usage(input=3, output=1, details=UsageDetails(cache_write_1h=2))
    assert one + Usage(input=4) == Usage(input=7, output=1, details=UsageDetails(cache_write_1h=2))
    assert (one + one).details == UsageDetails(cache_write_1h=4)
