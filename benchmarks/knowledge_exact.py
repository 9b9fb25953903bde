"""An exhaustive search: the reference that recall is measured against.

Combines the exact similarities of the vectors in PostgreSQL and all words of everything that a person may see, by the
product's own arithmetic. Without quantisation and candidates: slow and obvious.
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
_MAX_SAME_TEXT = 50
"""Most chunks that may have the same text."""

Rows = NDArray[np.int64]
Scores = NDArray[np.float64]


def similarities(vectors: NDArray[np.float16], questions: Vectors, rows: Rows) -> NDArray[np.float32]:
    """Similarities of shape (questions, rows). Reading rows costs more than comparing them, so several questions are
    processed together."""
    result = np.empty((len(questions), len(rows)), np.float32)
    for start in range(0, len(rows), _BLOCK):
        result[:, start : start + _BLOCK] = questions @ vectors[rows[start : start + _BLOCK]].astype(np.float32).T
    return result


def nearest(similar: NDArray[np.float32], rows: Rows, count: int) -> list[int]:
    """The `count` rows with the largest similarities."""
    best: list[int] = rows[np.argsort(-similar, kind="stable")[:count]].tolist()
    return best


@dataclass(frozen=True, slots=True)
class ExhaustiveSearch:
    """The chunks to search: the view with their words, and functions from a row to its text and its key for ties."""

    view: View
    text: Callable[[int], str]
    sort_key: Callable[[int], tuple[object, ...]]

    def answers(
        self,
        question: str,
        terms: Sequence[str],
        similar: NDArray[np.float32],
        rows: Rows,
        count: int,
        matching: NDArray[np.bool_] | None = None,
    ) -> list[str]:
        """The texts that words and vectors together rank first, each once. `rows`: all visible rows, in order;
        `matching`: mask of those that match the filter (None: all)."""
        word_scores, upper_bound = self._word_scores(terms, rows)
        scores = self._fuse(word_scores, similar.astype(np.float64), upper_bound, rows)
        relevant = np.flatnonzero(
            fuse.relevance_mask(word_scores, similar.astype(np.float64), float(word_scores.max(initial=0.0)))
        )
        if matching is not None:
            relevant = relevant[matching[relevant]]
        scores = self._add_quote_scores(question, word_scores, scores, relevant, rows, count)
        best: dict[str, None] = {}
        for score in np.unique(scores[relevant])[::-1]:
            equal = relevant[scores[relevant] == score]
            for position in sorted(equal.tolist(), key=lambda row_position: self.sort_key(int(rows[row_position]))):
                best.setdefault(self.text(int(rows[position])))
            if len(best) >= count:
                break
        return list(best)[:count]

    def _word_scores(self, terms: Sequence[str], rows: Rows) -> tuple[Scores, float]:
        """(BM25 of each row, an upper bound), from the words of these rows only."""
        view, mask = self.view, np.zeros(self.view.size, np.bool_)
        mask[rows] = True
        scores, upper_bound = np.zeros(view.size), 0.0
        mean = int(view.columns.lengths[rows].sum()) / max(1, len(rows))
        for term, times in words.query_terms(terms, view.terms).items():
            postings = [
                rows_and_counts for segment in view.segments if (rows_and_counts := segment.postings(term)) is not None
            ]
            visible_postings = [
                (matching_rows[mask[matching_rows]], counts[mask[matching_rows]]) for matching_rows, counts in postings
            ]
            if not (frequency := sum(len(matching_rows) for matching_rows, _ in visible_postings)):
                continue
            weight = times * (bm25.K1 + 1) * float(np.log1p((len(rows) - frequency + 0.5) / (frequency + 0.5)))
            upper_bound += weight
            for matching_rows, counts in visible_postings:
                length = view.columns.lengths[matching_rows] / mean
                scores[matching_rows] += weight * counts / (counts + bm25.K1 * (1 - bm25.B + bm25.B * length))
        return scores[rows], upper_bound

    def _fuse(self, word_scores: Scores, similar: Scores, upper_bound: float, rows: Rows) -> Scores:
        fused = fuse.fuse_scores(word_scores / upper_bound if upper_bound else word_scores, similar)
        adjacent = (np.diff(rows) == 1) & (np.diff(self.view.columns.documents[rows]) == 0)
        after, before = np.zeros_like(fused), np.zeros_like(fused)
        after[:-1][adjacent] = fused[1:][adjacent]
        before[1:][adjacent] = fused[:-1][adjacent]
        return fuse.smooth_scores(fused, before, after)

    def _add_quote_scores(
        self, question: str, word_scores: Scores, scores: Scores, good: Rows, rows: Rows, count: int
    ) -> Scores:
        """The scores, raised for texts that quote the question."""
        question_words, best_word_score = fuse.normalise_text(question).split(), float(word_scores.max(initial=0.0))
        if not len(good) or best_word_score <= 0:
            return scores
        # rows that could not be among the first even with a full quotation are skipped
        index = max(0, len(good) - _MAX_SAME_TEXT * count)
        min_score = np.partition(scores[good], index)[index] - fuse.VERBATIM
        raised = scores.copy()
        for position in good[
            (word_scores[good] >= fuse.NEAR_BEST * best_word_score) & (scores[good] >= min_score)
        ].tolist():
            raised[position] += fuse.VERBATIM * fuse.verbatim_share(
                question_words, fuse.normalise_text(self.text(int(rows[position])))
            )
        return raised
