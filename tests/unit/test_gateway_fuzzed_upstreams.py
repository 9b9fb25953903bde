"""Upstreams whose events and answers were changed at random, by every surface, with guardrails, caches and streams that
go on: each call ends as the contract says, whatever comes."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.unit.call_rig import Rig, call_rig, reliability
from tests.unit.raw_upstream import END, HI, ROLE, STREAM_HEAD, THERE, chunk, completion_body, json_response, post

from groundplan.blueprint.model import Cache, Guardrails

ODD: list[Any] = [
    None, True, 0, -1, 2**63, 10**30, 1.5, 1e308, "", "x", "data: x\n\ny", "\u2028\U0001f600", "\ud83d", "a \ude00 b",
    "[DONE]", [], {}, [None], [[]], {"a": None}, {"index": 0}, "stop", "tool_calls", ["x"], {"text": "x"},
]  # fmt: skip
NAMES = [
    "index", "delta", "content", "finish_reason", "tool_calls", "function", "id", "usage", "error", "choices", "type",
    "role", "message", "logprobs", "reasoning", "refusal", "prompt_tokens", "input_tokens", "content_block", "text",
    "response", "item", "output_index", "sequence_number", "output", "status", "service_tier",
]  # fmt: skip
COUNTED = {"input_tokens": 5, "output_tokens": 3}
BEGUN: dict[str, Any] = {"id": "m", "type": "message", "role": "assistant", "content": [], "model": "m",
                         "stop_reason": None, "stop_sequence": None, "usage": COUNTED}  # fmt: skip
SAID = {"type": "message", "id": "x", "role": "assistant", "status": "completed",
        "content": [{"type": "output_text", "text": "Hi there", "annotations": []}]}  # fmt: skip
RESPONSE = {"id": "r", "object": "response", "status": "completed", "created_at": 1, "model": "m", "output": [SAID],
            "usage": {**COUNTED, "total_tokens": 8}}  # fmt: skip
PLACE = {"item_id": "x", "output_index": 0, "content_index": 0}
CALL = {"index": 0, "id": "t", "type": "function", "function": {"name": "f", "arguments": "{}"}}
CHAT = [json.loads(each) for each in (ROLE, HI, chunk({"reasoning": "hm"}), THERE, chunk({"tool_calls": [CALL]}), END)]
MESSAGES: list[Any] = [
    {"type": "message_start", "message": BEGUN},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi there"}},
    {"type": "content_block_stop", "index": 0},
    {
        "type": "content_block_start",
        "index": 1,
        "content_block": {"type": "tool_use", "id": "t", "name": "f", "input": {}},
    },
    {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": "{}"}},
    {"type": "content_block_stop", "index": 1},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": COUNTED},
    {"type": "message_stop"},
]
RESPONSES: list[Any] = [
    {"type": "response.created", "sequence_number": 0, "response": {**RESPONSE, "status": "in_progress", "output": []}},
    {"type": "response.output_item.added", "sequence_number": 1, "output_index": 0, "item": {**SAID, "content": []}},
    {"type": "response.content_part.added", **PLACE, "part": {"type": "output_text", "text": "", "annotations": []}},
    {"type": "response.output_text.delta", "sequence_number": 3, **PLACE, "delta": "Hi "},
    {"type": "response.output_text.delta", "sequence_number": 4, **PLACE, "delta": "there"},
    {"type": "response.output_text.done", "sequence_number": 5, **PLACE, "text": "Hi there"},
    {"type": "response.output_item.done", "sequence_number": 6, "output_index": 0, "item": SAID},
    {"type": "response.completed", "sequence_number": 7, "response": RESPONSE},
]
TEXTS = [{"id": "c", "object": "text_completion", "created": 1, "model": "m",
          "choices": [{"index": 0, "text": "Hi there", "finish_reason": "stop"}]}]  # fmt: skip
LOOKED_AT = Guardrails(output={"secrets": "block", "personal_data": "mask"}, tools=["f"], budget_ms=100_000)
WORKLOADS: dict[str, dict[str, Any]] = {
    "plain": reliability(on_broken_stream="resume"),
    "looked_at": {"guardrails": LOOKED_AT, **reliability(on_broken_stream="resume")},
    "cached": {"cache": Cache(seconds=60, max_bytes=1 << 20, scope="workload")},
}
OF_PATH: dict[str, tuple[list[Any], Any]] = {
    "/v1/chat/completions": (CHAT, json.loads(completion_body())),
    "/v1/messages": (MESSAGES, {**BEGUN, "content": [{"type": "text", "text": "Hi"}], "stop_reason": "end_turn"}),
    "/v1/responses": (RESPONSES, RESPONSE),
    "/v1/completions": (TEXTS, TEXTS[0]),
}


class Odd:
    """What one seed makes of good answers."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)

    def changed(self, value: Any) -> Any:
        value = deepcopy(value)
        for _ in range(self.dice.choice([0, 0, 1, 1, 2, 3])):
            holder, name = self.dice.choice(list(_places(value)))
            turn = self.dice.random()
            if turn < 0.6:
                holder[name] = deepcopy(self.dice.choice(ODD))
            elif isinstance(holder, dict) and turn < 0.8:
                del holder[name]
            elif isinstance(holder, dict):
                holder[self.dice.choice(NAMES)] = deepcopy(self.dice.choice(ODD))
            if not value:
                break
        return value

    def stream(self, events: Sequence[Any]) -> bytes:
        told = [self.changed(each) for each in events]
        if self.dice.random() < 0.3:
            self.dice.shuffle(told)
        if self.dice.random() < 0.3:
            told.pop(self.dice.randrange(len(told)))
        lines = [json.dumps(each, indent=self.dice.choice([None, None, 1])).split("\n") for each in told]
        out = "".join("".join(f"data: {line}\n" for line in each) + "\n" for each in lines).encode()
        out += b"data: [DONE]\n\n" if self.dice.random() < 0.8 else b""
        return STREAM_HEAD + (out[: self.dice.randrange(len(out) + 1)] if self.dice.random() < 0.2 else out)

    def answer(self, path: str, *, stream: bool) -> bytes:
        events, one = OF_PATH[path]
        return self.stream(events) if stream else json_response(json.dumps(self.changed(one)).encode())


