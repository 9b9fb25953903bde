"""Tool calls of a chat answer in Messages and Responses: of custom tools, with arguments as an object, of any kind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from anthropic.types import Message, RawMessageStreamEvent
from openai.types.responses import Response, ResponseStreamEvent
from tests.integration.gateway_stack import deployment, parse_events
from tests.integration.sdk_types import parse_strictly
from tests.unit.raw_upstream import (
    DONE,
    ROLE,
    STREAM_HEAD,
    chunk,
    completion_body,
    encode_events,
    json_response,
    post,
    raw_upstream_rig,
)

from groundplan.core.errors import Invalid
from groundplan.gateway.surfaces.responses.to_chat import Translation
from groundplan.gateway.upstream import providers

REQUESTS: dict[str, dict[str, Any]] = {
    "/v1/messages": {"model": "auto", "max_tokens": 20, "messages": [{"role": "user", "content": "x"}]},
    "/v1/responses": {"model": "auto", "max_output_tokens": 20, "input": "x"},
}
SCRIPT = 'print("ä")\n'
SIGNED = {"google": {"thought_signature": "c2ln"}}
CUSTOM = {"id": "c0", "type": "custom", "custom": {"name": "run", "input": SCRIPT}}
OBJECT = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": {"a": [1, "x"]}}}
FUNCTION = {"id": "c2", "type": "function", "function": {"name": "look", "arguments": "{}"}}
UNKNOWN = {"id": "c3", "type": "search", "search": {"query": "x"}}
INPUTS: dict[str, Any] = {"c0": {"input": SCRIPT}, "c1": {"a": [1, "x"]}, "c2": {}}
"""By the id of a call: the input of its tool_use."""
PIECES = [
    {"index": 0, "id": "c0", "type": "custom", "custom": {"name": "run", "input": ""}},
    *({"index": 0, "custom": {"input": part}} for part in ('print("', 'ä")\n')),
    {"index": 1, **OBJECT},
    {"index": 2, **UNKNOWN},
    {"index": 3, **FUNCTION},
]


def whole(*calls: dict[str, Any], finish: str = "tool_calls") -> bytes:
    message = {"role": "assistant", "content": "Hi", "tool_calls": list(calls)}
    return json_response(completion_body(choices=[{"index": 0, "message": message, "finish_reason": finish}]))


def streamed(*pieces: dict[str, Any], finish: str = "tool_calls") -> bytes:
    deltas: list[dict[str, Any]] = [{"content": "Hi"}, *({"tool_calls": [piece]} for piece in pieces)]
    return STREAM_HEAD + encode_events(ROLE, *map(chunk, deltas), chunk({}, finish), DONE)


async def answer(folder: Path, path: str, upstream: bytes, *, stream: bool = False) -> list[dict[str, Any]]:
    """The whole answer, or the events of a stream, of the types of the API's official client."""
    async with raw_upstream_rig(folder, upstream) as rig:
        reply = await post(rig, path, {**REQUESTS[path], "stream": stream})
        assert reply.status == 200, reply.body
        (settlement,) = await rig.settlements()
        assert settlement.outcome == "ok"
    kinds: dict[str, tuple[Any, Any]] = {
        "/v1/messages": (Message, RawMessageStreamEvent), "/v1/responses": (Response, ResponseStreamEvent),
    }  # fmt: skip
    found = parse_events(reply.body) if stream else [json.loads(reply.body)]
    for each in found:
        if each.get("type") != "ping":  # the client ignores it
            parse_strictly(kinds[path][stream], json.dumps(each))
    return found


