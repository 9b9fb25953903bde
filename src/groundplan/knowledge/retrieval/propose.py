"""What the projection proposes for a question: the best rows by words, by vectors, and both together.

It knows the numbers of readers' sets that somebody has and nothing else of them; it reads no text and no database.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from groundplan.knowledge.model import Vectors
from groundplan.knowledge.retrieval import fuse, vectors, words
from groundplan.knowledge.retrieval.projection import Projection, View
from groundplan.knowledge.retrieval.synonyms import DISCOUNT

CANDIDATES = 100
"""From each ranking."""
_NO_ROWS = np.zeros(0, np.int32)
_NO_SCORES = np.zeros(0, np.float32)


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


@dataclass(frozen=True, slots=True)
class Proposed:
    """Rows of a view with what is said of them: BM25 and the part it is of what is possible, about the cosine, both
    together with their neighbours."""

    view: View
    words: dict[int, float]
    near: dict[int, float]
    scores: dict[int, float]

    def quoted(self, question: str, texts: Mapping[int, str]) -> dict[int, float]:
        """What the texts of rows are worth more for having words of the question in their order."""
        words = fuse.plain(question).split()
        least = fuse.NEAR_BEST * max(self.words.values(), default=0.0)
        return {
            row: fuse.VERBATIM * fuse.verbatim(words, fuse.plain(text))
            for row, text in texts.items()
            if self.words.get(row, -1.0) >= least
        }

    def relevant(self) -> list[int]:
        """Rows that share more than common words with the question, or its subject; best first."""
        good = fuse.relevant(self.words, self.near)
        return sorted((row for row in self.scores if row in good), key=lambda row: (-self.scores[row], row))


def propose(index: Projection, wanted: Wanted, weights: fuse.Weights = fuse.WEIGHTS) -> Proposed:
    """The `limit` best rows by words and by vectors, with their neighbours; figures of each are complete."""
    view, coded = index.view, index.view.columns.coded
    seen = view.visible(wanted.sources, wanted.acls)
    asked = words.asked(wanted.terms, index.terms)
    found = words.bm25(view.segments, asked, view.columns.lengths, seen)
    if wanted.variants:
        found = _with_variants(index, view, found, wanted, seen)
    top, _ = words.best(found.rows, found.dense[found.rows], wanted.limit)
    near_rows, near = (
        (_NO_ROWS, _NO_SCORES)
        if wanted.vector is None
        else vectors.nearest(coded, wanted.vector, seen.mask, seen.count, wanted.limit)
    )
    chosen = list(dict.fromkeys([*top.tolist(), *near_rows.tolist()]))
    beside = {row: _beside(view.columns.documents, row) for row in chosen}
    rows = list(dict.fromkeys([*chosen, *(one for both in beside.values() for one in both)]))
    for row in rows[len(chosen) :]:
        beside[row] = _beside(view.columns.documents, row)
    worded = {row: float(found.dense[row]) for row in rows if found.dense[row] > 0}
    known = dict(zip(near_rows.tolist(), near.tolist(), strict=True))
    similar = {} if wanted.vector is None else _similar(view, wanted.vector, rows, known)
    share = {row: score / found.possible for row, score in worded.items()}
    scores = fuse.smoothed(fuse.fused(share, similar, weights), beside, weights)
    return Proposed(view, worded, similar, scores)


def _with_variants(
    index: Projection, view: View, found: words.Matches, wanted: Wanted, seen: words.Visible
) -> words.Matches:
    """Each row by what it reaches of the question or, a little less, of a variant: parts of what is possible."""
    dense = found.dense / found.possible if found.possible else found.dense
    for variant in wanted.variants:
        other = words.bm25(view.segments, words.asked(variant, index.terms), view.columns.lengths, seen)
        if other.possible:
            dense = np.maximum(dense, DISCOUNT * other.dense / other.possible)
    return words.Matches(np.flatnonzero(dense).astype(np.int32), dense, 1.0)


def _beside(documents: NDArray[np.int32], row: int) -> tuple[int, ...]:
    """The rows before and after it in its document."""
    return tuple(one for one in (row - 1, row + 1) if 0 <= one < len(documents) and documents[one] == documents[row])


def _similar(view: View, question: Vectors, rows: Iterable[int], known: dict[int, float]) -> dict[int, float]:
    embedded = view.columns.embedded
    rest = np.array([row for row in rows if row not in known and embedded[row]], dtype=np.int32)
    cosines = vectors.similarity(view.columns.coded, question, rest)
    similar = {row: one for row, one in known.items() if embedded[row]}
    return similar | dict(zip(rest.tolist(), cosines.tolist(), strict=True))
