"""A chat answer says the same in every API whether it is whole or a stream, however its upstream cuts it into chunks:
official clients put together from the events what the whole answer has."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from anthropic.lib.streaming._messages import accumulate_event
from anthropic.types import RawMessageStreamEvent
from hypothesis import given, settings
from hypothesis import strategies as st
from openai import omit
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter
from tests.integration.gateway_stack import parse_events

from groundplan.gateway.call.ask import Ask
from groundplan.gateway.http.sse import DONE
from groundplan.gateway.surfaces import completions
from groundplan.gateway.surfaces.chat.surface import CHAT
from groundplan.gateway.surfaces.chat.surface import read as read_chat
from groundplan.gateway.surfaces.messages import surface as messages
from groundplan.gateway.surfaces.responses import surface as responses
from groundplan.ledger.model import Usage

_message_event = TypeAdapter[Any](RawMessageStreamEvent).validate_python
_response_event = TypeAdapter[Any](ResponseStreamEvent).validate_python

TEXT = st.text(max_size=12)
ARGUMENTS = st.dictionaries(st.text(max_size=3), TEXT | st.integers(-9, 9) | st.none(), max_size=2).map(json.dumps)
COUNT = st.integers(0, 60)


@st.composite
def chat_answers(draw: st.DrawFn, *, tools: bool = True) -> dict[str, Any]:
    """Whole answers of chat, with one choice."""
    calls = draw(st.lists(ARGUMENTS, max_size=3)) if tools else []
    message: dict[str, Any] = {"role": "assistant", "content": draw(TEXT | st.none())}
    if draw(st.booleans()):
        message["reasoning_content"] = draw(TEXT)
    if not message["content"] and draw(st.booleans()):
        message["refusal"] = draw(TEXT)
    if calls:
        message["tool_calls"] = [
            {"id": f"c{n}", "type": "function", "function": {"name": f"f{n}", "arguments": text}}
            for n, text in enumerate(calls)
        ]
    finishes = ["tool_calls", "stop"] if calls else ["stop", "length", "content_filter"]
    answer: dict[str, Any] = {"id": "chatcmpl-1", "object": "chat.completion", "created": 7, "model": "m"}
    answer["choices"] = [{"index": 0, "message": message, "finish_reason": draw(st.sampled_from(finishes))}]
    if draw(st.booleans()):
        read, written, reasoned = draw(COUNT), draw(COUNT), draw(COUNT)
        prompt, completion = read + written + draw(COUNT) + 1, reasoned + draw(COUNT) + 1
        answer["usage"] = {
            "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": read, "cache_write_tokens": written},
            "completion_tokens_details": {"reasoning_tokens": reasoned},
        }  # fmt: skip
    if draw(st.booleans()):
        answer["service_tier"] = draw(st.sampled_from(["default", "priority", "flex"]))
    return answer


def pieces_of(draw: st.DrawFn, text: str) -> list[str]:
    """The text cut into pieces, some of them perhaps empty."""
    at = sorted(draw(st.lists(st.integers(0, len(text)), max_size=3)))
    return [text[a:b] for a, b in zip([0, *at], [*at, len(text)], strict=True)]


@st.composite
def cut_answers(draw: st.DrawFn, *, tools: bool = True) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """(an answer, the chunks of its stream)."""
    answer = draw(chat_answers(tools=tools))
    (choice,) = answer["choices"]
    message = choice["message"]
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}][: draw(st.integers(0, 1))]
    for name in ("reasoning_content", "content", "refusal"):
        if message.get(name) is not None:
            deltas += [{name: piece} for piece in pieces_of(draw, message[name])]
    for number, call in enumerate(message.get("tool_calls", ())):
        first, *rest = pieces_of(draw, call["function"]["arguments"])
        begun = {**call, "index": number, "function": {**call["function"], "arguments": first}}
        deltas.append({"tool_calls": [begun]})
        deltas += [{"tool_calls": [{"index": number, "function": {"arguments": piece}}]} for piece in rest]
    head: dict[str, Any] = {**answer, "object": "chat.completion.chunk"}
    for name in ("choices", "usage"):
        head.pop(name, None)
    chunks = [{**head, "choices": [{"index": 0, "delta": each, "finish_reason": None}]} for each in deltas]
    ended = {"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}
    if draw(st.booleans()) and chunks:  # as Gemini and Mistral end
        ended["delta"] = chunks.pop()["choices"][0]["delta"]
    chunks.append({**head, "choices": [ended]})
    if "usage" in answer:
        if draw(st.booleans()):
            chunks[-1]["usage"] = answer["usage"]
        else:
            chunks.append({**head, "choices": [], "usage": answer["usage"]})
    return answer, chunks


def encode(value: Any) -> bytes:
    return json.dumps(value).encode()


Read = Callable[[], Ask]


def told(codec: Any, read: Read, answer: dict[str, Any], chunks: list[dict[str, Any]]) -> tuple[Any, ...]:
    """(the whole answer, the events of the stream, what was left out and the usage of each)."""
    whole_ask, stream_ask = read(), read()
    whole = codec.parse_answer(encode(answer), whole_ask)
    relay = codec.new_relay(stream_ask)
    out = b"".join([relay.feed(encode(each)) for each in chunks] + [relay.feed(DONE)])
    assert relay.complete and relay.done
    out += relay.closing_events(b"{}")
    assert whole_ask.left_out == stream_ask.left_out
    assert relay.usage == whole.usage
    return json.loads(whole.data), [event for event in parse_events(out) if event != "[DONE]"], relay.usage


ASKED = {"role": "user", "content": "x"}


@given(cut_answers())
@settings(deadline=None, max_examples=60)
def test_a_message_is_the_same_whole_and_streamed(said: tuple[dict[str, Any], list[dict[str, Any]]]) -> None:
    body = encode({"model": "m", "max_tokens": 99, "messages": [ASKED]})
    whole, events, usage = told(messages.MESSAGES.via_chat, lambda: messages.read(body, {}), *said)
    snapshot: Any = None
    for event in [each for each in events if each["type"] != "ping"]:
        snapshot = accumulate_event(event=_message_event(event), current_snapshot=snapshot)
    found = snapshot.model_dump(exclude_unset=True)
    assert [plain(each) for each in found["content"]] == [plain(each) for each in whole["content"]]
    names = ("id", "model", "role", "stop_reason", "stop_sequence", *(["usage"] if usage else []))
    assert {name: plain(found[name]) for name in names} == {name: plain(whole[name]) for name in names}


def plain(value: Any) -> Any:
    """A value without the fields that say nothing."""
    return {name: each for name, each in value.items() if each is not None} if isinstance(value, dict) else value


@given(cut_answers())
@settings(deadline=None, max_examples=60)
def test_a_response_is_the_same_whole_and_streamed(said: tuple[dict[str, Any], list[dict[str, Any]]]) -> None:
    body = encode({"model": "m", "max_output_tokens": 99, "input": "x"})
    whole, events, usage = told(responses.RESPONSES.via_chat, lambda: responses.read(body), *said)
    state: Any = ResponseStreamState(input_tools=[], text_format=omit)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    for event in events:
        state.handle_event(_response_event(event))
    last = events[-1]["response"]
    assert without_ids(last["output"]) == without_ids(whole["output"])
    names = {"output", "id", "created_at", "completed_at", "groundplan", *([] if usage else ["usage"])}
    assert {k: v for k, v in last.items() if k not in names} == {k: v for k, v in whole.items() if k not in names}
    assert ids_told(events) == [each["id"] for each in last["output"]]
    assert texts_told(events) == texts_of(last["output"])


def without_ids(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The items that say something, for comparison: a whole answer has a message also where it is empty."""
    told = [each for each in items if each.get("content") != []]
    return [{name: value for name, value in each.items() if name != "id"} for each in told]


