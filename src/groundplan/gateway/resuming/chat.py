"""Going on with a broken stream of chat completions.

What cannot be continued without a seam is not: several copies, log probabilities, structured output, and a tool call
that has begun. Pure.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec

from groundplan.gateway.call.exchange import Ask
from groundplan.gateway.http.sse import DONE, event
from groundplan.gateway.resuming.story import INSTRUCTION, Continued, Sent, asks, capped, left_of
from groundplan.ledger.model import Usage

ENDPOINT = "chat.completions"
KEPT = ("id", "created", "model", "system_fingerprint", "service_tier")
"""What is the same in every chunk of a stream."""
_SUMS = ("prompt_tokens", "completion_tokens", "total_tokens")
_decode = msgspec.json.Decoder(dict[str, Any]).decode
_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_encode = msgspec.json.encode


def forbidden(ask: Ask) -> str:
    """Why a stream that is asked so cannot be continued; empty where it can."""
    if ask.copies > 1:
        return "several copies (n) cannot be continued"
    if asks(ask, "logprobs") or asks(ask, "top_logprobs"):
        return "log probabilities cannot be continued"
    form = ask.fields.get("response_format")
    if form is not None and bytes(form) != b"null" and _type(form) != "text":
        return "structured output (response_format) cannot be continued"
    return ""


def _type(form: msgspec.Raw) -> object:
    try:
        return _decode(bytes(form)).get("type")
    except msgspec.DecodeError:
        return None


def rest(ask: Ask, sent: Sent, cap: int) -> Ask:
    """The caller's ask, for the rest of the answer. `cap`: output tokens that the whole of it may have."""
    messages = [
        *_list(bytes(ask.fields["messages"])),
        {"role": "assistant", "content": sent.text},
        {"role": "user", "content": INSTRUCTION},
    ]
    raw, left = msgspec.Raw(_encode(messages)), left_of(cap, sent)
    grown = len(raw) - len(bytes(ask.fields["messages"]))
    fields = {**capped(ask.fields, left), "messages": raw}
    return replace(ask, fields=fields, body=b"", messages=ask.messages + 2, size=ask.size + grown, cap=left)


class ContinuedChat(Continued):
    """See the module."""

    __slots__ = ()

    def _note(self, data: bytes) -> None:
        if data == DONE:
            return
        chunk = _decode(data)
        sent = self.sent or Sent({name: chunk[name] for name in KEPT if name in chunk})
        self.sent = _noted(sent, chunk)

    def _next(self, data: bytes) -> bytes:
        earlier, sent = self._earlier, self.sent
        if data == DONE or earlier is None or sent is None:
            return event(data)
        chunk = headed(_decode(data), earlier.head)
        before = b""
        for choice in chunk.get("choices") or []:
            before += self._choice(choice, earlier.head)
        if isinstance(chunk.get("usage"), dict):
            chunk["usage"] = added(chunk["usage"], earlier.usage)
        elif _is_empty(chunk):
            return before
        self.sent = _noted(self.sent or sent, chunk)
        return before + event(_encode(chunk))

    def _choice(self, choice: dict[str, Any], head: dict[str, Any]) -> bytes:
        """Take out of one choice what the client has already; returns an event for text that was held before it."""
        delta = choice.get("delta")
        if not isinstance(delta, dict):
            return b""
        for name in ("role", "reasoning_content", "reasoning", "refusal"):
            if name == "role" or delta.get(name) is None or self.sent is not None:
                delta.pop(name, None)
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
            self.sent = _noted(self.sent, chunk)
        return event(_encode(chunk))


def headed(chunk: dict[str, Any], head: dict[str, Any]) -> dict[str, Any]:
    """A later attempt's chunk as one of the first one's stream."""
    made = {**chunk, **head}
    for name in KEPT:
        if name not in head:
            made.pop(name, None)
    return made


def added(usage: dict[str, Any], earlier: Usage) -> dict[str, Any]:
    """What was used by all attempts, as OpenAI reports it."""
    more = dict(zip(_SUMS, (earlier.input, earlier.output, earlier.input + earlier.output), strict=True))
    return {name: value + more[name] if name in more else value for name, value in usage.items()}


def _noted(sent: Sent, chunk: dict[str, Any]) -> Sent:
    text, pieces, seam = sent.text, sent.pieces, sent.seam
    for choice in chunk.get("choices") or []:
        delta = choice.get("delta")
        for name, value in (delta or {}).items():
            if value is None or name == "role":
                continue
            if name == "content":
                text += value
                pieces += bool(value)
            elif name in ("tool_calls", "function_call"):
                seam = "a tool call had begun"
            elif name in ("reasoning_content", "reasoning"):
                pieces += bool(value)
            elif value:
                seam = f"it had begun a {name[:40]}"
    return replace(sent, text=text, pieces=pieces, seam=seam)


def _is_empty(chunk: dict[str, Any]) -> bool:
    """A chunk that tells the client nothing any more."""
    choices = chunk.get("choices") or []
    return bool(choices) and not any(
        choice.get("finish_reason") or any(value is not None for value in (choice.get("delta") or {}).values())
        for choice in choices
    )
