"""Translates a chat stream into the events of another API: what Responses and Messages share.

Which events are made of a chunk is left to each API.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import msgspec

from groundplan.economics.prices.provider_usage import normalize_tier
from groundplan.gateway.http.sse import DONE
from groundplan.gateway.surfaces.chat.annotations import (
    ANNOTATIONS_LEFT_OUT,
    CITATIONS_LEFT_OUT,
    UrlCitation,
    listed_pages,
    url_citations,
)
from groundplan.gateway.surfaces.chat.answer_types import (
    CALLS_LEFT_OUT,
    EMPTY_SIZE,
    ChoiceDelta,
    Chunk,
    Delta,
    ToolCallDelta,
    ToolCallSequencer,
    parse_chunk,
)
from groundplan.gateway.surfaces.chat.chunk import NULL, json_size
from groundplan.gateway.surfaces.chat.whole_messages import WholeMessages
from groundplan.gateway.surfaces.openai_relay import refuse_failure
from groundplan.ledger.model import Usage

TEXT, REFUSAL = "output_text", "refusal"
_KNOWN_CALLS = (None, "", "function", "custom")
"""Types of tool calls; some servers send none, or an empty one in later pieces."""


class ViaChatStream(ABC):
    """State of one stream; most of a `Relay`. `prompt_bytes` stand in for a missing count of the prompt's tokens.
    `left_out`: see `Ask.left_out`."""

    __slots__ = (
        "_cited",
        "_has_begun",
        "_left_out",
        "_listed",
        "_prompt_bytes",
        "_sequencer",
        "_service_tier",
        "_whole_messages",
        "done",
        "output_bytes",
        "usage",
    )

    def __init__(self, prompt_bytes: int, left_out: set[str] | None = None) -> None:
        self._left_out = set[str]() if left_out is None else left_out
        self._has_begun = False
        self._cited: set[str] = set()
        """Addresses of pages that were told as citations."""
        self._listed: tuple[msgspec.Raw, msgspec.Raw] | None = None
        """The pages that were listed beside the choices last; see `listed_pages`."""
        self._sequencer = ToolCallSequencer()
        self._whole_messages = WholeMessages()
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
        if (chunks := self._whole_messages.as_deltas(data, self.output_bytes > 0)) is not None:
            return b"".join(map(self.feed, chunks))
        chunk = parse_chunk(data)
        if chunk.service_tier is not None:
            self._service_tier = chunk.service_tier
        refuse_failure(self, chunk, data, self._service_tier)
        self._left_out.update(chunk.left_out)
        if chunk.citations is not NULL or chunk.search_results is not NULL:
            self._note_listed(chunk)
        if chunk.usage is not None:
            self.usage = chunk.usage.usage(normalize_tier(self._service_tier)) or self.usage
        out: list[bytes] = []
        for choice in chunk.choices[:1]:
            out += self._opening_events_once(chunk)
            if choice.delta is not None:
                out += self._delta_events(choice.delta)
            if choice.finish_reason:
                out += self._listed_page_events()
                for piece in self._sequencer.drain():
                    out += self._call_events(piece)
                self._note_finish(choice)
        return b"".join(out)

    def _note_listed(self, chunk: Chunk) -> None:
        """Note the pages listed in a chunk; they are listed in each one, or in the last ones."""
        citations, results = self._listed or (NULL, NULL)
        self._listed = (
            chunk.citations if json_size(chunk.citations) > EMPTY_SIZE else citations,
            chunk.search_results if json_size(chunk.search_results) > EMPTY_SIZE else results,
        )
        if self.complete and any(page.url not in self._cited for page in chunk.pages):  # the text has ended
            self._left_out.add(CITATIONS_LEFT_OUT)

    def _listed_page_events(self) -> list[bytes]:
        """The events for the listed pages that were not cited yet; names them as left out where not all can be."""
        if self._listed is None or not (pages := listed_pages(*self._listed)):
            return []
        citations = [page for page in self._place_pages(pages) if page.url not in self._cited]
        out = self._citation_events(citations) if citations else []
        if out:
            self._cited.update(page.url for page in citations)
        if any(page.url not in self._cited for page in pages):
            self._left_out.add(CITATIONS_LEFT_OUT)
        return out

    def _delta_events(self, delta: Delta) -> list[bytes]:
        self.output_bytes += delta.reasoning_bytes
        self._left_out.update(delta.untranslated())
        out = self._text_events(TEXT, delta.text)
        if citations := url_citations(delta.annotations):
            out += self._annotation_events(citations)
        out += self._text_events(REFUSAL, delta.refusal)
        for call in delta.tool_calls or ():
            if call.function is None and call.custom is None:
                if call.type not in _KNOWN_CALLS:
                    self._left_out.add(CALLS_LEFT_OUT)
                continue
            self.output_bytes += call.size
            for piece in self._sequencer.feed(call):
                out += self._call_events(piece)
        return out

    def _annotation_events(self, citations: list[UrlCitation]) -> list[bytes]:
        """The events for pages that are cited in annotations; names those as left out that come without a text."""
        if out := self._citation_events(citations):
            self._cited.update(citation.url for citation in citations)
        else:
            self._left_out.add(ANNOTATIONS_LEFT_OUT)
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
    def _place_pages(self, pages: list[UrlCitation]) -> list[UrlCitation]:
        """The citations of the open text for pages that are listed beside it, with their places where the API has any;
        none where no text is open."""

    @abstractmethod
    def _call_events(self, call: ToolCallDelta) -> list[bytes]:
        """The events for a piece of a tool call; the pieces of one call come one after the other. Raises
        `Malformed`."""

    @abstractmethod
    def _note_finish(self, choice: ChoiceDelta) -> None:
        """Note why the answer ended."""

    @property
    @abstractmethod
    def complete(self) -> bool:
        """Whether the answer has ended."""
