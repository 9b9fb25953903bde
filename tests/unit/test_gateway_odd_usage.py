"""Usage that upstreams report oddly, in part or not at all: the answer is given, and what it cost is counted by us."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.unit.call_rig import BOUND
from tests.unit.raw_upstream import (
    DONE,
    HI,
    ROLE,
    STREAM_HEAD,
    THERE,
    check_complete_stream,
    chunk,
    completion_body,
    encode_events,
    json_response,
    post,
    raw_upstream_rig,
    usage_chunk,
)

from groundplan.blueprint.model import Rates
from groundplan.core.money import PICO
from groundplan.economics.prices.provider_usage import ChatUsage
from groundplan.gateway.surfaces.codec import Malformed, final_usage
from groundplan.gateway.surfaces.completions import CompletionsRelay
from groundplan.ledger.model import Finish, Reservation, Settlement, Usage

WRONG = [
    b'{"prompt_tokens":-5,"completion_tokens":3,"total_tokens":-2}',
    b'{"prompt_tokens":5,"completion_tokens":%d}' % 10**30,
    b'{"prompt_tokens":5,"completion_tokens":%d}' % 2**41,
    b'{"prompt_tokens":5.5,"completion_tokens":3}',
    b'{"prompt_tokens":1e400,"completion_tokens":3}',
    b'{"prompt_tokens":null,"completion_tokens":null,"total_tokens":null}',
    b'{"prompt_tokens":"5","completion_tokens":"3"}',
    b'{"prompt_tokens":5,"completion_tokens":3,"prompt_tokens_details":[]}',
    b'{"prompt_tokens":5}',
    b"{}",
    b"[1]",
    b'"none"',
    b'{"prompt_tokens":0,"completion_tokens":3,"total_tokens":3}',
]


@pytest.mark.parametrize("usage", [*WRONG, b'{"prompt_tokens":5,"completion_tokens":0,"total_tokens":5}'])
async def test_usage_that_cannot_be_read_costs_nobody_the_answer(tmp_path: Path, usage: bytes) -> None:
    async with raw_upstream_rig(tmp_path, STREAM_HEAD, encode_events(ROLE, HI, THERE, usage_chunk(usage), DONE)) as rig:
        only = await check_complete_stream(rig)
        assert only.estimated and only.flags == ["no_usage"] and only.usage.output == len("Hi there")


CHAT, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"
COMPLETIONS = "/v1/completions"
CALL: dict[str, Any] = {"name": "f", "arguments": "a b c d e"}
HIDDEN: list[dict[str, Any]] = [
    {"reasoning": "a b c d e"},
    {"reasoning_content": "a b c d e"},
    {"refusal": "a b c d e"},
    {"tool_calls": [{"index": 0, "id": "t", "function": CALL}]},
]


@pytest.mark.parametrize(
    ("delta", "path"),
    [
        *((delta, path) for delta in HIDDEN for path in (CHAT, MESSAGES, RESPONSES)),
        ({"function_call": CALL}, CHAT),  # which only chat has
    ],
)
async def test_what_is_said_beside_the_text_is_counted_where_nobody_reports_usage(
    tmp_path: Path, delta: dict[str, Any], path: str
) -> None:
    sent = encode_events(ROLE, HI, chunk(delta), chunk(delta))
    asks: dict[str, Any] = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 100}
    if path == RESPONSES:
        asks = {"input": "x", "max_output_tokens": 100}
    async with raw_upstream_rig(tmp_path, STREAM_HEAD + sent) as rig:
        await post(rig, path, {"model": "auto", "stream": True, **asks})
        (only,) = await rig.settlements()
    assert only.flags == ["no_usage", "cut"] and only.usage.output >= len("Hi ") + 2 * len("a b c d e")


REPORTED = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
FAILED: dict[str, Any] = {"error": {"message": "overloaded", "code": 502}}


async def broken_attempt(folder: Path, path: str, *events: bytes, **more: Any) -> Settlement:
    """The settlement of a call whose upstream sends a part of an answer and then `events`."""
    asks: dict[str, Any] = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 100}
    if path != CHAT and path != MESSAGES:
        asks = {"input": "x", "max_output_tokens": 100} if path == RESPONSES else {"prompt": "x", "max_tokens": 100}
    head, tail = STREAM_HEAD + encode_events(ROLE, HI), encode_events(*events)
    async with raw_upstream_rig(folder, head, tail) as rig:
        reply = await post(rig, path, {"model": "auto", "stream": True, **asks, **more})
        assert b"the answer broke off" in reply.body and b"[DONE]" not in reply.body
        (only,) = await rig.settlements()
        assert only.outcome == "failed"
        await rig.books()
        return only


@pytest.mark.parametrize("path", [CHAT, MESSAGES, RESPONSES, COMPLETIONS])
@pytest.mark.parametrize(
    "failure",
    [
        json.dumps({**FAILED, "usage": REPORTED}).encode(),
        chunk({"content": ""}, "error", **FAILED, usage=REPORTED),  # OpenRouter
        chunk({}, "insufficient_system_resource", usage=REPORTED),  # DeepSeek
    ],
)
async def test_a_failure_that_reports_its_usage_costs_that(tmp_path: Path, path: str, failure: bytes) -> None:
    only = await broken_attempt(tmp_path, path, failure)
    assert (only.usage.input, only.usage.output, only.estimated, only.flags) == (5, 2, False, ["malformed"])


@pytest.mark.parametrize("texts", [1, 2])
def test_a_failure_of_completions_that_reports_its_usage_costs_that(texts: int) -> None:
    """At an upstream's own completions."""
    unfinished = {"choices": [{"index": 0, "text": "i", "finish_reason": "abort"}], "usage": REPORTED}
    for failure, counts in (({**FAILED, "usage": REPORTED}, True), (unfinished, texts == 1)):
        relay = CompletionsRelay(include_usage=False, texts=texts)
        relay.feed(b'{"choices":[{"index":0,"text":"H"}],"usage":{"prompt_tokens":5,"completion_tokens":1}}')
        with pytest.raises(Malformed):
            relay.feed(json.dumps(failure).encode())
        assert final_usage(relay) == (Usage(input=5, output=2) if counts else None)


