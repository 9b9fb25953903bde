"""Checks after the answer whether the passages that it cites support its statements.

Comparing words decides most citations at once. The rest is decided by meaning, by the search service: for a stream
between the last word and the end with the facts, for an unstreamed answer in the background, so no client waits for it
before its first byte. Calls without passages are not checked. Nothing here refuses an answer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec

from groundplan.gateway.call.delivery.stream import Streaming
from groundplan.gateway.call.grounding.citation import Citation
from groundplan.gateway.call.grounding.citation_store import Verdict
from groundplan.gateway.call.search_client import ask_search
from groundplan.gateway.http.sse import EventReader, EventTooLarge
from groundplan.gateway.stalls import patient
from groundplan.gateway.surfaces import answer_text
from groundplan.gateway.upstream.connection import UpstreamFailure
from groundplan.knowledge.citations.marks import statements
from groundplan.knowledge.citations.support import PassageText, WordMatch, decide, match_words, nearest, prepare_passage
from groundplan.knowledge.citations.wire import MAX_TEXTS, PATH, Asked, SupportAnswer, SupportRequest

if TYPE_CHECKING:
    from groundplan.gateway.call.ask import Passage
    from groundplan.gateway.call.context import Gateway
    from groundplan.gateway.call.exchange import Exchange

STREAM_SECONDS = 0.3
"""The longest that the end of a stream waits for the search service."""
BACKGROUND_SECONDS = 5.0
MAX_CHECKED_BYTES = 4 << 20
"""A longer stream is not checked."""
_MARKED = re.compile(rb"\[\s*\d")
_decode = msgspec.json.Decoder(SupportAnswer).decode
_json = msgspec.json.decode


class CitedStreaming(Streaming):
    """The stream of a grounded answer: what the upstream sent is kept until its end."""

    __slots__ = ("_received", "_size")

    can_pass_through = False

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._received: list[bytes] = []
        self._size = 0

    def _feed(self, data: bytes) -> bytes:
        self._size += len(data)
        if self._size <= MAX_CHECKED_BYTES:
            self._received.append(data)
        return super()._feed(data)

    def text(self) -> str:
        """The text of the answer that a person reads; empty for a stream that was too long."""
        if self._size > MAX_CHECKED_BYTES:
            return ""
        channels: dict[answer_text.Channel, list[str]] = {}
        try:
            for event in EventReader().feed(b"".join(self._received)):
                for slot in answer_text.slots(_json(event) if event.startswith(b"{") else None):
                    if answer_text.is_visible_text(slot.channel):
                        channels.setdefault(slot.channel, []).append(slot.text)
        except (msgspec.DecodeError, EventTooLarge):
            return ""
        return "\n".join("".join(parts) for parts in channels.values())

    async def check_citations(self, gateway: Gateway, exchange: Exchange) -> None:
        """Check the citations of the answer and record them, before its end is sent."""
        text = self.text() if exchange.guard is None else exchange.guard.masks.restore(self.text())
        if exchange.continuation is not None and exchange.continuation.sent is not None:
            text = exchange.continuation.sent.text + text
        found = check_citations(text, exchange.passages)
        if not found or exchange.grounding_notes is None:
            return
        exchange.grounding_notes.citations = found = await decide_by_meaning(
            gateway, exchange.id, found, STREAM_SECONDS
        )
        record_citations(gateway, exchange, found)


def check_whole_answer(gateway: Gateway, exchange: Exchange, data: bytes) -> None:
    """Check an unstreamed answer before it is sent: by words now, for its facts, and by meaning in the background."""
    if exchange.grounding_notes is None or _MARKED.search(data) is None:
        return
    try:
        found = check_citations(answer_text.visible_text(_json(data)), exchange.passages)
    except msgspec.DecodeError:
        return
    if found:
        exchange.grounding_notes.citations = found
        gateway.run_in_background(_check_in_background(gateway, exchange, found))


async def _check_in_background(gateway: Gateway, exchange: Exchange, found: list[Citation]) -> None:
    record_citations(gateway, exchange, await decide_by_meaning(gateway, exchange.id, found, BACKGROUND_SECONDS))


def check_citations(answer: str, passages: Sequence[Passage]) -> list[Citation]:
    """Every citation of an answer, decided by words as far as possible. A number without a passage is unsupported."""
    found: list[Citation] = []
    known: dict[int, PassageText] = {}
    for statement in statements(answer):
        for number in statement.passages:
            passage = passages[number - 1] if 0 < number <= len(passages) else None
            seen = WordMatch(False, 0.0, None)
            if passage is not None:
                # once, however often it is cited: meanwhile this worker serves no other call
                there = known.get(number) or known.setdefault(number, prepare_passage(passage.text, passage.head))
                seen = match_words(statement.text, there)
            found.append(Citation(statement, number, passage, seen, seen.decided))
    return found


async def decide_by_meaning(gateway: Gateway, name: bytes, found: list[Citation], seconds: float) -> list[Citation]:
    """The citations, with those that words leave open decided by meaning; unchanged where the search service does not
    answer in time."""
    to_check: list[tuple[int, Asked]] = []
    text_count = 0
    for at, citation in enumerate(found):
        if citation.supported is None:
            places = [place.text for place in citation.look.places]
            text_count += len(places) + 1
            if text_count > MAX_TEXTS:
                break
            to_check.append((at, Asked(citation.statement.text, places)))
    if not to_check:
        return found
    request = msgspec.json.encode(SupportRequest([citation for _, citation in to_check]))
    try:
        async with patient(seconds):
            answer = _decode(await ask_search(gateway, request, name, PATH))
    except (UpstreamFailure, TimeoutError, msgspec.DecodeError, UnicodeDecodeError):
        return found
    decided = list(found)
    for (at, _), cosines in zip(to_check, answer.nearness, strict=False):
        citation = decided[at]
        best = cosines.index(max(cosines)) if cosines else None
        comparison = citation.look if best is None else replace(citation.look, place=citation.look.places[best])
        decided[at] = replace(citation, look=comparison, supported=decide(citation.look.share, nearest(cosines)))
    return decided


def record_citations(gateway: Gateway, exchange: Exchange, found: Sequence[Citation]) -> None:
    """Count the results in the metrics, and store them for the receipt of the call."""
    workload = exchange.workload
    if workload is None:
        return
    for one in found:
        gateway.call_counters.count_citation(workload.name, _RESULTS[one.supported])
    if gateway.citations is not None:
        gateway.citations.add(*(_verdict(exchange, place, one) for place, one in enumerate(found)))


_RESULTS = {True: "supported", False: "unsupported", None: "undecided"}


def _verdict(exchange: Exchange, place: int, one: Citation) -> Verdict:
    start, end = one.span()
    passage = one.passage
    return Verdict(
        call=exchange.call,
        number=place,
        passage=one.number,
        document=None if passage is None else passage.document,
        version=0 if passage is None else passage.version,
        start_char=start,
        end_char=end,
        answer_start=one.statement.start,
        answer_end=one.statement.end,
        supported=one.supported,
    )
