"""What OpenAI's clients are told of answers that the library made of other providers' ones."""

from __future__ import annotations

from typing import Any

import pytest
from any_llm.types.completion import (
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionMessage,
    Choice,
    ChoiceDelta,
    ChunkChoice,
    Reasoning,
)

from groundplan.gateway.upstream.retold import Chunks, completion


def chunk(finish: Any = None, **delta: Any) -> ChatCompletionChunk:
    choice = ChunkChoice(index=0, delta=ChoiceDelta.model_validate(delta), finish_reason=finish)
    return ChatCompletionChunk(
        id="c", choices=[choice], created=1, model="None", object="chat.completion.chunk",
    )  # fmt: skip


def told(*found: ChatCompletionChunk) -> list[dict[str, Any]]:
    chunks = Chunks("asked")
    return [made for each in found if (made := chunks.take(each)) is not None] + chunks.end()


def deltas(made: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [choice["delta"] for each in made for choice in each["choices"]]


def test_reasoning_is_told_under_the_name_that_servers_give_it() -> None:
    message = ChatCompletionMessage(role="assistant", content="a", reasoning=Reasoning(content="hm"))
    whole = completion(
        ChatCompletion(
            id="c", choices=[Choice(index=0, message=message, finish_reason="stop")], created=1, model="m",
            object="chat.completion",
        ),
        "asked",
    )  # fmt: skip
    assert whole["choices"][0]["message"]["reasoning_content"] == "hm"
    streamed = told(chunk(role="assistant", reasoning=Reasoning(content="hm")), chunk(content="a"), chunk("stop"))
    assert deltas(streamed) == [{"role": "assistant", "reasoning_content": "hm"}, {"content": "a"}, {}]


def test_a_role_is_said_once_and_a_model_that_is_not_known_is_the_one_that_was_asked() -> None:
    streamed = told(*[chunk(role="assistant", content="a")] * 3, chunk("stop"))
    assert [delta.get("role") for delta in deltas(streamed)] == ["assistant", None, None, None]
    assert {each["model"] for each in streamed} == {"asked"}


@pytest.mark.parametrize(("finish", "arguments"), [("tool_calls", "{}"), ("length", "")])
def test_a_call_without_arguments_has_an_empty_object(finish: str, arguments: str) -> None:
    """Unless it was cut off: there nobody knows them."""
    calls = [
        {"index": n, "id": f"c{n}", "type": "function", "function": {"name": "look", "arguments": text}}
        for n, text in enumerate(("", '{"a": 1}'))
    ]
    streamed = told(chunk(tool_calls=calls[:1]), chunk(tool_calls=calls[1:]), chunk(finish))
    said = ["", ""]
    for delta in deltas(streamed):
        for call in delta.get("tool_calls", ()):
            said[call["index"]] += call["function"]["arguments"]
    assert said == [arguments, '{"a": 1}'] and streamed[-1]["choices"][0]["finish_reason"] == finish
