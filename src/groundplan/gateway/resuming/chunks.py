"""Going on with a broken stream of OpenAI's chunks, of chat or of the older completions: what both have in common.
Pure.

A chunk of a later attempt becomes one of the first one's stream, without what the client has already.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import msgspec

from groundplan.gateway.http.sse import DONE, format_event
from groundplan.gateway.resuming.story import Continued, Sent, add_usage
from groundplan.ledger.model import Usage

_KEPT = ("id", "created", "model", "system_fingerprint", "service_tier")
"""What is the same in every chunk of a stream."""
FACTS = "groundplan"
"""In the last chunk, whatever else it has."""
_SUMS = ("prompt_tokens", "completion_tokens", "total_tokens")
_decode = msgspec.json.Decoder(dict[str, Any]).decode
_encode = msgspec.json.encode


class ContinuedChunks(Continued):
    """A surface says what its choices have that is new (`_choice`), whether that is anything (`_tells`), and what the
    client has after a chunk (`_noted`)."""

    __slots__ = ()

    def _note(self, data: bytes) -> None:
        if data == DONE:
            return
        chunk = _decode(data)
        if self.sent is None and not chunk.get("choices"):
            return  # what Azure tells of the prompt first has neither id nor model
        self.sent = self._noted(self.sent or Sent({name: chunk[name] for name in _KEPT if name in chunk}), chunk)

    def _next(self, data: bytes) -> bytes:
        earlier, sent = self._earlier, self.sent
        if data == DONE or earlier is None or sent is None:
            return format_event(data)
        chunk = _headed(_decode(data), earlier.head)
        choices = chunk.get("choices") or []
        before = b"".join([self._choice(choice, earlier.head) for choice in choices])
        if isinstance(chunk.get("usage"), dict):
            chunk["usage"] = _added(chunk["usage"], earlier.usage)
        elif choices and not (FACTS in chunk or any(c.get("finish_reason") or self._tells(c) for c in choices)):
            return before
        self.sent = self._noted(self.sent or sent, chunk)
        return before + format_event(_encode(chunk))

    @abstractmethod
    def _choice(self, choice: dict[str, Any], head: dict[str, Any]) -> bytes:
        """Take out of one choice what the client has already; an event for text that was held before it."""

    @abstractmethod
    def _tells(self, choice: dict[str, Any]) -> bool:
        """Whether anything is left in a choice that has not ended."""

    @abstractmethod
    def _noted(self, sent: Sent, chunk: dict[str, Any]) -> Sent:
        """What the client has after a chunk."""


def _headed(chunk: dict[str, Any], head: dict[str, Any]) -> dict[str, Any]:
    """A later attempt's chunk as one of the first one's stream."""
    made = {**chunk, **head}
    for name in _KEPT:
        if name not in head:
            made.pop(name, None)
    return made


def _added(usage: dict[str, Any], earlier: Usage) -> dict[str, Any]:
    """What was used by all attempts, as OpenAI reports it."""
    return add_usage(
        usage, dict(zip(_SUMS, (earlier.input, earlier.output, earlier.input + earlier.output), strict=True))
    )
