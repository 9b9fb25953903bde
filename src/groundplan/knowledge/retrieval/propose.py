"""What the projection proposes for a question: the best rows by words, by vectors, and both together.

It knows the numbers of readers' sets that somebody has and nothing else of them; it reads no text and no database.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from groundplan.knowledge.model import Vectors
from groundplan.knowledge.retrieval import fuse, vectors, words
from groundplan.knowledge.retrieval.bm25 import Matches, best, bm25
from groundplan.knowledge.retrieval.projection import View
from groundplan.knowledge.retrieval.synonyms import DISCOUNT

CANDIDATES = 100
"""From each ranking."""
Rows = NDArray[np.int32]
_NO_ROWS = np.zeros(0, np.int32)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A question: its terms, its vector, and within what."""

    terms: Sequence[str]
    vector: Vectors | None
    """None: words alone."""
    sources: frozenset[str]
    acls: frozenset[int]
    limit: int = CANDIDATES
    variants: Sequence[Sequence[str]] = ()
    """Its terms said otherwise, by the company's synonyms."""
    documents: Collection[bytes] | None = None
    """Only these, by id; None: whatever may be seen."""
    changed: Sequence[tuple[UUID, int]] = ()
    """What changed after the view; see `View.visible`."""


@dataclass(frozen=True)
class Proposed:
    """Rows of a view, in order, with what is said of them: BM25, about the cosine, both together with their
    neighbours."""

    view: View
    rows: Rows
    worded: fuse.Scores
    similar: fuse.Scores
    embedded: NDArray[np.bool_]
    together: fuse.Scores
    best: Mapping[int, float]
    """Rows that share more than common words with the question, or its subject, with their score; best first."""
    most: float
    """The best BM25 of all that may be seen."""

    @cached_property
    def order(self) -> list[int]:
        """The rows of `best`."""
        return list(self.best)

    @cached_property
    def words(self) -> dict[int, float]:
        """Rows that have words of the question, with their BM25."""
        return _told(self.rows, self.worded, self.worded > 0)

    @cached_property
    def near(self) -> dict[int, float]:
        """Rows that have a vector, with about their cosine."""
        return _told(self.rows, self.similar, self.embedded)

    @cached_property
    def scores(self) -> dict[int, float]:
        """Rows that words or vectors know, with their score."""
        return _told(self.rows, self.together, (self.worded > 0) | self.embedded)

    @cached_property
    def may_quote(self) -> frozenset[int]:
        """Rows whose BM25 is near enough to the best that they may have words of the question in their order."""
        least = fuse.NEAR_BEST * self.most
        return frozenset(self.rows[(self.worded > 0) & (self.worded >= least)].tolist())

    def batches(self, enough: int, most: int) -> Iterator[list[int]]:
        """The rows as they are best read, until somebody has enough: of the best `most` at first only those that may be
        among the best `enough`, by their score or for what they may quote; then the rest, `most` at a time."""
        best = self.order[:most]
        first = best[:enough] + [row for row in best[enough:] if row in self.may_quote]
        yield first
        read = set(first)
        rest = [row for row in self.order if row not in read]
        yield from (rest[start : start + most] for start in range(0, len(rest), most))

    def quoted(self, question: str, texts: Mapping[int, str]) -> dict[int, float]:
        """What the texts of rows are worth more for having words of the question in their order."""
        words = fuse.plain(question).split()[: fuse.MOST_QUOTED]
        return {
            row: fuse.VERBATIM * fuse.verbatim(words, fuse.plain(text))
            for row, text in texts.items()
            if row in self.may_quote and fuse.may_quote(words, text)
        }


class Scored(Protocol):
    """What is found by words: `bm25.Matches`, or several of them."""

    @property
    def possible(self) -> float: ...

    def best(self, limit: int) -> tuple[Rows, fuse.Scores]: ...

    def of(self, rows: Rows) -> fuse.Scores: ...

    def within(self, mask: NDArray[np.bool_]) -> Scored: ...


@dataclass(frozen=True, slots=True)
class Worded:
    """What needs no vector of a proposal: the rows that may be seen, and what their words give."""

    view: View
    seen: words.Visible
    found: Scored
    top: Rows
    """The best by words."""
    most: float = 0.0
    """The best BM25 of all that may be seen, where only some of it is asked about: what is common, and what may quote,
    is told by that."""


def propose(view: View, wanted: Wanted, weights: fuse.Weights = fuse.WEIGHTS) -> Proposed:
    """The `limit` best rows by words and by vectors, with their neighbours; figures of each are complete."""
    return completed(worded(view, wanted), wanted, weights)


