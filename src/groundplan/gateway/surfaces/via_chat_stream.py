"""Translates a chat stream into the events of another API: what Responses and Messages share.

Which events are made of a chunk is left to each API.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from groundplan.economics.prices.provider_usage import normalize_tier
from groundplan.gateway.http.sse import DONE
from groundplan.gateway.surfaces.chat.annotations import UrlCitation, url_citations
from groundplan.gateway.surfaces.chat.answer_types import (
    ChoiceDelta,
    Chunk,
    Delta,
    ToolCallDelta,
    ToolCallSequencer,
    parse_chunk,
)
from groundplan.ledger.model import Usage

TEXT, REFUSAL = "output_text", "refusal"


class ViaChatStream(ABC):
    """State of one stream; most of a `Relay`. `prompt_bytes` stand in for a missing count of the prompt's tokens.
    `left_out`: see `Ask.left_out`."""

    __slots__ = (
        "_has_begun",
        "_left_out",
        "_prompt_bytes",
        "_sequencer",
        "_service_tier",
        "done",
        "output_bytes",
        "usage",
    )

    def __init__(self, prompt_bytes: int, left_out: set[str] | None = None) -> None:
        self._left_out = set[str]() if left_out is None else left_out
        self._has_begun = False
        self._sequencer = ToolCallSequencer()
        self._prompt_bytes = prompt_bytes
        self._service_tier: object = None
        """The service tier that the upstream named last."""
        self.usage: Usage | None = None
        self.output_bytes = 0
        self.done = False

    def feed(self, data: bytes) -> bytes:
        """Take in one chunk and return the events to send to the client. Raises `Malformed`."""
        if data == DONE:
            self.done = True
            return b""
        chunk = parse_chunk(data)
        if chunk.service_tier is not None:
            self._service_tier = chunk.service_tier
        self._left_out.update(chunk.left_out)
        if chunk.usage is not None:
            self.usage = chunk.usage.usage(normalize_tier(self._service_tier)) or self.usage
        out: list[bytes] = []
        for choice in chunk.choices[:1]:
            out += self._opening_events_once(chunk)
            if choice.delta is not None:
                out += self._delta_events(choice.delta)
            if choice.finish_reason:
                for piece in self._sequencer.drain():
                    out += self._call_events(piece)
                self._note_finish(choice)
        return b"".join(out)

    def _delta_events(self, delta: Delta) -> list[bytes]:
        self.output_bytes += delta.reasoning_bytes
        self._left_out.update(delta.untranslated())
        out = self._text_events(TEXT, delta.text)
        if citations := url_citations(delta.annotations):
            out += self._citation_events(citations)
        out += self._text_events(REFUSAL, delta.refusal)
        for call in delta.tool_calls or ():
            self.output_bytes += call.size
            for piece in self._sequencer.feed(call):
                out += self._call_events(piece)
        return out

    def _opening_events_once(self, chunk: Chunk) -> list[bytes]:
        """The opening events, before the first choice only. They wait for it, since Azure's chunks about the prompt,
        which come earlier, have neither id nor model."""
        if self._has_begun:
            return []
        self._has_begun = True
        return self._opening_events(chunk)

    @property
    def usage_or_estimate(self) -> Usage:
        """The usage that the upstream reported, else an estimate of one token per four bytes of prompt and answer."""
        return self.usage or Usage(input=-(-self._prompt_bytes // 4), output=-(-self.output_bytes // 4))

    @abstractmethod
    def _opening_events(self, chunk: Chunk) -> list[bytes]:
        """The events before all others; `chunk` is the first chunk."""

    @abstractmethod
    def _text_events(self, kind: str, text: str | None) -> list[bytes]:
        """The events for a piece of text or of a refusal (`kind`); adds its bytes to `output_bytes`."""

    @abstractmethod
    def _citation_events(self, citations: list[UrlCitation]) -> list[bytes]:
        """The events for web pages that the open text cites; none where no text is open."""

    @abstractmethod
    def _call_events(self, call: ToolCallDelta) -> list[bytes]:
        """The events for a piece of a tool call; the pieces of one call come one after the other. Raises
        `Malformed`."""

    @abstractmethod
    def _note_finish(self, choice: ChoiceDelta) -> None:
        """Note why the answer ended."""
