"""BM25 over postings that counts only the rows that one person may see.

Frequencies and lengths are summed over the visible rows for each question, so a score says nothing about hidden
documents; with everything visible it is textbook BM25 (k1 1.2, b 0.75, as in Lucene and tantivy, with exact lengths).
Rows that cannot be among the best are skipped as far as possible, which changes no score.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from groundplan.knowledge.retrieval.words import Counts, Ints, Postings, Segment, VisibleRows, unique_rows

K1: Final = 1.2
B: Final = 0.75
_LOOKUP_RATIO: Final = 8
"""Ratio of postings to rows from which rows are looked up among the postings instead of scanning these."""
_BLOCK: Final = 1 << 14
"""Postings that are added together, so that intermediate arrays stay in the processor's cache."""
_SPARSE_RATIO: Final = 64
"""Ratio of rows to visible postings from which scores are not held in an array over all rows."""
_MIN_PRUNED_POSTINGS: Final = 1 << 16
"""Number of remaining postings from which computing a lower bound, to skip some, is faster than scanning them."""
_BOUND_RATIO: Final = 4
"""Ratio of sampled rows to wanted ones for the lower bound; and factor of processed postings after which it is computed
again."""
_GROUP_RATIO: Final = 8
"""Ratio of groups to wanted scores, so that few of these share a group."""
_SAFETY_FACTOR: Final = 1 - 1e-4
"""Factor for bounds from sums of float32, larger than their error."""
_MIN_SCORE: Final = float(np.finfo(np.float32).tiny)
"""Every nonzero score is larger."""

Scores = NDArray[np.float64]
RoughScores = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Term:
    """A term of a question that some visible row has. `postings`: by segment, hidden ones included; `masks`: the
    visible ones of each segment (None: all)."""

    weight: float
    postings: tuple[Postings, ...]
    masks: tuple[NDArray[np.bool_] | None, ...]
    frequency: int

    def visible_postings(self) -> Iterator[Postings]:
        for (rows, counts), mask in zip(self.postings, self.masks, strict=True):
            if mask is None:
                yield rows, counts
            else:
                where = np.flatnonzero(mask)
                yield rows.take(where), counts.take(where)

    def restrict(self, mask: NDArray[np.bool_], sparse: Ints | None) -> _Term:
        postings, masks, frequency = _mask_postings(self.postings, mask, sparse)
        return replace(self, postings=postings, masks=masks, frequency=frequency)


@dataclass(frozen=True, slots=True)
class TopRows:
    """The best rows, best first, with their scores."""

    rows: Ints
    scores: Scores
    approximate: Callable[[Ints], Scores]
    """The approximate scores of other visible rows, given in order: contributions of the commonest words may be
    missing.
    """


