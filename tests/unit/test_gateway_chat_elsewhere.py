"""Chat answers in Messages, Responses and Completions: what has no field there is told, and costs nobody the answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from anthropic.types import Message, RawMessageStreamEvent
from openai.types import Completion
from openai.types.completion_usage import CompletionTokensDetails, PromptTokensDetails
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

from groundplan.blueprint.model import Cache, Deployment, Keep
from groundplan.core.errors import Invalid
from groundplan.core.home import Home
from groundplan.gateway.caching.cache_link import AnswerLink, StoreMessage, accept_answer
from groundplan.gateway.surfaces.chat import surface as chat
from groundplan.gateway.surfaces.chat.answer_types import AnswerMessage, parse_completion
from groundplan.gateway.surfaces.chat.storing import STORED_CHAT, RecordingRelay
from groundplan.gateway.surfaces.chat.surface import CHAT, ServiceChat
from groundplan.gateway.surfaces.messages import from_chat_stream as messages_stream
from groundplan.gateway.surfaces.messages import to_chat as messages_to_chat
from groundplan.gateway.surfaces.responses import to_chat as responses_to_chat
from groundplan.ledger.model import Usage

IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
FILE = {"type": "file", "file": {"hash": "h", "content": []}}
PAGE = {"type": "url_citation", "url_citation": {"url": "https://example.org", "title": "A"}}
REFERENCE = {"type": "reference", "reference_ids": [1]}
MESSAGE: dict[str, Any] = {
    "content": [{"type": "text", "text": "Hi "}, REFERENCE, {"type": "text", "text": "there"}],
    "reasoning_content": "what is asked?",
    "images": [IMAGE],
    "annotations": [PAGE, FILE],
    "extra_content": {"google": {"thought_signature": "c2ln"}},
    "audio": {"id": "a", "data": "AA==", "transcript": "Hi", "expires_at": 0},
}
TOLD = [f"answer.{name}" for name in ("annotations", "audio", "extra_content", "images", "reasoning", "reference")]
REQUESTS: dict[str, dict[str, Any]] = {
    "/v1/messages": {"model": "auto", "max_tokens": 20, "messages": [{"role": "user", "content": "x"}]},
    "/v1/responses": {"model": "auto", "max_output_tokens": 20, "input": "x"},
    "/v1/completions": {"model": "auto", "max_tokens": 20, "prompt": "x"},
}
USAGE = {
    "prompt_tokens": 9, "completion_tokens": 7, "total_tokens": 16,
    "prompt_tokens_details": {"cached_tokens": 4}, "completion_tokens_details": {"reasoning_tokens": 5},
}  # fmt: skip


def whole(message: dict[str, Any], finish: str = "stop", **more: Any) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
    return json_response(completion_body(choices=[choice], **more))


def streamed(*deltas: dict[str, Any], finish: str = "stop", **more: Any) -> bytes:
    return STREAM_HEAD + encode_events(ROLE, *map(chunk, deltas), chunk({}, finish, **more), DONE)


def events_of(body: bytes, *, stream: bool) -> list[Any]:
    return [each for each in parse_events(body) if each != "[DONE]"] if stream else [json.loads(body)]


def facts_of(body: bytes, *, stream: bool) -> dict[str, Any]:
    facts: dict[str, Any] = events_of(body, stream=stream)[-1]["groundplan"]
    return facts


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", REQUESTS)
async def test_what_an_api_has_no_field_for_is_told(tmp_path: Path, path: str, stream: bool) -> None:
    sent = streamed(*({name: value} for name, value in MESSAGE.items())) if stream else whole(MESSAGE)
    async with raw_upstream_rig(tmp_path, sent) as rig:
        reply = await post(rig, path, {**REQUESTS[path], "stream": stream})
        assert reply.status == 200, reply.body
        (settlement,) = await rig.settlements()
        assert settlement.outcome == "ok"
    assert facts_of(reply.body, stream=stream)["left_out"] == TOLD
    assert b"there" in reply.body and b"what is asked" not in reply.body
    assert (b"example.org" in reply.body) is (path != "/v1/completions")


@pytest.mark.parametrize("path", REQUESTS)
async def test_of_a_plain_answer_nothing_is_left_out(tmp_path: Path, path: str) -> None:
    message = {"content": "Hi", "reasoning_content": "", "images": [], "annotations": [], "extra_content": {}}
    async with raw_upstream_rig(tmp_path, whole(message)) as rig:
        reply = await post(rig, path, REQUESTS[path])
    assert reply.status == 200 and "left_out" not in reply.json["groundplan"]


async def test_completions_tell_web_pages_and_calls_that_they_leave_out(tmp_path: Path) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    message = {"content": "Hi", "annotations": [PAGE], "tool_calls": [call]}
    async with raw_upstream_rig(tmp_path, whole(message)) as rig:
        reply = await post(rig, "/v1/completions", REQUESTS["/v1/completions"])
    assert reply.json["groundplan"]["left_out"] == ["answer.annotations", "answer.tool_calls"]


@pytest.mark.parametrize(
    ("kind", "told"), [("audio", "answer.audio"), ("a b", "answer.content"), ("", "answer.content")]
)
def test_parts_of_any_type_have_a_name(kind: str, told: str) -> None:
    made = msgspec.json.decode(json.dumps({"content": [{"type": kind}]}), type=AnswerMessage)
    assert made.untranslated() == [told] and made.text == ""


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", REQUESTS)
async def test_parts_of_any_shape_cost_nobody_an_answer(tmp_path: Path, path: str, stream: bool) -> None:
    parts = [{"type": 7}, {"type": None, "text": 3}, {"type": "text", "text": ["x"]}, {"type": "text", "text": "Hi"}]
    sent = streamed({"content": parts}) if stream else whole({"content": parts})
    async with raw_upstream_rig(tmp_path, sent) as rig:
        reply = await post(rig, path, {**REQUESTS[path], "stream": stream})
        assert reply.status == 200 and b"Hi" in reply.body
        (settlement,) = await rig.settlements()
        assert settlement.outcome == "ok"
    assert facts_of(reply.body, stream=stream)["left_out"] == ["answer.content"]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_completion_has_the_refusal_behind_its_text(tmp_path: Path, stream: bool) -> None:
    message = {"content": "Hi", "refusal": "No more."}
    sent = streamed(message) if stream else whole(message)
    async with raw_upstream_rig(tmp_path, sent) as rig:
        reply = await post(rig, "/v1/completions", {**REQUESTS["/v1/completions"], "stream": stream})
    texts = [choice["text"] for each in events_of(reply.body, stream=stream) for choice in each["choices"]]
    assert "".join(texts) == "Hi\nNo more."


def test_reasoning_in_parts_is_named() -> None:
    parts = [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}, {"type": "text", "text": "Hi"}]
    made = msgspec.json.decode(json.dumps({"content": parts}), type=AnswerMessage)
    assert made.untranslated() == ["answer.reasoning"] and made.text == "Hi"


def test_a_message_never_thought_more_tokens_than_it_has() -> None:
    told = messages_stream.usage_json(Usage(input=9, output=3, reasoning=5))
    assert told["output_tokens_details"] == {"thinking_tokens": 3}


def test_a_text_that_is_none_is_named() -> None:
    for text, told in (("Hi", []), (None, []), (["x"], ["answer.content"])):
        made = msgspec.json.decode(json.dumps({"content": [{"type": "text", "text": text}]}), type=AnswerMessage)
        assert made.untranslated() == told


@pytest.mark.parametrize("stream", [False, True])
async def test_a_cached_answer_tells_it_too(tmp_path: Path, stream: bool) -> None:
    """Also in another worker, to which a stored answer is sent."""
    cache = Cache(seconds=60, max_bytes=1 << 20, scope="workload")
    declared = {"assistant": {"cache": cache, "keep": Keep(content="full", seconds=60)}}
    message = {"content": "Hi", "images": [IMAGE]}
    sent = streamed(message, usage=USAGE) if stream else whole(message, usage=USAGE)
    body = {**REQUESTS["/v1/messages"], "stream": stream}
    async with raw_upstream_rig(tmp_path, sent, workloads=declared) as rig:
        link, frames = AnswerLink(rig.gateway, Home(tmp_path)), list[bytes]()
        link.send_frame = lambda data: not frames.append(data)  # type: ignore[method-assign, func-returns-value]
        found = [facts_of((await post(rig, "/v1/messages", body)).body, stream=stream) for _ in range(2)]
        rig.gateway.answer_cache._clear("assistant")
        (kept,) = (msgspec.msgpack.decode(each, type=StoreMessage).kept for each in frames)
        assert kept is not None and accept_answer(rig.gateway, kept)
        found.append(facts_of((await post(rig, "/v1/messages", body)).body, stream=stream))
    assert [each["cache"] for each in found] == ["none", "exact", "exact"]
    assert [each["left_out"] for each in found] == [["answer.images"]] * 3


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("finish", "cut"), [
        ("model_length", "length"), ("model_context_window_exceeded", "length"), ("sensitive", "content_filter"),
    ]
)  # fmt: skip
@pytest.mark.parametrize("path", REQUESTS)
async def test_an_answer_that_was_cut_is_told_so_in_every_api(
    tmp_path: Path, path: str, finish: str, cut: str, stream: bool
) -> None:
    """Whatever the upstream calls it: Mistral and Z.ai have words of their own."""
    sent = streamed({"content": "Hi"}, finish=finish) if stream else whole({"content": "Hi"}, finish)
    async with raw_upstream_rig(tmp_path, sent) as rig:
        reply = await post(rig, path, {**REQUESTS[path], "stream": stream})
    events = events_of(reply.body, stream=stream)
    if path == "/v1/messages":
        reasons = [each.get("stop_reason") or each.get("delta", {}).get("stop_reason") for each in events]
        assert {"length": "max_tokens", "content_filter": "refusal"}[cut] in reasons
    elif path == "/v1/responses":
        last = events[-1].get("response", events[-1])
        reason = {"length": "max_output_tokens", "content_filter": "content_filter"}[cut]
        assert (last["status"], last["incomplete_details"]) == ("incomplete", {"reason": reason})
    else:
        assert [each["choices"][0]["finish_reason"] for each in events if each["choices"]][-1] == cut


def checked_completion(event: dict[str, Any]) -> Completion:
    """A completion or a piece of one: the client's type has no value for an answer that has not ended."""
    for choice in event["choices"]:
        choice["finish_reason"] = choice["finish_reason"] or "stop"
    parsed: Completion = parse_strictly(Completion, json.dumps(event))
    return parsed


