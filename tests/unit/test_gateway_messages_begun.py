"""Anthropic's Messages begin a stream before they know whether there is room for it: that is no first byte yet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.integration.gateway_stack import Reply, parse_events
from tests.unit.call_rig import Rig
from tests.unit.raw_upstream import STREAM_HEAD, encode_events, post, raw_upstream_rig

NATIVE: dict[str, dict[str, Any]] = {"one": {"api": "anthropic"}}
MESSAGE: dict[str, Any] = {
    "id": "m", "type": "message", "role": "assistant", "model": "m", "content": [], "stop_reason": None,
    "stop_sequence": None, "usage": {"input_tokens": 5, "output_tokens": 1},
}  # fmt: skip
TEXT = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
WORD = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}}
ENDS: list[dict[str, Any]] = [
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 3}},
    {"type": "message_stop"},
]


def encode(*told: dict[str, Any]) -> bytes:
    return encode_events(*(json.dumps(each).encode() for each in told))


def error(kind: str, message: str = "Overloaded") -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": message, "details": None}, "request_id": "req_1"}


BEGUN = encode({"type": "message_start", "message": MESSAGE}, {"type": "ping"})


async def stream(rig: Rig) -> Reply:
    asks = {"model": "auto", "max_tokens": 9, "stream": True, "messages": [{"role": "user", "content": "a b"}]}
    return await post(rig, "/v1/messages", asks)


@pytest.mark.parametrize(
    ("ends", "status"),
    [
        (b"", 200),
        (encode(error("overloaded_error")), 529),
        (encode({"type": "ping"}, error("rate_limit_error")), 429),
        (encode(error("api_error", "Internal server error")), 200),
    ],
)
async def test_a_message_that_has_only_begun_comes_from_elsewhere(tmp_path: Path, ends: bytes, status: int) -> None:
    async with raw_upstream_rig(tmp_path, STREAM_HEAD + BEGUN, ends, has_fallback=True, more=NATIVE) as rig:
        reply = await stream(rig)
        found = parse_events(reply.body)
        assert [each["type"] for each in found].count("message_start") == 1 and found[0]["message"]["id"] != "m"
        assert found[-1]["type"] == "message_stop" and found[-1]["groundplan"]["deployment"] == "two"
        first, second = await rig.settlements()
        assert (first.http_status, first.outcome) == (status, "failed" if status == 200 else "not_billed")
        assert second.outcome == "ok" and "resumed" not in second.flags
        await rig.books()


async def test_an_overload_is_a_refusal_where_no_other_deployment_is_left(tmp_path: Path) -> None:
    ends = encode(error("overloaded_error"))
    async with raw_upstream_rig(tmp_path, STREAM_HEAD + BEGUN, ends, more=NATIVE) as rig:
        reply = await stream(rig)
        assert (reply.status, reply.headers["content-type"]) == (503, "application/json")
        assert b"529" in reply.body and reply.headers["retry-after"]
        (only,) = await rig.settlements()
        assert (only.http_status, only.outcome, only.cost) == (529, "not_billed", 0)


async def test_an_overload_once_content_has_begun_breaks_the_stream(tmp_path: Path) -> None:
    pieces = STREAM_HEAD + BEGUN + encode(TEXT, WORD), encode(error("overloaded_error"))
    async with raw_upstream_rig(tmp_path, *pieces, has_fallback=True, more=NATIVE) as rig:
        found = parse_events((await stream(rig)).body)
        assert [each["type"] for each in found[:2]] == ["message_start", "ping"] and found[-1]["type"] == "error"
        (only,) = await rig.settlements()
        assert only.outcome == "failed" and only.cost > 0


async def test_the_beginning_of_a_message_comes_with_what_follows_it(tmp_path: Path) -> None:
    """Byte for byte and in order, also where nothing but the end follows."""
    (tmp_path / "empty").mkdir()
    for folder, said in ((tmp_path, [TEXT, WORD]), (tmp_path / "empty", [])):
        pieces = STREAM_HEAD + BEGUN, *[encode(each) for each in said], encode(*ENDS)
        async with raw_upstream_rig(folder, *pieces, more=NATIVE) as rig:
            reply = await stream(rig)
            assert b"".join(line + b"\n\n" for line in _data(reply.body)[:2]) == BEGUN
            kinds = [each["type"] for each in parse_events(reply.body)]
            assert kinds == ["message_start", "ping", *(each["type"] for each in (*said, *ENDS))]
            (only,) = await rig.settlements()
            assert only.outcome == "ok" and (only.attempt, only.usage.output) == (0, 3)


def _data(body: bytes) -> list[bytes]:
    return [line for line in body.split(b"\n") if line.startswith(b"data: ")]