@dataclass(frozen=True, slots=True)
class Matches:
    """The rows that match a question. `possible`: an upper bound of the score, for a row with every known term."""

    terms: tuple[_Term, ...]
    """In order of descending weight: the score of a row is always summed in this order."""
    lengths: Ints
    slope: float
    possible: float

    def top_rows(self, limit: int) -> TopRows:
        """The `limit` best visible rows that have a term of the question, best first; of equal ones the earlier row.

        Common words have most postings and weigh least. Once the remaining terms together could not lift a row without
        any of the earlier terms among the best, they are only looked up for rows that they may still decide about.
        """
        total = sum(one.frequency for one in self.terms)
        if not total or limit == 0:
            return TopRows(np.zeros(0, np.int32), np.zeros(0), self.scores)
        if total * _SPARSE_RATIO < len(self.lengths):
            rows = unique_rows(np.concatenate([rows for term in self.terms for rows, _ in term.visible_postings()]))
            return TopRows(*top_scores(rows, self.scores(rows), limit), self.scores)
        remaining = np.append(np.cumsum([one.weight for one in self.terms[::-1]])[::-1], 0.0)
        rough = np.zeros(len(self.lengths), np.float32)
        place, processed, threshold, next_bound = 0, 0, 0.0, _BOUND_RATIO * limit
        while place < len(self.terms):
            if processed >= next_bound and total - processed >= _MIN_PRUNED_POSTINGS:
                threshold, next_bound = max(threshold, self._lower_bound(rough, place, limit)), _BOUND_RATIO * processed
            required = threshold - remaining[place]
            if required > 0 and np.count_nonzero(rough >= required) * _LOOKUP_RATIO < self.terms[place].frequency:
                break
            for rows, counts in self.terms[place].visible_postings():
                for start in range(0, len(rows), _BLOCK):
                    block = slice(start, start + _BLOCK)
                    self._add_approximate(rough, place, rows[block], counts[block])
            processed += self.terms[place].frequency
            place += 1
        threshold = max(threshold, _SAFETY_FACTOR * _score_threshold(rough, limit))
        rows = np.flatnonzero(rough >= max(threshold - remaining[place], _MIN_SCORE)).astype(np.int32)
        rows = self._prune(rows, rough[rows].astype(np.float64), place, threshold)
        return TopRows(
            *top_scores(rows, self.scores(rows), limit),
            lambda wanted: rough.take(wanted, mode="clip").astype(np.float64),
        )

    def _add_approximate(self, rough: RoughScores, place: int, rows: Ints, counts: Counts) -> None:
        """Add a term's approximate scores for these rows, in float32, which takes half the time of float64."""
        indices = rows.astype(np.intp)
        denominator = np.multiply(self.lengths.take(indices, mode="clip"), np.float32(self.slope), dtype=np.float32)
        denominator += np.float32(K1 * (1 - B))
        contribution = counts.astype(np.float32)
        denominator += contribution
        contribution *= np.float32(self.terms[place].weight)
        contribution /= denominator
        contribution += rough.take(indices, mode="clip")
        rough[indices] = contribution

    def _lower_bound(self, rough: RoughScores, place: int, limit: int) -> float:
        """A lower bound for the score of the `limit` best rows, from rows that are best by the terms before `place`."""
        likely = np.flatnonzero(rough >= max(_score_threshold(rough, limit), _MIN_SCORE))[
            : _BOUND_RATIO * limit
        ].astype(np.int32)
        scores = rough[likely].astype(np.float64)
        for term in self.terms[place:]:
            self._add_term(term, likely, scores)
        return _SAFETY_FACTOR * _score_threshold(scores, limit)

    def _prune(self, rows: Ints, scores: Scores, place: int, threshold: float) -> Ints:
        """Those of these rows that may reach `threshold`; `scores` are approximate, by the terms before `place`."""
        remaining = sum(term.weight for term in self.terms[place:])
        for term in self.terms[place:]:
            self._add_term(term, rows, scores)
            remaining -= term.weight
            good = np.flatnonzero(scores + remaining >= _SAFETY_FACTOR * threshold)
            rows, scores = rows[good], scores[good]
        return rows

    def scores(self, rows: Ints) -> Scores:
        """The scores of visible rows, given in order; 0 for rows without a term of the question."""
        scores = np.zeros(len(rows))
        for term in self.terms:
            self._add_term(term, rows, scores)
        return scores

    def _add_term(self, term: _Term, rows: Ints, scores: Scores) -> None:
        """Add a term's scores for these rows to `scores`."""
        counts = np.zeros(len(rows), np.uint16)
        for term_rows, term_counts in term.postings:
            first, end = rows.searchsorted(term_rows[0]), rows.searchsorted(term_rows[-1], "right")
            if first < end:
                candidates = rows[first:end]
                places = term_rows.searchsorted(candidates)
                counts[first:end] = term_counts[places] * (term_rows[places] == candidates)
        matching = np.flatnonzero(counts)
        scores[matching] += self._term_scores(term, rows[matching], counts[matching])

    def _term_scores(self, term: _Term, rows: Ints, counts: Counts) -> Scores:
        # in place: allocating further arrays of this size would cost more than the arithmetic
        denominator = self.lengths.take(rows, mode="clip") * self.slope
        denominator += K1 * (1 - B)
        denominator += counts
        contribution: Scores = np.multiply(counts, term.weight, dtype=np.float64)
        contribution /= denominator
        return contribution

    def restrict(self, mask: NDArray[np.bool_]) -> Matches:
        """The matches among the masked visible rows only, with their scores among all visible rows."""
        sparse = _sparse_rows(mask, int(np.count_nonzero(mask)))
        return replace(self, terms=tuple(one.restrict(mask, sparse) for one in self.terms))


