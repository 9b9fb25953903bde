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
from groundplan.knowledge.retrieval.bm25 import Leading, Matches, best, bm25, having
from groundplan.knowledge.retrieval.projection import View
from groundplan.knowledge.retrieval.synonyms import DISCOUNT
from groundplan.knowledge.retrieval.wire import Where

CANDIDATES = 100
"""From each ranking."""
_BOTH = 100
"""From both together, of whatever one of the rankings looked at: among a million passages hundreds are nearly as good
by either of them, and those that are good by both need not be among the best hundred of any."""
_QUOTING = 400
"""So many of both are looked at for such as may quote the question: that is worth more than all that parts them."""
_POOL = 1024
"""Rows that are put together at most: those whose own words and similarity are best."""
_NEARLY = 0.8
"""Of `fuse.NEAR_BEST`, where scores are not known exactly."""
_AHEAD = 8
"""Times as many rows as are read at once that are read at most for what they may quote alone."""
_KNOWN = 4
"""Words in a row that a text is known to have from which it is read for what it may quote alone: a question may begin
with six that say nothing."""
_ANYTHING = Where()
Rows = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Said:
    """A question word by word, as it may be quoted."""

    terms: Sequence[str | None] = ()
    """The term that a text with that word has; None: any may have it."""
    least: int = 0
    """So many words in a row are a quotation."""


_UNSAID = Said()