def _places(value: Any) -> list[tuple[Any, Any]]:
    """(holder, name) of everything in a JSON value."""
    names = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    found = [(value, name) for name in names]
    return found + [place for name in names for place in _places(value[name])]


@asynccontextmanager
async def answered_by(folder: Path, odd: Odd) -> AsyncIterator[Rig]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        body = json.loads(await reader.readexactly(length))
        writer.write(odd.answer(head.split(b" ")[1].decode(), stream=bool(body.get("stream"))))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    names, port = ["one", "two", "three"], server.sockets[0].getsockname()[1]
    more: dict[str, dict[str, Any]] = {"one": {"serves": ["responses", "completions"]}, "three": {"api": "anthropic"}}
    at = {name: port for name in names}
    async with call_rig(folder, names, ports=at, more=more, workloads=WORKLOADS, limit=10**16) as rig:
        yield rig
    server.close()


@pytest.mark.parametrize("seed", range(4))
async def test_every_call_ends_correctly_whatever_upstreams_send(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, seed: int
) -> None:
    odd = Odd(seed)
    async with answered_by(tmp_path, odd) as rig:
        live: Any = rig.gateway.live
        policy = live.policy
        for number in range(60):
            path = odd.dice.choice(list(OF_PATH))
            asks: dict[str, Any] = {"model": "auto", "stream": odd.dice.random() < 0.8, "max_tokens": 50}
            if path == "/v1/responses":
                asks |= {"input": f"a {number % 7}", "max_output_tokens": asks.pop("max_tokens")}
            elif path == "/v1/completions":
                asks["prompt"] = f"a {number % 7}"
            else:
                asks["messages"] = [{"role": "user", "content": f"a {number % 7}"}]
            reply = await post(rig, path, asks, odd.dice.choice(list(WORKLOADS)))
            assert b"internal_error" not in reply.body and reply.body and caplog.text == "", caplog.text
            live.policy = replace(policy, kills=frozenset())  # usage above its bound stops a workload
        assert rig.slices.open_reservations == 0