def ids_told(events: list[dict[str, Any]]) -> list[str]:
    """Ids of the items that began, each of which has ended, too."""
    begun = [event["item"]["id"] for event in events if event["type"] == "response.output_item.added"]
    ended = [event["item"]["id"] for event in events if event["type"] == "response.output_item.done"]
    assert begun == ended
    return begun


def texts_told(events: list[dict[str, Any]]) -> dict[tuple[str, int], str]:
    found: dict[tuple[str, int], str] = {}
    for event in events:
        if event["type"].endswith(".delta"):
            place = event["item_id"], event.get("content_index", -1)
            found[place] = found.get(place, "") + event["delta"]
    return {place: text for place, text in found.items() if text}


def texts_of(items: list[dict[str, Any]]) -> dict[tuple[str, int], str]:
    found: dict[tuple[str, int], str] = {}
    for item in items:
        if item["type"] == "function_call":
            found[item["id"], -1] = item["arguments"]
        for number, part in enumerate(item.get("content") or ()):
            found[item["id"], number] = part.get("text") or part.get("refusal") or ""
    return {place: text for place, text in found.items() if text}


@given(cut_answers(tools=False))
@settings(deadline=None, max_examples=60)
def test_a_completion_is_the_same_whole_and_streamed(said: tuple[dict[str, Any], list[dict[str, Any]]]) -> None:
    body = encode({"model": "m", "max_tokens": 99, "prompt": "x", "stream_options": {"include_usage": True}})
    whole, events, _ = told(completions.COMPLETIONS.via_chat, lambda: completions.read(body), *said)
    (choice,) = whole["choices"]
    told_choices = [each for event in events for each in event["choices"]]
    assert "".join(each["text"] for each in told_choices) == choice["text"]
    assert [each["finish_reason"] for each in told_choices if each["finish_reason"]] == [choice["finish_reason"]]
    reported = [event["usage"] for event in events if event.get("usage")]
    assert [counts(each) for each in reported] == ([counts(whole["usage"])] if "usage" in whole else [])
    assert {(event["id"], event["model"], event["created"]) for event in events} == {
        (whole["id"], whole["model"], whole["created"])
    }


def counts(usage: dict[str, Any]) -> dict[str, Any]:
    """A report without the counts that are zero."""
    flat = {(name, ""): value for name, value in usage.items() if isinstance(value, int)}
    flat |= {(name, key): n for name, each in usage.items() if isinstance(each, dict) for key, n in each.items()}
    return {"/".join(name): value for name, value in flat.items() if value}


@given(cut_answers(), st.booleans())
@settings(deadline=None, max_examples=60)
def test_a_chat_keeps_all_that_is_streamed(
    said: tuple[dict[str, Any], list[dict[str, Any]]], include_usage: bool
) -> None:
    answer, chunks = said
    body = encode(
        {"model": "m", "messages": [ASKED], "stream": True, "stream_options": {"include_usage": include_usage}}
    )
    relay = CHAT.via_chat.new_relay(read_chat(body))
    out = b"".join([relay.feed(encode(each)) for each in chunks] + [relay.feed(DONE)]) + relay.closing_events(b"{}")
    events = [event for event in parse_events(out) if event != "[DONE]"]
    assert [each for event in events for each in event["choices"]] == [c for each in chunks for c in each["choices"]]
    reported = [event["usage"] for event in events if event.get("usage")]
    assert reported == ([answer["usage"]] if include_usage and "usage" in answer else [])
    assert relay.usage == CHAT.via_chat.parse_answer(encode(answer), read_chat(body)).usage
    assert isinstance(relay.usage, Usage) == ("usage" in answer)
