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

from groundplan.knowledge.retrieval.words import Counts, Ints, Postings, Segment, Visible, distinct

K1: Final = 1.2
B: Final = 0.75
_FEW: Final = 8
"""Times as many postings as rows from which each row is looked up among them instead of going through them."""
_TOGETHER: Final = 1 << 14
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
_NEARLY: Final = 1 - 1e-4
"""What sums of narrow numbers may be off, and more."""
_LEAST: Final = float(np.finfo(np.float32).tiny)
"""Any score is more than that."""

Scores = NDArray[np.float64]
Rough = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Term:
    """A term of a question that some visible row has. `held`: its postings by segment, hidden ones too; `seen`: those
    that may be seen, each of them where it says None."""

    weight: float
    held: tuple[Postings, ...]
    seen: tuple[NDArray[np.bool_] | None, ...]
    frequency: int

    def visible(self) -> Iterator[Postings]:
        for (rows, counts), seen in zip(self.held, self.seen, strict=True):
            if seen is None:
                yield rows, counts
            else:
                where = np.flatnonzero(seen)
                yield rows.take(where), counts.take(where)

    def within(self, mask: NDArray[np.bool_], few: Ints | None) -> _Term:
        held, seen, frequency = _seen(self.held, mask, few)
        return replace(self, held=held, seen=seen, frequency=frequency)


@dataclass(frozen=True, slots=True)
class Leading:
    """The best rows, best first, with their scores."""

    rows: Ints
    scores: Scores
    about: Callable[[Ints], Scores]
    """What other visible rows, in order, score: it may lack what the commonest words are worth."""


@dataclass(frozen=True, slots=True)
class Matches:
    """What a question finds. `possible`: more than any row could score, having every term that is there at all."""

    terms: tuple[_Term, ...]
    """Those that weigh most first: of a row, they are always summed up in this order."""
    lengths: Ints
    slope: float
    possible: float

    def leading(self, limit: int) -> Leading:
        """The `limit` best visible rows that have a term of the question, best first; of equal ones the earlier row.

        Common words have most postings and weigh least. Once all that are left could not lift a row among the best that
        has none of those before, they are only looked up for the rows that they may still decide about.
        """
        every = sum(one.frequency for one in self.terms)
        if not every or limit == 0:
            return Leading(np.zeros(0, np.int32), np.zeros(0), self.of)
        if every * _SPARSE < len(self.lengths):
            rows = distinct(np.concatenate([rows for term in self.terms for rows, _ in term.visible()]))
            return Leading(*best(rows, self.of(rows), limit), self.of)
        left = np.append(np.cumsum([one.weight for one in self.terms[::-1]])[::-1], 0.0)
        rough = np.zeros(len(self.lengths), np.float32)
        place, taken, least, due = 0, 0, 0.0, _LIKELY * limit
        while place < len(self.terms):
            if taken >= due and every - taken >= _MANY:
                least, due = max(least, self._reached(rough, place, limit)), _LIKELY * taken
            reach = least - left[place]
            if reach > 0 and np.count_nonzero(rough >= reach) * _FEW < self.terms[place].frequency:
                break
            for rows, counts in self.terms[place].visible():
                for start in range(0, len(rows), _TOGETHER):
                    some = slice(start, start + _TOGETHER)
                    self._take(rough, place, rows[some], counts[some])
            taken += self.terms[place].frequency
            place += 1
        least = max(least, _NEARLY * _least(rough, limit))
        rows = np.flatnonzero(rough >= max(least - left[place], _LEAST)).astype(np.int32)
        rows = self._decided(rows, rough[rows].astype(np.float64), place, least)
        return Leading(*best(rows, self.of(rows), limit), lambda some: rough.take(some, mode="clip").astype(np.float64))

    def _take(self, rough: Rough, place: int, rows: Ints, counts: Counts) -> None:
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

    def _reached(self, rough: Rough, place: int, limit: int) -> float:
        """What `limit` rows score at least, from those that are best by the terms before that place."""
        likely = np.flatnonzero(rough >= max(_least(rough, limit), _LEAST))[: _LIKELY * limit].astype(np.int32)
        scores = rough[likely].astype(np.float64)
        for term in self.terms[place:]:
            self._add(term, likely, scores)
        return _NEARLY * _least(scores, limit)

    def _decided(self, rows: Ints, scores: Scores, place: int, least: float) -> Ints:
        """Those of these rows, which have about these scores by the terms before that place, that may reach `least`."""
        left = sum(term.weight for term in self.terms[place:])
        for term in self.terms[place:]:
            self._add(term, rows, scores)
            left -= term.weight
            good = np.flatnonzero(scores + left >= _NEARLY * least)
            rows, scores = rows[good], scores[good]
        return rows

    def of(self, rows: Ints) -> Scores:
        """The scores of some rows that may be seen, which are in order; 0 where they have no term of the question."""
        scores = np.zeros(len(rows))
        for term in self.terms:
            self._add(term, rows, scores)
        return scores

    def _add(self, term: _Term, rows: Ints, scores: Scores) -> None:
        """What a term is worth for some rows, to their scores."""
        counts = np.zeros(len(rows), np.uint16)
        for held, own in term.held:
            first, end = rows.searchsorted(held[0]), rows.searchsorted(held[-1], "right")
            if first < end:
                some = rows[first:end]
                places = held.searchsorted(some)
                counts[first:end] = own[places] * (held[places] == some)
        there = np.flatnonzero(counts)
        scores[there] += self._worth(term, rows[there], counts[there])

    def _worth(self, term: _Term, rows: Ints, counts: Counts) -> Scores:
        # in one array: others of this size would cost more than the arithmetic
        below = self.lengths.take(rows, mode="clip") * self.slope
        below += K1 * (1 - B)
        below += counts
        worth: Scores = np.multiply(counts, term.weight, dtype=np.float64)
        worth /= below
        return worth

    def within(self, mask: NDArray[np.bool_]) -> Matches:
        """Those of some visible rows alone, each with the score that it has among all of them. Of other rows it knows
        nothing any more."""
        few = _few(mask, int(np.count_nonzero(mask)))
        return replace(self, terms=tuple(one.within(mask, few) for one in self.terms))


