"""What the projection proposes for a question: the best rows by words, by vectors, and by both together.

Of a person it knows only the ids of their readers' sets; it reads no text and no database.
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
from groundplan.knowledge.retrieval.bm25 import Matches, TopRows, bm25, rows_with_term, top_scores
from groundplan.knowledge.retrieval.projection import View
from groundplan.knowledge.retrieval.synonyms import DISCOUNT
from groundplan.knowledge.retrieval.wire import Where

CANDIDATES = 100
"""Rows taken from each ranking."""
_COMBINED_CANDIDATES = 100
"""Rows taken by their combined score, of all rows that one of the rankings looked at: among a million passages,
hundreds score nearly the same by either ranking, and the best by both need not be among the best hundred of one."""
_QUOTE_CANDIDATES = 400
"""How many rows by combined score are checked for quoting the question, which outweighs their other differences."""
_POOL = 1024
"""Most rows whose scores are combined: those that are best by their own words and similarity."""
_APPROXIMATE_SHARE = 0.8
"""The part of `fuse.NEAR_BEST` that is required where scores are only approximate."""
_READ_AHEAD = 8
"""Most batches of rows that are read only because they may quote the question."""
_MIN_KNOWN_WORDS = 4
"""How many words of a run a text must be known to have to be read only because it may quote the question: a question
may begin with six words that say nothing."""
_NO_FILTER = Where()
Rows = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class QuotableQuery:
    """A question word by word, to find passages that quote it."""

    terms: Sequence[str | None] = ()
    """For each word, the term that a text with that word has; None: any text may have the word."""
    min_run: int = 0
    """How many words in a row count as a quotation."""


_NOT_QUOTABLE = QuotableQuery()


def quotable_query(question: str, analyzer: words.Analyzer) -> QuotableQuery:
    """The words of a question. In scripts other than ASCII, the terms of a word depend on the words next to it."""
    plain = fuse.normalise_text(question).split()[: fuse.MAX_QUOTED_WORDS]
    terms = [analyzer.terms(word) if word.isascii() else [] for word in plain]
    return QuotableQuery([one[0] if len(one) == 1 else None for one in terms], fuse.min_quote_length(plain))


@dataclass(frozen=True, slots=True)
class ProposalRequest:
    """A question: its terms, its vector, and the rows to search."""

    terms: Sequence[str]
    vector: Vectors | None
    """None: search by words only."""
    sources: frozenset[str]
    acls: frozenset[int]
    limit: int = CANDIDATES
    variants: Sequence[Sequence[str]] = ()
    """The question's terms with synonyms of the company."""
    quotable: QuotableQuery = _NOT_QUOTABLE
    where: Where = _NO_FILTER
    """Only documents that match this filter."""
    documents: Collection[bytes] | None = None
    """Only these documents, by id; None: all visible ones."""
    changed: Sequence[tuple[UUID, int]] = ()
    """Documents that changed after the view; see `View.visible_rows`."""