def called(items: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """(type, id, name, input) of the calls among the output items of a response."""
    return [
        (item["type"], item["call_id"], item["name"], item.get("input", item.get("arguments")))
        for item in items
        if item["type"] != "message"
    ]


CALLED: list[tuple[Any, ...]] = [
    ("custom_tool_call", "c0", "run", SCRIPT),
    ("function_call", "c1", "look", '{"a":[1,"x"]}'),
    ("function_call", "c2", "look", "{}"),
]


async def test_a_response_has_calls_of_every_kind_and_names_what_it_cannot_have(tmp_path: Path) -> None:
    (response,) = await answer(tmp_path, "/v1/responses", whole(CUSTOM, OBJECT, UNKNOWN, FUNCTION))
    assert called(response["output"]) == CALLED
    assert response["groundplan"]["left_out"] == ["answer.tool_calls"]


async def test_calls_of_a_response_may_be_sent_back(tmp_path: Path) -> None:
    (response,) = await answer(tmp_path, "/v1/responses", whole({**CUSTOM, "extra_content": SIGNED}, FUNCTION))
    custom, function = [item for item in response["output"] if item["type"] != "message"]
    results = [
        {"type": "custom_tool_call_output", "call_id": custom["call_id"], "output": "one"},
        {"type": "function_call_output", "call_id": function["call_id"], "output": "two"},
    ]
    made = Translation(json.dumps({"input": [*response["output"], *results]}).encode())
    said, *told = made.messages
    assert said["tool_calls"] == [{**CUSTOM, "extra_content": SIGNED}, FUNCTION] and said["content"] == "Hi"
    assert [(each["tool_call_id"], each["content"]) for each in told] == [("c0", "one"), ("c2", "two")]
    fields = {"messages": msgspec.Raw(json.dumps(made.messages).encode())}
    assert providers.capable_deployments(fields, [deployment("one", 1)])
    with pytest.raises(Invalid, match="tool_calls of type custom"):
        providers.capable_deployments(fields, [deployment("one", 1, api="mistral")])


def test_an_unknown_field_of_a_custom_call_is_refused_by_its_name() -> None:
    item = {"type": "custom_tool_call", "call_id": "c0", "name": "run", "input": "x", "later": 1}
    with pytest.raises(Invalid) as refused:
        Translation(json.dumps({"input": [item]}).encode())
    assert refused.value.details["field"] == "input: custom_tool_call.later"


async def test_a_streamed_response_has_calls_of_every_kind(tmp_path: Path) -> None:
    events = await answer(tmp_path, "/v1/responses", streamed(*PIECES), stream=True)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    response = events[-1]["response"]
    assert called(response["output"]) == CALLED
    assert events[-1]["groundplan"]["left_out"] == ["answer.tool_calls"]
    custom = [event for event in events if event["type"].startswith("response.custom_tool_call_input.")]
    *deltas, done = custom
    assert "".join(event["delta"] for event in deltas) == done["input"] == SCRIPT and len(deltas) == 2
    assert {event["item_id"] for event in custom} == {response["output"][1]["id"]}


async def test_a_message_has_calls_of_every_kind_and_names_what_it_cannot_have(tmp_path: Path) -> None:
    (message,) = await answer(tmp_path, "/v1/messages", whole(CUSTOM, OBJECT, UNKNOWN, FUNCTION))
    used = [block for block in message["content"] if block["type"] == "tool_use"]
    assert {block["id"]: block["input"] for block in used} == INPUTS
    assert [block["name"] for block in used] == ["run", "look", "look"] and message["stop_reason"] == "tool_use"
    assert message["groundplan"]["left_out"] == ["answer.tool_calls"]


async def test_a_streamed_message_has_calls_of_every_kind(tmp_path: Path) -> None:
    events = await answer(tmp_path, "/v1/messages", streamed(*PIECES), stream=True)
    names = {e["index"]: e["content_block"].get("id") for e in events if e["type"] == "content_block_start"}
    texts = dict.fromkeys(names.values(), "")
    for event in events:
        if event["type"] == "content_block_delta":
            texts[names[event["index"]]] += event["delta"].get("partial_json", "")
    assert {name: json.loads(text) for name, text in texts.items() if name is not None} == INPUTS
    assert events[-1]["groundplan"]["left_out"] == ["answer.tool_calls"]


async def test_of_a_custom_tool_nothing_tells_whether_its_input_was_cut_off(tmp_path: Path) -> None:
    """So a message that was cut off has no such call at its end, as it has no function's whose arguments are cut."""
    (message,) = await answer(tmp_path, "/v1/messages", whole(FUNCTION, CUSTOM, finish="length"))
    assert [block["id"] for block in message["content"] if block["type"] == "tool_use"] == ["c2"]
    assert message["stop_reason"] == "max_tokens"


@pytest.mark.parametrize("path", REQUESTS)
async def test_pieces_of_a_custom_tool_wait_for_the_call_before_them(tmp_path: Path, path: str) -> None:
    """Some servers interleave calls; what follows a custom tool waits for the end, since its own end is not known."""
    half = {"index": 0, "id": "c2", "type": "function", "function": {"name": "look", "arguments": "{"}}
    rest = {"index": 0, "function": {"arguments": "}"}}
    events = await answer(tmp_path, path, streamed(half, {"index": 1, **CUSTOM}, rest), stream=True)
    if path == "/v1/responses":
        assert called(events[-1]["response"]["output"]) == [CALLED[2], CALLED[0]]
    else:
        starts = [event["content_block"] for event in events if event["type"] == "content_block_start"]
        assert [block["id"] for block in starts if block["type"] == "tool_use"] == ["c2", "c0"]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_message_whose_only_call_is_left_out_asks_for_no_result(tmp_path: Path, stream: bool) -> None:
    """Agents run tools for as long as the stop reason is `tool_use`."""
    upstream = streamed({"index": 0, **UNKNOWN}) if stream else whole(UNKNOWN)
    found = await answer(tmp_path, "/v1/messages", upstream, stream=stream)
    reasons = [each.get("stop_reason") or each.get("delta", {}).get("stop_reason") for each in found]
    assert list(filter(None, reasons)) == ["end_turn"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", REQUESTS)
async def test_a_call_of_the_first_kind_is_named(tmp_path: Path, path: str, stream: bool) -> None:
    """`function_call`, and what ran at the provider."""
    extras = {"function_call": {"name": "look", "arguments": "{}"}, "executed_tools": [{"type": "search"}]}
    message = {"role": "assistant", "content": "Hi", **extras}
    body = completion_body(choices=[{"index": 0, "message": message, "finish_reason": "stop"}])
    events = STREAM_HEAD + encode_events(ROLE, chunk({"content": "Hi", **extras}), chunk({}, "stop"), DONE)
    found = await answer(tmp_path, path, events if stream else json_response(body), stream=stream)
    assert found[-1]["groundplan"]["left_out"] == ["answer.executed_tools", "answer.function_call"]