@pytest.mark.parametrize("path", [CHAT, MESSAGES, COMPLETIONS])
@pytest.mark.parametrize(
    "events",
    [
        # what was reported before the failure is not what the whole attempt used
        (chunk({"content": "there"}, usage=REPORTED), json.dumps(FAILED).encode()),
        (chunk({"content": "there"}, usage=REPORTED), json.dumps({**FAILED, "usage": {}}).encode()),
        (HI, json.dumps({**FAILED, "usage": dict.fromkeys(REPORTED, 0)}).encode()),
    ],
)
async def test_a_failure_that_reports_no_usage_is_counted(tmp_path: Path, path: str, events: tuple[bytes, ...]) -> None:
    only = await broken_attempt(tmp_path, path, *events)
    assert only.estimated and only.flags == ["no_usage", "malformed"] and only.usage.output >= len("Hi Hi ")


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_one_copy_of_several_that_fails_does_not_report_for_all(tmp_path: Path, path: str) -> None:
    """vLLM reports the usage of each copy by itself."""
    failure = chunk({}, "abort", usage=REPORTED)
    assert (await broken_attempt(tmp_path, path, chunk({"content": "Hi"}, index=1), failure, n=2)).estimated


@pytest.mark.parametrize("usage", WRONG)
async def test_usage_of_a_whole_answer_that_cannot_be_read(tmp_path: Path, usage: bytes) -> None:
    async with raw_upstream_rig(tmp_path, json_response(completion_body()[:-1] + b',"usage":' + usage + b"}")) as rig:
        reply = await rig.chat()
        assert reply.status == 200 and b"Hi there" in reply.body
        (only,) = await rig.settlements()
        assert only.estimated and only.flags == ["no_usage"] and only.cost == BOUND
        await rig.books()


async def test_an_event_of_usage_alone_that_cannot_be_read_is_not_told_to_who_did_not_ask(tmp_path: Path) -> None:
    alone = b'{"choices":[],"usage":{"prompt_tokens":null}}'
    async with raw_upstream_rig(
        tmp_path, STREAM_HEAD, encode_events(ROLE, HI, THERE, chunk({}, "stop"), alone, DONE)
    ) as rig:
        stream = await rig.stream()
        assert stream.text == "Hi there" and all(each["choices"] for each in stream.chunks)


