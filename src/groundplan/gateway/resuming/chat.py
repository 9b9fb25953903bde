"""Continues a broken stream of chat completions.

Not continued, since a seam would show: several copies, log probabilities, structured output, and a tool call
that has begun. Pure.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec.structs import replace

from groundplan.gateway.call.ask import Ask
from groundplan.gateway.http.sse import format_event
from groundplan.gateway.resuming.chunks import ContinuedChunks
from groundplan.gateway.resuming.continued_relay import SentAnswer, continue_messages, is_set, structured_output_reason
from groundplan.gateway.surfaces.chat.annotations import URL_CITATION, shift_annotation
from groundplan.gateway.surfaces.chat.answer_types import REASONING_PARTS
from groundplan.gateway.surfaces.codec import Malformed, Relay

ENDPOINT = "chat.completions"
_REASONING = ("reasoning_content", "reasoning", "reasoning_details")
"""Fields of a delta in which upstreams send reasoning."""
_encode = msgspec.json.encode


def obstacle(ask: Ask) -> str:
    """Why the stream of this request cannot be continued; empty where it can."""
    if ask.copies > 1:
        return "several copies (n) cannot be continued"
    if is_set(ask, "logprobs") or is_set(ask, "top_logprobs"):
        return "log probabilities cannot be continued"
    return structured_output_reason(ask)


def rest_request(ask: Ask, sent: SentAnswer, cap: int) -> Ask:
    """The request for the rest of the answer. `cap`: the most output tokens of the whole answer."""
    return continue_messages(ask, sent, cap)


class ContinuedChat(ContinuedChunks):
    """Continues streams of this surface."""

    __slots__ = ("_own_length",)

    def __init__(self, inner: Relay, sent: SentAnswer | None) -> None:
        super().__init__(inner, sent)
        self._own_length = 0
        """Characters of this attempt's text so far."""

    def _trim_choice(self, choice: dict[str, Any], head: dict[str, Any]) -> bytes:
        delta = choice.get("delta")
        if not isinstance(delta, dict):
            return b""
        for name in ("role", *_REASONING):
            delta.pop(name, None)
        if delta.pop("refusal", None):
            raise Malformed("the answer does not go on as text")
        if isinstance(parts := delta.get("content"), list):
            if _obstacle_of_parts(parts):
                raise Malformed("the answer does not go on as text")
            delta["content"] = _text_of_parts(parts)
        if isinstance(delta.get("content"), str):
            self._own_length += len(delta["content"])
            delta["content"] = self._without_repetition(delta["content"])
            if not delta["content"]:
                del delta["content"]
        out = b""
        if self._may_repeat and (choice.get("finish_reason") or delta.get("tool_calls") or delta.get("annotations")):
            out = self._flush_held_text(choice, head)
        if isinstance(delta.get("annotations"), list):
            delta["annotations"] = self._moved(delta["annotations"], len(delta.get("content") or ""))
        return out

    def _moved(self, annotations: list[Any], coming: int) -> list[Any]:
        """Annotations with the places of their texts in the whole answer. `coming`: characters of text in their own
        chunk, which the client does not have yet."""
        sent_length = 0 if self.sent is None else len(self.sent.text)
        characters = sent_length + coming - self._own_length
        return [
            {**one, URL_CITATION: shift_annotation(one[URL_CITATION], characters)}
            if isinstance(one, dict) and isinstance(one.get(URL_CITATION), dict)
            else one
            for one in annotations
        ]

    def _flush_held_text(self, choice: dict[str, Any], head: dict[str, Any]) -> bytes:
        """The new part of the held text as an event: the stream ends, or calls a tool."""
        new_text = self._release_held_text()
        if not new_text:
            return b""
        one = {"index": choice.get("index", 0), "delta": {"content": new_text}, "finish_reason": None}
        chunk = {**head, "object": "chat.completion.chunk", "choices": [one]}
        if self.sent is not None:
            self.sent = self._updated(self.sent, chunk)
        return format_event(_encode(chunk))

    def _has_content(self, choice: dict[str, Any]) -> bool:
        return any(value is not None for value in (choice.get("delta") or {}).values())

    def _updated(self, sent: SentAnswer, chunk: dict[str, Any]) -> SentAnswer:
        text, text_events, obstacle = "", sent.text_events, sent.obstacle
        for choice in chunk.get("choices") or []:
            delta = choice.get("delta")
            for name, value in (delta or {}).items():
                if not value or name == "role":
                    continue
                if name == "content":
                    if isinstance(value, list):
                        obstacle = _obstacle_of_parts(value) or obstacle
                        value = _text_of_parts(value)
                    text += value
                    text_events += 1
                elif name in ("tool_calls", "function_call"):
                    obstacle = "a tool call had begun"
                elif name in _REASONING:
                    text_events += 1
                else:
                    obstacle = f"it had begun a {name[:40]}"
        sent.text_buffer.write(text)
        return replace(sent, text_events=text_events, obstacle=obstacle)


def _text_of_parts(parts: list[dict[str, Any]]) -> str:
    """The text of a content that is a list of parts, as Mistral's models send it, without its reasoning."""
    return "".join(part["text"] for part in parts if part["type"] == "text")


def _obstacle_of_parts(parts: list[dict[str, Any]]) -> str:
    """Why a content of parts cannot be continued; empty where they are text and reasoning."""
    other = next((str(part["type"]) for part in parts if part["type"] not in ("text", *REASONING_PARTS)), "")
    return f"it had begun a {other[:40]}" if other else ""