@pytest.mark.parametrize("stream", [False, True])
async def test_a_completion_has_all_of_the_usage_and_the_fingerprint(tmp_path: Path, stream: bool) -> None:
    more: dict[str, Any] = {"usage": USAGE, "system_fingerprint": "fp_1"}
    sent = streamed({"content": "Hi"}, **more) if stream else whole({"content": "Hi"}, **more)
    options: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    async with raw_upstream_rig(tmp_path, sent) as rig:
        reply = await post(rig, "/v1/completions", {**REQUESTS["/v1/completions"], **options})
    events = events_of(reply.body, stream=stream)
    (raw,) = [each["usage"] for each in events if each.get("usage")]
    assert raw["prompt_tokens_details"] == {"cached_tokens": 4}, "clients take null for a count"
    assert raw["completion_tokens_details"] == {"reasoning_tokens": 5}
    found = [checked_completion(event) for event in events]
    used = next(each.usage for each in found if each.usage is not None)
    assert used.prompt_tokens_details == PromptTokensDetails(cached_tokens=4)
    assert used.completion_tokens_details == CompletionTokensDetails(reasoning_tokens=5)
    assert found[-1].system_fingerprint == "fp_1"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("tier", "told"), [("default", "standard"), ("priority", "priority"), ("flex", None)])
