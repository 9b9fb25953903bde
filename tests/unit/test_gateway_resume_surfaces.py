"""Broken streams that are resumed on surfaces other than chat: the rows of docs/streams.md for Responses, Messages and
completions."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from openai.types.responses import ResponseStreamEvent
from tests.integration.gateway_stack import parse_reply
from tests.integration.sdk_types import parse_strictly
from tests.unit.call_rig import Rig, call_rig, reliability
from tests.unit.raw_upstream import ROLE, STREAM_HEAD, chunk, encode_events, raw_upstream_rig

from groundplan.core.money import PICO
from groundplan.gateway.call.attempts.resume import begin_continuation
from groundplan.gateway.http.sse import EventReader
from groundplan.gateway.resuming.continued_relay import INSTRUCTION
from groundplan.gateway.surfaces.messages import surface as messages
from groundplan.gateway.surfaces.messages.native import MessagesRelay
from groundplan.gateway.upstream.health import Health
from groundplan.ledger.model import Usage

RESUME = {"assistant": reliability(on_broken_stream="resume")}
TEXT = "You asked: a b c d"
BREAKS = ["cut", "malformed", "error_event", "no_finish", "stall_late"]


@dataclass
class ReceivedStream:
    """A stream as its client received it: the JSON of its events."""

    status: int
    events: list[Any]

    @property
    def event_types(self) -> list[str]:
        return [str(event.get("type", "")) for event in self.events]

    def events_of_type(self, kind: str) -> list[Any]:
        return [event for event in self.events if event.get("type") == kind]

    @property
    def facts(self) -> Any:
        (found,) = [event["groundplan"] for event in self.events if "groundplan" in event]
        return found


@dataclass(frozen=True)
class Surface:
    """The request of a surface, and how the text and usage of its streams are read and checked."""

    path: str
    body: dict[str, Any]
    settings: dict[str, Any]
    text: Callable[[ReceivedStream], str]
    check_complete: Callable[[ReceivedStream], None]
    output_tokens: Callable[[ReceivedStream], int]
    leading_events: int
    """Events of its upstream before the first text."""

    async def stream(self, rig: Rig, **more: Any) -> ReceivedStream:
        data = json.dumps({"model": "auto", "stream": True, **self.body, **more}).encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
        head = f"POST {self.path} HTTP/1.1\r\nhost: g\r\nauthorization: Bearer assistant\r\nconnection: close\r\n"
        writer.write(head.encode() + b"content-length: %d\r\n\r\n" % len(data) + data)
        reply = parse_reply(await asyncio.wait_for(reader.read(), 20))
        writer.close()
        lines = [line[6:] for line in reply.body.decode().split("\n") if line.startswith("data: {")]
        return ReceivedStream(reply.status, [json.loads(line) for line in lines])


def response_text(got: ReceivedStream) -> str:
    return "".join(event["delta"] for event in got.events_of_type("response.output_text.delta"))


def check_response(got: ReceivedStream) -> None:
    """One response: every event is OpenAI's, numbered without a gap, and the end has what was streamed."""
    for event in got.events:
        parse_strictly(ResponseStreamEvent, json.dumps(event), our_fields={"groundplan", "hint", "call_id", "error"})
    assert [event["sequence_number"] for event in got.events] == list(range(len(got.events)))
    assert got.event_types.count("response.created") == 1 and got.event_types[-1] == "response.completed"
    ended, (begun,) = got.events[-1]["response"], got.events_of_type("response.created")
    assert ended["id"] == begun["response"]["id"] and ended["model"] == begun["response"]["model"]
    items = [event["item"] for event in got.events_of_type("response.output_item.done")]
    assert ended["output"] == items and [
        e["output_index"] for e in got.events_of_type("response.output_item.added")
    ] == list(range(len(items)))
    parts = [part["text"] for item in items if item["type"] == "message" for part in item["content"]]
    assert "".join(parts) == response_text(got)
    assert "".join(event["text"] for event in got.events_of_type("response.output_text.done")) == response_text(got)


