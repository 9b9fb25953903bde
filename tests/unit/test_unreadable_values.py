"""What JSON may hold and not every decoder bears: half of a character, as a text that was cut by UTF-16 ends with, and
numbers beyond all bounds. An answer that was paid for is its caller's all the same; a request is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from tests.unit.call_rig import Rig, call_rig
from tests.unit.raw_upstream import answering, asked, saying, whole

from groundplan.blueprint.model import Keep

HALF, SIGN = "caf\ud83d", "caf\ufffd"
FULL = {"assistant": {"keep": Keep(content="full", seconds=60)}}
NATIVE = {"one": {"serves": ["responses"]}}


class Shelf:
    """What was stored."""

    def __init__(self) -> None:
        self.kept: list[Any] = []

    async def put(self, row: object, person: UUID, kept: Any) -> bool:  # noqa: ARG002 -- as the shelves have it
        self.kept.append(kept)
        return True


def shelved(rig: Rig) -> Shelf:
    rig.gateway.completions = rig.gateway.responses = shelf = Shelf()  # type: ignore[assignment]
    return shelf


async def test_a_completion_that_is_stored_has_a_sign_for_half_of_a_character(tmp_path: Path) -> None:
    choice = {"index": 0, "message": {"role": "assistant", "content": HALF}, "finish_reason": "stop"}
    async with saying(tmp_path, answering(whole(choices=[choice])), workloads=FULL) as rig:
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
    async with saying(tmp_path, answering(response(HALF)), workloads=FULL, more=NATIVE) as rig:
        shelf = shelved(rig)
        reply = await asked(rig, "/v1/responses", {"model": "auto", "input": given, "max_output_tokens": 9})
        assert reply.status == 200 and b'"store":true' in reply.body, reply.body
        (kept,) = shelf.kept
        assert kept.items[-1]["content"][0]["text"] == SIGN


async def test_what_cannot_be_read_is_not_stored(tmp_path: Path) -> None:
    answer = response("Hi").replace(b'"object"', b'"score": 1e999, "object"')
    async with saying(tmp_path, answering(answer), workloads=FULL, more=NATIVE) as rig:
        shelf = shelved(rig)
        reply = await asked(rig, "/v1/responses", {"model": "auto", "input": "x", "max_output_tokens": 9})
        assert reply.status == 200 and b'"store":false' in reply.body and shelf.kept == []
    (tmp_path / "chat").mkdir()
    async with saying(tmp_path / "chat", answering(whole(score=1)[:-2] + b"1e999}"), workloads=FULL) as rig:
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
        reply = await asked(rig, path, body.encode())
        assert (reply.status, reply.code) == (400, "body_invalid"), reply.body
        assert rig.models["one"].counted == 0
