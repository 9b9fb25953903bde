"""Checks after the answer whether the passages that it cites say what it says.

Words decide most of it at once. What they leave open is asked of the search service, which knows meaning: for a stream
between the last word and the end that carries the facts, for a whole answer beside it, so no client waits for it before
its first byte. A call that was given no passage has none of this. Nothing here is a reason to refuse.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec

from groundplan.gateway.call.delivery.stream import Streaming
from groundplan.gateway.call.ground import ask_search
from groundplan.gateway.call.grounding.citation import Citation
from groundplan.gateway.call.grounding.citation_store import Verdict
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
"""Longest that the end of a stream waits for what meaning says."""
BACKGROUND_SECONDS = 5.0
MOST_BYTES = 4 << 20
"""Of a longer stream nothing is looked at."""
_MARKED = re.compile(rb"\[\s*\d")
_decode = msgspec.json.Decoder(SupportAnswer).decode
_json = msgspec.json.decode


class CitedStreaming(Streaming):
    """A stream of an answer that was given passages: what the upstream said is kept until its end."""

    __slots__ = ("_said", "_size")

    direct = False

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._said: list[bytes] = []
        self._size = 0

    def _take(self, data: bytes) -> bytes:
        self._size += len(data)
        if self._size <= MOST_BYTES:
            self._said.append(data)
        return super()._take(data)

    def text(self) -> str:
        """What a person reads of it; nothing of a stream that was too long."""
        if self._size > MOST_BYTES:
            return ""
        channels: dict[answer_text.Channel, list[str]] = {}
        try:
            for event in EventReader().feed(b"".join(self._said)):
                for slot in answer_text.slots(_json(event) if event.startswith(b"{") else None):
                    if answer_text.is_said(slot.channel):
                        channels.setdefault(slot.channel, []).append(slot.text)
        except (msgspec.DecodeError, EventTooLarge):
            return ""
        return "\n".join("".join(parts) for parts in channels.values())

    async def look(self, gateway: Gateway, exchange: Exchange) -> None:
        """Before its end is sent: what its citations are worth."""
        text = self.text() if exchange.guard is None else exchange.guard.masks.restore(self.text())
        if exchange.continuation is not None and exchange.continuation.sent is not None:
            text = exchange.continuation.sent.text + text
        found = check_citations(text, exchange.passages)
        if not found or exchange.grounding_notes is None:
            return
        exchange.grounding_notes.citations = found = await meant(gateway, exchange.id, found, STREAM_SECONDS)
        note(gateway, exchange, found)


def whole(gateway: Gateway, exchange: Exchange, data: bytes) -> None:
    """A whole answer before it is sent: what words say goes into its facts, the rest is asked beside it."""
    if exchange.grounding_notes is None or _MARKED.search(data) is None:
        return
    try:
        found = check_citations(answer_text.said(_json(data)), exchange.passages)
    except msgspec.DecodeError:
        return
    if found:
        exchange.grounding_notes.citations = found
        gateway.run_in_background(_finish(gateway, exchange, found))


async def _finish(gateway: Gateway, exchange: Exchange, found: list[Citation]) -> None:
    note(gateway, exchange, await meant(gateway, exchange.id, found, BACKGROUND_SECONDS))


def check_citations(answer: str, passages: Sequence[Passage]) -> list[Citation]:
    """Every citation of an answer, as far as words decide it. A number without a passage supports nothing."""
    found: list[Citation] = []
    known: dict[int, PassageText] = {}
    for statement in statements(answer):
        for number in statement.passages:
            passage = passages[number - 1] if 0 < number <= len(passages) else None
            seen = WordMatch(False, 0.0, None)
            if passage is not None:
                # once, however often it is cited: a worker that looks at an answer serves no other call
                there = known.get(number) or known.setdefault(number, prepare_passage(passage.text, passage.head))
                seen = match_words(statement.text, there)
            found.append(Citation(statement, number, passage, seen, seen.decided))
    return found


async def meant(gateway: Gateway, name: bytes, found: list[Citation], seconds: float) -> list[Citation]:
    """With what meaning says of what words leave open; as it was where the service does not say in time."""
    asked: list[tuple[int, Asked]] = []
    texts = 0
    for at, one in enumerate(found):
        if one.supported is None:
            places = [place.text for place in one.look.places]
            texts += len(places) + 1
            if texts > MAX_TEXTS:
                break
            asked.append((at, Asked(one.statement.text, places)))
    if not asked:
        return found
    request = msgspec.json.encode(SupportRequest([one for _, one in asked]))
    try:
        async with patient(seconds):
            answer = _decode(await ask_search(gateway, request, name, PATH))
    except (UpstreamFailure, TimeoutError, msgspec.DecodeError, UnicodeDecodeError):
        return found
    made = list(found)
    for (at, _), cosines in zip(asked, answer.nearness, strict=False):
        one = made[at]
        best = cosines.index(max(cosines)) if cosines else None
        seen = one.look if best is None else replace(one.look, place=one.look.places[best])
        made[at] = replace(one, look=seen, supported=decide(one.look.share, nearest(cosines)))
    return made


def note(gateway: Gateway, exchange: Exchange, found: Sequence[Citation]) -> None:
    """Count what was found, and keep it for the receipt of the call."""
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