def worded(view: View, wanted: Wanted) -> Worded:
    """The first half of `propose`, which does not look at the vector: it may be computed meanwhile."""
    seen = view.visible(wanted.sources, wanted.acls, wanted.changed)
    asked = words.asked(wanted.terms, view.terms)
    plain = bm25(view.segments, asked, view.columns.lengths, seen)
    found = _with_variants(view, plain, wanted, seen) if wanted.variants else plain
    if wanted.documents is None:
        return Worded(view, seen, found, found.best(wanted.limit)[0])
    return _limited(view, seen, found, view.mask(wanted.documents), wanted.limit)


def _limited(view: View, seen: words.Visible, found: Scored, only: NDArray[np.bool_], limit: int) -> Worded:
    """Those rows alone, each with the score that it has among all that may be seen."""
    mask = only if seen.mask is None else only & seen.mask
    _, most = found.best(1)
    within = found.within(mask)
    return Worded(
        view,
        words.Visible(mask, int(np.count_nonzero(mask)), seen.tokens),
        within,
        within.best(limit)[0],
        float(most.max(initial=0.0)),
    )


def completed(half: Worded, wanted: Wanted, weights: fuse.Weights = fuse.WEIGHTS) -> Proposed:
    """The second half of `propose`."""
    view, seen = half.view, half.seen
    near = _NO_ROWS
    if wanted.vector is not None:
        near, _ = vectors.nearest(view.columns.coded, wanted.vector, seen.mask, seen.count, wanted.limit)
    rows = _with_neighbours(view.columns.documents, np.union1d(half.top, near))
    return _proposed(half, rows, wanted.vector, weights)


def _proposed(half: Worded, rows: Rows, question: Vectors | None, weights: fuse.Weights) -> Proposed:
    """Everything that is said of these rows, which are in order."""
    view, found = half.view, half.found
    worded = found.of(rows)
    most = max(half.most, float(worded.max(initial=0.0)))
    embedded, similar = np.zeros(len(rows), np.bool_), np.zeros(len(rows), np.float64)
    if question is not None:
        embedded = view.columns.embedded[rows]
        similar = np.where(embedded, vectors.similarity(view.columns.coded, question, rows), 0.0)
    own = fuse.fused(worded / found.possible if found.possible else worded, similar, weights)
    # of rows that follow each other here, those of one document stand beside each other there
    joined = np.append((np.diff(rows) == 1) & (np.diff(view.columns.documents[rows]) == 0), False)
    after = np.where(joined, np.roll(own, -1), 0.0)
    before = np.where(np.roll(joined, 1), np.roll(own, 1), 0.0)
    scores = fuse.smoothed(own, before, after, weights)
    good = np.flatnonzero(fuse.relevant(worded, similar, most))
    order = good[np.lexsort((rows[good], -scores[good]))]
    best = dict(zip(rows[order].tolist(), scores[order].tolist(), strict=True))
    return Proposed(view, rows, worded, similar, embedded, scores, best, most)


def _told(rows: Rows, values: fuse.Scores, which: NDArray[np.bool_]) -> dict[int, float]:
    return dict(zip(rows[which].tolist(), values[which].tolist(), strict=True))


@dataclass(frozen=True, slots=True)
class _Varied:
    """Each row by what it reaches of the question or, a little less, of a variant: parts of what is possible."""

    said: tuple[Matches, ...]
    """The question, then its variants; each has a term that is there."""
    discounts: tuple[float, ...]
    possible: float = 1.0

    def best(self, limit: int) -> tuple[Rows, fuse.Scores]:
        # whatever is among the best of all is among the best by what it was found by
        rows = np.unique(np.concatenate([one.best(limit)[0] for one in self.said]))
        return best(rows, self.of(rows), limit)

    def of(self, rows: Rows) -> fuse.Scores:
        shares = [by * one.of(rows) / one.possible for one, by in zip(self.said, self.discounts, strict=True)]
        return np.asarray(np.maximum.reduce(shares))

    def within(self, mask: NDArray[np.bool_]) -> _Varied:
        return replace(self, said=tuple(one.within(mask) for one in self.said))


def _with_variants(view: View, found: Matches, wanted: Wanted, seen: words.Visible) -> Scored:
    others = [
        bm25(view.segments, words.asked(variant, view.terms), view.columns.lengths, seen) for variant in wanted.variants
    ]
    said = [(one, by) for one, by in [(found, 1.0), *((one, DISCOUNT) for one in others)] if one.possible]
    return _Varied(tuple(one for one, _ in said), tuple(by for _, by in said)) if said else found


def _with_neighbours(documents: NDArray[np.int32], rows: Rows) -> Rows:
    """These rows and those before and after them in their documents, in order."""
    before, after = rows[rows > 0], rows[rows < len(documents) - 1]
    before = before[documents[before - 1] == documents[before]] - 1
    after = after[documents[after + 1] == documents[after]] + 1
    return np.unique(np.concatenate([rows, before, after])).astype(np.int32)