@pytest.mark.parametrize(
    ("reported", "usage"),
    [
        (ChatUsage(), None),
        (ChatUsage(total_tokens=8), None),
        (ChatUsage(prompt_tokens=5), None),
        (ChatUsage(prompt_tokens=5, total_tokens=8), Usage(input=5, output=3)),
        (ChatUsage(completion_tokens=3, total_tokens=8), Usage(input=5, output=3)),
        (ChatUsage(prompt_tokens=5, total_tokens=4), None),
        (ChatUsage(prompt_tokens=0, completion_tokens=0), Usage()),
    ],
)
def test_a_count_that_is_missing_is_not_zero(reported: ChatUsage, usage: Usage | None) -> None:
    assert reported.usage() == usage


@pytest.mark.parametrize(
    ("reported", "tokens"),
    [
        (ChatUsage(), None),
        (ChatUsage(total_tokens=8), 8),
        (ChatUsage(prompt_tokens=5, total_tokens=5), 5),
        (ChatUsage(prompt_tokens=0, total_tokens=8), 8),
        (ChatUsage(prompt_tokens=0), 0),
        (ChatUsage(prompt_tokens=-1), None),
    ],
)
def test_what_answers_without_tokens_may_tell_the_total_alone(reported: ChatUsage, tokens: int | None) -> None:
    assert reported.input_usage() == (None if tokens is None else Usage(input=tokens))


MANY = 10**6
TOLD = {"prompt_tokens": 5, "completion_tokens": MANY, "total_tokens": MANY + 5}
SAID, PICTURE = [{"role": "user", "content": "hello"}], {"b64_json": "AAAA"}
RANKED = {"results": [{"index": 0, "relevance_score": 1.0}]}
BY_TOKEN, BY_PIECE = Rates(input=PICO, output=PICO), Rates(input=0, output=0, request=PICO // 100, images={"any": 7})
BEYOND: dict[str, tuple[str, dict[str, Any], bytes, dict[str, Any]]] = {
    "chat": (CHAT, {"messages": SAID, "max_tokens": 20}, completion_body(usage=TOLD), {}),
    "messages": (MESSAGES, {"messages": SAID, "max_tokens": 20}, completion_body(usage=TOLD), {}),
    "responses": (RESPONSES, {"input": "hello", "max_output_tokens": 20}, completion_body(usage=TOLD), {}),
    "completions": ("/v1/completions", {"prompt": "hello", "max_tokens": 20}, completion_body(usage=TOLD), {}),
    "embeddings": (
        "/v1/embeddings", {"input": "hello"},
        json.dumps({"data": [{"index": 0, "embedding": [0.5]}], "usage": {"prompt_tokens": MANY}}).encode(),
        {"kind": "embeddings"},
    ),
    "rerank by tokens": (
        "/v1/rerank", {"query": "q", "documents": ["d"]},
        json.dumps({**RANKED, "usage": {"total_tokens": MANY}}).encode(), {"kind": "rerank"},
    ),
    "rerank by searches": (
        "/v1/rerank", {"query": "q", "documents": ["d"]},
        json.dumps({**RANKED, "meta": {"billed_units": {"search_units": 2}}}).encode(),
        {"kind": "rerank", "rates": BY_PIECE},
    ),
    "images by tokens": (
        "/v1/images/generations", {"prompt": "a house"},
        json.dumps({"data": [PICTURE], "usage": {"input_tokens": 2, "output_tokens": 600}}).encode(),
        {"kind": "images", "image_tokens": 60},
    ),
    "more images": (
        "/v1/images/generations", {"prompt": "a house"}, json.dumps({"data": [PICTURE] * 2}).encode(),
        {"kind": "images", "rates": BY_PIECE},
    ),
}  # fmt: skip
"""Path and body of a call, an answer that used more than was reserved for it, and what serves it."""


@pytest.mark.parametrize("name", BEYOND)
async def test_whatever_uses_more_than_its_bound_is_charged_flagged_and_stops_its_workload(
    tmp_path: Path, name: str
) -> None:
    path, body, answer, place = BEYOND[name]
    kind = "embeddings" if place.get("kind") == "embeddings" else "also"
    more, workloads = {"one": {"rates": BY_TOKEN, **place}}, {"assistant": {kind: ["one"]}}
    async with raw_upstream_rig(tmp_path, json_response(answer), more=more, workloads=workloads) as rig:
        reply = await post(rig, path, {"model": "auto", **body})
        assert reply.status == 200, reply.body
        assert (await post(rig, path, {"model": "auto", **body})).json["error"]["code"] == "killed"
        made, only = [each for each in await rig.records() if not isinstance(each, Finish)]
        assert isinstance(made, Reservation) and isinstance(only, Settlement)
        assert only.cost > made.bound and "over_bound" in only.flags
