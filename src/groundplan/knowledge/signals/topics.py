"""Questions without an answer, grouped by what they are about. Pure: vectors and words come from outside.

A topic is named by words that several of its questions have, so that no single question is told. Questions of fewer
than two people, or fewer than three questions, are no topic: they could point at somebody.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import numpy as np

from groundplan.knowledge.model import Vectors

ALIKE: Final = 0.55
"""Cosine of a question to the middle of a topic from which it belongs to it."""
MIN_QUESTIONS: Final = 3
MIN_PEOPLE: Final = 2
MAX_WORDS: Final = 4


@dataclass(frozen=True, slots=True)
class Question:
    """Who asked what; `words` are its content words as they were written, in lower case."""

    person: UUID
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Topic:
    """`words` name it, the most frequent first; `questions` of so many `people`."""

    words: tuple[str, ...]
    questions: int
    people: int


def find_topics(questions: Sequence[Question], vectors: Vectors) -> list[Topic]:
    """Those of enough questions and people, the largest first. `vectors` has a row of unit length for each question."""
    groups: list[list[int]] = []
    middles, lengths = np.zeros_like(vectors), np.ones(len(vectors), vectors.dtype)
    for at, vector in enumerate(vectors):
        near = (middles[: len(groups)] @ vector) / lengths[: len(groups)]
        best = int(np.argmax(near)) if groups else 0
        if not groups or near[best] < ALIKE:
            best = len(groups)
            groups.append([])
        groups[best].append(at)
        middles[best] += vector
        lengths[best] = np.linalg.norm(middles[best])
    found = [_topic([questions[at] for at in group]) for group in groups]
    return sorted((one for one in found if one is not None), key=lambda one: (-one.questions, one.words))


def _topic(group: Sequence[Question]) -> Topic | None:
    people = len({one.person for one in group})
    if len(group) < MIN_QUESTIONS or people < MIN_PEOPLE:
        return None
    askers: dict[str, set[UUID]] = {}
    counts: Counter[str] = Counter()
    for one in group:
        for word in set(one.words):
            counts[word] += 1
            askers.setdefault(word, set()).add(one.person)
    shared = [word for word, _ in sorted(counts.items(), key=lambda each: (-each[1], each[0]))]
    named = [word for word in shared if len(askers[word]) >= MIN_PEOPLE and counts[word] >= 2]
    return Topic(tuple(named[:MAX_WORDS]), len(group), people) if named else None
