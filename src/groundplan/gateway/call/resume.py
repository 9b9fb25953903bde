"""Going on with a chat stream that broke after its first byte: what was sent, how the next deployment is asked for the
rest, and how its stream becomes the rest of the first one. Pure.

The client sees one stream: one id, one model, one role, no text twice, usage of all attempts together. What cannot be
continued without a seam is not: several copies, log probabilities, structured output, and a tool call that has begun.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from groundplan.gateway.call.exchange import Ask
from groundplan.gateway.http.sse import DONE, event
from groundplan.gateway.surfaces.interface import Relay
from groundplan.ledger.model import Usage

INSTRUCTION = (
    "Your answer above was cut off. Go on with it exactly where it ends. Repeat nothing of it, and say nothing about "
    "the interruption."
)
"""What the next deployment is told after the text so far."""
LONGEST_OVERLAP = 4000
"""Characters at the end of what was sent among which a repetition is looked for."""
LEAST_OVERLAP = 12
"""Shorter repetitions may be meant."""
ENDPOINT = "chat.completions"
_KEPT = ("id", "created", "model", "system_fingerprint", "service_tier")
_SUMS = ("prompt_tokens", "completion_tokens", "total_tokens")
_decode = msgspec.json.Decoder(dict[str, Any]).decode
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_format = msgspec.json.Decoder(dict[str, Any]).decode
_encode = msgspec.json.encode
_NOTHING = Usage()
_OFF = (b"null", b"false", b"0")


@dataclass(frozen=True, slots=True)
class Sent:
    """What the client has of an answer."""

    head: dict[str, Any]
    """Fields that every chunk of the stream has in common."""
    text: str = ""
    pieces: int = 0
    """Chunks with text: the answer has no fewer tokens."""
    usage: Usage = _NOTHING
    """Of the attempts that broke."""
    seam: str = ""
    """Why it cannot be continued, in words; empty where it can."""


@dataclass(slots=True)
class Continuation:
    """The part of an exchange that lets its stream go on elsewhere. `ask` is the caller's own."""

    ask: Ask
    why_not: str
    """The ask itself forbids it; empty where it does not."""
    sent: Sent | None = None

    def relay(self, inner: Relay) -> Continued:
        """Around a new stream; its first one is passed on as it is, and remembered."""
        return Continued(inner, self.sent)

    def refusal(self, relay: Relay) -> str:
        """Why the broken stream of `relay` cannot be continued; empty where it can."""
        if self.why_not:
            return self.why_not
        return relay.sent.seam if isinstance(relay, Continued) and relay.sent is not None else ""

    def broke(self, relay: Relay, usage: Usage) -> None:
        """Remember what was sent by a stream that broke and used so much."""
        sent = relay.sent if isinstance(relay, Continued) else None
        if sent is not None:
            self.sent = replace(sent, usage=sent.usage + usage)

    def rest(self, cap: int) -> Ask:
        """The caller's ask, for the rest of the answer. `cap`: output tokens that the whole of it may have."""
        if self.sent is None or not (self.sent.text or self.sent.pieces):
            return self.ask
        messages = [
            *_list(bytes(self.ask.fields["messages"])),
            {"role": "assistant", "content": self.sent.text},
            {"role": "user", "content": INSTRUCTION},
        ]
        raw = msgspec.Raw(_encode(messages))
        grown = len(raw) - len(bytes(self.ask.fields["messages"]))
        return replace(
            self.ask,
            fields={**self.ask.fields, "messages": raw},
            body=b"",
            messages=self.ask.messages + 2,
            size=self.ask.size + grown,
            cap=max(1, cap - self.sent.pieces),
        )


def continuation(ask: Ask) -> Continuation:
    """For a stream of a workload that resumes."""
    return Continuation(ask, _forbidden(ask))


def _forbidden(ask: Ask) -> str:
    if ask.copies > 1:
        return "several copies (n) cannot be continued"
    for name in ("logprobs", "top_logprobs"):
        if bytes(ask.fields.get(name, msgspec.Raw(b"null"))) not in _OFF:
            return "log probabilities cannot be continued"
    form = ask.fields.get("response_format")
    if form is not None and bytes(form) != b"null" and _type(form) != "text":
        return "structured output (response_format) cannot be continued"
    return ""