def message_text(got: ReceivedStream) -> str:
    deltas = [event["delta"] for event in got.events_of_type("content_block_delta")]
    return "".join(delta.get("text", "") for delta in deltas)


def check_message(got: ReceivedStream) -> None:
    """One message: each block begins and ends once, in order, one of them open at a time."""
    assert got.event_types.count("message_start") == 1 and got.event_types[-1] == "message_stop"
    assert got.event_types.count("message_delta") == 1
    shown, opened = [], None
    for event in got.events:
        if event["type"] == "content_block_start":
            assert opened is None
            opened = event["index"]
            shown.append(opened)
        elif event["type"] == "content_block_delta":
            assert event["index"] == opened
        elif event["type"] == "content_block_stop":
            assert event["index"] == opened
            opened = None
    assert opened is None and shown == list(range(len(shown)))


def message_output_tokens(got: ReceivedStream) -> int:
    return int(got.events_of_type("message_delta")[0]["usage"]["output_tokens"])


def completion_text(got: ReceivedStream) -> str:
    return "".join(choice["text"] for event in got.events for choice in event.get("choices", []))


def check_completion(got: ReceivedStream) -> None:
    ends = [c["finish_reason"] for event in got.events for c in event.get("choices", []) if c["finish_reason"]]
    assert len(ends) == 1 and len({event["id"] for event in got.events}) == 1
    assert len({event["model"] for event in got.events}) == 1


NATIVE_MESSAGES = {"api": "anthropic"}
SURFACES = {
    "responses": Surface(
        "/v1/responses", {"input": "a b c d"}, {"serves": ["responses"]}, response_text, check_response,
        lambda got: int(got.events[-1]["response"]["usage"]["output_tokens"]), 3,
    ),
    "responses by chat": Surface(
        "/v1/responses", {"input": "a b c d"}, {}, response_text, check_response,
        lambda got: int(got.events[-1]["response"]["usage"]["output_tokens"]), 1,
    ),
    "messages": Surface(
        "/v1/messages", {"max_tokens": 20, "messages": [{"role": "user", "content": "a b c d"}]}, NATIVE_MESSAGES,
        message_text, check_message, message_output_tokens, 3,
    ),
    "messages by chat": Surface(
        "/v1/messages", {"max_tokens": 20, "messages": [{"role": "user", "content": "a b c d"}]}, {},
        message_text, check_message, message_output_tokens, 1,
    ),
    "completions": Surface(
        "/v1/completions", {"prompt": "a b c d", "stream_options": {"include_usage": True}},
        {"serves": ["completions"]}, completion_text, check_completion,
        lambda got: int(next(e["usage"]["completion_tokens"] for e in got.events if e.get("usage"))), 0,
    ),
    "completions by chat": Surface(
        "/v1/completions", {"prompt": "a b c d", "stream_options": {"include_usage": True}}, {}, completion_text,
        check_completion, lambda got: int(next(e["usage"]["completion_tokens"] for e in got.events if e.get("usage"))),
        1,
    ),
}  # fmt: skip


SURFACE_PARAMETERS = [pytest.param(kind, marks=pytest.mark.soak if "by chat" in kind else ()) for kind in SURFACES]
"""Surfaces served by chat have the same events; all of them run only in `make soak`."""


def surface_rig(folder: Path, surface: Surface, names: tuple[str, ...] = ("one", "two", "three"), **more: Any) -> Any:
    settings = {name: {**surface.settings, **({"idle_ms": 200} if name == "one" else {})} for name in names}
    return call_rig(folder, list(names), more=settings, workloads=RESUME, **more)


@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        pytest.param(kind, mode, marks=() if mode == BREAKS[number % 5] else pytest.mark.soak)
        for number, kind in enumerate(SURFACES)
        for mode in BREAKS
    ],
)
async def test_a_broken_stream_of_any_surface_is_resumed(tmp_path: Path, kind: str, mode: str) -> None:
    surface = SURFACES[kind]
    async with surface_rig(tmp_path, surface) as rig:
        rig.play("one", mode=mode, chunk_ms=2)
        got = await surface.stream(rig)
        assert got.status == 200 and surface.text(got).strip() == TEXT, got.events
        surface.check_complete(got)
        assert got.facts["deployment"] == "two"
        first, second = await rig.settlements()
        assert (first.outcome, second.outcome, second.flags) == ("failed", "ok", ["resumed"])
        assert surface.output_tokens(got) == first.usage.output + second.usage.output
        await rig.books()


