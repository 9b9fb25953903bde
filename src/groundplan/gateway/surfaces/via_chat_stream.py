"""A stream of chat as the events of another API: what Responses and Messages take from each chunk, in the same way.

Which events they make of it is each API's own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from groundplan.economics.prices.provider_usage import normalize_tier
from groundplan.gateway.http.sse import DONE
from groundplan.gateway.surfaces.chat.answer_types import (
    ChoiceDelta,
    Chunk,
    ToolCallDelta,
    ToolCallSequencer,
    parse_chunk,
)
from groundplan.ledger.model import Usage

TEXT, REFUSAL = "output_text", "refusal"


class ViaChatStream(ABC):
    """State of one stream; most of a `Relay`. `size`: of the prompt, which stands in for a count of it."""

    __slots__ = ("_begun", "_order", "_size", "_tier", "done", "output_bytes", "usage")

    def __init__(self, size: int) -> None:
        self._begun = False
        self._order = ToolCallSequencer()
        self._size = size
        self._tier: object = None
        """Of service, as it was last named."""
        self.usage: Usage | None = None
        self.output_bytes = 0
        self.done = False

    def feed(self, data: bytes) -> bytes:
        """Events for the client after one more chunk. Raises `Malformed`."""
        if data == DONE:
            self.done = True
            return b""
        found = parse_chunk(data)
        if found.service_tier is not None:
            self._tier = found.service_tier
        if found.usage is not None:
            self.usage = found.usage.usage(normalize_tier(self._tier)) or self.usage
        out: list[bytes] = []
        for choice in found.choices[:1]:
            out += self._first(found)
            if choice.delta is not None:
                self.output_bytes += choice.delta.thought
                out += self._said(TEXT, choice.delta.text) + self._said(REFUSAL, choice.delta.refusal)
                for call in choice.delta.tool_calls or ():
                    self.output_bytes += call.size
                    for piece in self._order.after(call):
                        out += self._called(piece)
            if choice.finish_reason:
                for piece in self._order.rest():
                    out += self._called(piece)
                self._finished(choice)
        return b"".join(out)

    def _first(self, found: Chunk) -> list[bytes]:
        """The beginning, before the first choice: what Azure tells before that, of the prompt, has no id nor model."""
        if self._begun:
            return []
        self._begun = True
        return self._begin(found)

    @property
    def counted(self) -> Usage:
        """What the upstream reported, else as much as the bytes of prompt and answer are on the average."""
        return self.usage or Usage(input=-(-self._size // 4), output=-(-self.output_bytes // 4))

    @abstractmethod
    def _begin(self, found: Chunk) -> list[bytes]:
        """The events before all others; `found` is the first chunk."""

    @abstractmethod
    def _said(self, kind: str, text: str | None) -> list[bytes]:
        """The events of a piece of text, or of a refusal; counts its bytes."""

    @abstractmethod
    def _called(self, call: ToolCallDelta) -> list[bytes]:
        """The events of a piece of a tool call: those of one follow each other. Raises `Malformed`."""

    @abstractmethod
    def _finished(self, choice: ChoiceDelta) -> None:
        """Note why the answer ended."""
