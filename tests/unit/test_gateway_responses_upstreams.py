"""Upstreams of Responses as OpenAI, Azure, vLLM and others answer: what they tell before they work, how they fail, and
what they leave out or tell otherwise."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from tests.integration.gateway_stack import Reply
from tests.integration.gateway_stack import parse_events as events_of
from tests.unit.call_rig import Rig, call_rig
from tests.unit.raw_upstream import STREAM_HEAD, encode_events, json_response, post, raw_upstream_rig

from groundplan.blueprint.model import Guardrails
from groundplan.gateway.call.attempts.resume import Continuation, begin_continuation
from groundplan.gateway.call.model_versions import ModelVersions
from groundplan.gateway.resuming.continued_relay import ContinuedRelay
from groundplan.gateway.resuming.responses import ENDPOINT, ContinuedResponse
from groundplan.gateway.surfaces.responses.stream import MAX_ITEMS_BYTES, ResponsesRelay
from groundplan.gateway.surfaces.responses.surface import read
from groundplan.gateway.upstream.provider_refusals import retry_delay
from groundplan.ledger.model import Usage

NATIVE: dict[str, dict[str, Any]] = {name: {"serves": ["responses"]} for name in ("one", "two")}
SMALL = {"one": {**NATIVE["one"], "context_tokens": 8192}, "two": {**NATIVE["two"], "context_tokens": 128_000}}
BODY = {"model": "auto", "input": "a b", "stream": True}
RESPONSE: dict[str, Any] = {"id": "r", "object": "response", "status": "in_progress", "model": "m", "output": []}
USAGE = {"input_tokens": 5, "output_tokens": 3, "total_tokens": 8}
BUSY = {"type": "tokens", "code": "rate_limit_exceeded", "message": "Rate limit reached for m", "param": None}
SHED = {"type": "service_unavailable_error", "code": "server_is_overloaded", "message": "Our servers are overloaded."}
QUOTA = {"type": "insufficient_quota", "code": "insufficient_quota", "message": "You exceeded your current quota."}
LONG = {"type": "invalid_request_error", "code": "context_length_exceeded", "message": "Your input is too long."}
PROMPT = {"code": "invalid_prompt", "message": "Invalid prompt: flagged.", "param": None}


def encode_numbered(*each: dict[str, Any], first: int = 0) -> bytes:
    return encode_events(
        *(json.dumps({**one, "sequence_number": number}).encode() for number, one in enumerate(each, first))
    )


def failing(error: dict[str, Any] | None) -> dict[str, Any]:
    return {"type": "response.failed", "response": {**RESPONSE, "status": "failed", "error": error, "usage": None}}


BEGUN = encode_numbered(
    {"type": "response.created", "response": RESPONSE},
    {"type": "response.in_progress", "response": RESPONSE},
    {"type": "keepalive"},
)
"""What OpenAI tells of a request that waits."""


async def stream(rig: Rig, **more: Any) -> Reply:
    return await post(rig, "/v1/responses", BODY | more)


@pytest.mark.parametrize(
    ("ends", "status"),
    [
        (b"", 200),
        (encode_numbered({"type": "error", "error": BUSY}, failing(BUSY), first=3), 429),
        (encode_numbered(failing(None), {"type": "error", "error": BUSY}, first=3), 429),
        (encode_numbered(failing(SHED), first=3), 503),
        (encode_numbered({"type": "error", "error": QUOTA}, first=3), 402),
        (encode_numbered({"type": "error", "error": LONG}, first=3), 400),
        (encode_events(b'{"error":{"message":"busy","code":"429"}}'), 429),
        (encode_numbered(failing({"code": "server_error", "message": "The server had an error."}), first=3), 200),
        (encode_numbered(failing(None), first=3), 200),
    ],
)
async def test_a_response_that_has_only_begun_comes_from_elsewhere(tmp_path: Path, ends: bytes, status: int) -> None:
    """OpenAI, Azure and vLLM begin a stream as soon as they have a request, and find out then whether they can answer.
    What was not worked on is not paid."""
    async with raw_upstream_rig(tmp_path, STREAM_HEAD + BEGUN, ends, has_fallback=True, more=SMALL) as rig:
        reply = await stream(rig)
        found = events_of(reply.body)
        assert [each["type"] for each in found].count("response.created") == 1
        assert found[-1]["type"] == "response.completed" and found[-1]["groundplan"]["deployment"] == "two"
        first, second = await rig.settlements()
        assert (first.http_status, first.outcome) == (status, "failed" if status == 200 else "not_billed")
        assert second.outcome == "ok" and "resumed" not in second.flags
        await rig.books()


async def test_what_is_wrong_with_a_request_is_told_though_its_stream_had_begun(tmp_path: Path) -> None:
    async with raw_upstream_rig(
        tmp_path, STREAM_HEAD + BEGUN, encode_numbered({"type": "error", **PROMPT}), has_fallback=True, more=NATIVE
    ) as rig:
        reply = await stream(rig)
        assert (reply.status, reply.code) == (400, "invalid_prompt"), "as where it is not streamed"
        (only,) = await rig.settlements()
        assert only.outcome == "not_billed" and not rig.gateway.health._failures
    (tmp_path / "whole").mkdir()
    failed = json.dumps(failing(PROMPT)["response"]).encode()
    async with raw_upstream_rig(tmp_path / "whole", json_response(failed), more=NATIVE) as rig:
        reply = await stream(rig, stream=False)
        assert (reply.status, reply.code) == (400, "invalid_prompt")
    (tmp_path / "used").mkdir()
    used = json.dumps({**failing(BUSY)["response"], "usage": USAGE}).encode()
    async with raw_upstream_rig(tmp_path / "used", json_response(used), more=NATIVE) as rig:
        await stream(rig, stream=False)
        (only,) = await rig.settlements()
        assert only.outcome == "failed" and only.cost > 0, "it was worked on"


def item(text: str) -> dict[str, Any]:
    content = [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}]
    return {"type": "message", "id": f"msg_{text}", "role": "assistant", "status": "completed", "content": content}


@pytest.mark.parametrize("output", [{}, {"output": []}, {"output": None}, {"output": [item("own")]}])
async def test_a_last_event_without_items_gets_those_that_came(tmp_path: Path, output: dict[str, Any]) -> None:
    """ChatGPT's own Responses end so: official clients take the final response from the last event."""
    told = [{"type": "response.output_item.done", "output_index": n, "item": item(str(n))} for n in (1, 0)]
    whole = {**RESPONSE, "status": "completed", "usage": USAGE}
    del whole["output"]
    end = {"type": "response.completed", "response": whole | output}
    answer = STREAM_HEAD + BEGUN + encode_numbered(*told, end, first=3)
    async with raw_upstream_rig(tmp_path, answer, more=NATIVE) as rig:
        last = events_of((await stream(rig)).body)[-1]
        expected = ["own"] if output.get("output") else ["0", "1"]
        assert [each["content"][0]["text"] for each in last["response"]["output"]] == expected
        assert last["response"]["usage"] == USAGE and last["groundplan"]["deployment"] == "one"
        await rig.books()