async def test_a_message_has_the_tokens_of_thinking_and_the_tier(
    tmp_path: Path, tier: str, told: str | None, stream: bool
) -> None:
    if stream:
        first = chunk({"role": "assistant"}, service_tier=tier)
        sent = STREAM_HEAD + encode_events(first, chunk({"content": "Hi"}), chunk({}, "stop", usage=USAGE), DONE)
    else:
        sent = whole({"content": "Hi"}, usage=USAGE, service_tier=tier)
    async with raw_upstream_rig(tmp_path, sent) as rig:
        reply = await post(rig, "/v1/messages", {**REQUESTS["/v1/messages"], "stream": stream})
    if not stream:
        usage = parse_strictly(Message, reply.body).usage
        assert (usage.service_tier, usage.output_tokens_details.thinking_tokens) == (told, 5)
        return
    told_events = [each for each in parse_events(reply.body) if each["type"] != "ping"]  # the client ignores it
    events = [parse_strictly(RawMessageStreamEvent, json.dumps(each)) for each in told_events]
    (begun,) = [each for each in events if each.type == "message_start"]
    (ended,) = [each for each in events if each.type == "message_delta"]
    assert begun.message.usage.service_tier == told
    assert ended.usage.output_tokens_details.thinking_tokens == 5


@pytest.mark.parametrize("codec", [ServiceChat(), STORED_CHAT._service])
@pytest.mark.parametrize("stream", [False, True])
def test_what_the_translating_service_left_out_is_told_in_chat(stream: bool, codec: ServiceChat) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "stream": stream}
    ask, told = chat.read(json.dumps(body).encode()), ["answer.citations"]
    if stream:
        relay = codec.new_relay(ask)
        pieces = [chunk({"content": "Hi"}), chunk({}, "stop", left_out=told), chunk({}, usage=USAGE), DONE]
        out = b"".join(map(relay.feed, pieces)) + relay.closing_events(b"{}")
        assert relay.complete and (not isinstance(relay, RecordingRelay) or relay.completion() is not None)
    else:
        out = codec.parse_answer(completion_body(left_out=told), ask).data
    assert b"Hi" in out and b"left_out" not in out
    assert CHAT.extra_facts(ask, cast("Deployment", None)) == {"left_out": told}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", REQUESTS)