def _type(form: msgspec.Raw) -> object:
    try:
        return _format(bytes(form)).get("type")
    except msgspec.DecodeError:
        return None


class Continued:
    """A `Relay` that remembers what the client has, and makes a later attempt's stream the rest of the first one."""

    __slots__ = ("_earlier", "_held", "_inner", "_open", "sent")

    def __init__(self, inner: Relay, sent: Sent | None) -> None:
        self._inner = inner
        self._earlier = sent
        """None: this is the first attempt."""
        self.sent = sent
        self._held = ""
        """Text that may turn out to be a repetition."""
        self._open = sent is not None and bool(sent.text)

    @property
    def usage(self) -> Usage | None:
        return self._inner.usage

    @property
    def output_bytes(self) -> int:
        return self._inner.output_bytes

    @property
    def done(self) -> bool:
        return self._inner.done

    @property
    def complete(self) -> bool:
        return self._inner.complete

    def take(self, data: bytes) -> bytes:
        """As the inner one. Raises `Malformed`."""
        out = self._inner.take(data)
        return self._rewritten(out) if out else out

    def last(self, facts: bytes) -> bytes:
        return self._rewritten(self._inner.last(facts))

    def broken(self, reason: str, call_id: str) -> bytes:
        return self._inner.broken(reason, call_id)

    def _rewritten(self, out: bytes) -> bytes:
        if self._earlier is None:
            for data in _events(out):
                self._note(data)
            return out
        return b"".join([self._next(data) for data in _events(out)])

    def _note(self, data: bytes) -> None:
        """Remember what one event of the first attempt gives the client."""
        if data == DONE:
            return
        chunk = _decode(data)
        sent = self.sent or Sent({name: chunk[name] for name in _KEPT if name in chunk})
        self.sent = _noted(sent, chunk)

    def _next(self, data: bytes) -> bytes:
        """The events for one event of a later attempt."""
        earlier, sent = self._earlier, self.sent
        if data == DONE or earlier is None or sent is None:
            return event(data)
        chunk = {**_decode(data), **earlier.head}
        for name in _KEPT:
            if name not in earlier.head:
                chunk.pop(name, None)
        before = b""
        for choice in chunk.get("choices") or []:
            before += self._choice(choice, earlier.head)
        if isinstance(chunk.get("usage"), dict):
            chunk["usage"] = _added(chunk["usage"], earlier.usage)
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

    def _trim(self, text: str) -> str:
        """What of new text the client does not have. Held back while it may still be a repetition."""
        if not self._open or self._earlier is None:
            return text
        self._held += text
        tail = self._earlier.text[-LONGEST_OVERLAP:]
        if self._held in tail:
            return ""
        self._open = False
        held, self._held = self._held, ""
        return held[_overlap(tail, held) :]

    def _flush(self, choice: dict[str, Any], head: dict[str, Any]) -> bytes:
        """The stream ends, or calls a tool, while text is held: what of it is new comes first."""
        self._open = False
        held, self._held = self._held, ""
        tail = self._earlier.text[-LONGEST_OVERLAP:] if self._earlier is not None else ""
        rest = held[_overlap(tail, held) :]
        if not rest:
            return b""
        one = {"index": choice.get("index", 0), "delta": {"content": rest}, "finish_reason": None}
        chunk = {**head, "object": "chat.completion.chunk", "choices": [one]}
        if self.sent is not None:
            self.sent = _noted(self.sent, chunk)
        return event(_encode(chunk))


def _events(out: bytes) -> Iterator[bytes]:
    """The data of events as this gateway writes them."""
    for found in out.split(b"\n\n"):
        if found:
            yield b"\n".join(line.removeprefix(b"data: ") for line in found.split(b"\n"))


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


def _added(usage: dict[str, Any], earlier: Usage) -> dict[str, Any]:
    more = dict(zip(_SUMS, (earlier.input, earlier.output, earlier.input + earlier.output), strict=True))
    return {name: value + more[name] if name in more else value for name, value in usage.items()}


def _overlap(tail: str, text: str) -> int:
    """Characters at the beginning of `text` that repeat the end of `tail`."""
    for length in range(min(len(tail), len(text)), 0, -1):
        if tail.endswith(text[:length]):
            return length if length >= min(LEAST_OVERLAP, len(tail)) else 0
    return 0