@pytest.mark.parametrize("kind", SURFACE_PARAMETERS)
async def test_wherever_a_stream_of_any_surface_breaks_no_word_is_lost_or_twice(tmp_path: Path, kind: str) -> None:
    surface = SURFACES[kind]
    async with surface_rig(tmp_path, surface, names=("one", "two")) as rig:
        for at in range(12):
            rig.play("one", mode="cut", at=at, chunk_ms=1)
            got = await surface.stream(rig)
            assert surface.text(got).strip() == TEXT, (at, got.events)
            surface.check_complete(got)
            rig.gateway.health = Health()
        await rig.books()


@pytest.mark.parametrize("kind", SURFACE_PARAMETERS)
async def test_a_repetition_is_taken_out_of_any_surface(tmp_path: Path, kind: str) -> None:
    surface = SURFACES[kind]
    async with surface_rig(tmp_path, surface) as rig:
        rig.play("one", mode="cut", chunk_ms=2, at=surface.leading_events + 2)
        rig.play("two", overlap=13)
        got = await surface.stream(rig)
        assert surface.text(got).strip() == TEXT
        surface.check_complete(got)


@pytest.mark.parametrize("kind", SURFACE_PARAMETERS)
async def test_a_stream_of_any_surface_is_resumed_again(tmp_path: Path, kind: str) -> None:
    surface = SURFACES[kind]
    async with surface_rig(tmp_path, surface) as rig:
        rig.play("one", mode="cut", chunk_ms=2, at=surface.leading_events + 1)
        rig.play("two", mode="cut", chunk_ms=2, at=surface.leading_events + 1)
        got = await surface.stream(rig)
        assert surface.text(got).strip() == TEXT
        surface.check_complete(got)
        assert len(await rig.settlements()) == 3


@pytest.mark.parametrize("kind", ["responses", "responses by chat"])
async def test_the_error_of_a_resumed_response_is_numbered_after_its_last_event(tmp_path: Path, kind: str) -> None:
    surface = SURFACES[kind]
    async with surface_rig(tmp_path, surface, names=("one", "two")) as rig:
        for name in ("one", "two"):
            rig.play(name, mode="cut", chunk_ms=2, at=surface.leading_events + 1)
        got = await surface.stream(rig)
        assert got.event_types[-1] == "error" and len(await rig.settlements()) == 2, got.events
        numbers = [event["sequence_number"] for event in got.events if "sequence_number" in event]
        assert numbers == sorted(set(numbers)) and numbers[-1] == got.events[-1]["sequence_number"]
        continued = [event["sequence_number"] for event in got.events[-2:] if "sequence_number" in event]
        assert continued[-1] == continued[0] + len(continued) - 1, "right after the last one that the client has"


@pytest.mark.parametrize("kind", ["responses", "responses by chat", "messages", "messages by chat"])
async def test_a_tool_call_of_any_surface_that_has_begun_is_never_continued(tmp_path: Path, kind: str) -> None:
    surface = SURFACES[kind]
    async with surface_rig(tmp_path, surface) as rig:
        for name in ("one", "two", "three"):
            rig.play(name, tool=True)
        at = {"responses": 12, "responses by chat": 8, "messages": 11, "messages by chat": 8}[kind]
        rig.play("one", mode="cut", tool=True, at=at, chunk_ms=2)
        got = await surface.stream(rig)
        assert "error" in got.event_types and "a tool call had begun" in json.dumps(got.events_of_type("error"))
        assert rig.models["two"].counted == 0
        await rig.books()


