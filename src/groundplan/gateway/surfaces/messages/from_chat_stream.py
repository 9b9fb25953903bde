"""Translates a chat stream into Anthropic's events: message_start, content blocks one by one, message_delta,
message_stop."""

from __future__ import annotations

from typing import Any

import msgspec

from groundplan.economics.prices.provider_usage import normalize_tier
from groundplan.gateway.http.sse import append_field, format_named_event
from groundplan.gateway.surfaces.chat.annotations import UrlCitation, pages_once
from groundplan.gateway.surfaces.chat.answer_types import ChoiceDelta, Chunk, ToolCallDelta
from groundplan.gateway.surfaces.codec import Malformed
from groundplan.gateway.surfaces.messages.native import error_event
from groundplan.gateway.surfaces.messages.web_citations import message_citation
from groundplan.gateway.surfaces.via_chat_stream import ViaChatStream
from groundplan.ledger.model import Usage

_REASONS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}
CUSTOM_INPUT = "input"
"""The field in which a tool_use has the text of a custom tool's input."""
_TIERS = {"default": "standard", "priority": "priority"}
_PING = format_named_event("ping", b'{"type":"ping"}')
_encode = msgspec.json.Encoder().encode


def stop_reason(finish: str | None, stop: object, *, calls: bool) -> tuple[str, str | None]:
    """(stop_reason, stop_sequence) for a choice's finish_reason. Some upstreams put the stop sequence into
    `stop_reason`; others do not tell a sequence from the end of a turn. `calls`: the message calls a tool, which OpenAI
    reports as `stop` where the request names the tool, and some servers always do. Where it calls none, as where its
    call is left out, there is no tool that a client could run."""
    reason = _REASONS.get(finish or "stop", "end_turn")
    if reason == "tool_use" and not calls:
        reason = "end_turn"
    if reason == "end_turn" and calls:
        return "tool_use", None
    if reason == "end_turn" and isinstance(stop, str) and stop:
        return "stop_sequence", stop
    return reason, None


def usage_json(usage: Usage) -> dict[str, Any]:
    """A usage in Anthropic's shape: input tokens without what the cache read and wrote; reasoning where there is
    any."""
    made: dict[str, Any] = {
        "input_tokens": max(0, usage.input - usage.cache_read - usage.cache_write),
        "output_tokens": usage.output,
        "cache_creation_input_tokens": usage.cache_write,
        "cache_read_input_tokens": usage.cache_read,
    }
    if usage.reasoning:
        made["output_tokens_details"] = {"thinking_tokens": min(usage.reasoning, usage.output)}
    return made


def message_usage(usage: Usage, tier: str) -> dict[str, Any]:
    """The same for a whole message, or its beginning, which has the service tier, too, where Anthropic has a word for
    it. `tier`: see `normalize_tier`."""
    told = _TIERS.get(tier)
    return usage_json(usage) if told is None else {**usage_json(usage), "service_tier": told}


class MessagesChatRelay(ViaChatStream):
    """State of one stream. `model` is used where the upstream names none."""

    __slots__ = ("_block_index", "_calls", "_model", "_open_kind", "_reason", "_stop", "_wraps_input")

    def __init__(self, model: str, size: int, left_out: set[str] | None = None) -> None:
        super().__init__(size, left_out)
        self._model = model
        self._open_kind = ""
        """Kind of the open block: text or tool_use; empty: none is open."""
        self._block_index = -1
        """Index of the open block."""
        self._calls: list[int | None] = []
        """Indexes of the tool calls so far; the last one is open if a tool_use block is."""
        self._wraps_input = False
        """Whether the open tool_use block is a custom tool's, whose input is a text: Messages has objects only."""
        self._reason: str | None = None
        self._stop: str | None = None

    def _opening_events(self, found: Chunk) -> list[bytes]:
        message: dict[str, Any] = {
            "id": f"msg_{found.id}",
            "type": "message",
            "role": "assistant",
            "model": found.model or self._model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            # an estimate of the input: some clients read it here only
            "usage": message_usage(self.usage_or_estimate, normalize_tier(self._service_tier)),
        }
        return [format_named_event("message_start", _encode({"type": "message_start", "message": message})), _PING]

    def _text_events(self, kind: str, text: str | None) -> list[bytes]:  # noqa: ARG002 -- a refusal is text, too
        if not text:
            return []
        self.output_bytes += len(text.encode())
        opened = [] if self._open_kind == "text" else self._open_block("text", {"type": "text", "text": ""})
        return [*opened, self._block_delta({"type": "text_delta", "text": text})]

    def _citation_events(self, citations: list[UrlCitation]) -> list[bytes]:
        if self._open_kind != "text":
            return []
        return [
            self._block_delta({"type": "citations_delta", "citation": message_citation(citation)})
            for citation in citations
        ]

    def _place_pages(self, pages: list[UrlCitation]) -> list[UrlCitation]:
        return pages_once(pages) if self._open_kind == "text" else []

    def _call_events(self, call: ToolCallDelta) -> list[bytes]:
        out: list[bytes] = []
        arguments = call.text if call.custom is None else _encode(call.text)[1:-1].decode()
        if call.index not in self._calls:
            if not call.id or not call.name:
                raise Malformed("the upstream's stream has a tool call without a name")
            self._calls.append(call.index)
            block = {"type": "tool_use", "id": call.id, "name": call.name, "input": {}}
            out = self._open_block("tool_use", block)
            if call.custom is not None:
                self._wraps_input, arguments = True, f'{{"{CUSTOM_INPUT}":"{arguments}'
        elif self._open_kind != "tool_use" or self._calls[-1] != call.index:
            raise Malformed("the upstream's stream goes back to an earlier tool call")
        if arguments:
            out.append(self._block_delta({"type": "input_json_delta", "partial_json": arguments}))
        return out

    def _note_finish(self, choice: ChoiceDelta) -> None:
        called = bool(self._calls)
        self._reason, self._stop = stop_reason(choice.finish_reason, choice.stop_reason, calls=called)

    def _open_block(self, kind: str, block: dict[str, Any]) -> list[bytes]:
        out = self._close_block()
        self._open_kind, self._block_index = kind, self._block_index + 1
        start = {"type": "content_block_start", "index": self._block_index, "content_block": block}
        return [*out, format_named_event("content_block_start", _encode(start))]

    def _close_block(self) -> list[bytes]:
        if not self._open_kind:
            return []
        out: list[bytes] = []
        if self._wraps_input:
            self._wraps_input = False
            out.append(self._block_delta({"type": "input_json_delta", "partial_json": '"}'}))
        self._open_kind = ""
        stop = {"type": "content_block_stop", "index": self._block_index}
        return [*out, format_named_event("content_block_stop", _encode(stop))]

    def _block_delta(self, delta: dict[str, Any]) -> bytes:
        data = _encode({"type": "content_block_delta", "index": self._block_index, "delta": delta})
        return format_named_event("content_block_delta", data)

    @property
    def complete(self) -> bool:
        return self._reason is not None

    def closing_events(self, facts: bytes) -> bytes:
        """The end of the open block, the stop reason with the usage, and `message_stop` with the facts."""
        delta = {"stop_reason": self._reason, "stop_sequence": self._stop}
        ended = _encode({"type": "message_delta", "delta": delta, "usage": usage_json(self.usage_or_estimate)})
        stop = append_field(b'{"type":"message_stop"}', b"groundplan", facts)
        return b"".join(
            [*self._close_block(), format_named_event("message_delta", ended), format_named_event("message_stop", stop)]
        )

    def error_event(self, reason: str, call_id: str) -> bytes:
        return error_event(reason, call_id)