def said(question: str, analyzer: words.Analyzer) -> Said:
    """Its words. Of other scripts it depends on what stands beside a word which terms there are."""
    plain = fuse.plain(question).split()[: fuse.MOST_QUOTED]
    terms = [analyzer.terms(word) if word.isascii() else [] for word in plain]
    return Said([one[0] if len(one) == 1 else None for one in terms], fuse.least_run(plain))


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
    said: Said = _UNSAID
    where: Where = _ANYTHING
    """Only documents of which that holds."""
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
    good: NDArray[np.bool_]
    """Which of them share more than common words with the question, or its subject."""
    best: Mapping[int, float]
    """Rows that share more than common words with the question, or its subject, with their score; best first."""
    most: float
    """The best BM25 of all that may be seen."""
    said: Said

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

    def batches(self, enough: int, most: int) -> Iterator[tuple[list[int], float]]:
        """The rows as they are best read, until somebody has enough, and what each later one may be worth at most for
        what it may quote. At first the best `enough`, and up to `most` in all that may be among them by quoting, those
        first that may reach most; then more of these, then the rest."""
        first, near = self.order[:enough], self.order[enough:most]
        least = self.best[first[-1]] if near else 0.0
        worth = {row: self.quotable[row] for row in near if row in self.quotable}
        worth |= {row: more for row, more in self._surely.items() if row not in worth and row not in first}
        reach = {row: self.best[row] + more for row, more in worth.items() if self.best[row] + more > least}
        others = sorted(reach, key=lambda row: (-reach[row], row))[: _AHEAD * most]
        step = max(most - enough, most // 3)
        batches = [first + others[:step], *_cut(others[step:], most)]
        for number, batch in enumerate(batches):
            later = step + number * most
            yield batch, reach[others[later]] if later < len(others) else 0.0
        read = {row for batch in batches for row in batch}
        for batch in _cut([row for row in self.order if row not in read], most):
            yield batch, 0.0

    @property
    def quotable(self) -> Mapping[int, float]:
        """What rows may be worth more at most for having words of the question in their order: by the words that they
        have in any, and where their BM25 is near enough to the best."""
        return self._worth[0]

    @property
    def _surely(self) -> Mapping[int, float]:
        """Those of which enough of these words are known."""
        return self._worth[1]

    @cached_property
    def _worth(self) -> tuple[Mapping[int, float], Mapping[int, float]]:
        which = (self.worded > 0) & (self.worded >= fuse.NEAR_BEST * self.most) & self.good
        rows = self.rows[which]
        possible, sure = _worth_of_quoting(self.view, self.said, rows)
        return _told(rows, possible, possible > 0), _told(rows, sure, sure > 0)

    def quoted(self, question: str, texts: Mapping[int, str]) -> dict[int, float]:
        """What the texts of rows are worth more for having words of the question in their order."""
        words = fuse.plain(question).split()[: fuse.MOST_QUOTED]
        return {
            row: fuse.VERBATIM * fuse.verbatim(words, fuse.plain(text))
            for row, text in texts.items()
            if row in self.quotable and fuse.may_quote(words, text)
        }


class Scored(Protocol):
    """What is found by words: `bm25.Matches`, or several of them."""

    @property
    def possible(self) -> float: ...

    def leading(self, limit: int) -> Leading: ...

    def of(self, rows: Rows) -> fuse.Scores: ...

    def within(self, mask: NDArray[np.bool_]) -> Scored: ...


@dataclass(frozen=True, slots=True)
class Worded:
    """What needs no vector of a proposal: the rows that may be seen and are asked about, and what their words give."""

    view: View
    seen: words.Visible
    found: Scored
    top: Leading
    most: float = 0.0
    """The best BM25 of all that may be seen, where only some of it is asked about: what is common, and what may quote,
    is told by that."""


def propose(view: View, wanted: Wanted, weights: fuse.Weights = fuse.WEIGHTS) -> Proposed:
    """The `limit` best rows by words and by vectors and the best by both together, with their neighbours; figures of
    each are complete."""
    return completed(worded(view, wanted), wanted, weights)


def worded(view: View, wanted: Wanted) -> Worded:
    """The first half of `propose`, which does not look at the vector: it may be computed meanwhile."""
    seen = view.visible(wanted.sources, wanted.acls, wanted.changed)
    asked = words.asked(wanted.terms, view.terms)
    plain = bm25(view.segments, asked, view.columns.lengths, seen)
    found = _with_variants(view, plain, wanted, seen) if wanted.variants else plain
    only = None
    if wanted.documents is not None:
        only = view.mask(wanted.documents)
    elif wanted.where != _ANYTHING:
        only = view.about(wanted.where, wanted.changed)
    if only is not None:
        mask = only if seen.mask is None else only & seen.mask
        count = int(np.count_nonzero(mask))
        if count < seen.count:
            return _limited(view, mask, words.Visible(mask, count, seen.tokens), found, wanted.limit)
    return Worded(view, seen, found, found.leading(wanted.limit))


def _limited(view: View, mask: NDArray[np.bool_], only: words.Visible, found: Scored, limit: int) -> Worded:
    """Those rows alone, each with the score that it has among all that may be seen."""
    most = found.leading(1).scores
    within = found.within(mask)
    return Worded(view, only, within, within.leading(limit), float(most.max(initial=0.0)))


def completed(half: Worded, wanted: Wanted, weights: fuse.Weights = fuse.WEIGHTS) -> Proposed:
    """The second half of `propose`."""
    view, seen = half.view, half.seen
    rows = half.top.rows
    if wanted.vector is not None:
        near, similar = vectors.looked_at(view.columns.coded, wanted.vector, seen.mask, seen.count, wanted.limit)
        both = _best_by_both(half, near, similar.astype(np.float64), wanted, weights)
        rows = np.concatenate([rows, near[vectors.largest(similar, wanted.limit)], both])
    return _proposed(half, _with_neighbours(view.columns.documents, words.distinct(rows)), wanted, weights)


def _best_by_both(half: Worded, near: Rows, similar: fuse.Scores, wanted: Wanted, weights: fuse.Weights) -> Rows:
    """The best by words and similarity together, as far as both are known without looking rows up."""
    if wanted.vector is None or len(near) <= _BOTH:
        return near
    columns, top, possible = half.view.columns, half.top, half.found.possible or 1.0
    kept = np.sort(vectors.largest(fuse.fused(top.about(near) / possible, similar, weights), _POOL))
    near, similar = near[kept], similar[kept]
    others = top.rows[near.take(near.searchsorted(top.rows), mode="clip") != top.rows]
    rows = np.concatenate([near, others])
    similar = np.concatenate([similar, vectors.similarity(columns.coded, wanted.vector, others)])
    order = np.argsort(rows)
    rows, similar = rows[order], similar[order]
    about = top.about(rows)
    scores = _smoothed(columns.documents, rows, fuse.fused(about / possible, similar, weights), weights)
    best = vectors.largest(scores, _QUOTING)
    best = best[np.argsort(-scores[best])]
    least = _NEARLY * fuse.NEAR_BEST * max(half.most, float(top.scores.max(initial=0.0)))
    if sum(term is not None for term in wanted.said.terms) < _KNOWN:
        return rows[best[:_BOTH]]
    more = np.sort(rows[best[_BOTH:][about[best[_BOTH:]] >= least]])
    return np.concatenate([rows[best[:_BOTH]], more[_worth_of_quoting(half.view, wanted.said, more)[1] > 0]])


def _worth_of_quoting(view: View, said: Said, rows: Rows) -> tuple[fuse.Scores, fuse.Scores]:
    """What each of these rows, in order, may be worth more at most for having words of the question in their order, by
    the words that it has in any; then the same where enough of these words are known."""
    if not len(rows):
        return np.zeros(0), np.zeros(0)
    if not said.terms:
        return np.full(len(rows), fuse.VERBATIM), np.zeros(len(rows))
    there = {term: having(view.segments, view.terms.get(term, -1), rows) for term in said.terms if term is not None}
    by_word = [None if term is None else there[term] for term in said.terms]
    possible, sure = fuse.longest(by_word, len(rows), said.least, _KNOWN)
    return fuse.VERBATIM * possible / len(said.terms), fuse.VERBATIM * sure / len(said.terms)


def _proposed(half: Worded, rows: Rows, wanted: Wanted, weights: fuse.Weights) -> Proposed:
    """Everything that is said of these rows, which are in order."""
    view, found, question = half.view, half.found, wanted.vector
    worded = found.of(rows)
    most = max(half.most, float(worded.max(initial=0.0)))
    embedded, similar = np.zeros(len(rows), np.bool_), np.zeros(len(rows), np.float64)
    if question is not None:
        embedded = view.columns.embedded[rows]
        similar = np.where(embedded, vectors.similarity(view.columns.coded, question, rows), 0.0)
    own = fuse.fused(worded / found.possible if found.possible else worded, similar, weights)
    scores = _smoothed(view.columns.documents, rows, own, weights)
    good = fuse.relevant(worded, similar, most)
    some = np.flatnonzero(good)
    order = some[np.lexsort((rows[some], -scores[some]))]
    best = dict(zip(rows[order].tolist(), scores[order].tolist(), strict=True))
    return Proposed(view, rows, worded, similar, embedded, scores, good, best, most, wanted.said)


def _smoothed(documents: NDArray[np.int32], rows: Rows, own: fuse.Scores, weights: fuse.Weights) -> fuse.Scores:
    """Each with a part of its better neighbour's, of rows in order: neighbours are those among them."""
    # of rows that follow each other here, those of one document stand beside each other there
    joined = np.append((np.diff(rows) == 1) & (np.diff(documents[rows]) == 0), False)
    after = np.where(joined, np.roll(own, -1), 0.0)
    before = np.where(np.roll(joined, 1), np.roll(own, 1), 0.0)
    return fuse.smoothed(own, before, after, weights)


def _cut(rows: list[int], most: int) -> Iterator[list[int]]:
    return (rows[start : start + most] for start in range(0, len(rows), most))


def _told(rows: Rows, values: fuse.Scores, which: NDArray[np.bool_]) -> dict[int, float]:
    return dict(zip(rows[which].tolist(), values[which].tolist(), strict=True))


@dataclass(frozen=True, slots=True)
class _Varied:
    """Each row by what it reaches of the question or, a little less, of a variant: parts of what is possible."""

    said: tuple[Matches, ...]
    """The question, then its variants; each has a term that is there."""
    discounts: tuple[float, ...]
    possible: float = 1.0

    def leading(self, limit: int) -> Leading:
        # whatever is among the best of all is among the best by what it was found by
        leading = [one.leading(limit) for one in self.said]
        rows = words.distinct(np.concatenate([one.rows for one in leading]))
        about = [one.about for one in leading]
        return Leading(*best(rows, self.of(rows), limit), lambda some: self._shares([each(some) for each in about]))

    def of(self, rows: Rows) -> fuse.Scores:
        return self._shares([one.of(rows) for one in self.said])

    def _shares(self, scores: Sequence[fuse.Scores]) -> fuse.Scores:
        """The better of what the question and its variants reach, as parts of what is possible."""
        shares = [by * of / one.possible for of, one, by in zip(scores, self.said, self.discounts, strict=True)]
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
    return words.distinct(np.concatenate([rows, before, after])).astype(np.int32)
