"""Going on with a broken stream of Anthropic's Messages.

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
from groundplan.gateway.resuming.story import Continued, Sent, add_usage, continue_messages, is_set, remaining_tokens
from groundplan.gateway.surfaces.codec import Relay
from groundplan.gateway.surfaces.messages.from_chat import LazyTranslation
from groundplan.gateway.surfaces.messages.native import thinking_budget
from groundplan.ledger.model import Usage

ENDPOINT = "messages"
_THINKING = ("thinking", "redacted_thinking")
_THINKS = "it had begun to think"
_decode = msgspec.json.Decoder(dict[str, Any]).decode
_encode = msgspec.json.encode


def forbidden(ask: Ask) -> str:
    """Why a stream that is asked so cannot be continued; empty where it can."""
    return "structured output (output_config.format) cannot be continued" if has_form(ask) else ""


def has_form(ask: Ask) -> bool:
    """Whether an answer of Messages is to have a form."""
    config = msgspec.json.decode(ask.fields.get("output_config", b"null"))
    return is_set(ask, "output_format") or (isinstance(config, dict) and config.get("format") is not None)


def rest(ask: Ask, sent: Sent, cap: int) -> Ask:
    """The caller's ask, for the rest of the answer. `cap`: output tokens that the whole of it may have."""
    asked = continue_messages(ask, sent, cap)
    fields = dict(asked.fields)
    if thinking_budget(ask) >= remaining_tokens(cap, sent):
        del fields["thinking"]  # providers refuse to think as much as may be answered; what is left is for the answer
    return replace(asked, fields=fields, parsed=LazyTranslation(_encode(fields)))


@dataclass(slots=True)
class Blocks:
    """The content blocks that the client has, over all attempts."""

    count: int = 0
    open: int | None = None
    """Number of the text block that has begun and not ended."""
    numbers: dict[int, int] = field(default_factory=dict)
    """Of blocks of the attempt that runs: the client's by its own. What is not in it is left out."""


class ContinuedMessage(Continued):
    """See the module."""

    __slots__ = ("_merged",)

    def __init__(self, inner: Relay, sent: Sent | None) -> None:
        super().__init__(inner, sent)
        self._merged: int | None = None
        """This attempt's number of the block that goes on."""
        if self.sent is not None:
            self.sent.more.numbers.clear()

    def _note(self, data: bytes) -> None:
        found = _decode(data)
        kind = found["type"]
        if kind == "message_start":
            self.sent = Sent(found["message"], more=Blocks())
        elif self.sent is not None:
            self.sent = self._noted(self.sent, kind, found)

    def _noted(self, sent: Sent, kind: str, found: dict[str, Any]) -> Sent:
        """What the client has after one more event, which bears the client's own numbers."""
        blocks: Blocks = sent.more
        if kind == "content_block_start":
            return self._begun(sent, found["index"], found["content_block"]["type"])
        if kind == "content_block_stop":
            blocks.open = None
            return replace(sent, seam="") if sent.seam == _THINKS else sent
        if kind != "content_block_delta":
            return sent
        delta = found["delta"]
        if delta["type"] == "text_delta":
            sent.said.write(delta["text"])
            return replace(sent, pieces=sent.pieces + 1)
        if delta["type"] == "citations_delta":
            return replace(sent, seam="it had begun to cite")
        return replace(sent, pieces=sent.pieces + (delta["type"] == "thinking_delta"))

    def _begun(self, sent: Sent, number: int, kind: str) -> Sent:
        blocks: Blocks = sent.more
        blocks.count = number + 1
        if kind == "text":
            blocks.open = number
            return sent
        if kind in _THINKING:
            return replace(sent, seam=sent.seam or _THINKS)
        return replace(sent, seam="a tool call had begun" if kind == "tool_use" else f"it had begun a {kind[:40]}")

    def _next(self, data: bytes) -> bytes:
        found = _decode(data)
        kind, earlier, sent = found["type"], self._earlier, self.sent
        if earlier is None or sent is None or kind == "message_start":
            return b""
        if kind == "content_block_start":
            return self._block(sent, found)
        if kind in ("content_block_delta", "content_block_stop"):
            return self._piece(sent, found)
        before = self._ended(sent) if kind == "message_delta" else b""
        if kind == "message_delta" and isinstance(found.get("usage"), dict):
            found["usage"] = _added(found["usage"], earlier.usage)
        return before + format_named_event(kind, _encode(found))

    def _block(self, sent: Sent, found: dict[str, Any]) -> bytes:
        """A block begins: it is the one that goes on, or one more, or thinking that comes too late to be told."""
        blocks: Blocks = sent.more
        number, kind = found["index"], found["content_block"]["type"]
        if kind in _THINKING:
            return b""
        if kind == "text" and blocks.open is not None:
            self._merged = number
            blocks.numbers[number] = blocks.open
            return b""
        before = self._ended(sent)
        blocks.numbers[number] = blocks.count
        return before + self._tell({**found, "index": blocks.count})

    def _piece(self, sent: Sent, found: dict[str, Any]) -> bytes:
        number = sent.more.numbers.get(found["index"])
        if number is None:
            return b""
        if found["index"] == self._merged:
            if found["type"] == "content_block_stop":
                return self._ended(sent)
            if found["delta"]["type"] == "text_delta":
                found["delta"]["text"] = self._trim(found["delta"]["text"])
                if not found["delta"]["text"]:
                    return b""
        return self._tell({**found, "index": number})

    def _ended(self, sent: Sent) -> bytes:
        """The end of the block that is open, and before it what of its text was held and is new."""
        blocks: Blocks = sent.more
        if blocks.open is None:
            return b""
        number, left = blocks.open, self._released() if self._open else ""
        out = b""
        if left:
            delta = {"type": "text_delta", "text": left}
            out = self._tell({"type": "content_block_delta", "index": number, "delta": delta})
        return out + self._tell({"type": "content_block_stop", "index": number})

    def _tell(self, told: dict[str, Any]) -> bytes:
        if self.sent is not None:
            self.sent = self._noted(self.sent, told["type"], told)
        return format_named_event(told["type"], _encode(told))


def _added(usage: dict[str, Any], earlier: Usage) -> dict[str, Any]:
    """What was used by all attempts, as Anthropic reports it: input without what caches read and wrote."""
    more = {
        "input_tokens": earlier.input - earlier.cache_read - earlier.cache_write,
        "output_tokens": earlier.output,
        "cache_read_input_tokens": earlier.cache_read,
        "cache_creation_input_tokens": earlier.cache_write,
    }
    return add_usage(usage, more)
