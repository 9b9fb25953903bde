"""BM25 over postings that counts only what one person may see.

Frequencies and lengths are summed over the visible rows of each question anew, so a score says nothing about hidden
documents; with everything visible it is the BM25 of the textbook (k1 1.2, b 0.75, as Lucene and tantivy have it, with
exact lengths). What cannot be among the best is left out as far as possible, and changes no score.
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
"""Times as many postings as rows from which each row is looked up among them instead of going through them."""
_BLOCK: Final = 1 << 14
"""Postings that are added up together: what lies between two steps stays in the processor's cache."""
_SPARSE: Final = 64
"""Times as many rows as visible postings from which there is no place for a score of each row."""
_MANY: Final = 1 << 16
"""Postings that it takes longer to go through than to look which of them can be left out."""
_LIKELY: Final = 4
"""Times as many rows as are looked for from which is told what those will reach; and times as many postings after which
it is told anew."""
_GROUPS: Final = 8
"""Times as many groups as scores that are looked for: few of those share one."""
_ROUNDING: Final = 1 - 1e-4
"""What sums of narrow numbers may be off, and more."""
_MIN_SCORE: Final = float(np.finfo(np.float32).tiny)
"""Any score is more than that."""

Scores = NDArray[np.float64]
Rough = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Term:
    """A term of a question that some visible row has. `postings`: its postings by segment, hidden ones too; `masks`:
    those that may be seen, each of them where it says None."""

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
    """What other visible rows, in order, score: it may lack what the commonest words are worth."""


@dataclass(frozen=True, slots=True)
class Matches:
    """What a question finds. `possible`: more than any row could score, having every term that is there at all."""

    terms: tuple[_Term, ...]
    """Those that weigh most first: of a row, they are always summed up in this order."""
    lengths: Ints
    slope: float
    possible: float

    def top_rows(self, limit: int) -> TopRows:
        """The `limit` best visible rows that have a term of the question, best first; of equal ones the earlier row.

        Common words have most postings and weigh least. Once all that are left could not lift a row among the best that
        has none of those before, they are only looked up for the rows that they may still decide about.
        """
        total = sum(one.frequency for one in self.terms)
        if not total or limit == 0:
            return TopRows(np.zeros(0, np.int32), np.zeros(0), self.scores)
        if total * _SPARSE < len(self.lengths):
            rows = unique_rows(np.concatenate([rows for term in self.terms for rows, _ in term.visible_postings()]))
            return TopRows(*top_scores(rows, self.scores(rows), limit), self.scores)
        remaining = np.append(np.cumsum([one.weight for one in self.terms[::-1]])[::-1], 0.0)
        rough = np.zeros(len(self.lengths), np.float32)
        place, taken, threshold, due = 0, 0, 0.0, _LIKELY * limit
        while place < len(self.terms):
            if taken >= due and total - taken >= _MANY:
                threshold, due = max(threshold, self._lower_bound(rough, place, limit)), _LIKELY * taken
            reach = threshold - remaining[place]
            if reach > 0 and np.count_nonzero(rough >= reach) * _LOOKUP_RATIO < self.terms[place].frequency:
                break
            for rows, counts in self.terms[place].visible_postings():
                for start in range(0, len(rows), _BLOCK):
                    some = slice(start, start + _BLOCK)
                    self._add_approximate(rough, place, rows[some], counts[some])
            taken += self.terms[place].frequency
            place += 1
        threshold = max(threshold, _ROUNDING * _score_threshold(rough, limit))
        rows = np.flatnonzero(rough >= max(threshold - remaining[place], _MIN_SCORE)).astype(np.int32)
        rows = self._prune(rows, rough[rows].astype(np.float64), place, threshold)
        return TopRows(
            *top_scores(rows, self.scores(rows), limit), lambda some: rough.take(some, mode="clip").astype(np.float64)
        )

    def _add_approximate(self, rough: Rough, place: int, rows: Ints, counts: Counts) -> None:
        """Add what a term is worth for these rows, about: half as wide numbers take half the time."""
        at = rows.astype(np.intp)
        below = np.multiply(self.lengths.take(at, mode="clip"), np.float32(self.slope), dtype=np.float32)
        below += np.float32(K1 * (1 - B))
        worth = counts.astype(np.float32)
        below += worth
        worth *= np.float32(self.terms[place].weight)
        worth /= below
        worth += rough.take(at, mode="clip")
        rough[at] = worth

    def _lower_bound(self, rough: Rough, place: int, limit: int) -> float:
        """What `limit` rows score at least, from those that are best by the terms before that place."""
        likely = np.flatnonzero(rough >= max(_score_threshold(rough, limit), _MIN_SCORE))[: _LIKELY * limit].astype(
            np.int32
        )
        scores = rough[likely].astype(np.float64)
        for term in self.terms[place:]:
            self._add_term(term, likely, scores)
        return _ROUNDING * _score_threshold(scores, limit)

    def _prune(self, rows: Ints, scores: Scores, place: int, threshold: float) -> Ints:
        """Those of these rows, which have about these scores by the terms before that place, that may reach
        `threshold`."""
        remaining = sum(term.weight for term in self.terms[place:])
        for term in self.terms[place:]:
            self._add_term(term, rows, scores)
            remaining -= term.weight
            good = np.flatnonzero(scores + remaining >= _ROUNDING * threshold)
            rows, scores = rows[good], scores[good]
        return rows

    def scores(self, rows: Ints) -> Scores:
        """The scores of some rows that may be seen, which are in order; 0 where they have no term of the question."""
        scores = np.zeros(len(rows))
        for term in self.terms:
            self._add_term(term, rows, scores)
        return scores

    def _add_term(self, term: _Term, rows: Ints, scores: Scores) -> None:
        """What a term is worth for some rows, to their scores."""
        counts = np.zeros(len(rows), np.uint16)
        for held, own in term.postings:
            first, end = rows.searchsorted(held[0]), rows.searchsorted(held[-1], "right")
            if first < end:
                some = rows[first:end]
                places = held.searchsorted(some)
                counts[first:end] = own[places] * (held[places] == some)
        there = np.flatnonzero(counts)
        scores[there] += self._term_scores(term, rows[there], counts[there])

    def _term_scores(self, term: _Term, rows: Ints, counts: Counts) -> Scores:
        # in one array: others of this size would cost more than the arithmetic
        below = self.lengths.take(rows, mode="clip") * self.slope
        below += K1 * (1 - B)
        below += counts
        worth: Scores = np.multiply(counts, term.weight, dtype=np.float64)
        worth /= below
        return worth

    def restrict(self, mask: NDArray[np.bool_]) -> Matches:
        """Those of some visible rows alone, each with the score that it has among all of them. Of other rows it knows
        nothing any more."""
        sparse = _sparse_rows(mask, int(np.count_nonzero(mask)))
        return replace(self, terms=tuple(one.restrict(mask, sparse) for one in self.terms))


