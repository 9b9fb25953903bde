"""Finds duplicates: exact copies by the digest of their words, near ones by MinHash and a comparison of texts. Pure.

For near-duplicates, sketches propose candidates (42 bands of 3 numbers: at a Jaccard similarity of 0.45 of their word
pairs, 98 % of the pairs of documents are proposed; at 0.05 one in 200), then the words themselves decide. Sketches are
made by `parsing.prepare`.
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
NEAR_DUPLICATE: Final = 0.75
"""Share of words in common and in the same order from which two documents are near-duplicates: with one word in five
replaced, left out or added it is 0.84, and rewriting half of a document leaves less."""
NEAR_DUPLICATE_PAIRS: Final = 0.7
"""Jaccard similarity of word pairs from which two documents are near-duplicates even if their parts are reordered."""
MIN_JACCARD: Final = 0.3
"""Jaccard similarity of word pairs below which texts are not compared: with one word in five changed it is 0.44, and
its estimate is wrong by more than 0.13 once in a thousand."""
MAX_WORDS: Final = 200_000
"""Most words of a document whose order is compared: the time grows with the square, to three seconds for these."""
_PAIR_BATCH: Final = 100_000
_TEXT_BATCH: Final = 2000
MAX_BUCKET: Final = 200
"""Most documents with an equal band: more share a template, not a text; they are compared by their other bands."""

K = TypeVar("K")


@dataclass(frozen=True, slots=True)
class Pair:
    """Two indices in the list of documents, the smaller first, and their similarity (0 to 1)."""

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
    """Pairs of indices whose sketches agree in a band, and in enough numbers to compare their texts, in order."""
    indices = [index for index, sketch in enumerate(sketches) if len(sketch) == 4 * PERMUTATIONS]
    if len(indices) < 2:
        return []
    table = np.frombuffer(b"".join(sketches[index] for index in indices), dtype=np.uint32).reshape(
        len(indices), PERMUTATIONS
    )
    found: set[tuple[int, int]] = set()
    for band in range(BANDS):
        for bucket in _buckets(table[:, band * ROWS : (band + 1) * ROWS]):
            found |= {(a, b) for index, a in enumerate(bucket) for b in bucket[index + 1 :]}
    pairs = sorted(found)
    kept: list[tuple[int, int]] = []
    for start in range(0, len(pairs), _PAIR_BATCH):
        batch = np.array(pairs[start : start + _PAIR_BATCH], dtype=np.intp)
        agreement = (table[batch[:, 0]] == table[batch[:, 1]]).mean(axis=1)
        kept += [(indices[a], indices[b]) for a, b in batch[agreement >= MIN_JACCARD].tolist()]
    return kept


def _buckets(band: NDArray[np.uint32]) -> Iterator[list[int]]:
    """Groups of rows that are equal in a band, each in order."""
    packed = np.ascontiguousarray(band).view([("", band.dtype)] * band.shape[1]).ravel()
    _, inverse, counts = np.unique(packed, return_inverse=True, return_counts=True)
    order = np.argsort(inverse, kind="stable")
    ends = np.cumsum(counts)
    for size, end in zip(counts.tolist(), ends.tolist(), strict=True):
        if 1 < size <= MAX_BUCKET:
            yield order[end - size : end].tolist()


def near_duplicates(sketches: Sequence[bytes], texts_of: Callable[[Sequence[int]], Mapping[int, str]]) -> list[Pair]:
    """The near-duplicates among the documents. `texts_of` is called only for candidates."""
    found: list[Pair] = []
    pairs = candidate_pairs(sketches)
    for start in range(0, len(pairs), _TEXT_BATCH):
        batch = pairs[start : start + _TEXT_BATCH]
        words = {
            index: words_of(text)
            for index, text in texts_of(sorted({index for pair in batch for index in pair})).items()
        }
        shingled = {index: shingles(each) for index, each in words.items()}
        for one, other in batch:
            shared = len(shingled[one] & shingled[other])
            jaccard = shared / ((len(shingled[one]) + len(shingled[other]) - shared) or 1)
            similarity = 0.0
            if jaccard >= MIN_JACCARD:
                similarity = text_similarity(words[one][:MAX_WORDS], words[other][:MAX_WORDS], jaccard)
            if similarity >= NEAR_DUPLICATE:
                found.append(Pair(one, other, round(similarity, 3)))
    return found


def text_similarity(one: list[str], other: list[str], jaccard: float) -> float:
    """2 x the longest common subsequence of words / all words; or the Jaccard similarity of word pairs if that is
    larger because parts were reordered."""
    ordered = 2 * common_length(one, other) / ((len(one) + len(other)) or 1)
    return max(ordered, NEAR_DUPLICATE, jaccard) if jaccard >= NEAR_DUPLICATE_PAIRS else ordered


def common_length(one: list[str], other: list[str]) -> int:
    """Length of the longest common subsequence, with one bit of an integer per word (Hyyrö 2004)."""
    where: dict[str, int] = defaultdict(int)
    for place, word in enumerate(one):
        where[word] |= 1 << place
    every = (1 << len(one)) - 1
    free = every
    for word in other:
        taken = free & where.get(word, 0)
        free = ((free + taken) | (free - taken)) & every
    return len(one) - free.bit_count()