@dataclass(frozen=True)
class Proposal:
    """Rows of a view, in order, with their scores: BM25, approximate cosine, and both combined with their neighbours'
    scores."""

    view: View
    rows: Rows
    word_scores: fuse.Scores
    similarities: fuse.Scores
    has_vector: NDArray[np.bool_]
    combined_scores: fuse.Scores
    is_relevant: NDArray[np.bool_]
    """Mask of the rows that share more than common words with the question, or its subject."""
    best_scores: Mapping[int, float]
    """Row -> combined score of the relevant rows, best first."""
    best_word_score: float
    """The best BM25 of all visible rows."""
    quotable: QuotableQuery

    @cached_property
    def order(self) -> list[int]:
        """The rows of `best_scores`, best first."""
        return list(self.best_scores)

    @cached_property
    def words(self) -> dict[int, float]:
        """Row -> BM25 of rows that have words of the question."""
        return _to_dict(self.rows, self.word_scores, self.word_scores > 0)

    @cached_property
    def nearest(self) -> dict[int, float]:
        """Row -> approximate cosine of rows that have a vector."""
        return _to_dict(self.rows, self.similarities, self.has_vector)

    @cached_property
    def scores(self) -> dict[int, float]:
        """Row -> combined score of rows found by words or vectors."""
        return _to_dict(self.rows, self.combined_scores, (self.word_scores > 0) | self.has_vector)

    def batches(self, target: int, batch_size: int) -> Iterator[tuple[list[int], float]]:
        """(rows to read next, the highest score that any later row may reach by quoting the question), until the caller
        has enough. The first batch has the best `target` rows and rows that may be among them by quoting, those with
        the highest reachable scores first, up to `batch_size`; then come further such rows, then the rest."""
        first, next_rows = self.order[:target], self.order[target:batch_size]
        least_score = self.best_scores[first[-1]] if next_rows else 0.0
        potential = {row: self.quote_potential[row] for row in next_rows if row in self.quote_potential}
        potential |= {
            row: more for row, more in self._likely_quotes.items() if row not in potential and row not in first
        }
        reach = {
            row: self.best_scores[row] + more
            for row, more in potential.items()
            if self.best_scores[row] + more > least_score
        }
        others = sorted(reach, key=lambda row: (-reach[row], row))[: _READ_AHEAD * batch_size]
        step = max(batch_size - target, batch_size // 3)
        batches = [first + others[:step], *_chunked(others[step:], batch_size)]
        for number, batch in enumerate(batches):
            later = step + number * batch_size
            yield batch, reach[others[later]] if later < len(others) else 0.0
        read = {row for batch in batches for row in batch}
        for batch in _chunked([row for row in self.order if row not in read], batch_size):
            yield batch, 0.0

    @property
    def quote_potential(self) -> Mapping[int, float]:
        """Row -> the most that its score may rise by quoting the question, judged by the words that it has in any
        order; only of rows whose BM25 is near enough to the best."""
        return self._quote_scores[0]

    @property
    def _likely_quotes(self) -> Mapping[int, float]:
        """The part of `quote_potential` for rows that are known to have enough of the words."""
        return self._quote_scores[1]

    @cached_property
    def _quote_scores(self) -> tuple[Mapping[int, float], Mapping[int, float]]:
        which = (self.word_scores > 0) & (self.word_scores >= fuse.NEAR_BEST * self.best_word_score) & self.is_relevant
        rows = self.rows[which]
        possible, sure = _quote_potential(self.view, self.quotable, rows)
        return _to_dict(rows, possible, possible > 0), _to_dict(rows, sure, sure > 0)

    def quote_scores(self, question: str, texts: Mapping[int, str]) -> dict[int, float]:
        """Row -> by how much its score rises because its text quotes the question."""
        words = fuse.normalise_text(question).split()[: fuse.MAX_QUOTED_WORDS]
        return {
            row: fuse.VERBATIM * fuse.verbatim_share(words, fuse.normalise_text(text))
            for row, text in texts.items()
            if row in self.quote_potential and fuse.may_contain_quote(words, text)
        }


class WordMatches(Protocol):
    """Rows found by words: `bm25.Matches`, or several of them combined."""

    @property
    def possible(self) -> float: ...

    def top_rows(self, limit: int) -> TopRows: ...

    def scores(self, rows: Rows) -> fuse.Scores: ...

    def restrict(self, mask: NDArray[np.bool_]) -> WordMatches: ...


@dataclass(frozen=True, slots=True)
class WordProposal:
    """The half of a proposal that needs no vector: the visible rows that match the filter, and their word scores."""

    view: View
    visible: words.VisibleRows
    matches: WordMatches
    top: TopRows
    best_word_score: float = 0.0
    """The best BM25 of all visible rows, if only some of them match the filter: relevance and quotations are judged
    against it."""


def propose(view: View, request: ProposalRequest, weights: fuse.Weights = fuse.WEIGHTS) -> Proposal:
    """The `limit` best rows by words and by vectors and the best by both, with their neighbours and complete scores."""
    return complete_proposal(propose_by_words(view, request), request, weights)


def propose_by_words(view: View, request: ProposalRequest) -> WordProposal:
    """The first half of `propose`, which does not need the vector, so that it can be computed meanwhile."""
    visible = view.visible_rows(request.sources, request.acls, request.changed)
    terms = words.query_terms(request.terms, view.terms)
    plain = bm25(view.segments, terms, view.columns.lengths, visible)
    matches = _with_variants(view, plain, request, visible) if request.variants else plain
    only = None
    if request.documents is not None:
        only = view.document_rows(request.documents)
    elif request.where != _NO_FILTER:
        only = view.matching_rows(request.where, request.changed)
    if only is not None:
        mask = only if visible.mask is None else only & visible.mask
        count = int(np.count_nonzero(mask))
        if count < visible.count:
            return _restrict(view, mask, words.VisibleRows(mask, count, visible.tokens), matches, request.limit)
    return WordProposal(view, visible, matches, matches.top_rows(request.limit))


def _restrict(
    view: View, mask: NDArray[np.bool_], visible: words.VisibleRows, matches: WordMatches, limit: int
) -> WordProposal:
    """The proposal for the masked rows only, each with the score that it has among all visible rows."""
    best = matches.top_rows(1).scores
    restricted = matches.restrict(mask)
    return WordProposal(view, visible, restricted, restricted.top_rows(limit), float(best.max(initial=0.0)))


def complete_proposal(
    by_words: WordProposal, request: ProposalRequest, weights: fuse.Weights = fuse.WEIGHTS
) -> Proposal:
    """The second half of `propose`, which adds the rows found by vectors."""
    view, visible = by_words.view, by_words.visible
    rows = by_words.top.rows
    if request.vector is not None:
        nearest, similarities = vectors.nearest_candidates(
            view.columns.encoded, request.vector, visible.mask, visible.count, request.limit
        )
        both = _best_by_both(by_words, nearest, similarities.astype(np.float64), request, weights)
        rows = np.concatenate([rows, nearest[vectors.largest_indices(similarities, request.limit)], both])
    return _build_proposal(
        by_words, _with_neighbours(view.columns.documents, words.unique_rows(rows)), request, weights
    )


def _best_by_both(
    by_words: WordProposal, nearest: Rows, similarities: fuse.Scores, request: ProposalRequest, weights: fuse.Weights
) -> Rows:
    """The best rows by combined score, as far as both scores are known without looking rows up."""
    if request.vector is None or len(nearest) <= _COMBINED_CANDIDATES:
        return nearest
    columns, top, possible = by_words.view.columns, by_words.top, by_words.matches.possible or 1.0
    kept = np.sort(
        vectors.largest_indices(fuse.fuse_scores(top.approximate(nearest) / possible, similarities, weights), _POOL)
    )
    nearest, similarities = nearest[kept], similarities[kept]
    others = top.rows[nearest.take(nearest.searchsorted(top.rows), mode="clip") != top.rows]
    rows = np.concatenate([nearest, others])
    similarities = np.concatenate([similarities, vectors.similarity(columns.encoded, request.vector, others)])
    order = np.argsort(rows)
    rows, similarities = rows[order], similarities[order]
    approximate = top.approximate(rows)
    scores = _smooth_scores(
        columns.documents, rows, fuse.fuse_scores(approximate / possible, similarities, weights), weights
    )
    best = vectors.largest_indices(scores, _QUOTE_CANDIDATES)
    best = best[np.argsort(-scores[best])]
    least = _APPROXIMATE_SHARE * fuse.NEAR_BEST * max(by_words.best_word_score, float(top.scores.max(initial=0.0)))
    if sum(term is not None for term in request.quotable.terms) < _MIN_KNOWN_WORDS:
        return rows[best[:_COMBINED_CANDIDATES]]
    more = np.sort(rows[best[_COMBINED_CANDIDATES:][approximate[best[_COMBINED_CANDIDATES:]] >= least]])
    return np.concatenate(
        [rows[best[:_COMBINED_CANDIDATES]], more[_quote_potential(by_words.view, request.quotable, more)[1] > 0]]
    )


def _quote_potential(view: View, quotable: QuotableQuery, rows: Rows) -> tuple[fuse.Scores, fuse.Scores]:
    """The most that the score of each of these rows (in order) may rise by quoting the question, judged by the words
    that it has in any order; then the same for rows that are known to have enough of the words, else 0."""
    if not len(rows):
        return np.zeros(0), np.zeros(0)
    if not quotable.terms:
        return np.full(len(rows), fuse.VERBATIM), np.zeros(len(rows))
    there = {
        term: rows_with_term(view.segments, view.terms.get(term, -1), rows)
        for term in quotable.terms
        if term is not None
    }
    by_word = [None if term is None else there[term] for term in quotable.terms]
    possible, sure = fuse.longest_runs(by_word, len(rows), quotable.min_run, _MIN_KNOWN_WORDS)
    return fuse.VERBATIM * possible / len(quotable.terms), fuse.VERBATIM * sure / len(quotable.terms)


def _build_proposal(by_words: WordProposal, rows: Rows, request: ProposalRequest, weights: fuse.Weights) -> Proposal:
    """The proposal of these rows, which are in order, with all their scores."""
    view, matches, question = by_words.view, by_words.matches, request.vector
    word_scores = matches.scores(rows)
    best_word_score = max(by_words.best_word_score, float(word_scores.max(initial=0.0)))
    has_vector, similarities = np.zeros(len(rows), np.bool_), np.zeros(len(rows), np.float64)
    if question is not None:
        has_vector = view.columns.embedded[rows]
        similarities = np.where(has_vector, vectors.similarity(view.columns.encoded, question, rows), 0.0)
    own = fuse.fuse_scores(word_scores / matches.possible if matches.possible else word_scores, similarities, weights)
    scores = _smooth_scores(view.columns.documents, rows, own, weights)
    is_relevant = fuse.relevance_mask(word_scores, similarities, best_word_score)
    some = np.flatnonzero(is_relevant)
    order = some[np.lexsort((rows[some], -scores[some]))]
    best = dict(zip(rows[order].tolist(), scores[order].tolist(), strict=True))
    return Proposal(
        view, rows, word_scores, similarities, has_vector, scores, is_relevant, best, best_word_score, request.quotable
    )


def _smooth_scores(documents: NDArray[np.int32], rows: Rows, own: fuse.Scores, weights: fuse.Weights) -> fuse.Scores:
    """The scores of rows in order, each raised by a part of its better neighbour's among these rows."""
    # rows with consecutive numbers are neighbours if they belong to the same document
    joined = np.append((np.diff(rows) == 1) & (np.diff(documents[rows]) == 0), False)
    after = np.where(joined, np.roll(own, -1), 0.0)
    before = np.where(np.roll(joined, 1), np.roll(own, 1), 0.0)
    return fuse.smooth_scores(own, before, after, weights)


def _chunked(rows: list[int], most: int) -> Iterator[list[int]]:
    return (rows[start : start + most] for start in range(0, len(rows), most))


def _to_dict(rows: Rows, values: fuse.Scores, which: NDArray[np.bool_]) -> dict[int, float]:
    return dict(zip(rows[which].tolist(), values[which].tolist(), strict=True))


@dataclass(frozen=True, slots=True)
class _VariantMatches:
    """The better match of a question and its variants: scores are shares of the possible score, variants discounted."""

    matches: tuple[Matches, ...]
    """Of the question, then of its variants; each matches some row."""
    discounts: tuple[float, ...]
    possible: float = 1.0

    def top_rows(self, limit: int) -> TopRows:
        # a row that is among the best overall is among the best of the variant that it was found by
        leading = [one.top_rows(limit) for one in self.matches]
        rows = words.unique_rows(np.concatenate([one.rows for one in leading]))
        about = [one.approximate for one in leading]
        return TopRows(
            *top_scores(rows, self.scores(rows), limit), lambda some: self._shares([each(some) for each in about])
        )

    def scores(self, rows: Rows) -> fuse.Scores:
        return self._shares([one.scores(rows) for one in self.matches])

    def _shares(self, scores: Sequence[fuse.Scores]) -> fuse.Scores:
        """The best share of the possible score that each row reaches by the question or a variant."""
        shares = [by * of / one.possible for of, one, by in zip(scores, self.matches, self.discounts, strict=True)]
        return np.asarray(np.maximum.reduce(shares))

    def restrict(self, mask: NDArray[np.bool_]) -> _VariantMatches:
        return replace(self, matches=tuple(one.restrict(mask) for one in self.matches))


def _with_variants(view: View, matches: Matches, request: ProposalRequest, visible: words.VisibleRows) -> WordMatches:
    others = [
        bm25(view.segments, words.query_terms(variant, view.terms), view.columns.lengths, visible)
        for variant in request.variants
    ]
    said = [(one, by) for one, by in [(matches, 1.0), *((one, DISCOUNT) for one in others)] if one.possible]
    return _VariantMatches(tuple(one for one, _ in said), tuple(by for _, by in said)) if said else matches


def _with_neighbours(documents: NDArray[np.int32], rows: Rows) -> Rows:
    """These rows and the rows before and after them in their documents, in order."""
    before, after = rows[rows > 0], rows[rows < len(documents) - 1]
    before = before[documents[before - 1] == documents[before]] - 1
    after = after[documents[after + 1] == documents[after]] + 1
    return words.unique_rows(np.concatenate([rows, before, after])).astype(np.int32)
