"""Documents that say the same: exact copies by the digest of their words, near ones by MinHash and a close look. Pure.

Near: sketches propose (42 bands of 3 numbers: at a Jaccard similarity of 0.45 of their word pairs, 98 % of the pairs of
documents are proposed; at 0.05 one in 200), then the word pairs themselves decide. Sketching is `parsing.prepare`.
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
SIMILAR: Final = 0.45
"""Jaccard similarity of word pairs from which two documents are near-duplicates: about one word in five may differ."""
MAX_BUCKET: Final = 200
"""More documents than this in one band share a template, not a text; they are compared by their other bands."""

K = TypeVar("K")


@dataclass(frozen=True, slots=True)
class Pair:
    """Two places in the list of documents, the earlier first, and how alike they are (0 to 1)."""

    one: int
    other: int
    similarity: float


def same(contents: Iterable[tuple[K, str | None]]) -> Iterator[list[K]]:
    """Groups of two or more with the same digest of their words."""
    groups: dict[str, list[K]] = defaultdict(list)
    for key, content in contents:
        if content:
            groups[content].append(key)
    yield from (group for group in groups.values() if len(group) > 1)


def proposed(sketches: Sequence[bytes]) -> set[tuple[int, int]]:
    """Pairs of places whose sketches agree in a band."""
    places = [at for at, sketch in enumerate(sketches) if len(sketch) == 4 * PERMUTATIONS]
    if len(places) < 2:
        return set()
    table = np.frombuffer(b"".join(sketches[at] for at in places), dtype=np.uint32).reshape(len(places), PERMUTATIONS)
    found: set[tuple[int, int]] = set()
    for band in range(BANDS):
        for bucket in _buckets(table[:, band * ROWS : (band + 1) * ROWS]):
            found |= {(places[a], places[b]) for at, a in enumerate(bucket) for b in bucket[at + 1 :]}
    return found


def _buckets(band: NDArray[np.uint32]) -> Iterator[list[int]]:
    """Rows of a band that are equal, each group in order."""
    packed = np.ascontiguousarray(band).view([("", band.dtype)] * band.shape[1]).ravel()
    _, inverse, counts = np.unique(packed, return_inverse=True, return_counts=True)
    order = np.argsort(inverse, kind="stable")
    ends = np.cumsum(counts)
    for size, end in zip(counts.tolist(), ends.tolist(), strict=True):
        if 1 < size <= MAX_BUCKET:
            yield order[end - size : end].tolist()


def estimate(one: bytes, other: bytes) -> float:
    """Of the Jaccard similarity, by the share of equal numbers."""
    a, b = np.frombuffer(one, dtype=np.uint32), np.frombuffer(other, dtype=np.uint32)
    return float((a == b).mean())


def near(sketches: Sequence[bytes], text_of: Callable[[int], str], similar: float = SIMILAR) -> list[Pair]:
    """Near-duplicates among the documents. `text_of` is asked only for what the sketches propose."""
    texts: dict[int, set[str]] = {}

    def pairs_of(at: int) -> set[str]:
        if at not in texts:
            texts[at] = shingles(words_of(text_of(at)))
        return texts[at]

    found = []
    for one, other in sorted(proposed(sketches)):
        # by the estimate alone nobody is accused, but what is far off is not read
        if estimate(sketches[one], sketches[other]) < similar - 0.2:
            continue
        a, b = pairs_of(one), pairs_of(other)
        similarity = len(a & b) / (len(a | b) or 1)
        if similarity >= similar:
            found.append(Pair(one, other, round(similarity, 3)))
    return found


def copies(keys: Mapping[int, tuple[str, str]], group: Sequence[int]) -> tuple[int, list[int]]:
    """(the original, its copies): the original is the one with the shortest path, in the source that has the most."""
    ordered = sorted(group, key=lambda at: (len(keys[at][1]), keys[at]))
    return ordered[0], ordered[1:]
