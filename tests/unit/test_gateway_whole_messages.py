"""Streams of chat whose chunks have a whole `message`: in place of a `delta`, as some local servers send it, or beside
it and with all text so far, as Perplexity does, or at the end and with all of it, as MiniMax does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.integration.gateway_stack import parse_events
from tests.unit.raw_upstream import DONE, STREAM_HEAD, chunk, encode_events, post, raw_upstream_rig
from tests.unit.test_gateway_resume_forms import resumed_rig

from groundplan.blueprint.model import Guardrails

PATHS = ["/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses"]
SAID = "Ask ana@acme.example about it"
EMAIL = "ana@acme.example"
USAGE = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}


def whole(message: Any, finish: str | None = None, delta: Any = None, **more: Any) -> bytes:
    """A chunk with a whole message, and with a delta if there is one."""
    found = json.loads(chunk({}, finish, **more))
    choice = found["choices"][0]
    del choice["delta"]
    choice["message"] = message
    if delta is not None:
        choice["delta"] = delta
    return json.dumps(found).encode()


def said(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def repeated(text: str, finish: str | None = None, **more: Any) -> list[bytes]:
    """Chunks of a word each, with all words so far as a message."""
    words = [f"{word} " for word in text.split()]
    pieces = [
        whole(said("".join(words[: at + 1])), None, said(word), object="chat.completion", **more)
        for at, word in enumerate(words)
    ]
    return [*pieces, whole(said("".join(words)), finish, said(""), **more)] if finish else pieces


WHOLE = {
    "at once": [whole(said(SAID), "stop")],
    "before the end": [whole(said(SAID)), chunk({}, "stop")],
    "in pieces": [whole(said(SAID[:6])), whole(said(SAID[6:]), delta=None), whole({}, "stop")],
    "repeated": repeated(SAID, "stop"),
    "repeated, with usage": repeated(SAID, "stop", usage=USAGE),
    "repeated at the end alone": [
        *[chunk({"content": text}) for text in (SAID[:9], SAID[9:])],
        whole(said(SAID), "stop", object="chat.completion", usage=USAGE),
    ],
    "repeated behind the end": [
        *[chunk({"content": text}) for text in (SAID[:9], SAID[9:])],
        chunk({}, "stop"),
        whole(said(SAID), "stop", object="chat.completion", usage=USAGE),
    ],
    "repeated at the end": [
        *[chunk({"content": text}) for text in (SAID[:9], SAID[9:])],
        whole(said(SAID), "stop", {}, object="chat.completion.done", usage=USAGE),
    ],
}


def request_body(path: str, **more: Any) -> dict[str, Any]:
    if path == "/v1/responses":
        return {"model": "auto", "stream": True, "input": "x", "max_output_tokens": 90, **more}
    if path == "/v1/completions":
        return {"model": "auto", "stream": True, "prompt": "x", "max_tokens": 90, **more}
    asked = [{"role": "user", "content": "x"}]
    return {"model": "auto", "stream": True, "messages": asked, "max_tokens": 90, **more}


def text_of(event: Any) -> str:
    """The text that an event of any API adds."""
    if not isinstance(event, dict):
        return ""
    if event.get("type") == "response.output_text.delta":
        return str(event["delta"])
    if event.get("type") == "content_block_delta":
        return str(event["delta"].get("text", ""))
    choices = event.get("choices") or []
    return "".join(each.get("text") or (each.get("delta") or {}).get("content") or "" for each in choices)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("sent", WHOLE)
async def test_a_message_in_place_of_a_delta_is_one(tmp_path: Path, path: str, sent: str) -> None:
    """And one beside a delta is nothing, since it repeats what was sent."""
    stream = encode_events(*WHOLE[sent], DONE)
    async with raw_upstream_rig(tmp_path, STREAM_HEAD + stream) as rig:
        reply = await post(rig, path, request_body(path))
        events = parse_events(reply.body)
        assert "".join(map(text_of, events)).rstrip() == SAID
        assert not any("message" in each for event in events if "choices" in event for each in event["choices"])
        (only,) = await rig.settlements()
        assert only.outcome == "ok"
        if "usage" not in stream.decode():
            assert only.usage.output == len("".join(map(text_of, events)).encode()), "each byte counted once"
        await rig.books()


@pytest.mark.parametrize("path", PATHS)
async def test_the_name_of_a_message_may_be_escaped(tmp_path: Path, path: str) -> None:
    stream = encode_events(*WHOLE["repeated"], DONE).replace(b'"message"', b'"mess\\u0061ge"')
    async with raw_upstream_rig(tmp_path, STREAM_HEAD + stream) as rig:
        reply = await post(rig, path, request_body(path))
        assert "".join(map(text_of, parse_events(reply.body))).rstrip() == SAID
        assert (await rig.settlements())[0].outcome == "ok"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/responses"])
async def test_calls_of_a_whole_message_are_numbered(tmp_path: Path, path: str) -> None:
    calls = [{"id": f"c{n}", "type": "function", "function": {"name": "look", "arguments": "{}"}} for n in (1, 2)]
    message = {"role": "assistant", "content": None, "tool_calls": calls}
    sent = encode_events(whole(message, "tool_calls"), DONE)
    async with raw_upstream_rig(tmp_path, STREAM_HEAD + sent) as rig:
        reply = await post(rig, path, request_body(path))
        assert reply.body.count(b'"c1"') and reply.body.count(b'"c2"')
        if path == "/v1/chat/completions":
            told = [event for event in parse_events(reply.body) if event != "[DONE]"]
            deltas = [each["delta"] for event in told for each in event["choices"]]
            assert [call["index"] for delta in deltas for call in delta.get("tool_calls", ())] == [0, 1]
        assert (await rig.settlements())[0].outcome == "ok"


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("sent", WHOLE)
@pytest.mark.parametrize("action", ["mask", "block"])
async def test_a_whole_message_passes_no_guardrail_unchecked(tmp_path: Path, path: str, sent: str, action: str) -> None:
    rules = {"assistant": {"guardrails": Guardrails(output={"personal_data": action}, budget_ms=10_000)}}
    async with raw_upstream_rig(tmp_path, STREAM_HEAD + encode_events(*WHOLE[sent], DONE), workloads=rules) as rig:
        reply = await post(rig, path, request_body(path))
        assert EMAIL not in reply.body.decode()
        if action == "block":
            assert b"guardrail_personal_data" in reply.body
        else:
            text = "".join(map(text_of, parse_events(reply.body)))
            assert text.startswith("Ask ") and text.rstrip().endswith(" about it")
        await rig.books()


@pytest.mark.parametrize("path", PATHS)
async def test_checks_of_the_whole_answer_see_a_whole_message(tmp_path: Path, path: str) -> None:
    """It comes with the finish reason, which is held back until then."""
    rules = {"assistant": {"guardrails": Guardrails(schema='{"type": "object"}', budget_ms=10_000)}}
    sent = encode_events(whole(said('{"a":1}'), "stop"), DONE)
    async with raw_upstream_rig(tmp_path, STREAM_HEAD + sent, workloads=rules) as rig:
        reply = await post(rig, path, request_body(path))
        assert "".join(map(text_of, parse_events(reply.body))) == '{"a":1}'
    async with raw_upstream_rig(
        tmp_path / "refused", STREAM_HEAD + encode_events(whole(said("no"), "stop"), DONE), workloads=rules
    ) as rig:
        assert b"guardrail_schema" in (await post(rig, path, request_body(path))).body


@pytest.mark.parametrize("first", [[whole(said("Hello "))], repeated("Hello")])
@pytest.mark.parametrize("second", [[whole(said("all of you"))], repeated("all of you")])
async def test_a_stream_of_whole_messages_is_resumed(tmp_path: Path, first: list[bytes], second: list[bytes]) -> None:
    async with resumed_rig(tmp_path, first, second) as rig:
        stream = await rig.stream()
        assert (stream.text.rstrip(), stream.finish, stream.errors) == ("Hello all of you", ["stop"], [])
        assert [s.outcome for s in await rig.settlements()] == ["failed", "ok"]
        await rig.books()


@pytest.mark.parametrize("path", PATHS)
async def test_a_message_that_is_none_is_no_chunk(tmp_path: Path, path: str) -> None:
    sent = encode_events(whole("Hello", "stop"), DONE)
    async with raw_upstream_rig(tmp_path, STREAM_HEAD + sent, has_fallback=True) as rig:
        reply = await post(rig, path, request_body(path))
        assert reply.status == 200
        assert [each.outcome for each in await rig.settlements()] == ["failed", "ok"]
