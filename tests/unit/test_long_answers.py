"""The thousandth piece of an answer costs as much as the first one, however long what came before it has become."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from groundplan.gateway.resuming.chat import ContinuedChat
from groundplan.gateway.resuming.continued_relay import ContinuedRelay
from groundplan.gateway.resuming.messages import ContinuedMessage
from groundplan.gateway.resuming.responses import ContinuedResponse
from groundplan.gateway.surfaces.chat.relay import ChatRelay
from groundplan.gateway.surfaces.codec import Relay
from groundplan.gateway.surfaces.messages.from_chat_stream import MessagesChatRelay
from groundplan.gateway.surfaces.responses.stream import ResponsesChatRelay

PIECE = "word " * 4000
PIECES = 2000
"""Of 20 kB: 40 MB that are copied with each piece take half a minute, and without it half a second."""


def chunk(delta: dict[str, Any]) -> bytes:
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return json.dumps({**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}).encode()


def call(arguments: str, index: int = 0, name: str | None = None) -> dict[str, Any]:
    more = {} if name is None else {"id": f"call_{name}", "type": "function"}
    return {"tool_calls": [{"index": index, **more, "function": {"name": name, "arguments": arguments}}]}


def chat() -> Relay:
    return ContinuedChat(ChatRelay(True), None)


def messages() -> Relay:
    return ContinuedMessage(MessagesChatRelay("m", 1), None)


def responses() -> Relay:
    return ContinuedResponse(ResponsesChatRelay({}, "resp_1", "m", 1, {}), None)


@pytest.mark.parametrize("make", [chat, messages, responses])
def test_a_text_of_any_length(make: Callable[[], Relay]) -> None:
    relay, data, began = make(), chunk({"content": PIECE}), time.process_time()
    for _ in range(PIECES):
        relay.feed(data)
    assert time.process_time() - began < 10
    assert isinstance(relay, ContinuedRelay) and relay.sent is not None
    assert relay.sent.text == PIECE * PIECES and relay.sent.text_events == PIECES


@pytest.mark.parametrize("make", [messages, responses])
def test_a_call_of_a_tool_of_any_length(make: Callable[[], Relay]) -> None:
    relay, data, began = make(), chunk(call(PIECE)), time.process_time()
    relay.feed(chunk(call('{"a": "', name="look")))
    for _ in range(PIECES):
        relay.feed(data)
    assert time.process_time() - began < 10


def test_calls_of_tools_that_are_mixed() -> None:
    """The second one waits for the end of the first, which may come with each piece."""
    relay, data, began = messages(), chunk(call('{"b": 1},')), time.process_time()
    relay.feed(chunk(call('{"a": [', name="look")))
    relay.feed(chunk(call("{}", 1, "find")))
    ends = chunk(call("{}"))
    for _ in range(20_000):
        relay.feed(data)
        relay.feed(ends)
    assert b"find" not in relay.feed(chunk(call("]")))
    assert b"find" in relay.feed(chunk(call("}")))
    assert time.process_time() - began < 10
