"""The request for the rest of a broken stream whose own ends with an assistant message or has a minimum of tokens."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from tests.unit.raw_upstream import ROLE, chunk

from groundplan.gateway.call.ask import Ask
from groundplan.gateway.call.attempts.resume import begin_continuation
from groundplan.gateway.resuming.continued_relay import INSTRUCTION
from groundplan.gateway.surfaces.chat.relay import ChatRelay
from groundplan.gateway.surfaces.chat.surface import read
from groundplan.ledger.model import Usage

QUESTION = {"role": "user", "content": "q"}
GO_ON = {"role": "user", "content": INSTRUCTION}


def rest_after(texts: list[str], messages: list[dict[str, Any]], most: int = 10, **fields: Any) -> Ask:
    """The request for the rest of a stream of which the client got `texts`."""
    body = {"model": "auto", "messages": messages, "stream": True, **fields}
    made = begin_continuation(read(json.dumps(body).encode()))
    relay = made.relay(ChatRelay(False))
    for event in (ROLE, *(chunk({"content": text}) for text in texts)):
        relay.feed(event)
    made.record_broken(relay, Usage(input=1, output=2))
    return made.rest_request(most)


def messages_of(ask: Ask) -> list[dict[str, Any]]:
    return msgspec.json.decode(bytes(ask.fields["messages"]), type=list[dict[str, Any]])


@pytest.mark.parametrize(
    ("prefill", "whole"),
    [
        ({"content": "He"}, "Hello"),
        ({"content": "He", "prefix": True}, "Hello"),
        ({"content": [{"type": "text", "text": "He"}]}, [{"type": "text", "text": "Hello"}]),
    ],
    ids=["text", "marked", "parts"],
)
def test_what_was_sent_goes_on_with_the_assistant_message_of_the_request(prefill: dict[str, Any], whole: Any) -> None:
    """Two assistant messages in a row are refused by servers whose templates need alternating roles."""
    last = {"role": "assistant", **prefill}
    ask = rest_after(["l", "lo"], [QUESTION, last], continue_final_message=True, add_generation_prompt=False)
    assert messages_of(ask) == [QUESTION, {"role": "assistant", "content": whole}, GO_ON]
    assert ask.messages == 3
    assert not {"continue_final_message", "add_generation_prompt"} & set(ask.fields)


def test_an_assistant_message_that_calls_a_tool_is_left_as_it_is() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    last = {"role": "assistant", "content": "", "tool_calls": [call]}
    ask = rest_after(["lo"], [QUESTION, last])
    assert messages_of(ask) == [QUESTION, last, {"role": "assistant", "content": "lo"}, GO_ON]


@pytest.mark.parametrize(("least", "left"), [(5, 3), (1, 0), (10, 8)])
def test_the_fewest_tokens_of_the_rest_are_those_that_were_not_sent(least: int, left: int) -> None:
    ask = rest_after(["a", "b"], [QUESTION], min_tokens=least, max_tokens=10)
    assert (bytes(ask.fields["min_tokens"]), bytes(ask.fields["max_tokens"])) == (b"%d" % left, b"8")