def _least(scores: Scores | Rough, limit: int) -> float:
    """A score that at least `limit` of these have; not much less than the most that one can say so of."""
    if len(scores) < limit:
        return 0.0
    size = len(scores) // (_GROUPS * limit)
    if size > 1:
        # of groups of them only the best: putting all of them in order would take longer than what it spares
        scores = scores[: size * _GROUPS * limit].reshape(-1, size).max(axis=1)
    return float(np.partition(scores, len(scores) - limit)[len(scores) - limit])


def bm25(segments: Sequence[Segment], question: Mapping[int, int], lengths: Ints, visible: Visible) -> Matches:
    """`question`: term -> how often it is asked. Terms that no visible row has count for nothing."""
    few = None if visible.mask is None else _few(visible.mask, visible.count)
    found: list[_Term] = []
    for number, times in question.items() if visible.count else ():
        held = [own for part in segments if (own := part.postings(number)) is not None]
        kept, seen, frequency = _seen(held, visible.mask, few)
        if frequency:
            idf = float(np.log1p((visible.count - frequency + 0.5) / (frequency + 0.5)))
            found.append(_Term(times * (K1 + 1) * idf, kept, seen, frequency))
    found.sort(key=lambda one: -one.weight)
    slope = K1 * B * visible.count / max(1, visible.tokens)
    return Matches(tuple(found), lengths, slope, sum(one.weight for one in found))


def having(segments: Sequence[Segment], term: int, rows: Ints) -> NDArray[np.bool_]:
    """Which of these rows, in order, have a term."""
    there = np.zeros(len(rows), np.bool_)
    for part in segments:
        if (own := part.postings(term)) is not None:
            places = own[0].searchsorted(rows)
            there |= own[0].take(places, mode="clip") == rows
    return there


def _few(mask: NDArray[np.bool_], count: int) -> Ints | None:
    """The `count` rows of a mask themselves, where they are so few that many a word may have many times as many."""
    if 2 * count * _FEW >= len(mask):
        return None
    return np.flatnonzero(mask).astype(np.int32)


def _seen(
    held: Sequence[Postings], mask: NDArray[np.bool_] | None, few: Ints | None
) -> tuple[tuple[Postings, ...], tuple[NDArray[np.bool_] | None, ...], int]:
    """Postings of a term, which of them may be seen, and how many those are."""
    if mask is None:
        return tuple(held), (None,) * len(held), sum(len(rows) for rows, _ in held)
    kept: list[Postings] = []
    seen: list[NDArray[np.bool_] | None] = []
    frequency = 0
    for rows, counts in held:
        if few is not None and len(few) * _FEW < len(rows):
            places = _places(rows, few)
            if len(places):
                kept.append((rows[places], counts[places]))
                seen.append(None)
                frequency += len(places)
        else:
            kept.append((rows, counts))
            seen.append(which := mask.take(rows, mode="clip"))
            frequency += int(np.count_nonzero(which))
    return tuple(kept), tuple(seen), frequency


def _places(rows: Ints, wanted: Ints) -> NDArray[np.intp]:
    """Where of these rows the wanted ones are; both are in order."""
    some = wanted[wanted.searchsorted(rows[0]) : wanted.searchsorted(rows[-1], "right")]
    places = rows.searchsorted(some)
    found: NDArray[np.intp] = places[rows[places] == some]
    return found


def best(rows: Ints, scores: Scores, limit: int) -> tuple[Ints, Scores]:
    """The `limit` best, best first; of equal ones the earlier row."""
    if len(rows) > limit:
        good = np.flatnonzero(scores >= _least(scores, limit))
        rows, scores = rows[good], scores[good]
    order = np.lexsort((rows, -scores))[:limit]
    return rows[order], scores[order]
