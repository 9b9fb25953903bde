"""What OpenAI's clients are told of answers that the library made of other providers' ones."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from any_llm.providers.gemini.base import GoogleProvider
from any_llm.types.completion import (
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionMessage,
    Choice,
    ChoiceDelta,
    ChunkChoice,
    CompletionUsage,
    Reasoning,
)
from google.genai.types import EmbedContentResponse

from groundplan.gateway.upstream.translation.answer_patches import (
    patch_cohere,
    patch_google_embeddings,
)
from groundplan.gateway.upstream.translation.answers import ChunkConverter, to_completion


def chunk(finish: Any = None, **delta: Any) -> ChatCompletionChunk:
    choice = ChunkChoice(index=0, delta=ChoiceDelta.model_validate(delta), finish_reason=finish)
    return ChatCompletionChunk(
        id="c", choices=[choice], created=1, model="None", object="chat.completion.chunk",
    )  # fmt: skip


def convert_chunks(*found: ChatCompletionChunk, one: bool = False) -> list[dict[str, Any]]:
    chunks = ChunkConverter("asked", single_call=one)
    return [made for each in found if (made := chunks.convert(each)) is not None] + chunks.final_chunks()


def deltas(made: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [choice["delta"] for each in made for choice in each["choices"]]


def test_reasoning_is_told_under_the_name_that_servers_give_it() -> None:
    message = ChatCompletionMessage(role="assistant", content="a", reasoning=Reasoning(content="hm"))
    whole = to_completion(
        ChatCompletion(
            id="c", choices=[Choice(index=0, message=message, finish_reason="stop")], created=1, model="m",
            object="chat.completion",
        ),
        "asked",
    )  # fmt: skip
    assert whole["choices"][0]["message"]["reasoning_content"] == "hm"
    streamed = convert_chunks(
        chunk(role="assistant", reasoning=Reasoning(content="hm")), chunk(content="a"), chunk("stop")
    )
    assert deltas(streamed) == [{"role": "assistant", "reasoning_content": "hm"}, {"content": "a"}, {}]


def test_a_role_is_said_once_and_a_model_that_is_not_known_is_the_one_that_was_asked() -> None:
    streamed = convert_chunks(*[chunk(role="assistant", content="a")] * 3, chunk("stop"))
    assert [delta.get("role") for delta in deltas(streamed)] == ["assistant", None, None, None]
    assert {each["model"] for each in streamed} == {"asked"}


@pytest.mark.parametrize(("finish", "arguments"), [("tool_calls", "{}"), ("length", "")])
def test_a_call_without_arguments_has_an_empty_object(finish: str, arguments: str) -> None:
    """Unless it was cut off: there nobody knows them."""
    calls = [
        {"index": n, "id": f"c{n}", "type": "function", "function": {"name": "look", "arguments": text}}
        for n, text in enumerate(("", '{"a": 1}'))
    ]
    streamed = convert_chunks(chunk(tool_calls=calls[:1]), chunk(tool_calls=calls[1:]), chunk(finish))
    said = ["", ""]
    for delta in deltas(streamed):
        for call in delta.get("tool_calls", ()):
            said[call["index"]] += call["function"]["arguments"]
    assert said == [arguments, '{"a": 1}'] and streamed[-1]["choices"][0]["finish_reason"] == finish


@pytest.mark.parametrize("same", [False, True])
def test_an_answer_that_may_call_one_tool_has_its_first_call(same: bool) -> None:
    """Whether the library numbers its calls or gives all of them 0, and in one chunk or in several."""

    def call(number: int, text: str) -> dict[str, Any]:
        function = {"name": "look", "arguments": text}
        return {"index": 0 if same else number, "id": f"c{number}", "type": "function", "function": function}

    calls = [call(0, "{}"), call(1, '{"a": 1}')]
    for pieces in ([calls], [calls[:1], calls[1:]]):
        streamed = convert_chunks(
            *(chunk(tool_calls=each) for each in pieces), chunk(content="b"), chunk("stop"), one=True
        )
        said = deltas(streamed)
        assert [each["id"] for delta in said for each in delta.get("tool_calls", ())] == ["c0"]
        assert any(delta.get("content") == "b" for delta in said)
        assert all(delta.get("tool_calls") != [] for delta in said), "a client takes none for an answer without calls"
        assert streamed[-1]["choices"][0]["finish_reason"] == "tool_calls"
    message = ChatCompletionMessage.model_validate({"role": "assistant", "content": "b", "tool_calls": calls})
    whole = ChatCompletion(
        id="c", choices=[Choice(index=0, message=message, finish_reason="tool_calls")], created=1, model="m",
        object="chat.completion",
    )  # fmt: skip
    for one in (True, False):
        made = to_completion(whole, "asked", single_call=one)["choices"][0]["message"]
        assert [each["id"] for each in made["tool_calls"]] == ["c0", "c1"][: 1 if one else 2] and made["content"] == "b"


@pytest.mark.parametrize(
    ("said", "tokens"),
    [
        ({"embeddings": [{"values": [0.5], "statistics": {"token_count": 3.0}}]}, 3),
        ({"embeddings": [{"values": [0.5]}], "usage_metadata": {"prompt_token_count": 4}}, 4),
        ({"embeddings": [{"values": [0.5]}]}, 0),
        ({"embeddings": [{"values": [0.5], "statistics": {"token_count": 3.0}}, {"values": [0.5]}]}, 0),
    ],
)
def test_what_google_read_for_vectors_is_told_where_it_says_so(said: dict[str, Any], tokens: int) -> None:
    """The library never does: 0 is for whoever knows that nothing is embedded for nothing."""
    told = patch_google_embeddings(GoogleProvider._convert_embedding_response)
    made = told({"model": "m", "result": EmbedContentResponse.model_validate(said)})
    assert (made.usage.prompt_tokens, made.usage.total_tokens) == (tokens, tokens)


@pytest.mark.parametrize(
    ("units", "cached", "told"),
    [((10.4, 2.2), 4, (11, 3, 4)), ((10.4, 2.2), 900, (11, 3, 11)), ((None, 2.0), 0, (0, 2, 0))],
)
def test_what_cohere_bills_is_told_in_whole_tokens(
    units: tuple[float | None, float], cached: int, told: tuple[int, int, int]
) -> None:
    """Not what its model read, with what Cohere itself puts in front."""
    read = CompletionUsage(prompt_tokens=500, completion_tokens=4, total_tokens=504)
    message = ChatCompletionMessage(role="assistant", content="a")
    whole = ChatCompletion(
        id="c", choices=[Choice(index=0, message=message, finish_reason="stop")], created=1, model="m",
        object="chat.completion", usage=read,
    )  # fmt: skip
    billed = SimpleNamespace(input_tokens=units[0], output_tokens=units[1])
    answer = SimpleNamespace(message=None, usage=SimpleNamespace(billed_units=billed, cached_tokens=cached))
    usage = patch_cohere(lambda _: whole)(answer).usage
    details = usage.prompt_tokens_details
    found = (usage.prompt_tokens, usage.completion_tokens, 0 if details is None else details.cached_tokens)
    assert found == told and usage.total_tokens == sum(told[:2])


def test_usage_that_says_nothing_is_none() -> None:
    """The library says 0 of what some providers did not say, and then it is counted by whoever gets the answer."""
    nothing = CompletionUsage(prompt_tokens=0, completion_tokens=0, total_tokens=0)
    message = ChatCompletionMessage(role="assistant", content="a")
    whole = ChatCompletion(
        id="c", choices=[Choice(index=0, message=message, finish_reason="stop")], created=1, model="m",
        object="chat.completion", usage=nothing,
    )  # fmt: skip
    assert "usage" not in to_completion(whole, "asked")
    last = chunk("stop")
    last.usage = nothing
    assert all("usage" not in each for each in convert_chunks(chunk(content="a"), last))
    last.usage = CompletionUsage(prompt_tokens=1, completion_tokens=2, total_tokens=3)
    assert convert_chunks(chunk(content="a"), last)[-1]["usage"]["total_tokens"] == 3


def test_of_usage_that_a_stream_tells_in_parts_each_count_is_the_largest() -> None:
    chunks = ChunkConverter("asked")
    for read, written, cached in ((10, 5, 4), (8, 7, 2)):
        usage = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
        part = chunk(content="a")
        details = {"cached_tokens": cached, "of_its_own": 3}
        part.usage = CompletionUsage.model_validate({**usage, "prompt_tokens_details": details})
        chunks.convert(part)
    told = {"prompt_tokens": 10, "completion_tokens": 7, "total_tokens": 17}
    assert chunks.final_chunks()[-1]["usage"] == {**told, "prompt_tokens_details": {"cached_tokens": 4}}


@pytest.mark.parametrize(
    ("content", "counted", "told"),
    [("a", (11, 4), True), ("", (11, 0), True), ("a", (11, 0), False), ("a", (0, 4), False), ("", (0, 0), False)],
)
def test_usage_of_which_a_part_cannot_be_is_none(content: str, counted: tuple[int, int], told: bool) -> None:
    """Ollama's of a prompt that it knew, and Gemini's of a stream that ended too early: it is counted here."""
    read, written = counted
    usage = CompletionUsage(prompt_tokens=read, completion_tokens=written, total_tokens=read + written)
    message = ChatCompletionMessage(role="assistant", content=content)
    whole = ChatCompletion(
        id="c", choices=[Choice(index=0, message=message, finish_reason="stop")], created=1, model="m",
        object="chat.completion", usage=usage,
    )  # fmt: skip
    assert ("usage" in to_completion(whole, "asked")) is told
    chunks = ChunkConverter("asked")
    for each in (chunk(role="assistant", content=content), chunk("stop").model_copy(update={"usage": usage})):
        chunks.convert(each)
    assert any("usage" in each for each in chunks.final_chunks()) is told