async def test_what_the_translating_service_left_out_is_told_in_every_api(
    tmp_path: Path, path: str, stream: bool
) -> None:
    told = ["answer.citations"]
    sent = streamed({"content": "Hi"}, left_out=told) if stream else whole({"content": "Hi"}, left_out=told)
    async with raw_upstream_rig(tmp_path, sent) as rig:
        reply = await post(rig, path, {**REQUESTS[path], "stream": stream})
    assert facts_of(reply.body, stream=stream)["left_out"] == told


@pytest.mark.parametrize("value", [None, "x", 1, {"a": 1}, [1, None, {}]])
def test_a_field_of_that_name_which_means_something_else_is_no_error(value: Any) -> None:
    assert parse_completion(completion_body(left_out=value)).left_out == []


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "head", [{"id": None, "model": None, "created": None}, {"id": 7, "model": {"a": 1}, "created": 1.5}]
)
@pytest.mark.parametrize("path", REQUESTS)
async def test_no_answer_is_lost_for_its_id_model_time_or_number(
    tmp_path: Path, path: str, head: dict[str, Any], stream: bool
) -> None:
    """Of other types than OpenAI's; chat passes them as they came."""
    sent = json.loads(completion_body(**head))
    sent["choices"][0]["index"] = None
    if stream:
        pieces = [
            json.loads(each) for each in (chunk({"content": "Hi"}, **head), chunk({}, "stop", usage=USAGE, **head))
        ]
        for each in pieces:
            each["choices"][0]["index"] = None
        answer = STREAM_HEAD + encode_events(*(json.dumps(each).encode() for each in pieces), DONE)
    else:
        answer = json_response(json.dumps(sent).encode())
    async with raw_upstream_rig(tmp_path, answer) as rig:
        reply = await post(rig, path, {**REQUESTS[path], "stream": stream})
        assert reply.status == 200 and b"Hi" in reply.body
        (settlement,) = await rig.settlements()
        assert settlement.outcome == "ok"
    kinds: dict[str, tuple[Any, Any]] = {
        "/v1/messages": (Message, RawMessageStreamEvent), "/v1/responses": (Response, ResponseStreamEvent),
        "/v1/completions": (Completion, Completion),
    }  # fmt: skip
    for event in events_of(reply.body, stream=stream):
        if path == "/v1/completions":
            checked_completion(event)
        elif event.get("type") != "ping":
            parse_strictly(kinds[path][stream], json.dumps(event))


SETTINGS: dict[str, Any] = {
    "instructions": "Be brief.", "max_output_tokens": 20, "max_tool_calls": 3, "metadata": {"a": "b"},
    "parallel_tool_calls": False, "prompt_cache_key": "k", "prompt_cache_retention": "24h",
    "reasoning": {"effort": "low", "summary": "auto"}, "safety_identifier": "s", "temperature": 0.5,
    "text": {"format": {"type": "text"}, "verbosity": "low"}, "tool_choice": "auto",
    "tools": [{"type": "function", "name": "look", "description": "d", "parameters": {}, "strict": True}],
    "top_logprobs": 0, "top_p": 0.5, "truncation": "disabled", "user": "u",
}  # fmt: skip


@pytest.mark.parametrize("stream", [False, True])
async def test_a_response_repeats_all_settings_of_its_request(tmp_path: Path, stream: bool) -> None:
    known = {name for name in Response.model_fields if name in responses_to_chat._FIELDS}
    assert known - set(SETTINGS) == {"background", "model", "previous_response_id", "service_tier"}
    sent = streamed({"content": "Hi"}) if stream else whole({"content": "Hi"})
    async with raw_upstream_rig(tmp_path, sent) as rig:
        reply = await post(rig, "/v1/responses", {"model": "auto", "input": "x", "stream": stream, **SETTINGS})
    assert reply.status == 200, reply.body
    events = events_of(reply.body, stream=stream)
    for told in (event.get("response", event) for event in (events[0], events[-1])):
        parse_strictly(Response, json.dumps(told))
        assert {name: told.get(name) for name in SETTINGS} == SETTINGS


