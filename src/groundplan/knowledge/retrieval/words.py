"""Analyses texts into terms, and holds the postings of terms by row, in immutable segments.

Holds no permissions and no texts; `bm25` computes scores.
"""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
import tantivy
from numpy.typing import NDArray

from groundplan.knowledge import writing_systems

MAX_TERMS: Final = 500
"""Most different terms of a question that are searched; further ones are ignored."""
_STOP_WORDS: Final = tuple(
    """
    a about all also am an and any are as at be been being but by can could did do does doing done for from had
    has have having he her hers him his how i if in into is it its just many may me might mine much must my no
    not of on or our ours please shall she should so some such tell than that the their theirs them then there
    these they this those to too us very was we were what when where which who whom whose why will with would
    you your yours
    """.split()  # noqa: SIM905 -- a hundred quoted words are no easier to read
)
"""Words that belong to the form of a question, not to its subject."""
_WORD: Final = re.compile(r"[^\W_]+")
_LARGEST_SEGMENT: Final = 128_000_000
"""Postings above which a segment is not merged further: copying more at once would take seconds and a gigabyte."""
_MERGE_RATIO: Final = 8
"""A segment more than so many times as large as all later ones together is not merged. Each posting is copied as often
as with a ratio of two, and a third as many segments remain: each costs every word of a question a dozen numpy calls."""
_COPY_BLOCK: Final = 1 << 16
"""Postings that are copied together, so that intermediate arrays stay in the processor's cache."""

Ints = NDArray[np.int32]
Counts = NDArray[np.uint16]
Postings = tuple[Ints, Counts]


class Analyzer:
    """Splits texts into terms: words in lower case without accents, stop words or endings (English; words of other
    languages stay whole); in scripts without spaces, pairs of characters."""

    def __init__(self) -> None:
        builder = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.simple())
        for one in (
            tantivy.Filter.remove_long(60),
            tantivy.Filter.lowercase(),
            tantivy.Filter.ascii_fold(),
            tantivy.Filter.custom_stopword(list(_STOP_WORDS)),
            tantivy.Filter.stemmer("english"),
        ):
            builder = builder.filter(one)
        self._analyzer: Any = builder.build()
        # the analyzer keeps a buffer between texts, so two threads may not use it at once
        self._lock = threading.Lock()

    def terms(self, text: str) -> list[str]:
        """The terms of a text in order, with repetitions."""
        return [
            term
            for part, unspaced in writing_systems.split_scripts(text)
            for term in (writing_systems.bigrams(part) if unspaced else self._analyze(part))
        ]

    def _analyze(self, text: str) -> list[str]:
        """The terms of a text with spaces between its words."""
        with self._lock:
            return [term for term in self._analyzer.analyze(text) if term]

    def shared_words(self, question: str, text: str) -> list[str]:
        """The words of a question, each once and as written there, that a text has in any form."""
        text_terms = set(self.terms(text))
        question_words = dict.fromkeys(
            word
            for part, unspaced in writing_systems.split_scripts(question)
            for word in (writing_systems.bigrams(part) if unspaced else _WORD.findall(part))
        )
        return [word for word in question_words if not text_terms.isdisjoint(self.terms(word))]


@dataclass(frozen=True, slots=True)
class Segment:
    """Postings of a range of rows: `terms[i]` is in `rows[starts[i]:starts[i + 1]]`, `counts` times each. Immutable."""

    terms: Ints
    starts: NDArray[np.int64]
    rows: Ints
    counts: NDArray[np.uint16]

    def find(self, term: int) -> slice | None:
        """The slice of a term's postings; None if it has none."""
        # of the array's own type: for another one, numpy would convert the whole array first
        place = int(self.terms.searchsorted(np.int32(term)))
        if place == len(self.terms) or int(self.terms[place]) != term:
            return None
        return slice(int(self.starts[place]), int(self.starts[place + 1]))

    def postings(self, term: int) -> Postings | None:
        """The postings of a term: rows in order, and how often each has it; None if it has none."""
        where = self.find(term)
        return None if where is None else (self.rows[where], self.counts[where])


def unique_rows(rows: Ints) -> Ints:
    """Each of these rows once, in order. For some thousand rows it takes a tenth of the time of `numpy.unique`, which
    uses a hash table."""
    rows = np.sort(rows)
    return rows[np.append(True, rows[1:] != rows[:-1])] if len(rows) else rows