@pytest.mark.parametrize(
    ("block", "delta", "seam"),
    [
        ({"type": "tool_use", "id": "t", "name": "look", "input": {}}, None, "a tool call had begun"),
        ({"type": "text", "text": ""}, {"type": "citations_delta", "citation": {}}, "it had begun to cite"),
        ({"type": "text", "text": ""}, {"type": "text_delta", "text": "Hm."}, ""),
    ],
)
def test_what_a_message_cannot_go_on_with_stays_so_though_its_model_thinks_behind_it(
    block: dict[str, Any], delta: dict[str, Any] | None, seam: str
) -> None:
    body = {"model": "auto", "stream": True, **SURFACES["messages"].body}
    story = begin_continuation(messages.read(json.dumps(body).encode(), {}), "messages")
    relay = story.relay(MessagesRelay())
    for each in (
        STARTED,
        {"type": "content_block_start", "index": 0, "content_block": block},
        *([] if delta is None else [{"type": "content_block_delta", "index": 0, "delta": delta}]),
        {"type": "content_block_stop", "index": 0},
        {"type": "content_block_start", "index": 1, "content_block": {"type": "thinking", "thinking": ""}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "thinking_delta", "thinking": "so"}},
        {"type": "content_block_stop", "index": 1},
    ):
        relay.feed(json.dumps(each).encode())
    assert story.obstacle(relay) == seam


def block(index: int, content: dict[str, Any], *deltas: dict[str, Any], ends: bool = True) -> list[dict[str, Any]]:
    begun: dict[str, Any] = {"type": "content_block_start", "index": index, "content_block": content}
    said = [{"type": "content_block_delta", "index": index, "delta": each} for each in deltas]
    return [begun, *said, *([{"type": "content_block_stop", "index": index}] if ends else [])]


def text_block(index: int, text: str) -> list[dict[str, Any]]:
    """One that has begun and not ended."""
    return block(index, {"type": "text", "text": ""}, {"type": "text_delta", "text": text}, ends=False)


def thought(index: int, *, ends: bool = True) -> list[dict[str, Any]]:
    begun = {"type": "thinking", "thinking": "", "signature": ""}
    return block(index, begun, {"type": "thinking_delta", "thinking": "so"}, ends=ends)


STARTED = {
    "type": "message_start",
    "message": {"id": "m", "type": "message", "role": "assistant", "model": "m", "content": [], "usage": {}},
}
LOOKS = block(
    0, {"type": "tool_use", "id": "t", "name": "look", "input": {}}, {"type": "input_json_delta", "partial_json": "{}"}
)


@pytest.mark.parametrize(("blocks", "kinds"), [([*LOOKS, *thought(1)], ["text", "tool_use"]), ([], ["text"])])
def test_a_message_goes_on_whatever_comes_in_place_of_its_text(blocks: list[dict[str, Any]], kinds: list[str]) -> None:
    """What is thought meanwhile is not told, and no call becomes part of the text that was open."""
    body = {"model": "auto", "stream": True, **SURFACES["messages"].body}
    story, out = begin_continuation(messages.read(json.dumps(body).encode(), {}), "messages"), b""
    end = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 3}}
    for more in (text_block(0, "It is "), [*thought(0), *text_block(1, "here.")], [*blocks, end]):
        relay = story.relay(MessagesRelay())
        out += b"".join(relay.feed(json.dumps(each).encode()) for each in (STARTED, *more))
        assert story.obstacle(relay) in ("", "a tool call had begun")
        story.record_broken(relay, Usage())
    got = ReceivedStream(200, [json.loads(each) for each in EventReader().feed(out + relay.closing_events(b"{}"))])
    check_message(got)
    assert message_text(got) == "It is here." and "thinking" not in str(got.events)
    assert [event["content_block"]["type"] for event in got.events_of_type("content_block_start")] == kinds


def test_a_message_that_has_begun_to_think_is_not_gone_on_with() -> None:
    body = {"model": "auto", "stream": True, **SURFACES["messages"].body}
    story = begin_continuation(messages.read(json.dumps(body).encode(), {}), "messages")
    relay = story.relay(MessagesRelay())
    for each in (STARTED, *thought(0, ends=False)):
        relay.feed(json.dumps(each).encode())
    assert story.obstacle(relay) == "it had begun to think"


