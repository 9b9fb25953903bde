"""Continues a broken stream of Anthropic's Messages.

The text block that was open goes on, later blocks follow under their next numbers. A tool call that has begun, thinking
that has not ended and citations are not continued. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec
from msgspec.structs import replace

from groundplan.gateway.call.ask import Ask
from groundplan.gateway.http.sse import format_named_event
from groundplan.gateway.resuming.continued_relay import (
    ContinuedRelay,
    SentAnswer,
    add_usage,
    continue_messages,
    is_set,
    remaining_tokens,
)
from groundplan.gateway.surfaces.codec import Relay
from groundplan.gateway.surfaces.messages.from_chat import LazyTranslation
from groundplan.gateway.surfaces.messages.native import thinking_budget
from groundplan.ledger.model import Usage

ENDPOINT = "messages"
_THINKING = ("thinking", "redacted_thinking")
_THINKING_BEGUN = "it had begun to think"
_decode = msgspec.json.Decoder(dict[str, Any]).decode
_encode = msgspec.json.encode


def obstacle(ask: Ask) -> str:
    """Why the stream of this request cannot be continued; empty where it can."""
    return "structured output (output_config.format) cannot be continued" if wants_structured_output(ask) else ""


def wants_structured_output(ask: Ask) -> bool:
    """Whether a request of Messages asks for structured output."""
    config = msgspec.json.decode(ask.fields.get("output_config", b"null"))
    return is_set(ask, "output_format") or (isinstance(config, dict) and config.get("format") is not None)


def rest_request(ask: Ask, sent: SentAnswer, cap: int) -> Ask:
    """The request for the rest of the answer. `cap`: the most output tokens of the whole answer."""
    request = continue_messages(ask, sent, cap)
    fields = dict(request.fields)
    if thinking_budget(ask) >= remaining_tokens(cap, sent):
        # providers refuse a thinking budget as large as the cap; the tokens left are for the answer
        del fields["thinking"]
    return replace(request, fields=fields, parsed=LazyTranslation(_encode(fields)))


@dataclass(slots=True)
class Blocks:
    """The content blocks that the client has, over all attempts."""

    count: int = 0
    open: int | None = None
    """Number of the text block that has begun and not ended."""
    numbers: dict[int, int] = field(default_factory=dict)
    """The upstream's number of a block in the running attempt -> the client's; other blocks are left out."""


class ContinuedMessage(ContinuedRelay):
    """Continues streams of this surface."""

    __slots__ = ("_continued_index",)

    def __init__(self, inner: Relay, sent: SentAnswer | None) -> None:
        super().__init__(inner, sent)
        self._continued_index: int | None = None
        """This attempt's number of the block that continues the client's open one."""
        if self.sent is not None:
            self.sent.surface_state.numbers.clear()

    def _record_event(self, data: bytes) -> None:
        event = _decode(data)
        kind = event["type"]
        if kind == "message_start":
            self.sent = SentAnswer(event["message"], surface_state=Blocks())
        elif self.sent is not None:
            self.sent = self._updated(self.sent, kind, event)

    def _updated(self, sent: SentAnswer, kind: str, event: dict[str, Any]) -> SentAnswer:
        """What the client has after one more event, which has the client's numbers."""
        blocks: Blocks = sent.surface_state
        if kind == "content_block_start":
            return self._record_begin(sent, event["index"], event["content_block"]["type"])
        if kind == "content_block_stop":
            blocks.open = None
            return replace(sent, obstacle="") if sent.obstacle == _THINKING_BEGUN else sent
        if kind != "content_block_delta":
            return sent
        delta = event["delta"]
        if delta["type"] == "text_delta":
            sent.text_buffer.write(delta["text"])
            return replace(sent, text_events=sent.text_events + 1)
        if delta["type"] == "citations_delta":
            return replace(sent, obstacle="it had begun to cite")
        return replace(sent, text_events=sent.text_events + (delta["type"] == "thinking_delta"))

    def _record_begin(self, sent: SentAnswer, number: int, kind: str) -> SentAnswer:
        blocks: Blocks = sent.surface_state
        blocks.count = number + 1
        if kind == "text":
            blocks.open = number
            return sent
        if kind in _THINKING:
            return replace(sent, obstacle=sent.obstacle or _THINKING_BEGUN)
        return replace(sent, obstacle="a tool call had begun" if kind == "tool_use" else f"it had begun a {kind[:40]}")

    def _continue_event(self, data: bytes) -> bytes:
        event = _decode(data)
        kind, earlier, sent = event["type"], self._earlier, self.sent
        if earlier is None or sent is None or kind == "message_start":
            return b""
        if kind == "content_block_start":
            return self._begin_block(sent, event)
        if kind in ("content_block_delta", "content_block_stop"):
            return self._continue_item(sent, event)
        before = self._close_open_item(sent) if kind == "message_delta" else b""
        if kind == "message_delta" and isinstance(event.get("usage"), dict):
            event["usage"] = _total_usage(event["usage"], earlier.usage)
        return before + format_named_event(kind, _encode(event))

    def _begin_block(self, sent: SentAnswer, event: dict[str, Any]) -> bytes:
        """Begin a block: the continuation of the open one, a new one, or thinking, which is too late and left out."""
        blocks: Blocks = sent.surface_state
        number, kind = event["index"], event["content_block"]["type"]
        if kind in _THINKING:
            return b""
        if kind == "text" and blocks.open is not None:
            self._continued_index = number
            blocks.numbers[number] = blocks.open
            return b""
        before = self._close_open_item(sent)
        blocks.numbers[number] = blocks.count
        return before + self._emit({**event, "index": blocks.count})

    def _continue_item(self, sent: SentAnswer, event: dict[str, Any]) -> bytes:
        number = sent.surface_state.numbers.get(event["index"])
        if number is None:
            return b""
        if event["index"] == self._continued_index:
            if event["type"] == "content_block_stop":
                return self._close_open_item(sent)
            if event["delta"]["type"] == "text_delta":
                event["delta"]["text"] = self._without_repetition(event["delta"]["text"])
                if not event["delta"]["text"]:
                    return b""
        return self._emit({**event, "index": number})

    def _close_open_item(self, sent: SentAnswer) -> bytes:
        """Close the open block, after the new part of the held text."""
        blocks: Blocks = sent.surface_state
        if blocks.open is None:
            return b""
        number, new_text = blocks.open, self._release_held_text() if self._may_repeat else ""
        out = b""
        if new_text:
            delta = {"type": "text_delta", "text": new_text}
            out = self._emit({"type": "content_block_delta", "index": number, "delta": delta})
        return out + self._emit({"type": "content_block_stop", "index": number})

    def _emit(self, event: dict[str, Any]) -> bytes:
        if self.sent is not None:
            self.sent = self._updated(self.sent, event["type"], event)
        return format_named_event(event["type"], _encode(event))


def _total_usage(usage: dict[str, Any], earlier: Usage) -> dict[str, Any]:
    """The usage of all attempts, as Anthropic reports it: input without cache reads and writes."""
    earlier_numbers = {
        "input_tokens": earlier.input - earlier.cache_read - earlier.cache_write,
        "output_tokens": earlier.output,
        "cache_read_input_tokens": earlier.cache_read,
        "cache_creation_input_tokens": earlier.cache_write,
    }
    return add_usage(usage, earlier_numbers)
