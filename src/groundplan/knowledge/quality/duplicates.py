"""Documents that say the same: exact copies by the digest of their words, near ones by MinHash and a close look. Pure.

Near: sketches propose (42 bands of 3 numbers: at a Jaccard similarity of 0.45 of their word pairs, 98 % of the pairs of
documents are proposed; at 0.05 one in 200), then the words themselves decide. Sketching is `parsing.prepare`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from groundplan.knowledge.parsing.prepare import PERMUTATIONS, shingles, words_of

BANDS: Final = 42
ROWS: Final = PERMUTATIONS // BANDS
SIMILAR: Final = 0.75
"""Share of words in common and in the same order from which two documents are near-duplicates: with one word in five
replaced, left out or added it is 0.84, and rewriting half of a document leaves less."""
MOVED: Final = 0.7
"""Jaccard similarity of word pairs from which they are too, though their parts stand in another order."""
WORTH_READING: Final = 0.3
"""Similarity of word pairs below which nothing is compared closely: with one word in five changed it is 0.44,
and its estimate is wrong by more than 0.13 once in a thousand."""
LONGEST: Final = 200_000
"""Words of two documents whose order is compared: what that takes grows with the square, three seconds for these."""
_PAIRS: Final = 100_000
_CLOSE: Final = 2000
MAX_BUCKET: Final = 200
"""More documents than this in one band share a template, not a text; they are compared by their other bands."""

K = TypeVar("K")


@dataclass(frozen=True, slots=True)
class Pair:
    """Two places in the list of documents, the earlier first, and how alike they are (0 to 1)."""

    one: int
    other: int
    similarity: float


def identical_groups(contents: Iterable[tuple[K, str | None]]) -> Iterator[list[K]]:
    """Groups of two or more with the same digest of their words."""
    groups: dict[str, list[K]] = defaultdict(list)
    for key, content in contents:
        if content:
            groups[content].append(key)
    yield from (group for group in groups.values() if len(group) > 1)


def candidate_pairs(sketches: Sequence[bytes]) -> list[tuple[int, int]]:
    """Pairs of places whose sketches agree in a band, and in enough of their numbers to be read, in order."""
    places = [at for at, sketch in enumerate(sketches) if len(sketch) == 4 * PERMUTATIONS]
    if len(places) < 2:
        return []
    table = np.frombuffer(b"".join(sketches[at] for at in places), dtype=np.uint32).reshape(len(places), PERMUTATIONS)
    found: set[tuple[int, int]] = set()
    for band in range(BANDS):
        for bucket in _buckets(table[:, band * ROWS : (band + 1) * ROWS]):
            found |= {(a, b) for at, a in enumerate(bucket) for b in bucket[at + 1 :]}
    pairs = sorted(found)
    kept: list[tuple[int, int]] = []
    for start in range(0, len(pairs), _PAIRS):
        some = np.array(pairs[start : start + _PAIRS], dtype=np.intp)
        alike = (table[some[:, 0]] == table[some[:, 1]]).mean(axis=1)
        kept += [(places[a], places[b]) for a, b in some[alike >= WORTH_READING].tolist()]
    return kept


def _buckets(band: NDArray[np.uint32]) -> Iterator[list[int]]:
    """Rows of a band that are equal, each group in order."""
    packed = np.ascontiguousarray(band).view([("", band.dtype)] * band.shape[1]).ravel()
    _, inverse, counts = np.unique(packed, return_inverse=True, return_counts=True)
    order = np.argsort(inverse, kind="stable")
    ends = np.cumsum(counts)
    for size, end in zip(counts.tolist(), ends.tolist(), strict=True):
        if 1 < size <= MAX_BUCKET:
            yield order[end - size : end].tolist()


def near_duplicates(sketches: Sequence[bytes], texts_of: Callable[[Sequence[int]], Mapping[int, str]]) -> list[Pair]:
    """Near-duplicates among the documents. `texts_of` is asked only for what the sketches propose."""
    found: list[Pair] = []
    pairs = candidate_pairs(sketches)
    for start in range(0, len(pairs), _CLOSE):
        some = pairs[start : start + _CLOSE]
        words = {at: words_of(text) for at, text in texts_of(sorted({at for pair in some for at in pair})).items()}
        shingled = {at: shingles(each) for at, each in words.items()}
        for one, other in some:
            shared = len(shingled[one] & shingled[other])
            jaccard = shared / ((len(shingled[one]) + len(shingled[other]) - shared) or 1)
            similarity = 0.0
            if jaccard >= WORTH_READING:
                similarity = text_similarity(words[one][:LONGEST], words[other][:LONGEST], jaccard)
            if similarity >= SIMILAR:
                found.append(Pair(one, other, round(similarity, 3)))
    return found


def text_similarity(one: list[str], other: list[str], jaccard: float) -> float:
    """2 x the longest common subsequence of words / all words, or the share of word pairs where parts were moved."""
    ordered = 2 * common_length(one, other) / ((len(one) + len(other)) or 1)
    return max(ordered, SIMILAR, jaccard) if jaccard >= MOVED else ordered


def common_length(one: list[str], other: list[str]) -> int:
    """Length of the longest common subsequence, with one bit of an integer a word (Hyyrö 2004)."""
    where: dict[str, int] = defaultdict(int)
    for place, word in enumerate(one):
        where[word] |= 1 << place
    every = (1 << len(one)) - 1
    free = every
    for word in other:
        taken = free & where.get(word, 0)
        free = ((free + taken) | (free - taken)) & every
    return len(one) - free.bit_count()
