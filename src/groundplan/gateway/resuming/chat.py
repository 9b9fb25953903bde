"""Going on with a broken stream of chat completions.

What cannot be continued without a seam is not: several copies, log probabilities, structured output, and a tool call
that has begun. Pure.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec.structs import replace

from groundplan.gateway.call.ask import Ask
from groundplan.gateway.http.sse import format_event
from groundplan.gateway.resuming.chunks import ContinuedChunks
from groundplan.gateway.resuming.story import Sent, continue_messages, is_set, structured_output_reason
from groundplan.gateway.surfaces.codec import Malformed

ENDPOINT = "chat.completions"
_encode = msgspec.json.encode


def forbidden(ask: Ask) -> str:
    """Why a stream that is asked so cannot be continued; empty where it can."""
    if ask.copies > 1:
        return "several copies (n) cannot be continued"
    if is_set(ask, "logprobs") or is_set(ask, "top_logprobs"):
        return "log probabilities cannot be continued"
    return structured_output_reason(ask)


def rest(ask: Ask, sent: Sent, cap: int) -> Ask:
    """The caller's ask, for the rest of the answer. `cap`: output tokens that the whole of it may have."""
    return continue_messages(ask, sent, cap)


class ContinuedChat(ContinuedChunks):
    """See the module."""

    __slots__ = ()

    def _choice(self, choice: dict[str, Any], head: dict[str, Any]) -> bytes:
        delta = choice.get("delta")
        if not isinstance(delta, dict):
            return b""
        for name in ("role", "reasoning_content", "reasoning"):
            delta.pop(name, None)
        if delta.pop("refusal", None):
            raise Malformed("the answer does not go on as text")
        if isinstance(delta.get("content"), str):
            delta["content"] = self._trim(delta["content"])
            if not delta["content"]:
                del delta["content"]
        if self._open and (choice.get("finish_reason") or delta.get("tool_calls")):
            return self._flush(choice, head)
        return b""

    def _flush(self, choice: dict[str, Any], head: dict[str, Any]) -> bytes:
        """The stream ends, or calls a tool, while text is held: what of it is new comes first."""
        left = self._released()
        if not left:
            return b""
        one = {"index": choice.get("index", 0), "delta": {"content": left}, "finish_reason": None}
        chunk = {**head, "object": "chat.completion.chunk", "choices": [one]}
        if self.sent is not None:
            self.sent = self._noted(self.sent, chunk)
        return format_event(_encode(chunk))

    def _tells(self, choice: dict[str, Any]) -> bool:
        return any(value is not None for value in (choice.get("delta") or {}).values())

    def _noted(self, sent: Sent, chunk: dict[str, Any]) -> Sent:
        text, pieces, seam = "", sent.pieces, sent.seam
        for choice in chunk.get("choices") or []:
            delta = choice.get("delta")
            for name, value in (delta or {}).items():
                if not value or name == "role":
                    continue
                if name == "content":
                    text += value
                    pieces += 1
                elif name in ("tool_calls", "function_call"):
                    seam = "a tool call had begun"
                elif name in ("reasoning_content", "reasoning"):
                    pieces += 1
                else:
                    seam = f"it had begun a {name[:40]}"
        sent.said.write(text)
        return replace(sent, pieces=pieces, seam=seam)