def _score_threshold(scores: Scores | RoughScores, limit: int) -> float:
    """A score that at least `limit` of these reach, not much below the largest such score."""
    if len(scores) < limit:
        return 0.0
    size = len(scores) // (_GROUP_RATIO * limit)
    if size > 1:
        # only the best of each group: partitioning all of them would take longer than it saves
        scores = scores[: size * _GROUP_RATIO * limit].reshape(-1, size).max(axis=1)
    return float(np.partition(scores, len(scores) - limit)[len(scores) - limit])


def bm25(segments: Sequence[Segment], question: Mapping[int, int], lengths: Ints, visible: VisibleRows) -> Matches:
    """The matches of a question (term -> count). Terms that no visible row has are ignored."""
    sparse = None if visible.mask is None else _sparse_rows(visible.mask, visible.count)
    terms: list[_Term] = []
    for number, times in question.items() if visible.count else ():
        postings = [own for part in segments if (own := part.postings(number)) is not None]
        kept, masks, frequency = _mask_postings(postings, visible.mask, sparse)
        if frequency:
            idf = float(np.log1p((visible.count - frequency + 0.5) / (frequency + 0.5)))
            terms.append(_Term(times * (K1 + 1) * idf, kept, masks, frequency))
    terms.sort(key=lambda one: -one.weight)
    slope = K1 * B * visible.count / max(1, visible.tokens)
    return Matches(tuple(terms), lengths, slope, sum(one.weight for one in terms))


def rows_with_term(segments: Sequence[Segment], term: int, rows: Ints) -> NDArray[np.bool_]:
    """Mask of those of these rows, given in order, that have a term."""
    has_term = np.zeros(len(rows), np.bool_)
    for part in segments:
        if (own := part.postings(term)) is not None:
            places = own[0].searchsorted(rows)
            has_term |= own[0].take(places, mode="clip") == rows
    return has_term


def _sparse_rows(mask: NDArray[np.bool_], count: int) -> Ints | None:
    """The `count` rows of a mask, if they are so few that common words have many times as many postings; else None."""
    if 2 * count * _LOOKUP_RATIO >= len(mask):
        return None
    return np.flatnonzero(mask).astype(np.int32)


def _mask_postings(
    postings: Sequence[Postings], mask: NDArray[np.bool_] | None, sparse: Ints | None
) -> tuple[tuple[Postings, ...], tuple[NDArray[np.bool_] | None, ...], int]:
    """(postings of a term by segment, masks of the visible ones, number of visible ones)."""
    if mask is None:
        return tuple(postings), (None,) * len(postings), sum(len(rows) for rows, _ in postings)
    kept: list[Postings] = []
    masks: list[NDArray[np.bool_] | None] = []
    frequency = 0
    for rows, counts in postings:
        if sparse is not None and len(sparse) * _LOOKUP_RATIO < len(rows):
            places = _positions(rows, sparse)
            if len(places):
                kept.append((rows[places], counts[places]))
                masks.append(None)
                frequency += len(places)
        else:
            kept.append((rows, counts))
            masks.append(which := mask.take(rows, mode="clip"))
            frequency += int(np.count_nonzero(which))
    return tuple(kept), tuple(masks), frequency


def _positions(rows: Ints, wanted: Ints) -> NDArray[np.intp]:
    """The positions of the wanted rows among these rows; both are in order."""
    candidates = wanted[wanted.searchsorted(rows[0]) : wanted.searchsorted(rows[-1], "right")]
    places = rows.searchsorted(candidates)
    found: NDArray[np.intp] = places[rows[places] == candidates]
    return found


def top_scores(rows: Ints, scores: Scores, limit: int) -> tuple[Ints, Scores]:
    """The `limit` best rows and their scores, best first; of equal ones the earlier row."""
    if len(rows) > limit:
        good = np.flatnonzero(scores >= _score_threshold(scores, limit))
        rows, scores = rows[good], scores[good]
    order = np.lexsort((rows, -scores))[:limit]
    return rows[order], scores[order]