# what clients send back, or ask for ----------------------------------------------------------------------------------


async def test_chat_gets_an_earlier_response_back_without_its_annotations(tmp_path: Path) -> None:
    annotation = {"type": "url_citation", "url": "https://example.org", "title": "A", "start_index": 0, "end_index": 1}
    logprob = {"token": "Hi", "logprob": -0.1, "bytes": [72, 105], "top_logprobs": []}
    part = {"type": "output_text", "text": "Hi", "annotations": [annotation], "logprobs": [logprob]}
    item = {"type": "message", "role": "assistant", "content": [part], "id": "msg_1", "status": "completed"}
    earlier = [{"role": "user", "content": "x"}, {**item, "phase": "final_answer"}, {"role": "user", "content": "y"}]
    async with raw_upstream_rig(tmp_path, whole({"content": "Hi"})) as rig:
        reply = await post(rig, "/v1/responses", {"model": "auto", "input": earlier})
    assert reply.json["groundplan"]["left_out"] == ["annotations", "logprobs", "phase"]
    plain = [{**item, "content": [{**part, "annotations": [], "logprobs": []}]}]
    assert responses_to_chat.Translation(json.dumps({"input": plain}).encode()).left_out == set()


def thinking(**given: Any) -> messages_to_chat.Translation:
    body = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 9, "thinking": given}
    return messages_to_chat.Translation(json.dumps(body).encode())


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"type": "adaptive"}, set()),
        ({"type": "adaptive", "display": "omitted"}, set()),
        ({"type": "adaptive", "display": None}, set()),
        ({"type": "adaptive", "display": "summarized"}, {"thinking.display"}),
        (
            {"type": "enabled", "budget_tokens": 1024, "display": "summarized"},
            {"thinking.budget_tokens", "thinking.display"},
        ),
        ({"type": "disabled"}, {"thinking.type"}),
        ({"type": "between_tools"}, {"thinking.type"}),
    ],
)
def test_what_of_thinking_chat_cannot_say_is_told(given: dict[str, Any], told: set[str]) -> None:
    assert thinking(**given).left_out == told


@pytest.mark.parametrize("earlier", [None, "msg_1"])
def test_a_question_about_the_providers_cache_is_left_out_of_chat(earlier: str | None) -> None:
    body = {"messages": [{"role": "user", "content": "x"}], "diagnostics": {"previous_message_id": earlier}}
    made = messages_to_chat.Translation(json.dumps(body).encode())
    assert (made.left_out, set(made.fields)) == ({"diagnostics"}, {"messages"})


def test_an_unknown_field_of_thinking_is_refused_by_its_name() -> None:
    with pytest.raises(Invalid) as refused:
        thinking(type="adaptive", depth=3)
    assert refused.value.details["field"] == "thinking.depth"


def test_a_function_call_whose_field_says_no_is_no_reason_to_refuse_it() -> None:
    """A provider's own Responses say `async: false` of each call, and clients send calls back as they came."""
    call = {"type": "function_call", "call_id": "c", "name": "look", "arguments": "{}", "async": False}
    made = responses_to_chat.Translation(json.dumps({"input": [call]}).encode())
    assert made.messages[0]["tool_calls"][0]["id"] == "c"


@pytest.mark.parametrize(
    ("api", "told"),
    [
        ("anthropic", ["extra_content", "reasoning"]), ("gemini", ["reasoning"]), ("mistral", ["extra_content"]),
        ("openai", None),
    ],
)  # fmt: skip
def test_what_another_provider_does_not_get_of_earlier_answers_is_told(api: str, told: list[str] | None) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    signed = {**call, "extra_content": {"google": {"thought_signature": "c2ln"}}}
    earlier = {"role": "assistant", "content": "Hi", "reasoning_content": "hm", "tool_calls": [signed]}
    plain = {**earlier, "reasoning_content": "", "tool_calls": [call]}
    added = {**plain, "extra_content": signed["extra_content"]}
    told_of_added = [name for name in told or () if name != "reasoning"] or None
    for message, names in ((earlier, told), (plain, None), (added, told_of_added)):
        body = {"model": "m", "messages": [{"role": "user", "content": "x"}, message, {"role": "user", "content": "y"}]}
        ask, place = chat.read(json.dumps(body).encode()), deployment("one", 1, api=api)
        CHAT.codec(place).request_body(ask, place, 9, [])
        assert CHAT.extra_facts(ask, place).get("left_out") == names
