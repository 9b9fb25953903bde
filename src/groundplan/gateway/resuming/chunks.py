"""Continues a broken stream of OpenAI's chunks, of chat or of the older completions: what both have in common.
Pure.

A chunk of a later attempt becomes one of the first one's stream, without what the client has already.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import msgspec

from groundplan.gateway.http.sse import DONE, format_event
from groundplan.gateway.resuming.continued_relay import ContinuedRelay, SentAnswer, add_usage
from groundplan.ledger.model import Usage

_KEPT = ("id", "created", "model", "system_fingerprint", "service_tier")
"""Fields that are the same in every chunk of a stream."""
FACTS = "groundplan"
"""Field of our facts in the last chunk."""
_SUMS = ("prompt_tokens", "completion_tokens", "total_tokens")
_decode = msgspec.json.Decoder(dict[str, Any]).decode
_encode = msgspec.json.encode


class ContinuedChunks(ContinuedRelay):
    """Subclasses remove from a choice what the client has (`_trim_choice`), say whether anything is left
    (`_has_content`), and what the client has after a chunk (`_updated`)."""

    __slots__ = ()

    def _record_event(self, data: bytes) -> None:
        if data == DONE:
            return
        chunk = _decode(data)
        if self.sent is None and not chunk.get("choices"):
            return  # Azure's first chunk, about the prompt, has neither id nor model
        self.sent = self._updated(
            self.sent or SentAnswer({name: chunk[name] for name in _KEPT if name in chunk}), chunk
        )

    def _continue_event(self, data: bytes) -> bytes:
        earlier, sent = self._earlier, self.sent
        if data == DONE or earlier is None or sent is None:
            return format_event(data)
        chunk = _with_head(_decode(data), earlier.head)
        choices = chunk.get("choices") or []
        before = b"".join([self._trim_choice(choice, earlier.head) for choice in choices])
        if isinstance(chunk.get("usage"), dict):
            chunk["usage"] = _total_usage(chunk["usage"], earlier.usage)
        elif choices and not (FACTS in chunk or any(c.get("finish_reason") or self._has_content(c) for c in choices)):
            return before
        self.sent = self._updated(self.sent or sent, chunk)
        return before + format_event(_encode(chunk))

    @abstractmethod
    def _trim_choice(self, choice: dict[str, Any], head: dict[str, Any]) -> bytes:
        """Remove what the client has already from one choice; returns an event for held text before it, or nothing."""

    @abstractmethod
    def _has_content(self, choice: dict[str, Any]) -> bool:
        """Whether anything is left in a choice that has not ended."""

    @abstractmethod
    def _updated(self, sent: SentAnswer, chunk: dict[str, Any]) -> SentAnswer:
        """What the client has after a chunk."""


def _with_head(chunk: dict[str, Any], head: dict[str, Any]) -> dict[str, Any]:
    """A later attempt's chunk as one of the first attempt's stream."""
    merged = {**chunk, **head}
    for name in _KEPT:
        if name not in head:
            merged.pop(name, None)
    return merged


def _total_usage(usage: dict[str, Any], earlier: Usage) -> dict[str, Any]:
    """The usage of all attempts, as OpenAI reports it."""
    return add_usage(
        usage, dict(zip(_SUMS, (earlier.input, earlier.output, earlier.input + earlier.output), strict=True))
    )