def test_items_are_kept_while_there_is_room_for_all_of_them() -> None:
    relay, big = ResponsesRelay({}), item("x" * (MAX_ITEMS_BYTES // 2))
    for number in range(3):
        event = {"type": "response.output_item.done", "output_index": number, "item": big, "sequence_number": number}
        assert relay.feed(json.dumps(event).encode())
    relay.feed(json.dumps({"type": "response.completed", "response": {**RESPONSE, "status": "completed"}}).encode())
    assert json.loads(relay.response_json())["output"] == [] and relay._items == {}


@pytest.mark.parametrize(("both", "attempts"), [(False, 3), (True, 3), (True, 1)])
async def test_codex_hears_in_its_stream_that_a_prompt_is_too_long(tmp_path: Path, both: bool, attempts: int) -> None:
    """By that it makes room in its conversation, and by nothing else; whoever reads more was asked before."""
    ends, work = (
        encode_numbered({"type": "error", "error": LONG}, failing(LONG), first=3),
        {"assistant": {"attempts": attempts}},
    )
    async with raw_upstream_rig(tmp_path, STREAM_HEAD + BEGUN, ends, both_raw=both, more=SMALL, workloads=work) as rig:
        reply = await stream(rig, client_metadata={"x-codex-installation-id": "a"})
        begun, failed = events_of(reply.body)
        assert (reply.status, reply.headers["content-type"]) == (200, "text/event-stream")
        assert [begun["type"], failed["type"], failed["sequence_number"]] == ["response.created", "response.failed", 1]
        assert failed["response"]["error"]["code"] == "context_length_exceeded"
        assert failed["response"]["id"] == begun["response"]["id"]
        plain = await stream(rig)
        assert (plain.status, plain.code) == (400, "context_length_exceeded")
        whole = await stream(rig, client_metadata={}, stream=False)
        assert whole.status != 200
        await rig.books()


async def test_a_pause_that_is_asked_for_in_a_stream_is_kept(tmp_path: Path) -> None:
    """There is no header for it once a stream has begun."""
    busy = {**BUSY, "message": "Rate limit reached for m: Limit 9, Used 9. Please try again in 20.5s. Visit https://x"}
    async with raw_upstream_rig(
        tmp_path, STREAM_HEAD + BEGUN, encode_numbered({"type": "error", "error": busy}, first=3), more=NATIVE
    ) as rig:
        for _ in range(2):
            reply = await stream(rig)
            assert reply.status == 503 and 18 <= int(reply.headers["retry-after"]) <= 21
        assert len(await rig.settlements()) == 1
    for words, seconds in (("350ms", b"0.350"), ("6m0s", b"360.000"), ("26 seconds", b"26.000"), ("a while", None)):
        told_so = json.dumps({"error": {**BUSY, "message": f"Please try again in {words}."}}).encode()
        assert retry_delay(told_so) == seconds


async def test_what_is_told_early_comes_with_what_follows_it(tmp_path: Path) -> None:
    ended = {"type": "response.completed", "response": {**RESPONSE, "status": "completed", "usage": USAGE}}
    said = {"type": "acme:step", "item": None}
    async with raw_upstream_rig(
        tmp_path, STREAM_HEAD + BEGUN, encode_numbered(said, ended, first=3), more=NATIVE
    ) as rig:
        reply = await stream(rig)
        kinds = ["response.created", "response.in_progress", "keepalive", "acme:step", "response.completed"]
        assert [each["type"] for each in events_of(reply.body)] == kinds
        assert reply.body.startswith(b"event: response.created\n" + BEGUN[: BEGUN.index(b"\n")])
    (tmp_path / "end").mkdir()
    async with raw_upstream_rig(
        tmp_path / "end", STREAM_HEAD + BEGUN, encode_numbered(ended, first=3), more=NATIVE
    ) as rig:
        assert [each["type"] for each in events_of((await stream(rig)).body)] == [*kinds[:3], kinds[-1]]


@pytest.mark.parametrize("kind", ["response.failed", "response.completed"])
async def test_a_response_that_failed_costs_what_it_says(tmp_path: Path, kind: str) -> None:
    """vLLM ends every stream with `response.completed`, also one that its server broke off."""
    usage = {**USAGE, "output_tokens": 2, "total_tokens": 7}
    last = {"type": kind, "response": {**RESPONSE, "status": "failed", "usage": usage}}
    said = {"type": "response.output_text.delta", "delta": "Hi "}
    async with raw_upstream_rig(
        tmp_path, STREAM_HEAD + BEGUN + encode_numbered(said, first=3), encode_numbered(last, first=4), more=NATIVE
    ) as rig:
        reply = await stream(rig)
        assert events_of(reply.body)[-1]["code"] == "stream_broken"
        (only,) = await rig.settlements()
        assert (only.outcome, only.usage.input, only.usage.output, only.estimated) == ("failed", 5, 2, False)
        await rig.books()


async def test_the_version_that_a_stream_reports_is_looked_at(tmp_path: Path) -> None:
    ended = {"type": "response.completed", "response": {**RESPONSE, "status": "completed", "usage": USAGE}}
    async with raw_upstream_rig(tmp_path, STREAM_HEAD + BEGUN, encode_numbered(ended, first=3), more=NATIVE) as rig:
        rig.gateway.model_versions = reported = ModelVersions("")
        assert (await stream(rig)).status == 200
        assert [version[2] for version in reported.waiting] == ["m"]


async def test_what_a_model_reasoned_is_no_part_of_its_answer(tmp_path: Path) -> None:
    """vLLM, llama.cpp and OpenRouter tell it as the content of an item."""
    thought = {"type": "reasoning", "id": "rs", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]}
    said = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": '{"ok": 1}'}]}
    whole = {**RESPONSE, "status": "completed", "output": [thought, said], "usage": USAGE}
    rules = {"assistant": {"guardrails": Guardrails(schema='{"type": "object"}')}}
    body = json.dumps(whole).encode()
    async with raw_upstream_rig(tmp_path, json_response(body), more=NATIVE, workloads=rules) as rig:
        reply = await stream(rig, stream=False)
        assert reply.status == 200 and reply.json["output"] == [thought, said]


async def test_what_is_to_be_sealed_and_is_not_is_looked_at(tmp_path: Path) -> None:
    """Ollama tells what a model thought in the clear where others seal it, and reads it so when it is sent back."""
    sealed = {"type": "reasoning", "id": "rs", "summary": [], "encrypted_content": "gAAAAABo_9-zZ=="}
    clear = {**sealed, "encrypted_content": "Write to ana@acme.example."}
    whole = {**RESPONSE, "status": "completed", "output": [sealed, clear], "usage": USAGE}
    rules = Guardrails(input={"personal_data": "block"}, output={"personal_data": "mask"}, budget_ms=10_000)
    body, workloads = json.dumps(whole).encode(), {"assistant": {"guardrails": rules}}
    async with raw_upstream_rig(tmp_path, json_response(body), more=NATIVE, workloads=workloads) as rig:
        refused = await stream(rig, stream=False, input=[clear, {"role": "user", "content": "a"}])
        assert (refused.status, refused.code) == (403, "guardrail_personal_data"), refused.body
        reply = await stream(rig, stream=False, input=[sealed, {"role": "user", "content": "a"}])
        assert reply.json["output"][0] == sealed and "ana@" not in reply.json["output"][1]["encrypted_content"]


OPENAI = {"error": {"message": "The encrypted content gA could not be verified.", "code": "invalid_encrypted_content"}}
XAI = {"code": "invalid-argument", "error": "Could not decrypt the provided encrypted_content. Ensure the value is"}
VLLM = {"error": {"message": "Encrypted content is not supported.", "type": "BadRequestError", "code": 400}}
SEALED = {"id": "rs", "type": "reasoning", "summary": [], "encrypted_content": "gAAA"}
CLEAR = {**SEALED, "id": "rc", "content": [{"type": "reasoning_text", "text": "Hm."}]}
CALL = {"id": "fc", "type": "function_call", "call_id": "c", "name": "look", "arguments": "{}"}
FOUND = {"type": "function_call_output", "call_id": "c", "output": "a"}


@pytest.mark.parametrize("refuses", [OPENAI, XAI, VLLM, None], ids=["openai", "xai", "vllm", "streamed"])
async def test_what_another_one_sealed_is_left_out_where_it_cannot_be_read(tmp_path: Path, refuses: Any) -> None:
    """Only whoever sealed it can read it, with the same account: a conversation comes to another deployment by a
    fallback, by balance, or by another of its keys."""
    got: list[Any] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        body = json.loads(await reader.readexactly(int(head.partition(b"content-length: ")[2].split(b"\r")[0])))
        got.append(body["input"])
        ended = {"type": "response.completed", "response": {**RESPONSE, "status": "completed", "usage": USAGE}}
        if SEALED not in body["input"]:
            writer.write(STREAM_HEAD + encode_numbered(ended))
        elif refuses is None:
            writer.write(STREAM_HEAD + BEGUN + encode_numbered({"type": "error", **OPENAI}, first=3))
        else:
            writer.write(json_response(json.dumps(refuses).encode(), b"400 Bad Request"))
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        ports = {"two": server.sockets[0].getsockname()[1]}
        async with call_rig(tmp_path, ports=ports, more=NATIVE) as rig:
            rig.play("one", mode="error", status=503)
            reply = await stream(rig, input=[{"role": "user", "content": "a"}, SEALED, CLEAR, CALL, FOUND])
            facts = events_of(reply.body)[-1]["groundplan"]
            assert (facts["deployment"], facts["left_out"]) == ("two", ["reasoning"])
            opened = {name: CLEAR[name] for name in ("type", "summary", "content")}
            called = {name: value for name, value in CALL.items() if name != "id"}
            assert got[1:] == [[{"role": "user", "content": "a"}, opened, called, FOUND]], (
                "nor ids, by which it is missed"
            )
            tried = [(each.outcome, each.http_status) for each in await rig.settlements()]
            assert (tried[1], tried[-1]) == (("not_billed", 400), ("ok", 200))
            assert "two" not in rig.gateway.health._failures
            await rig.books()


# going on at servers that tell less, or otherwise, than OpenAI -------------------------------------------------------


WHERE: dict[str, Any] = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
TOLD: list[dict[str, Any]] = [
    {"type": "response.created", "response": RESPONSE},
    {
        "type": "response.output_item.added", "output_index": 0,
        "item": {"id": "msg_1", "type": "message", "role": "assistant", "status": "in_progress", "content": []},
    },
    {"type": "response.content_part.added", **WHERE, "part": {"type": "output_text", "text": "", "annotations": []}},
    {"type": "response.output_text.delta", **WHERE, "delta": "It is "},
]  # fmt: skip


def broken(*each: dict[str, Any]) -> tuple[Continuation, ContinuedRelay]:
    """A first attempt that told no more than this."""
    story = begin_continuation(read(json.dumps(BODY).encode()), ENDPOINT)
    first = story.relay(ResponsesRelay({}))
    for number, one in enumerate(each):
        first.feed(json.dumps({**one, "sequence_number": number}).encode())
    return story, first


def resumed(*later: dict[str, Any], before: list[dict[str, Any]] = TOLD) -> tuple[list[Any], dict[str, Any]]:
    """What a client gets of a later attempt, and the response at its end. The first one broke in the middle of text."""
    story, first = broken(*before)
    story.record_broken(first, Usage())
    second = story.relay(ResponsesRelay({}))
    assert isinstance(second, ContinuedResponse)
    out = b"".join(second.feed(json.dumps(each).encode()) for each in later)
    kept = json.loads(second.response_json())
    found = events_of(out + second.closing_events(b"{}"))
    assert [each["sequence_number"] for each in found] == list(range(len(before), len(before) + len(found)))
    assert kept["output"] == found[-1]["response"]["output"]
    return found, found[-1]["response"]


def message(text: str, **more: Any) -> dict[str, Any]:
    part = {"type": "output_text", "text": text, "annotations": []}
    return {"type": "message", "role": "assistant", "status": "completed", "content": [part] if text else [], **more}


def call(**more: Any) -> dict[str, Any]:
    return {"type": "function_call", "status": "completed", "name": "look", "arguments": "{}", **more}


def test_a_response_goes_on_at_a_vllm_that_reasons() -> None:
    """It counts the parts of all items, and has other ids in the whole than in the events."""
    text: dict[str, Any] = {"item_id": "m", "output_index": 1, "content_index": 1}
    thought = {"type": "reasoning", "id": "r", "summary": []}
    whole = {**RESPONSE, "status": "completed", "usage": USAGE}
    found, response = resumed(
        {"type": "response.output_item.added", "output_index": 0, "item": thought},
        {"type": "response.output_item.done", "output_index": 0, "item": thought},
        {"type": "response.output_item.added", "output_index": 1, "item": message("", id="m")},
        {"type": "response.content_part.added", **text, "part": {"type": "output_text", "text": ""}},
        {"type": "response.output_text.delta", **text, "delta": "here."},
        {"type": "response.output_item.done", "output_index": 1, "item": message("here.", id="m")},
        {"type": "response.output_item.added", "output_index": 2, "item": call(id="f", call_id="c1")},
        {"type": "response.output_item.done", "output_index": 2, "item": call(id="f", call_id="c1")},
        {
            "type": "response.completed",
            "response": {**whole, "output": [thought, message("here.", id="n"), call(id="g", call_id="c2")]},
        },
    )
    assert [each["content_index"] for each in found if each["type"] == "response.output_text.delta"] == [0]
    (said, called) = response["output"]
    assert said["content"][0]["text"] == "It is here." and called["call_id"] == "c1", "it is called once"


def test_a_response_goes_on_at_a_llama_cpp() -> None:
    """It numbers neither items nor parts, and its calls have no id but that of the call."""
    whole = {**RESPONSE, "status": "completed", "usage": USAGE}
    found, response = resumed(
        {"type": "response.output_item.added", "item": message("", id="m")},
        {"type": "response.content_part.added", "item_id": "m", "part": {"type": "output_text", "text": ""}},
        {"type": "response.output_text.delta", "item_id": "m", "delta": "here."},
        {"type": "response.output_item.added", "item": call(call_id="fc_1")},
        {"type": "response.function_call_arguments.delta", "item_id": "fc_1", "delta": "{}"},
        {"type": "response.output_text.done", "item_id": "m", "text": "here."},
        {"type": "response.output_item.done", "item": message("here.", id="m")},
        {"type": "response.output_item.done", "item": call(call_id="fc_1")},
        {
            "type": "response.completed",
            "response": {**whole, "output": [message("here.", id="m"), call(call_id="fc_1")]},
        },
    )
    kinds = [each["type"] for each in found]
    assert kinds.count("response.output_item.added") == 1 and kinds.count("response.output_item.done") == 2
    (said, called) = response["output"]
    assert (said["id"], said["content"][0]["text"], called["call_id"]) == ("msg_1", "It is here.", "fc_1")


def test_what_is_stored_of_a_response_whose_end_is_not_told_yet_has_all_of_it() -> None:
    text: dict[str, Any] = {"item_id": "m", "output_index": 0, "content_index": 0}
    whole = {**RESPONSE, "status": "completed", "usage": USAGE}
    found, response = resumed(
        {"type": "response.output_item.added", "output_index": 0, "item": message("", id="m")},
        {"type": "response.content_part.added", **text, "part": {"type": "output_text", "text": ""}},
        {"type": "response.output_text.delta", **text, "delta": "It is here."},
        {"type": "response.completed", "response": {**whole, "output": [message("It is here.", id="m")]}},
    )
    assert response["output"][0]["content"][0]["text"] == "It is here."
    assert found[-2]["item"] == response["output"][0]


def test_a_call_is_never_gone_on_with_though_a_model_thinks_behind_it() -> None:
    thought = {"type": "reasoning", "id": "r", "summary": []}
    story, first = broken(
        TOLD[0],
        {"type": "response.output_item.added", "output_index": 0, "item": call(id="f", call_id="c")},
        {"type": "response.output_item.done", "output_index": 0, "item": call(id="f", call_id="c")},
        {"type": "response.output_item.added", "output_index": 1, "item": thought},
        {"type": "response.output_item.done", "output_index": 1, "item": thought},
    )
    assert story.obstacle(first) == "a tool call had begun"


ENDED: list[dict[str, Any]] = [
    {"type": "response.output_text.done", **WHERE, "text": "It is "},
    {"type": "response.content_part.done", **WHERE, "part": {"type": "output_text", "text": "It is "}},
]


def test_a_message_that_has_only_begun_has_nothing_of_the_one_before_it() -> None:
    whole = {**RESPONSE, "status": "completed", "usage": USAGE}
    _, response = resumed(
        {"type": "response.output_item.added", "output_index": 0, "item": call(id="f", call_id="c")},
        {"type": "response.output_item.done", "output_index": 0, "item": call(id="f", call_id="c")},
        {"type": "response.completed", "response": {**whole, "output": [call(id="f", call_id="c")]}},
        before=[
            *TOLD, *ENDED, {"type": "response.output_item.done", "output_index": 0, "item": message("It is ", id="m")},
            {"type": "response.output_item.added", "output_index": 1, "item": message("", id="msg_2")},
        ],
    )  # fmt: skip
    texts = [part["text"] for item in response["output"] for part in item.get("content", ())]
    assert "".join(texts) == "It is " and [item["type"] for item in response["output"]][-1] == "function_call"


def test_a_message_of_several_parts_is_not_gone_on_with() -> None:
    """Of those before the last one nothing would be in the message at its end."""
    more = {**WHERE, "content_index": 1}
    another = {"type": "response.content_part.added", **more, "part": {"type": "output_text", "text": ""}}
    story, first = broken(*TOLD, *ENDED, another)
    assert story.obstacle(first) == "it had begun another part"


def test_what_has_begun_to_reason_is_not_gone_on_with() -> None:
    thought = {"type": "reasoning", "id": "r", "summary": []}
    story, first = broken(TOLD[0], {"type": "response.output_item.added", "output_index": 0, "item": thought})
    assert story.obstacle(first) == "it had begun to reason"


def test_a_response_goes_on_twice_and_nothing_is_told_of_what_was_thought_meanwhile() -> None:
    """Its text stays the part that it was, whatever number later ones give it."""
    thought = {"type": "reasoning", "id": "r", "summary": []}
    story, relay = broken(*({**each, "content_index": 1} if "content_index" in each else each for each in TOLD))
    whole = {**RESPONSE, "status": "completed", "usage": USAGE, "output": [message("now.", id="n"), thought]}
    found: list[Any] = []
    for later in (
        [
            {"type": "response.output_item.added", "output_index": 0, "item": thought},
            {"type": "response.output_item.added", "output_index": 1, "item": message("", id="m")},
            {"type": "response.output_text.delta", "output_index": 1, "content_index": 0, "delta": "here "},
        ],
        [
            {"type": "response.output_item.added", "output_index": 0, "item": message("", id="n")},
            {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "now."},
            {"type": "response.output_item.added", "output_index": 1, "item": thought},
            {"type": "response.reasoning_summary_text.delta", "output_index": 1, "summary_index": 0, "delta": "so"},
            {"type": "response.completed", "response": whole},
        ],
    ):
        story.record_broken(relay, Usage())
        relay = story.relay(ResponsesRelay({}))
        found += events_of(b"".join(relay.feed(json.dumps(each).encode()) for each in later))
    found += events_of(relay.closing_events(b"{}"))
    texts = [(each["content_index"], each["delta"]) for each in found if each["type"] == "response.output_text.delta"]
    assert texts == [(1, "here "), (1, "now.")] and "reasoning" not in str(found)
    (said,) = found[-1]["response"]["output"]
    assert said["content"][0]["text"] == "It is here now."
