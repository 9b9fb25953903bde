"""Compares another answer with the given one: by a judge in both orders, or by similarity of the texts.

By similarity two answers are the same if they have the same numbers, both or neither have negations, and their
embeddings by the local search service are near. That measures sameness, not quality: a better answer counts as
different.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from groundplan.economics.replay import pairwise
from groundplan.gateway.call.search_client import ask_search
from groundplan.gateway.experiments import shadow_call
from groundplan.gateway.surfaces import answer_text
from groundplan.gateway.surfaces.chat.surface import CHAT
from groundplan.gateway.telemetry.content_text import decode_answer
from groundplan.gateway.upstream.connection import UpstreamFailure
from groundplan.knowledge.embedding.wire import PATH, embed_answer, embed_request

if TYPE_CHECKING:
    from groundplan.gateway.call.context import Gateway

AGREES = 0.8
"""Lowest cosine of two answers that count as the same."""
MAX_TEXT = 8000
"""Characters of an answer that are compared by similarity."""
_decode = msgspec.json.Decoder().decode


class Comparison(NamedTuple):
    """`basis`: judge | likeness | none (there is nothing to compare); `score`: 1 as good, 0 worse; None: left open."""

    basis: str
    score: float | None
    contradicted: bool = False
    cost: int = 0
    """Cost of the comparison, picodollars."""
    code: str = ""
    """Error code if the judge could not be asked."""
    said: str | None = None
    """The judge's reply: both verdicts, or the beginning of an unreadable one; None: not asked, or no reply."""


class Verdict(NamedTuple):
    """A judge's verdict. `word`: None if the judge could not be asked (`code` says why) or gave no readable verdict
    (`said`: its reply, abbreviated)."""

    word: str | None
    cost: int
    code: str = ""
    said: str = ""


NOT_COMPARED = Comparison("none", None)


def text_of(data: bytes) -> str:
    """The text and the function calls of an answer of any surface, whole or streamed; empty if it is neither."""
    value = decode_answer(data)
    if not isinstance(value, dict):
        return ""
    joined = {place: text for place, text in value.items() if place[:1].isdigit() and isinstance(text, str)}
    texts = [text for place, text in joined.items() if place.isdigit()] if joined else [answer_text.visible_text(value)]
    called = (
        [text for place, text in joined.items() if "call" in place.split(".")]
        if joined
        else answer_text.call_texts(value)
    )
    return "\n".join(filter(None, (*texts, *(f"calls {answer_text.canonical_call(each)}" for each in called))))


async def compare(
    gateway: Gateway,
    headers: dict[bytes, bytes],
    question: str,
    shown: str,
    other: str,
    what: shadow_call.ShadowPurpose,
) -> Comparison:
    """Compare two answers. `what`: the experiment; its judge is asked if it has one."""
    if not shown.strip() or not other.strip():
        return NOT_COMPARED
    if shown.split() == other.split():
        return Comparison("judge" if what.experiment.judge else "likeness", 1.0)
    if not what.experiment.judge:
        return await _likeness(gateway, shown[:MAX_TEXT], other[:MAX_TEXT])
    first = last = await _ask_judge(gateway, headers, (question, shown, other), what)
    cost = first.cost
    if first.word is not None:
        last = await _ask_judge(gateway, headers, (question, other, shown), what)
        cost += last.cost
    found = pairwise.combine_verdicts(first.word, last.word)
    if found is None:
        return Comparison("judge", None, cost=cost, code=last.code, said=None if last.code else last.said)
    return Comparison("judge", found.score, found.contradicted, cost, said=f"{first.word} {last.word}")


async def _ask_judge(
    gateway: Gateway, headers: dict[bytes, bytes], texts: tuple[str, str, str], what: shadow_call.ShadowPurpose
) -> Verdict:
    """Ask the judge about a question and two answers."""
    body = {
        "model": what.experiment.judge, "messages": pairwise.messages(*texts), "max_tokens": pairwise.TOKENS,
        "temperature": 0,
    }  # fmt: skip
    own = await shadow_call.ask(gateway, headers, CHAT, body, what)
    if own.status != "ok":
        return Verdict(None, own.cost, own.error_code or own.status)
    text = answer_text.visible_text(_decode(own.response.body))  # type: ignore[attr-defined]  # Collected
    word = pairwise.parse_verdict(text)
    return (
        Verdict(word, own.cost)
        if word is not None
        else Verdict(None, own.cost, said=pairwise.redact_reply(text, texts))
    )


async def _likeness(gateway: Gateway, one: str, other: str) -> Comparison:
    from groundplan.economics.semantic.reading import read  # noqa: PLC0415 -- numpy, only where it is used

    a, b = read(one), read(other)
    if a.numbers != b.numbers or bool(a.negations) != bool(b.negations):
        return Comparison("likeness", 0.0)
    try:
        answer = embed_answer(await ask_search(gateway, embed_request([one, other]), b"experiment", PATH), 2)
    except (UpstreamFailure, msgspec.DecodeError):
        gateway.targets.forget("search")
        return Comparison("likeness", None)
    import numpy as np  # noqa: PLC0415 -- heavy, only where it is used

    first, second = (np.frombuffer(vector, dtype="<f4") for vector in answer.vectors)
    return Comparison("likeness", 1.0 if float(first @ second) >= AGREES else 0.0)