def build_segment(terms: Ints, rows: Ints) -> Segment:
    """A segment from one (term, row) for each word of the texts."""
    keys, counts = np.unique(terms.astype(np.int64) << 32 | rows, return_counts=True)
    return _from_sorted((keys >> 32).astype(np.int32), keys.astype(np.int32), counts.clip(max=65535).astype(np.uint16))


def _from_sorted(terms: Ints, rows: Ints, counts: NDArray[np.uint16]) -> Segment:
    """A segment from postings sorted by term."""
    first = np.flatnonzero(np.diff(terms, prepend=np.int32(-1)))
    return Segment(terms[first], np.append(first, len(terms)).astype(np.int64), rows, counts)


def add_segment(segments: tuple[Segment, ...], segment: Segment) -> tuple[Segment, ...]:
    """The segments with another one of later rows, merged as needed."""
    return merge_small_segments((*segments, segment))


def merge_small_segments(segments: tuple[Segment, ...]) -> tuple[Segment, ...]:
    """The segments with those merged that are not much larger than all later ones together, so that there are few."""
    first, later = len(segments) - 1, 0
    for place in range(len(segments) - 1, 0, -1):
        later += len(segments[place].rows)
        size = len(segments[place - 1].rows)
        if size <= _MERGE_RATIO * later and size + later <= _LARGEST_SEGMENT:
            first = place - 1
    return segments if first == len(segments) - 1 else (*segments[:first], _merge(segments[first:]))


def _merge(parts: Sequence[Segment]) -> Segment:
    """Merge segments of consecutive ranges of rows: the postings of each term are concatenated in order."""
    terms = np.unique(np.concatenate([part.terms for part in parts]))
    places = [terms.searchsorted(part.terms) for part in parts]
    counts_by_part = np.zeros((len(parts), len(terms)), np.int64)
    for own, part, place in zip(counts_by_part, parts, places, strict=True):
        own[place] = np.diff(part.starts)
    starts = np.append(0, np.cumsum(counts_by_part.sum(axis=0)))
    first = starts[:-1] + np.cumsum(counts_by_part, axis=0) - counts_by_part
    rows, counts = np.empty(starts[-1], np.int32), np.empty(starts[-1], np.uint16)
    for own, part, place in zip(first, parts, places, strict=True):
        shift = own[place] - part.starts[:-1]
        edges = np.unique(part.starts.searchsorted(np.arange(0, len(part.rows) + _COPY_BLOCK, _COPY_BLOCK)))
        for begin, end in pairwise(edges.clip(max=len(part.terms)).tolist()):
            source = slice(int(part.starts[begin]), int(part.starts[end]))
            target = np.arange(source.start, source.stop)
            target += np.repeat(shift[begin:end], np.diff(part.starts[begin : end + 1]))
            rows[target], counts[target] = part.rows[source], part.counts[source]
    return Segment(terms, starts, rows, counts)


def renumber_rows(part: Segment, places: Ints) -> Segment | None:
    """The segment with rows moved to `places[row]`, without those at -1; None if nothing is left."""
    rows = places[part.rows]
    kept = rows >= 0
    if not kept.any():
        return None
    terms = np.repeat(part.terms, np.diff(part.starts))
    return _from_sorted(terms[kept], rows[kept], part.counts[kept])


def compact_terms(terms: Mapping[str, int], segments: Sequence[Segment]) -> tuple[dict[str, int], tuple[Segment, ...]]:
    """The terms that these segments have, renumbered in their order, and the segments with the new numbers."""
    is_used = np.zeros(len(terms), dtype=np.bool_)
    for part in segments:
        is_used[part.terms] = True
    numbers = np.cumsum(is_used, dtype=np.int32) - 1
    kept = {term: int(numbers[number]) for term, number in terms.items() if is_used[number]}
    return kept, tuple(Segment(numbers[part.terms], part.starts, part.rows, part.counts) for part in segments)


@dataclass(frozen=True, slots=True)
class VisibleRows:
    """The rows that a question may see: their mask (None: all rows), their number, and the number of their terms."""

    mask: NDArray[np.bool_] | None
    count: int
    tokens: int


def query_terms(terms: Sequence[str], known: Mapping[str, int]) -> dict[int, int]:
    """Term number -> its count in the question, for the first `MAX_TERMS` different terms.

    Unknown terms are removed last: a word that only hidden documents have must not take another's place.
    """
    counts = Counter(terms)
    return {known[term]: times for term, times in list(counts.items())[:MAX_TERMS] if term in known}
