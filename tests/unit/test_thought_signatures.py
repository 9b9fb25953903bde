"""Signatures of thoughts, for which Messages and Responses have no place: they come back to the model that gave them,
in streams as in whole answers, and reach nobody else."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.call_rig import Rig, call_rig
from tests.unit.raw_upstream import (
    DONE,
    ROLE,
    STREAM_HEAD,
    chunk,
    completion_body,
    encode_events,
    json_response,
    post,
    usage_chunk,
)

from groundplan.gateway.surfaces.thought_signatures import (
    Extra,
    plain_id,
    signed_id,
    split_signature,
    without_signatures,
)

SIGNED = {"google": {"thought_signature": "CpcBAdHtim9/+g=="}}
USAGE = b'{"prompt_tokens":5,"completion_tokens":3,"total_tokens":8}'
LOOK = {"name": "look", "arguments": "{}"}
CALLS = [
    {"index": 0, "id": "c1", "type": "function", "function": LOOK, "extra_content": SIGNED},
    {"index": 1, "id": "c2", "type": "function", "function": LOOK},
]


@asynccontextmanager
async def worker(folder: Path, answer: bytes, **settings: Any) -> AsyncIterator[tuple[Rig, list[Any]]]:
    """One whose upstream answers with these bytes; the requests that reach it are listed."""
    seen: list[Any] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        seen.append(json.loads(await reader.readexactly(length)))
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    at = {"one": server.sockets[0].getsockname()[1]}
    try:
        async with call_rig(folder, ["one"], ports=at, **settings) as rig:
            yield rig, seen
    finally:
        server.close()


def said(stream: bool) -> bytes:
    if stream:
        end = usage_chunk(USAGE).replace(b'"stop"', b'"tool_calls"')
        return STREAM_HEAD + encode_events(ROLE, chunk({"tool_calls": CALLS}), end, DONE)
    message = {"role": "assistant", "content": None, "tool_calls": CALLS}
    choices = [{"index": 0, "message": message, "finish_reason": "tool_calls"}]
    return json_response(completion_body(choices=choices, usage=json.loads(USAGE)))


def ids(path: str, body: bytes, stream: bool) -> list[str]:
    """Of the calls in an answer."""
    told = [json.loads(line[6:]) for line in body.split(b"\n") if line.startswith(b"data: ")] if stream else []
    if path == "/v1/messages":
        begun = [each["content_block"] for each in told if each["type"] == "content_block_start"]
        content = begun if stream else json.loads(body)["content"]
        return [block["id"] for block in content if block["type"] == "tool_use"]
    response = told[-1]["response"] if stream else json.loads(body)
    return [item["call_id"] for item in response["output"] if item["type"] == "function_call"]


def again(path: str, names: list[str], stream: bool) -> dict[str, Any]:
    """The request with the results of what was called."""
    if path == "/v1/messages":
        blocks = [{"type": "tool_use", "id": name, "name": "look", "input": {}} for name in names]
        results = [{"type": "tool_result", "tool_use_id": name, "content": "there"} for name in names]
        asks = [{"role": "user", "content": "x"}, {"role": "assistant", "content": blocks}]
        return {"max_tokens": 20, "stream": stream, "messages": [*asks, {"role": "user", "content": results}]}
    calls = [{"type": "function_call", "call_id": name, "name": "look", "arguments": "{}"} for name in names]
    results = [{"type": "function_call_output", "call_id": name, "output": "there"} for name in names]
    return {"max_output_tokens": 20, "stream": stream, "input": [{"role": "user", "content": "x"}, *calls, *results]}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ["/v1/messages", "/v1/responses"])
@pytest.mark.parametrize("to_gemini", [True, False])
async def test_a_signature_comes_back_to_the_model_that_gave_it_and_to_no_other(
    tmp_path: Path, path: str, stream: bool, to_gemini: bool
) -> None:
    async with worker(tmp_path, said(stream)) as (rig, seen):
        rig.change_deployment("one", upstream_model="gemini-3-pro-preview")
        first = await post(rig, path, {"model": "auto", **again(path, [], stream)} | _begun(path))
        names = ids(path, first.body, stream)
        assert [plain_id(name) for name in names] == ["c1", "c2"] and names[0] != "c1" and names[1] == "c2"
        assert all(name.replace("_", "").replace("-", "").isalnum() for name in names), "as Anthropic's clients check"
        if not to_gemini:
            rig.change_deployment("one", upstream_model="gpt")
        reply = await post(rig, path, {"model": "auto", **again(path, names, stream)})
        assert reply.status == 200, reply.body
        (made,) = [message for message in seen[1]["messages"] if message.get("tool_calls")]
        assert [call["id"] for call in made["tool_calls"]] == ["c1", "c2"]
        told = [call.get("extra_content") for call in made["tool_calls"]]
        assert told == ([SIGNED, None] if to_gemini else [None, None])
        results = [message["tool_call_id"] for message in seen[1]["messages"] if message["role"] == "tool"]
        assert results == ["c1", "c2"]
        await rig.books()


def _begun(path: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "x"}]} if path == "/v1/messages" else {"input": "x"}


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/responses"])
async def test_a_provider_that_has_the_api_itself_gets_the_ids_of_the_models(tmp_path: Path, path: str) -> None:
    native = {"api": "anthropic"} if path == "/v1/messages" else {"serves": ["responses"]}
    name = signed_id("c1", msgspec.convert(SIGNED, Extra))
    said = f'what is "id":"{name}"?'
    async with worker(tmp_path, json_response(b"{}", b"400 Bad Request"), more={"one": native}) as (rig, seen):
        body = again(path, [name], stream=False)
        (body.get("messages") or body["input"])[0]["content"] = said
        await post(rig, path, {"model": "auto", **body})
    sent = json.dumps(seen[0])
    assert sent.count("c1") == 3 and json.loads(sent)[("messages" if path == "/v1/messages" else "input")][0] == {
        "role": "user", "content": said,
    }, "what somebody says stays as it is"  # fmt: skip


@given(st.text(min_size=1), st.text(min_size=1))
def test_what_is_signed_is_read_again(name: str, told: str) -> None:
    made = signed_id(name, _extra(told))
    assert split_signature(made) == (name, {"google": {"thought_signature": told}})
    assert signed_id(name, None) == signed_id(name, Extra()) == name


def _extra(told: str) -> Extra:
    return msgspec.convert({"google": {"thought_signature": told}}, Extra)


@given(st.text())
def test_other_ids_are_left_alone(name: str) -> None:
    own, found = split_signature(name)
    assert (own == name) == (found is None)
    assert plain_id("call_1__thought__CpcB") == "call_1__thought__CpcB"
    assert without_signatures(json.dumps({"id": name}).encode()) is None or "__gp_signed_" in name


def test_an_id_of_any_length_is_read_once() -> None:
    """Looked at from each of its marks to its end, one of a megabyte would keep a worker busy for minutes."""
    name = "__gp_signed_a" * 20_000 + "!"
    began = perf_counter()
    assert split_signature(name) == (name, None)
    raw = json.dumps([{"type": "function_call", "call_id": name}]).encode()
    assert without_signatures(raw) == raw
    assert perf_counter() - began < 1


def test_a_mark_behind_another_one_is_the_one_that_is_read() -> None:
    """Of a gateway behind a gateway, each gives back what it was given."""
    inner = signed_id("call_1", msgspec.convert(SIGNED, Extra))
    outer = signed_id(inner, msgspec.convert({"google": {"thought_signature": "sent"}}, Extra))
    assert split_signature(outer) == (inner, {"google": {"thought_signature": "sent"}})
    assert split_signature(inner) == ("call_1", SIGNED)
    assert without_signatures(json.dumps({"id": outer}).encode()) == json.dumps({"id": inner}).encode()
