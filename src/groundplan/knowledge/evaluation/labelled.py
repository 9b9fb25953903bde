"""Questions that a company labels itself: which documents, or which characters of them, answer each. Pure.

Who asks, and what they were given, comes from outside.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from groundplan.knowledge.evaluation.measure import NAMES, Figures, confidence_interval, measure
from groundplan.knowledge.retrieval.wire import Passage, Place

FLOORS = tuple(round(0.05 * step, 2) for step in range(20))
"""Where the abstention curve is looked at."""


@dataclass(frozen=True, slots=True)
class Span:
    """Characters of a document, `SOURCE/PATH`, that answer a question."""

    document: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class QuestionResult:
    """What one question was given. `documents`: those that answer it; none where nothing should be found."""

    documents: tuple[str, ...]
    spans: tuple[Span, ...]
    passages: Sequence[Passage]
    confidence: float
    abstained: bool
    milliseconds: float
    floor: float = 0.0
    """Of its workload: below that confidence it is not answered."""
    in_order: tuple[bool, ...] = ()
    """Of each step that a reranker was asked in: whether the order is its own."""


def summarise(given: Sequence[QuestionResult], sensitivity: Mapping[str, str] | None = None) -> dict[str, Any]:
    """What `groundplan knowledge evaluate QUESTIONS` tells: figures in all, by source and by sensitivity, spans,
    abstentions with the floors of the workloads and with others. `sensitivity` is that of each document that answers.

    A question without a document that answers it should not be answered; it counts in the abstention curve only.
    """
    answerable = {str(number): one for number, one in enumerate(given) if _answering_documents(one)}
    found = measure(
        {id: dict.fromkeys(sorted(_answering_documents(one)), 1) for id, one in answerable.items()},
        {id: _ranking(one.passages) for id, one in answerable.items()},
    )
    spans = [_covered_share(one) for one in given if one.spans]
    times = [one.milliseconds for one in given]
    asked = [done for one in given for done in one.in_order]
    return {
        **found.json(),
        **({"reranked": {"asked": len(asked), "skipped": asked.count(False)}} if asked else {}),
        "by_source": _by_part(answerable, found, lambda document: document.partition("/")[0]),
        "by_sensitivity": _by_part(answerable, found, lambda document: (sensitivity or {}).get(document, "unknown")),
        "span_recall": round(float(np.mean(spans)), 5) if spans else None,
        "abstained": round(sum(map(_abstains, given)) / len(given), 5),
        "abstention": _curve(given),
        "calibrated": _calibrate_floor(given),
        "p50_ms": round(float(np.percentile(times, 50)), 2),
        "p95_ms": round(float(np.percentile(times, 95)), 2),
        "questions": len(given),
        "without_answer": len(given) - len(answerable),
    }


def _abstains(one: QuestionResult) -> bool:
    return one.abstained or not one.passages or one.confidence < one.floor


def _answering_documents(one: QuestionResult) -> set[str]:
    return {*one.documents, *(span.document for span in one.spans)}


def _ranking(passages: Sequence[Passage]) -> dict[str, float]:
    """Each document by the first passage that is quoted from it, or that says that its words stand there, too."""
    ranking: dict[str, float] = {}
    for one in (one for passage in passages for one in _places(passage)):
        ranking.setdefault(f"{one.source}/{one.path}", 1.0 / (1 + len(ranking)))
    return ranking


def _places(passage: Passage) -> Iterator[Passage | Place]:
    yield passage
    yield from passage.also


def _covered_share(one: QuestionResult) -> float:
    """The part of the characters that stand in a passage, or of which one says that they stand there, too."""
    total = covered = 0
    for span in one.spans:
        places = sorted(
            (place.start_char, min(place.end_char, span.end))
            for passage in one.passages
            for place in _places(passage)
            if f"{place.source}/{place.path}" == span.document
        )
        reached = span.start
        for start, end in places:
            covered += max(0, end - max(start, reached))
            reached = max(reached, end)
        total += span.end - span.start
    return covered / max(1, total)


def _by_part(answerable: dict[str, QuestionResult], found: Figures, part: Callable[[str], str]) -> dict[str, Any]:
    """The figures by a part that the documents which answer belong to: means with their bounds (`confidence` is that of
    nDCG@10), how many are not answered, and the abstention curve."""
    members: dict[str, list[str]] = defaultdict(list)
    for id, one in answerable.items():
        for name in {part(document) for document in _answering_documents(one)}:
            members[name].append(id)
    return {name: _figures([answerable[id] for id in ids], found, ids) for name, ids in sorted(members.items())}


def _figures(given: Sequence[QuestionResult], found: Figures, ids: Sequence[str]) -> dict[str, Any]:
    values = {name: [found.by_question[id][name] for id in ids] for name in NAMES}
    bounds = {name: list(confidence_interval(own)) for name, own in values.items()}
    return {
        **{name: round(float(np.mean(own)), 5) for name, own in values.items()},
        "confidence": bounds["ndcg@10"],
        "bounds": bounds,
        "questions": len(given),
        "abstained": round(sum(map(_abstains, given)) / len(given), 5),
        # all of them have an answer
        "abstention": [{name: at[name] for name in ("floor", "answered", "right")} for at in _curve(given)],
    }


def _calibrate_floor(given: Sequence[QuestionResult]) -> dict[str, float]:
    """The floor with which most questions are handled as they should be (the lowest of equal ones), which part that is,
    and which part it is with the floors that their workloads have."""
    handled = {floor: _handled_share(given, [one.confidence >= floor for one in given]) for floor in FLOORS}
    best = max(FLOORS, key=lambda floor: (handled[floor], -floor))
    now = _handled_share(given, [not _abstains(one) for one in given])
    return {"floor": best, "handled": handled[best], "handled_now": now}


def _handled_share(given: Sequence[QuestionResult], answers: Sequence[bool]) -> float:
    """The part that is answered rightly, or left where nothing answers it."""
    good = (
        _is_answered(one) if answered and one.passages else not _answering_documents(one)
        for one, answered in zip(given, answers, strict=True)
    )  # fmt: skip
    return round(sum(good) / len(given), 4)


def _is_answered(one: QuestionResult) -> bool:
    """Whether a document that answers is among the first three."""
    return not _answering_documents(one).isdisjoint(list(_ranking(one.passages))[:3])


def _curve(given: Sequence[QuestionResult]) -> list[dict[str, float]]:
    return [_at_floor(given, floor) for floor in FLOORS]


def _at_floor(given: Sequence[QuestionResult], floor: float) -> dict[str, float]:
    """With this floor: the part that is answered, how often rightly, and how many of the questions without an answer
    are left unanswered."""
    answered = [one for one in given if one.passages and one.confidence >= floor]
    right = [one for one in answered if _is_answered(one)]
    without = [one for one in given if not _answering_documents(one)]
    left = [one for one in without if not one.passages or one.confidence < floor]
    return {
        "floor": floor,
        "answered": round(len(answered) / len(given), 4),
        "right": round(len(right) / max(1, len(answered)), 4),
        "rightly_unanswered": round(len(left) / max(1, len(without)), 4),
    }