def _score_threshold(scores: Scores | Rough, limit: int) -> float:
    """A score that at least `limit` of these have; not much less than the most that one can say so of."""
    if len(scores) < limit:
        return 0.0
    size = len(scores) // (_GROUPS * limit)
    if size > 1:
        # of groups of them only the best: putting all of them in order would take longer than what it spares
        scores = scores[: size * _GROUPS * limit].reshape(-1, size).max(axis=1)
    return float(np.partition(scores, len(scores) - limit)[len(scores) - limit])


def bm25(segments: Sequence[Segment], question: Mapping[int, int], lengths: Ints, visible: VisibleRows) -> Matches:
    """`question`: term -> how often it is asked. Terms that no visible row has count for nothing."""
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
    """Which of these rows, in order, have a term."""
    there = np.zeros(len(rows), np.bool_)
    for part in segments:
        if (own := part.postings(term)) is not None:
            places = own[0].searchsorted(rows)
            there |= own[0].take(places, mode="clip") == rows
    return there


def _sparse_rows(mask: NDArray[np.bool_], count: int) -> Ints | None:
    """The `count` rows of a mask themselves, where they are so few that many a word may have many times as many."""
    if 2 * count * _LOOKUP_RATIO >= len(mask):
        return None
    return np.flatnonzero(mask).astype(np.int32)


def _mask_postings(
    postings: Sequence[Postings], mask: NDArray[np.bool_] | None, sparse: Ints | None
) -> tuple[tuple[Postings, ...], tuple[NDArray[np.bool_] | None, ...], int]:
    """Postings of a term, which of them may be seen, and how many those are."""
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
    """Where of these rows the wanted ones are; both are in order."""
    some = wanted[wanted.searchsorted(rows[0]) : wanted.searchsorted(rows[-1], "right")]
    places = rows.searchsorted(some)
    found: NDArray[np.intp] = places[rows[places] == some]
    return found


def top_scores(rows: Ints, scores: Scores, limit: int) -> tuple[Ints, Scores]:
    """The `limit` best, best first; of equal ones the earlier row."""
    if len(rows) > limit:
        good = np.flatnonzero(scores >= _score_threshold(scores, limit))
        rows, scores = rows[good], scores[good]
    order = np.lexsort((rows, -scores))[:limit]
    return rows[order], scores[order]
