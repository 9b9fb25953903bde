"""`groundplan.left_out` names what the answer that the client gets leaves out: not what an answer of another attempt,
which the client does not get, would have."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from tests.integration.gateway_stack import parse_events
from tests.unit.call_rig import call_rig, reliability
from tests.unit.raw_upstream import (
    STREAM_HEAD,
    chunk,
    completion_body,
    encode_events,
    json_response,
    post,
    raw_upstream_rig,
    tcp_server,
)
from tests.unit.test_cached_answers import CACHE, facts_with_cache_control
from tests.unit.test_gateway_cascade import SCHEMA, declared

from groundplan.core.endpoints import announce
from groundplan.core.home import Home
from groundplan.gateway.upstream.providers import SERVICE

REQUESTS: dict[str, dict[str, Any]] = {
    "/v1/messages": {"model": "auto", "max_tokens": 20, "messages": [{"role": "user", "content": "x"}]},
    "/v1/responses": {"model": "auto", "max_output_tokens": 20, "input": "x"},
    "/v1/completions": {"model": "auto", "max_tokens": 20, "prompt": "x"},
}
FAILED = encode_events(b'{"error":{"message":"it is over"}}')
IMAGES = {"images": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]}


def left_out(*names: str) -> bytes:
    """An event that gives the client nothing, and says what was left out."""
    return encode_events(json.dumps({"id": "c", "choices": [], "left_out": names}).encode())


def facts_of(body: bytes) -> dict[str, Any]:
    (facts,) = [each["groundplan"] for each in parse_events(body) if each != "[DONE]" and "groundplan" in each]
    assert isinstance(facts, dict)
    return facts


@pytest.mark.parametrize("path", REQUESTS)
async def test_a_failed_attempt_leaves_nothing_out_of_the_next_ones_answer(tmp_path: Path, path: str) -> None:
    async with raw_upstream_rig(tmp_path, STREAM_HEAD + left_out("answer.images"), FAILED, has_fallback=True) as rig:
        facts = facts_of((await post(rig, path, REQUESTS[path] | {"stream": True})).body)
        assert facts["deployment"] == "two" and "left_out" not in facts


@pytest.mark.parametrize("path", REQUESTS)
async def test_a_slower_attempt_leaves_nothing_out_of_the_hedges_answer(tmp_path: Path, path: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(STREAM_HEAD + left_out("answer.images"))
        await writer.drain()
        await asyncio.sleep(60)

    hedged = {"assistant": reliability(hedge={"after_ms": 200, "at_most": 1.0})}
    async with (
        tcp_server(serve) as port,
        call_rig(tmp_path, ["one", "two"], ports={"one": port}, workloads=hedged) as rig,
    ):
        facts = facts_of((await post(rig, path, REQUESTS[path] | {"stream": True})).body)
        assert facts["deployment"] == "two" and "left_out" not in facts


@pytest.mark.parametrize("fails_between", [True, False])
async def test_a_resumed_stream_names_what_its_parts_leave_out(tmp_path: Path, fails_between: bool) -> None:
    """Not what an attempt in between leaves out, of which nothing was sent."""
    said = {
        "one": (STREAM_HEAD, encode_events(chunk({"role": "assistant", "content": "You asked: "}), chunk(IMAGES))),
        "two": (STREAM_HEAD + left_out("answer.audio"), FAILED),
    }

    def serving(name: str) -> Any:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            for piece in said[name]:
                writer.write(piece)
                await writer.drain()

        return serve

    def ports(one: int, two: int) -> dict[str, int]:
        return {"one": one, "two": two} if fails_between else {"one": one}

    names = ["one", "two", "three"]
    resumed = {"assistant": {"attempts": 3, **reliability(on_broken_stream="resume")}}
    async with (
        tcp_server(serving("one")) as one,
        tcp_server(serving("two")) as two,
        call_rig(tmp_path, names, ports=ports(one, two), workloads=resumed) as rig,
    ):
        reply = await post(rig, "/v1/messages", REQUESTS["/v1/messages"] | {"stream": True})
        facts = facts_of(reply.body)
        assert facts["deployment"] == ("three" if fails_between else "two") and facts["left_out"] == ["answer.images"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("passes", [True, False])
async def test_a_first_try_of_a_cascade_leaves_out_only_of_its_own_answer(
    tmp_path: Path, passes: bool, stream: bool
) -> None:
    choice = {"index": 0, "message": {"role": "assistant", "content": '{"ok":1}' if passes else "no"}}
    usage = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
    answer = completion_body(choices=[{**choice, "finish_reason": "stop"}], usage=usage, left_out=["answer.citations"])

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(json_response(answer))
        await reader.read()  # until the gateway closes the connection

    more, names = {"small": {"api": "gemini"}}, ["small", "large", "judge"]
    async with (
        tcp_server(serve) as port,
        call_rig(tmp_path, names, more=more, workloads=declared(schema=SCHEMA)) as rig,
    ):
        announce(Home(tmp_path), SERVICE, f"http://127.0.0.1:{port}", "token")
        reply = await rig.chat(stream=stream)
        facts = facts_of(reply.body) if stream else reply.json["groundplan"]
        assert facts["deployment"] == ("small" if passes else "large")
        assert facts.get("left_out") == (["answer.citations"] if passes else None)


async def test_a_new_answer_to_a_cached_request_leaves_out_only_of_its_own(tmp_path: Path) -> None:
    choice = {"index": 0, "message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
    left_out = [{"left_out": ["answer.citations"]}, {}]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readline():
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split()[0]))
            writer.write(json_response(completion_body(choices=[choice], usage=usage, **left_out.pop(0))))

    cached = {"assistant": {"cache": CACHE}}
    async with (
        tcp_server(serve) as port,
        call_rig(tmp_path, ["one"], more={"one": {"api": "gemini"}}, workloads=cached) as rig,
    ):
        announce(Home(tmp_path), SERVICE, f"http://127.0.0.1:{port}", "token")
        facts = [(await rig.chat()).json["groundplan"] for _ in range(3)]
        facts.append(await facts_with_cache_control(rig, "no-cache"))
        facts.append((await rig.chat()).json["groundplan"])
    assert [each["cache"] for each in facts] == ["none", "exact", "exact", "none", "exact"]
    assert [each.get("left_out") for each in facts] == [["answer.citations"]] * 3 + [None] * 2
