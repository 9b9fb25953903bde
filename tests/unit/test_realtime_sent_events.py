"""What clients send in conversations: long events are read and checked in a thread, what costs more is refused."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import pytest
from tests.unit.test_realtime_upstreams import conversing
from websockets.asyncio.server import ServerConnection

from groundplan.blueprint.model import Guardrails
from groundplan.core.errors import Invalid
from groundplan.gateway.guard import conversation
from groundplan.gateway.offload import CHECKED_BYTES, READ_BYTES
from groundplan.gateway.surfaces.realtime import events, read

MASKING = Guardrails(input={"personal_data": "mask"}, unchecked=["audio"])
FILLING = "and so on "


def item(text: str) -> str:
    part = {"type": "input_text", "text": text}
    return json.dumps(
        {"type": "conversation.item.create", "item": {"type": "message", "role": "user", "content": [part]}}
    )


async def echo(connection: ServerConnection) -> None:
    """Repeats what the client says as events of its own, as upstreams confirm items."""
    await connection.send('{"type":"session.created","session":{}}')
    async for message in connection:
        event = json.loads(message)
        await connection.send(json.dumps({**event, "type": "conversation.item.added"}))


async def test_long_texts_are_checked_in_a_thread_and_short_ones_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_loop: list[tuple[str, bool]] = []

    def watch(name: str) -> None:
        original = getattr(conversation, name)

        def watched(*arguments: Any) -> Any:
            in_loop.append((name, threading.current_thread() is threading.main_thread()))
            return original(*arguments)

        monkeypatch.setattr(conversation, name, watched)

    watch("checked_body")
    watch("rewrite_texts")
    said = "Write to ana@acme.example "
    rules = {"guardrails": MASKING}
    async with conversing(tmp_path, echo, rules) as (_, client), asyncio.timeout(60):
        await client.recv()
        for text in (said, said + FILLING * (CHECKED_BYTES // 8), said):
            await client.send(item(text))
            answered = json.loads(await client.recv())
            assert answered["item"]["content"][0]["text"] == text, "the caller reads its own words"
    assert in_loop == [
        ("checked_body", True), ("rewrite_texts", True), ("checked_body", False), ("rewrite_texts", False),
        ("checked_body", True), ("rewrite_texts", True),
    ]  # fmt: skip


async def test_what_is_masked_in_a_long_event_has_the_same_stand_in_in_a_short_one(tmp_path: Path) -> None:
    heard: list[str] = []

    async def upstream(connection: ServerConnection) -> None:
        await connection.send('{"type":"session.created","session":{}}')
        async for message in connection:
            heard.append(json.loads(message)["item"]["content"][0]["text"])
            await connection.send('{"type":"conversation.item.added"}')

    text = "Write to ana@acme.example " + FILLING * (CHECKED_BYTES // 8)
    async with conversing(tmp_path, upstream, {"guardrails": MASKING}) as (_, client), asyncio.timeout(60):
        await client.recv()
        for said in (text, "or to ana@acme.example"):
            await client.send(item(said))
            await client.recv()
    stand_in = heard[1].removeprefix("or to ")
    assert stand_in.startswith("<") and heard[0].startswith(f"Write to {stand_in} ") and "ana@" not in heard[0]


async def test_a_long_event_that_is_refused_ends_nothing(tmp_path: Path) -> None:
    rules = {"guardrails": Guardrails(input={"secrets": "block"}, unchecked=["audio"])}
    secret = "sk-" + "proj-" + "abcdefghijklmnopqrstuvwx "
    async with conversing(tmp_path, echo, rules) as (_, client), asyncio.timeout(60):
        await client.recv()
        await client.send(item(secret + FILLING * (CHECKED_BYTES // 8)))
        assert json.loads(await client.recv())["error"]["code"] == "guardrail_secrets"
        await client.send(item("hello"))
        assert json.loads(await client.recv())["type"] == "conversation.item.added"


async def test_a_long_event_is_read_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    in_loop: list[bool] = []
    original = events.read_client

    def watched(text: str) -> dict[str, Any]:
        in_loop.append(threading.current_thread() is threading.main_thread())
        return original(text)

    monkeypatch.setattr(read, "read_client", watched)
    for size in (10, READ_BYTES):
        text = json.dumps({"type": "input_audio_buffer.append", "audio": "A" * size})
        assert (await read.read_event(text))["audio"] == "A" * size
    assert in_loop == [True, False]


@pytest.mark.parametrize("place", ["session", "response"])
def test_a_dearer_class_of_service_is_refused_by_name(place: str) -> None:
    for dearer in ("priority", "flex", 1, ["auto"]):
        with pytest.raises(Invalid, match="service_tier"):
            events.check({"type": "session.update", place: {"service_tier": dearer}})
    for standard in (None, "auto", "default"):
        events.check({"type": "session.update", place: {"service_tier": standard}})


def test_what_waits_for_the_active_response_is_out_of_band_and_not_large() -> None:
    """It is kept meanwhile, eight times for each conversation."""
    outside, inside = {"response": {"conversation": "none"}}, {"response": {"conversation": "auto"}}
    assert events.may_wait(outside, events.MAX_WAITING_SIZE) and not events.may_wait(inside, 10)
    assert not events.may_wait(outside, events.MAX_WAITING_SIZE + 1) and not events.may_wait({"response": 1}, 10)
