"""The scripted model in Anthropic's API: requests read as chat, answers and streams written as Anthropic's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from groundplan.testing.scripted_stream import TOOL_PIECES

_encode = msgspec.json.Encoder().encode


class Message(msgspec.Struct):
    role: str
    content: str | list[dict[str, Any]]


class MessagesRequest(msgspec.Struct):
    """What of a request the scripted model looks at."""

    messages: list[Message]
    model: str = "scripted"
    max_tokens: int | None = None
    stream: bool | None = None
    system: str | list[dict[str, Any]] = ""

    def turns(self) -> list[tuple[str, str | list[dict[str, Any]]]]:
        """(role, content) as in chat: each text of the system first."""
        system = [{"type": "text", "text": self.system}] if isinstance(self.system, str) else self.system
        told = [("system", block["text"]) for block in system if block["text"]]
        return [*told, *((message.role, message.content) for message in self.messages)]


def usage(prompt: int, output: int, read: int, written: int) -> dict[str, int]:
    """`prompt` leaves out what the cache read and wrote."""
    return {
        "input_tokens": prompt,
        "output_tokens": output,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": read,
    }


def error(message: str, status: int) -> bytes:
    kind = {400: "invalid_request_error", 429: "rate_limit_error", 529: "overloaded_error"}.get(status, "api_error")
    return _encode({"type": "error", "error": {"type": kind, "message": message}, "request_id": None})


@dataclass(frozen=True, slots=True)
class MessageAnswer:
    """One answer, whole or as a stream of events."""

    id: str
    model: str
    words: list[str]
    reason: str
    counts: dict[str, int]
    tool: bool

    def _message(self, content: list[dict[str, Any]], reason: str | None, counts: dict[str, int]) -> dict[str, Any]:
        return {
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": content,
            "stop_reason": reason,
            "stop_sequence": None,
            "usage": counts,
        }

    @property
    def _reason(self) -> str:
        return "tool_use" if self.tool else {"length": "max_tokens"}.get(self.reason, "end_turn")

    def whole(self) -> bytes:
        content: list[dict[str, Any]] = [{"type": "text", "text": "".join(self.words).strip()}]
        if self.tool:
            arguments = msgspec.json.decode("".join(TOOL_PIECES))
            content.append({"type": "tool_use", "id": "toolu_1", "name": "look", "input": arguments})
        return _encode(self._message(content, self._reason, self.counts))

    def parts(self) -> list[bytes]:
        start = {"type": "message_start", "message": self._message([], None, {**self.counts, "output_tokens": 1})}
        found = [_event(start)]
        found.append(_event({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}))
        found.append(_event({"type": "ping"}))
        found += [_delta(0, {"type": "text_delta", "text": word}) for word in self.words]
        found.append(_event({"type": "content_block_stop", "index": 0}))
        if self.tool:
            block = {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}}
            found.append(_event({"type": "content_block_start", "index": 1, "content_block": block}))
            found += [_delta(1, {"type": "input_json_delta", "partial_json": piece}) for piece in TOOL_PIECES]
            found.append(_event({"type": "content_block_stop", "index": 1}))
        return found

    def ending(self) -> list[bytes]:
        delta = {"stop_reason": self._reason, "stop_sequence": None}
        return [_event({"type": "message_delta", "delta": delta, "usage": self.counts})]

    def done(self) -> bytes:
        return _event({"type": "message_stop"})

    def error(self) -> bytes:
        return b"event: error\ndata: %b\n\n" % error("something went wrong", 529)


def _delta(index: int, delta: dict[str, Any]) -> bytes:
    return _event({"type": "content_block_delta", "index": index, "delta": delta})


def _event(value: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (str(value["type"]).encode(), _encode(value))