@pytest.mark.parametrize("kind", ["responses", "responses by chat", "messages", "messages by chat"])
async def test_a_break_before_the_tool_call_of_any_surface_is_resumed(tmp_path: Path, kind: str) -> None:
    surface = SURFACES[kind]
    async with surface_rig(tmp_path, surface) as rig:
        for name in ("two", "three"):
            rig.play(name, tool=True)
        rig.play("one", mode="cut", tool=True, at=5, chunk_ms=2)
        got = await surface.stream(rig)
        assert surface.text(got).strip() == TEXT, got.events
        surface.check_complete(got)
        if "responses" in kind:
            (call,) = [item for item in got.events[-1]["response"]["output"] if item["type"] == "function_call"]
            assert json.loads(call["arguments"]) == {"what": "it"}
        else:
            pieces = [
                e["delta"]["partial_json"]
                for e in got.events_of_type("content_block_delta")
                if "partial_json" in e["delta"]
            ]
            assert json.loads("".join(pieces)) == {"what": "it"}
            assert got.events_of_type("message_delta")[0]["delta"]["stop_reason"] == "tool_use"


@pytest.mark.parametrize(
    ("kind", "more", "why"),
    [
        ("responses", {"text": {"format": {"type": "json_object"}}}, "structured output"),
        ("responses", {"top_logprobs": 2}, "log probabilities"),
        ("messages", {"output_config": {"format": {"type": "json_schema", "schema": {}}}}, "structured output"),
        ("messages by chat", {"output_config": {"format": {"type": "json_schema", "schema": {}}}}, "structured output"),
        ("messages", {"output_format": {"type": "json_schema", "schema": {}}}, "structured output"),
        ("completions", {"n": 2}, "several texts"),
        ("completions", {"logprobs": 1}, "logprobs cannot"),
        ("completions", {"echo": True}, "echo cannot"),
        ("completions", {"guided_json": {"type": "object"}}, "structured output (guided_json)"),
    ],
)
async def test_what_cannot_be_continued_is_named_for_any_surface(
    tmp_path: Path, kind: str, more: dict[str, Any], why: str
) -> None:
    surface = SURFACES[kind]
    async with surface_rig(tmp_path, surface) as rig:
        rig.play("one", mode="cut", at=4, chunk_ms=2)
        got = await surface.stream(rig, **more)
        assert why in json.dumps(got.events[-1]) and rig.models["two"].counted == 0
        await rig.books()


@pytest.mark.parametrize("text", ["x", [], 3, {"format": "text"}, {"format": [1]}, {"format": {"type": 3}}])
async def test_a_format_of_another_shape_is_for_the_upstream_to_refuse(tmp_path: Path, text: Any) -> None:
    """A workload that resumes looks at it before anybody is asked."""
    surface = SURFACES["responses"]
    async with surface_rig(tmp_path, surface) as rig:
        check_response(await surface.stream(rig, text=text))
        await rig.books()


@pytest.mark.parametrize("kind", SURFACES)
async def test_what_the_next_deployment_is_asked_has_what_is_left_of_the_cap(tmp_path: Path, kind: str) -> None:
    surface = SURFACES[kind]
    cap = "max_output_tokens" if "responses" in kind else "max_tokens"
    async with surface_rig(tmp_path, surface) as rig:
        rig.play("one", mode="cut", at=surface.leading_events + 1, chunk_ms=2)
        got = await surface.stream(rig, **{cap: 9})
        asked = rig.models["two"].last
        assert got.status == 200 and asked is not None
        sent = json.loads(asked.body)
        left = sent.get("max_tokens", sent.get("max_output_tokens"))
        assert 1 <= left < 9, sent
        assert INSTRUCTION in json.dumps(sent) or kind == "completions"


def thinks(*after: dict[str, Any]) -> bytes:
    """The beginning of a message that has thought, and what it then says."""
    message: dict[str, Any] = {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [], "stop_reason": None,
        "stop_sequence": None, "usage": {"input_tokens": 5, "output_tokens": 1},
    }  # fmt: skip
    thought = {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}}
    told = [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}},
        *[thought] * 8,
        {"type": "content_block_stop", "index": 0},
        *after,
    ]
    return STREAM_HEAD + encode_events(*[json.dumps(each).encode() for each in told])


