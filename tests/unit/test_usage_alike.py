"""Whatever a provider reports costs the same in a stream and in a whole answer, in every API, and at most its bound."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.unit.raw_upstream import (
    DONE,
    HI,
    ROLE,
    STREAM_HEAD,
    THERE,
    chunk,
    completion_body,
    encode_events,
    json_response,
    post,
    raw_upstream_rig,
)

from groundplan.blueprint.model import RateDetails, Rates
from groundplan.core.money import PICO
from groundplan.ledger.model import Reservation, Settlement

SHORT = Rates(
    input=3 * PICO, output=11 * PICO, cache_read=1 * PICO, cache_write=4 * PICO, reasoning=13 * PICO,
    input_audio=7 * PICO, output_audio=17 * PICO, request=5,
    details=RateDetails(cache_write_1h=6 * PICO, output_image=19 * PICO),
    priority=Rates(input=30 * PICO, output=110 * PICO, cache_read=10 * PICO),
)  # fmt: skip
LONG = Rates(input=6 * PICO, output=22 * PICO, cache_read=2 * PICO, cache_write=8 * PICO, request=5)
RATES = Rates(**{**{name: getattr(SHORT, name) for name in SHORT.__struct_fields__}, "long": LONG, "long_above": 10})
CHAT: list[dict[str, Any]] = [
    {},
    {"prompt_tokens_details": {"cached_tokens": 5, "cache_write_tokens": 2}},
    {"prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 5}},
    {"completion_tokens_details": {"reasoning_tokens": 3}},
    {"completion_tokens_details": {"reasoning_tokens": 1, "audio_tokens": 2, "image_tokens": 1}},
    {"cached_tokens": 5, "cache_creation_input_tokens": 2},
    {"prompt_tokens": 12, "prompt_tokens_details": {"cached_tokens": 9, "cache_write_tokens": 2}},
    {"total_tokens": 16},
    {"prompt_tokens": 0},
]
RESPONSES: list[dict[str, Any]] = [
    {},
    {"input_tokens_details": {"cached_tokens": 5, "cache_write_tokens": 2}},
    {"output_tokens_details": {"reasoning_tokens": 3}},
    {"input_tokens": 12, "total_tokens": 18},
]
MESSAGES: list[dict[str, Any]] = [
    {},
    {"cache_read_input_tokens": 3, "cache_creation_input_tokens": 4},
    {"cache_creation_input_tokens": 4,
     "cache_creation": {"ephemeral_5m_input_tokens": 1, "ephemeral_1h_input_tokens": 3}},
    {"cache_read_input_tokens": 5, "output_tokens_details": {"thinking_tokens": 2}},
]  # fmt: skip
TIERS = (None, "default", "priority", "flex", "of their own")
SAID: dict[str, Any] = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 9}
ASKS: dict[str, tuple[str, dict[str, Any], dict[str, Any], list[dict[str, Any]]]] = {
    "chat": ("chat/completions", SAID, {}, CHAT),
    "completions by chat": ("completions", {"prompt": "hello", "max_tokens": 9}, {}, CHAT),
    "messages by chat": ("messages", SAID, {}, CHAT),
    "responses by chat": ("responses", {"input": "hello", "max_output_tokens": 9}, {}, CHAT),
    "responses": ("responses", {"input": "hello", "max_output_tokens": 9}, {"serves": ["responses"]}, RESPONSES),
    "messages": ("messages", SAID, {"api": "anthropic"}, MESSAGES),
}
"""Path below /v1, body, what the deployment speaks, and what is reported there."""


def of_chat(usage: dict[str, Any], tier: str | None) -> tuple[bytes, bytes]:
    """(stream, whole answer)"""
    used: dict[str, Any] = {"prompt_tokens": 9, "completion_tokens": 4, **usage}
    more: dict[str, Any] = {} if tier is None else {"service_tier": tier}
    last = chunk({}, "stop", **more)
    only = json.dumps({**json.loads(last), "choices": [], "usage": used}).encode()
    return STREAM_HEAD + encode_events(ROLE, HI, THERE, last, only, DONE), json_response(
        completion_body(usage=used, **more)
    )


def of_responses(usage: dict[str, Any], tier: str | None) -> tuple[bytes, bytes]:
    text = {"type": "output_text", "text": "Hi there", "annotations": []}
    item = {"type": "message", "id": "i", "role": "assistant", "status": "completed", "content": [text]}
    made: dict[str, Any] = {
        "id": "r", "object": "response", "status": "completed", "model": "m", "output": [item], "service_tier": tier,
        "usage": {"input_tokens": 9, "output_tokens": 4, "total_tokens": 13} | usage,
    }  # fmt: skip
    begun = {**made, "status": "in_progress", "output": [], "usage": None}
    told: list[dict[str, Any]] = [
        {"type": "response.created", "response": begun}, {"type": "response.output_text.delta", "delta": "Hi there"},
        {"type": "response.completed", "response": made},
    ]  # fmt: skip
    numbered = [{**each, "sequence_number": number} for number, each in enumerate(told)]
    return STREAM_HEAD + encode_events(*(json.dumps(each).encode() for each in numbered)), json_response(
        json.dumps(made).encode()
    )


def of_messages(usage: dict[str, Any], tier: str | None) -> tuple[bytes, bytes]:
    told_so: dict[str, Any] = {} if tier is None else {"service_tier": tier}
    used: dict[str, Any] = {"input_tokens": 2, "output_tokens": 4, **usage, **told_so}
    made: dict[str, Any] = {
        "id": "m", "type": "message", "role": "assistant", "model": "m", "stop_reason": "end_turn",
        "stop_sequence": None, "content": [{"type": "text", "text": "Hi there"}], "usage": used,
    }  # fmt: skip
    last = ("output_tokens", "output_tokens_details")
    first = {**{name: count for name, count in used.items() if name not in last}, "output_tokens": 1}
    told: list[dict[str, Any]] = [
        {"type": "message_start", "message": {**made, "content": [], "stop_reason": None, "usage": first}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi there"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"},
         "usage": {name: count for name, count in used.items() if name in last}},
        {"type": "message_stop"},
    ]  # fmt: skip
    return STREAM_HEAD + encode_events(*(json.dumps(each).encode() for each in told)), json_response(
        json.dumps(made).encode()
    )


@pytest.mark.parametrize("name", ASKS)
async def test_what_is_reported_costs_the_same_in_a_stream_and_in_a_whole_answer(tmp_path: Path, name: str) -> None:
    path, body, speaks, reports = ASKS[name]
    of = {"responses": of_responses, "messages": of_messages}.get(name, of_chat)
    more, found = {"one": {"rates": RATES, **speaks}}, list[tuple[Any, ...]]()
    for usage, tier in [*((each, None) for each in reports), *((reports[1], tier) for tier in TIERS[1:])]:
        pair: list[tuple[Any, ...]] = []
        for stream, sent in zip((True, False), of(usage, tier), strict=True):
            async with raw_upstream_rig(tmp_path / f"{len(found)}{stream}", sent, more=more) as rig:
                reply = await post(rig, f"/v1/{path}", {"model": "auto", "stream": stream, **body})
                assert reply.status == 200 and b"there" in reply.body, reply.body
                made, only = [each for each in await rig.records() if isinstance(each, Reservation | Settlement)]
                assert isinstance(made, Reservation) and isinstance(only, Settlement)
                assert only.outcome == "ok" and 0 < only.cost <= made.bound, (usage, tier, only)
                pair.append((only.cost, only.usage, only.estimated, only.saved))
        if not pair[0][2]:  # what is not reported is counted by what came, where it came in pieces
            assert pair[0] == pair[1], (usage, tier)
        assert pair[0][2] == pair[1][2], (usage, tier)
        found.append(pair[0])
    assert len({cost for cost, *_ in found}) > len(found) // 2, "and each class has its own price"
