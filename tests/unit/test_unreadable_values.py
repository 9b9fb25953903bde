"""What JSON may hold and not every decoder bears: half of a character, as a text that was cut by UTF-16 ends with, and
numbers beyond all bounds. An answer that was paid for is its caller's all the same; a request is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest
from tests.unit.call_rig import Rig, call_rig, reliability
from tests.unit.raw_upstream import (
    END,
    HI,
    ROLE,
    STREAM_HEAD,
    completion_body,
    encode_events,
    json_response,
    post,
    raw_upstream_rig,
)

from groundplan.blueprint.model import Guardrails, Keep
from groundplan.core.errors import Invalid
from groundplan.gateway.surfaces.file_references import with_files_inlined

HALF, SIGN = "caf\ud83d", "caf\ufffd"
FULL = {"assistant": {"keep": Keep(content="full", seconds=60)}}
LOOKED_AT = {"assistant": {"guardrails": Guardrails(input={"secrets": "block"}, output={"secrets": "block"})}}
NATIVE = {"one": {"serves": ["responses"]}}


class Shelf:
    """What was stored."""

    def __init__(self) -> None:
        self.kept: list[Any] = []

    async def put(self, row: object, person: UUID, kept: Any) -> bool:  # noqa: ARG002 -- as the shelves have it
        self.kept.append(kept)
        return True


def shelved(rig: Rig) -> Shelf:
    rig.gateway.stored_completions = rig.gateway.stored_responses = shelf = Shelf()  # type: ignore[assignment]
    return shelf


async def test_a_completion_that_is_stored_has_a_sign_for_half_of_a_character(tmp_path: Path) -> None:
    choice = {"index": 0, "message": {"role": "assistant", "content": HALF}, "finish_reason": "stop"}
    async with raw_upstream_rig(tmp_path, json_response(completion_body(choices=[choice])), workloads=FULL) as rig:
        shelf = shelved(rig)
        reply = await rig.chat(store=True)
        assert reply.status == 200 and b'"store":true' in reply.body, reply.body
        assert b"caf\\ud83d" in reply.body, "its caller has it as it came"
        (kept,) = shelf.kept
        assert kept.completion["choices"][0]["message"]["content"] == SIGN


def response(text: str) -> bytes:
    said = {"type": "message", "id": "m", "role": "assistant", "status": "completed"}
    output = [{**said, "content": [{"type": "output_text", "text": text, "annotations": []}]}]
    usage = {"input_tokens": 5, "output_tokens": 3, "total_tokens": 8}
    told = {"id": "r", "object": "response", "status": "completed", "output": output, "usage": usage}
    return json.dumps(told).encode()


@pytest.mark.parametrize("given", ["x", [{"role": "user"}], [{"content": "x"}]])
async def test_a_response_that_is_stored_has_a_sign_for_half_of_a_character(tmp_path: Path, given: Any) -> None:
    """Also where its upstream answered what lacks something."""
    async with raw_upstream_rig(tmp_path, json_response(response(HALF)), workloads=FULL, more=NATIVE) as rig:
        shelf = shelved(rig)
        reply = await post(rig, "/v1/responses", {"model": "auto", "input": given, "max_output_tokens": 9})
        assert reply.status == 200 and b'"store":true' in reply.body, reply.body
        (kept,) = shelf.kept
        assert kept.items[-1]["content"][0]["text"] == SIGN


async def test_what_cannot_be_read_is_not_stored(tmp_path: Path) -> None:
    answer = response("Hi").replace(b'"object"', b'"score": 1e999, "object"')
    async with raw_upstream_rig(tmp_path, json_response(answer), workloads=FULL, more=NATIVE) as rig:
        shelf = shelved(rig)
        reply = await post(rig, "/v1/responses", {"model": "auto", "input": "x", "max_output_tokens": 9})
        assert reply.status == 200 and b'"store":false' in reply.body and shelf.kept == []
    (tmp_path / "chat").mkdir()
    async with raw_upstream_rig(
        tmp_path / "chat", json_response(completion_body(score=1)[:-2] + b"1e999}"), workloads=FULL
    ) as rig:
        shelf = shelved(rig)
        reply = await rig.chat(store=True)
        assert reply.status == 200 and b'"store":false' in reply.body and shelf.kept == []


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/messages"])
async def test_a_number_that_chat_cannot_be_told_is_refused(tmp_path: Path, path: str) -> None:
    asks = (
        {"messages": [{"role": "user", "content": "x"}], "max_tokens": 9} if path == "/v1/messages" else {"input": "x"}
    )
    async with call_rig(tmp_path, ["one"]) as rig:
        body = json.dumps({"model": "auto", **asks, "temperature": float("inf")}).replace("Infinity", "1e999")
        reply = await post(rig, path, body.encode())
        assert (reply.status, reply.code) == (400, "body_invalid"), reply.body
        assert rig.models["one"].counted == 0


@pytest.mark.parametrize(
    ("rules", "more", "status"),
    [
        (LOOKED_AT, b'"seed":1e999', 400),
        (LOOKED_AT, b'"x":%b' % (b"1" * 5000), 400),
        ({"assistant": {}}, b'"x" :%b' % (b"1" * 5000), 200),  # nobody here reads it, and so it goes on
    ],
)
async def test_a_number_beyond_all_bounds_in_a_request(
    tmp_path: Path, rules: dict[str, dict[str, Any]], more: bytes, status: int
) -> None:
    body = b'{"model":"auto","messages":[{"role":"user","content":"x"}],"max_tokens":9,%b}' % more
    async with call_rig(tmp_path, ["one"], workloads=rules) as rig:
        reply = await post(rig, "/v1/chat/completions", body)
        assert reply.status == status and (status == 200 or reply.code == "body_invalid"), reply.body
        await rig.books()


_REASONED = b'{"type":"reasoning","id":"r","summary":[],"x" :1e999}'


@pytest.mark.parametrize(
    "more", [b'"input":"x","text":{"x" :1e999}', b'"input":[{"role":"user","content":"x"},%b]' % _REASONED]
)
async def test_a_number_beyond_all_bounds_in_what_is_read_for_some_workloads(tmp_path: Path, more: bytes) -> None:
    rules = {"assistant": reliability(on_broken_stream="resume")}
    async with call_rig(tmp_path, ["one"], workloads=rules, more=NATIVE) as rig:
        reply = await post(rig, "/v1/responses", b'{"model":"auto","stream":true,%b}' % more)
        assert reply.status == 400 and b"Number out of range" in reply.body, reply.body
        await rig.books()


def test_a_number_beyond_all_bounds_beside_the_name_of_a_file() -> None:
    with pytest.raises(Invalid, match="Number out of range"):
        with_files_inlined(msgspec.Raw(b'[{"role":"user","content":[{"file_id":"f","x" :1e999}]}]'), lambda part: part)


@pytest.mark.parametrize("output", [5, {"x": 1}, ["x"], "x"])
async def test_a_response_without_a_list_of_items_is_stored_without_any(tmp_path: Path, output: Any) -> None:
    answer = json.dumps({**json.loads(response("Hi")), "output": output}).encode()
    async with raw_upstream_rig(tmp_path, json_response(answer), workloads=FULL, more=NATIVE) as rig:
        shelf = shelved(rig)
        reply = await post(rig, "/v1/responses", {"model": "auto", "input": "x", "max_output_tokens": 9})
        (kept,) = shelf.kept
        assert reply.status == 200 and len(kept.items) == 1, reply.body


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_cannot_be_looked_at_is_not_given(tmp_path: Path, stream: bool) -> None:
    """It was settled by then; of a stream, only how it ended was still to be told."""
    odd = END[:-1] + b',"score":1e999}'
    answer = (
        STREAM_HEAD + encode_events(ROLE, HI, odd, b"[DONE]")
        if stream
        else json_response(completion_body(score=1)[:-2] + b"1e999}")
    )
    async with raw_upstream_rig(tmp_path, answer, workloads=LOOKED_AT) as rig:
        reply = await rig.chat(stream=stream)
        told = b'"code":"stream_broken"' if stream else b'"code":"upstream_failed"'
        assert reply.status == (200 if stream else 503) and told in reply.body, reply.body
        assert b"1e999" not in reply.body
        await rig.books()


async def test_an_only_event_that_is_no_utf_8_and_cannot_be_looked_at_is_not_given(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    said = b'{"object":"text_completion","choices":[{"text":"Hi","finish_reason":"stop"}],"\xe9":1}'
    place = {"one": {"serves": ["completions"]}}
    async with raw_upstream_rig(
        tmp_path, STREAM_HEAD + encode_events(said, b"[DONE]"), workloads=LOOKED_AT, more=place
    ) as rig:
        reply = await post(rig, "/v1/completions", {"model": "auto", "prompt": "x", "stream": True})
        assert (reply.status, reply.code, caplog.text) == (503, "upstream_failed", ""), reply.body
        await rig.books()