REASONED = {
    "chat": (
        Surface("/v1/chat/completions", {"messages": [{"role": "user", "content": "a b c d"}], "max_tokens": 30}, {},
                lambda got: "".join(c["delta"].get("content") or "" for e in got.events for c in e["choices"]),
                lambda _: None, lambda _: 0, 0),
        STREAM_HEAD + encode_events(ROLE, *[chunk({"reasoning_content": "hm "})] * 8),
    ),
    "messages": (SURFACES["messages"], thinks()),
}  # fmt: skip


@pytest.mark.parametrize("kind", REASONED)
async def test_what_has_only_reasoned_is_asked_anew(tmp_path: Path, kind: str) -> None:
    """There is no text to go on with, and providers refuse a message that is empty."""
    surface, said = REASONED[kind]
    more = {name: surface.settings for name in ("one", "two")}
    async with raw_upstream_rig(tmp_path, said, has_fallback=True, more=more, workloads=RESUME) as rig:
        got = await surface.stream(rig, max_tokens=30)
        assert got.status == 200 and surface.text(got).strip() == TEXT, got.events
        surface.check_complete(got)
        asked = rig.models["two"].last
        assert asked is not None
        sent = json.loads(asked.body)
        assert sent["messages"] == [{"role": "user", "content": "a b c d"}] and sent["max_tokens"] == 30 - 8
        assert [attempt.outcome for attempt in await rig.settlements()] == ["failed", "ok"]
        await rig.books()


@pytest.mark.parametrize(("left", "kept"), [(12, False), (13, True)])
async def test_what_goes_on_thinks_no_more_than_it_may_answer(tmp_path: Path, left: int, kept: bool) -> None:
    """Providers refuse a budget of thinking that has no room below the cap."""
    surface, thinking = SURFACES["messages"], {"type": "enabled", "budget_tokens": 12}
    text = {"type": "text", "text": ""}
    said = thinks(
        {"type": "content_block_start", "index": 1, "content_block": text},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "You asked: "}},
    )
    more = {name: surface.settings for name in ("one", "two")}
    async with raw_upstream_rig(tmp_path, said, has_fallback=True, more=more, workloads=RESUME) as rig:
        got = await surface.stream(rig, max_tokens=left + 9, thinking=thinking)
        assert surface.text(got).strip() == TEXT, got.events
        surface.check_complete(got)
        asked = rig.models["two"].last
        assert asked is not None
        sent = json.loads(asked.body)
        assert (sent["max_tokens"], sent.get("thinking")) == (left, thinking if kept else None)
        assert INSTRUCTION in json.dumps(sent)


@pytest.mark.parametrize(("most", "status"), [(4096, 200), (12, 400)])
async def test_a_thinking_budget_needs_a_deployment_with_room_for_the_answer(
    tmp_path: Path, most: int, status: int
) -> None:
    """The first one may answer less than that: the call is refused only if the other one does not have the room
    either."""
    surface, thinking = SURFACES["messages"], {"type": "enabled", "budget_tokens": 12}
    more = {name: {**surface.settings, "max_output_tokens": cap} for name, cap in (("one", 12), ("two", most))}
    async with call_rig(tmp_path, more=more) as rig:
        got = await surface.stream(rig, thinking=thinking)
        assert got.status == status, got.events
        assert (rig.models["one"].counted, rig.models["two"].counted) == (0, int(status == 200))
        await rig.books()


async def test_without_a_budget_for_it_no_surface_goes_on(tmp_path: Path) -> None:
    for kind, surface in SURFACES.items():
        cap = "max_output_tokens" if "responses" in kind else "max_tokens"
        async with surface_rig(tmp_path / kind.replace(" ", "-"), surface, limit=PICO // 4000) as rig:
            rig.play("one", mode="cut", at=surface.leading_events + 1, chunk_ms=2)
            got = await surface.stream(rig, **{cap: 20})
            assert "error" in json.dumps(got.events[-1]) and rig.models["two"].counted == 0, kind
