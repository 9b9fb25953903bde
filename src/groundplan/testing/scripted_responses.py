"""The scripted model in OpenAI's Responses and older completions: requests read as chat, answers and streams written as
these have them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from groundplan.testing.script import Script
from groundplan.testing.scripted_stream import TOOL_PIECES

_encode = msgspec.json.Encoder().encode


class ResponsesRequest(msgspec.Struct):
    """What of a request for a response the scripted model looks at."""

    input: str | list[dict[str, Any]]
    model: str = "scripted"
    instructions: str | None = None
    max_output_tokens: int | None = None
    stream: bool | None = None

    def turns(self) -> list[tuple[str, str]]:
        """(role, text) as in chat."""
        told = [("system", self.instructions)] if self.instructions else []
        if isinstance(self.input, str):
            return [*told, ("user", self.input)]
        for item in self.input:
            content = item.get("content", "")
            text = content if isinstance(content, str) else " ".join(str(part.get("text", "")) for part in content)
            told.append((item.get("role", "user"), text))
        return told


class CompletionRequest(msgspec.Struct):
    """What of a request for a completion it looks at."""

    prompt: str
    model: str = "scripted"
    max_tokens: int | None = None
    stream: bool | None = None


@dataclass(frozen=True, slots=True)
class CompletionAnswer:
    """One text, whole or as a stream of chunks."""

    id: str
    model: str
    words: list[str]
    reason: str
    counts: dict[str, Any]

    def _chunk(self, text: str, reason: str | None, **more: Any) -> dict[str, Any]:
        choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": reason}
        head = {"id": self.id, "object": "text_completion", "created": 1, "model": self.model}
        return {**head, "choices": [choice], **more}

    def whole(self) -> bytes:
        return _encode(self._chunk("".join(self.words), self.reason, usage=self.counts))

    def parts(self) -> list[bytes]:
        return [_event(self._chunk(word, None)) for word in self.words]

    def ending(self) -> list[bytes]:
        usage = {**self._chunk("", None), "choices": [], "usage": self.counts}
        return [_event(self._chunk("", self.reason)), _event(usage)]

    def done(self) -> bytes:
        return b"data: [DONE]\n\n"

    def error(self) -> bytes:
        return _event(
            {"error": {"message": "something went wrong", "type": "server_error", "param": None, "code": None}}
        )


@dataclass(frozen=True, slots=True)
class ResponseAnswer:
    """One response, whole or as a stream of events."""

    id: str
    model: str
    words: list[str]
    reason: str
    counts: dict[str, Any]
    script: Script
    instructions: str | None = None

    def _part(self, text: str) -> dict[str, Any]:
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}

    def _message(self, status: str, content: list[dict[str, Any]]) -> dict[str, Any]:
        return {"id": f"msg_{self.id}", "type": "message", "role": "assistant", "status": status, "content": content}

    def _call(self, status: str, arguments: str) -> dict[str, Any]:
        return {
            "id": f"fc_{self.id}", "type": "function_call", "status": status, "call_id": "call_1", "name": "look",
            "arguments": arguments,
        }  # fmt: skip

    def _response(self, status: str, output: list[dict[str, Any]], usage: dict[str, Any] | None) -> dict[str, Any]:
        made = {
            "id": f"resp_{self.id}", "object": "response", "created_at": 1, "status": status, "model": self.model,
            "output": output, "parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "usage": usage,
            "instructions": self.instructions,
        }  # fmt: skip
        # as OpenAI's: what was asked for while it is made, what it was once it is
        tier = self.script.tier
        return made if tier is None else {**made, "service_tier": "auto" if usage is None else tier}

    def _full_response(self) -> dict[str, Any]:
        cut = self.reason == "length"
        items = [self._message("incomplete" if cut else "completed", [self._part("".join(self.words))])]
        if self.script.tool:
            items.append(self._call("completed", "".join(TOOL_PIECES)))
        usage = {
            "input_tokens": self.counts["prompt_tokens"],
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": self.counts["completion_tokens"],
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": self.counts["total_tokens"],
        }
        whole = self._response("incomplete" if cut else "completed", items, usage)
        return {**whole, "incomplete_details": {"reason": "max_output_tokens"}} if cut else whole

    def whole(self) -> bytes:
        return _encode(self._full_response())

    def _events(self) -> list[dict[str, Any]]:
        where = {"item_id": f"msg_{self.id}", "output_index": 0, "content_index": 0}
        text = "".join(self.words)
        message = self._message("completed", [self._part(text)])
        found: list[dict[str, Any]] = [
            {"type": "response.created", "response": self._response("in_progress", [], None)},
            {"type": "response.output_item.added", "output_index": 0, "item": self._message("in_progress", [])},
            {"type": "response.content_part.added", **where, "part": self._part("")},
        ]
        found += [{"type": "response.output_text.delta", **where, "delta": w, "logprobs": []} for w in self.words]
        found += [
            {"type": "response.output_text.done", **where, "text": text, "logprobs": []},
            {"type": "response.content_part.done", **where, "part": self._part(text)},
            {"type": "response.output_item.done", "output_index": 0, "item": message},
        ]
        return found + (self._calls() if self.script.tool else [])

    def _calls(self) -> list[dict[str, Any]]:
        where, whole = {"item_id": f"fc_{self.id}", "output_index": 1}, "".join(TOOL_PIECES)
        kind = "response.function_call_arguments"
        return [
            {"type": "response.output_item.added", "output_index": 1, "item": self._call("in_progress", "")},
            *({"type": f"{kind}.delta", **where, "delta": piece} for piece in TOOL_PIECES),
            {"type": f"{kind}.done", **where, "arguments": whole},
            {"type": "response.output_item.done", "output_index": 1, "item": self._call("completed", whole)},
        ]

    def parts(self) -> list[bytes]:
        return [_named({**each, "sequence_number": number}) for number, each in enumerate(self._events())]

    def ending(self) -> list[bytes]:
        whole = self._full_response()
        number = len(self._events())
        return [_named({"type": f"response.{whole['status']}", "sequence_number": number, "response": whole})]

    def done(self) -> bytes:
        return b""

    def error(self) -> bytes:
        return _named({"type": "error", "sequence_number": 0, "code": None, "message": "went wrong", "param": None})


def _event(value: dict[str, Any]) -> bytes:
    return b"data: %b\n\n" % _encode(value)


def _named(value: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (str(value["type"]).encode(), _encode(value))
