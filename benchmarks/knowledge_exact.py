"""What search would answer if it looked at everything: the reference that recall is measured against.

Of all that a person may see, the exact similarities of the vectors as PostgreSQL has them, and all words; put together
by the product's own arithmetic. No bits, no bytes, no candidates: slow and obvious.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from groundplan.knowledge.model import Vectors
from groundplan.knowledge.retrieval import bm25, fuse, words
from groundplan.knowledge.retrieval.projection import View

_BLOCK = 20_000
_ALIKE = 50
"""Chunks that may have the same text, at most."""

Rows = NDArray[np.int64]
Scores = NDArray[np.float64]


def similarities(vectors: NDArray[np.float16], questions: Vectors, rows: Rows) -> NDArray[np.float32]:
    """(questions, rows): reading the rows costs more than comparing them, so several questions come together."""
    found = np.empty((len(questions), len(rows)), np.float32)
    for at in range(0, len(rows), _BLOCK):
        found[:, at : at + _BLOCK] = questions @ vectors[rows[at : at + _BLOCK]].astype(np.float32).T
    return found


def nearest(similar: NDArray[np.float32], rows: Rows, count: int) -> list[int]:
    """The rows most like the question."""
    found: list[int] = rows[np.argsort(-similar, kind="stable")[:count]].tolist()
    return found


@dataclass(frozen=True, slots=True)
class Stock:
    """Where the chunks are: the view that has their words, and by row their texts and what orders equal ones."""

    view: View
    text: Callable[[int], str]
    place: Callable[[int], tuple[object, ...]]

    def answers(
        self,
        question: str,
        terms: Sequence[str],
        similar: NDArray[np.float32],
        rows: Rows,
        count: int,
        asked_of: NDArray[np.bool_] | None = None,
    ) -> list[str]:
        """The texts that words and vectors together put first, each once. `rows` are all that may be seen, in order;
        `asked_of` those of them that the question is about (None: all)."""
        worded, possible = self._worded(terms, rows)
        scores = self._together(worded, similar.astype(np.float64), possible, rows)
        good = np.flatnonzero(fuse.relevance_mask(worded, similar.astype(np.float64), float(worded.max(initial=0.0))))
        if asked_of is not None:
            good = good[asked_of[good]]
        scores = self._quoted(question, worded, scores, good, rows, count)
        best: dict[str, None] = {}
        for score in np.unique(scores[good])[::-1]:
            equal = good[scores[good] == score]
            for at in sorted(equal.tolist(), key=lambda one: self.place(int(rows[one]))):
                best.setdefault(self.text(int(rows[at])))
            if len(best) >= count:
                break
        return list(best)[:count]

    def _worded(self, terms: Sequence[str], rows: Rows) -> tuple[Scores, float]:
        """BM25 of each row, and what no row could reach, by the words of these rows alone."""
        view, mask = self.view, np.zeros(self.view.size, np.bool_)
        mask[rows] = True
        every, possible = np.zeros(view.size), 0.0
        mean = int(view.columns.lengths[rows].sum()) / max(1, len(rows))
        for term, times in words.query_terms(terms, view.terms).items():
            held = [own for part in view.segments if (own := part.postings(term)) is not None]
            seen = [(at[mask[at]], counts[mask[at]]) for at, counts in held]
            if not (frequency := sum(len(at) for at, _ in seen)):
                continue
            weight = times * (bm25.K1 + 1) * float(np.log1p((len(rows) - frequency + 0.5) / (frequency + 0.5)))
            possible += weight
            for at, counts in seen:
                length = view.columns.lengths[at] / mean
                every[at] += weight * counts / (counts + bm25.K1 * (1 - bm25.B + bm25.B * length))
        return every[rows], possible

    def _together(self, worded: Scores, similar: Scores, possible: float, rows: Rows) -> Scores:
        own = fuse.fuse_scores(worded / possible if possible else worded, similar)
        beside = (np.diff(rows) == 1) & (np.diff(self.view.columns.documents[rows]) == 0)
        after, before = np.zeros_like(own), np.zeros_like(own)
        after[:-1][beside] = own[1:][beside]
        before[1:][beside] = own[:-1][beside]
        return fuse.smooth_scores(own, before, after)

    def _quoted(self, question: str, worded: Scores, scores: Scores, good: Rows, rows: Rows, count: int) -> Scores:
        """With what texts are worth more for having words of the question in their order."""
        asked, best = fuse.normalise_text(question).split(), float(worded.max(initial=0.0))
        if not len(good) or best <= 0:
            return scores
        # what could not reach the first even with all of it is not looked at
        place = max(0, len(good) - _ALIKE * count)
        least = np.partition(scores[good], place)[place] - fuse.VERBATIM
        found = scores.copy()
        for at in good[(worded[good] >= fuse.NEAR_BEST * best) & (scores[good] >= least)].tolist():
            found[at] += fuse.VERBATIM * fuse.verbatim_share(asked, fuse.normalise_text(self.text(int(rows[at]))))
        return found
