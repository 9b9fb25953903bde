"""Features of the similarity of two readings, from which `equivalence` decides: whole texts, shared and other words.

Words are compared in context: each has the embedding that the model gives it within its text, so that a synonym is told
from another thing of the same sort. Pure; embeddings are arguments.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from math import log

import numpy as np
from numpy.typing import NDArray

from groundplan.economics.semantic import vocabulary as v
from groundplan.economics.semantic.reading import Reading, stem
from groundplan.economics.semantic.spelling import misspelling_places
from groundplan.economics.semantic.synonyms import is_listed, synonym_places

Vector = NDArray[np.float32]
Directions = NDArray[np.int8]
"""(words, 384): the direction of each word; rows are not normalised."""
Near = NDArray[np.float32]
"""Matrix (words of one, words of the other) over the readings' `content_words`: cosines, 1 where two mean the same."""
MAX_ALIGNED_WORDS = 2
"""Most adjacent words that may replace as many others."""
FEATURES = (
    "cosine", "distance", "apart", "shared", "length", "order", "mean_a", "mean_b", "worst_a", "worst_b", "least",
    "met", "open_a", "open_b", "swaps", "added", "bias",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class EmbeddedReading:
    """A reading with its embeddings: the unit vector of the text, and the direction within the text of each requested
    one of its content words."""

    reading: Reading
    vector: Vector
    words: Directions


def cosine(a: EmbeddedReading, b: EmbeddedReading) -> float:
    """Cosine of the whole texts."""
    return float(a.vector @ b.vector)


def nearness(ours: Directions, theirs: Directions, lexical: Near) -> Near:
    """Nearness of each word of one to each of the other by direction; at least `lexical` (`lexical_nearness`)."""
    return np.maximum(lexical, contextual_nearness(ours, theirs))


def contextual_nearness(ours: Directions, theirs: Directions) -> Near:
    """Cosines of the words' directions in their texts. Sums of these products are exact."""
    one, other = ours.astype(np.float32), theirs.astype(np.float32)
    found = one @ other.T
    found /= np.maximum(_length(one)[:, None] * _length(other), 1e-6)
    return found


def _length(rows: Vector) -> Vector:
    return np.asarray(np.sqrt(np.einsum("ij,ij->i", rows, rows)), dtype=np.float32)


def lexical_nearness(words: Sequence[str], others: Sequence[str]) -> Near:
    """Nearness without embeddings: 1 where two words mean the same, 0 elsewhere. Misspellings are looked for only among
    words without a counterpart in the other text."""
    near = np.zeros((len(words), len(others)), dtype=np.float32)
    met = list(synonym_places(words, others))
    said, again = {i for i, _ in met}, {j for _, j in met}
    ours, theirs = ([n for n in range(len(w)) if n not in of] for w, of in ((words, said), (others, again)))
    if ours and theirs:
        misspelling_places = misspelt_pairs([words[i] for i in ours], [others[j] for j in theirs])
        met += [(ours[one], theirs[other]) for one, other in misspelling_places]
    for pair in met:
        near[pair] = 1.0
    return near


def misspelt_pairs(words: Sequence[str], others: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Places of words, or of their stems, of which one is a misspelling of the other."""
    yield from misspelling_places(words, others, is_listed)
    yield from misspelling_places([*map(stem, words)], [*map(stem, others)], is_listed)


@dataclass(frozen=True, slots=True)
class Alignment:
    """Two readings aligned. `ours`, `theirs`: places of content words that the other lacks or has less often; `placed`:
    pairs of places between the same words; `order`: share of words in the same order."""

    ours: list[int]
    theirs: list[int]
    placed: frozenset[tuple[int, int]]
    order: float


def align(a: Reading, b: Reading) -> Alignment:
    """Align two readings word by word. The same word at another place counts as shared."""
    if a.stems == b.stems:
        return Alignment([], [], frozenset(), 1.0)
    if b.stems < a.stems:  # of matches as long as each other the matcher takes the first of the first text
        turned = align(b, a)
        placed_so = frozenset((i, j) for j, i in turned.placed)
        return Alignment(turned.theirs, turned.ours, placed_so, turned.order)
    matcher = SequenceMatcher(None, a.stems, b.stems, autojunk=False)
    ours, theirs, placed = list[int](), list[int](), set[tuple[int, int]]()
    begin, other_begin, same = 0, 0, 0
    for end, other_end, size in matcher.get_matching_blocks():
        ours += range(begin, end)
        theirs += range(other_begin, other_end)
        if 0 < end - begin == other_end - other_begin <= MAX_ALIGNED_WORDS:
            placed.update(zip(range(begin, end), range(other_begin, other_end), strict=True))
        begin, other_begin, same = end + size, other_end + size, same + size
    moved = Counter(a.stems[i] for i in ours) & Counter(b.stems[j] for j in theirs) if ours and theirs else None
    if moved:
        ours, theirs = _without_moved(ours, a, moved), _without_moved(theirs, b, moved)
    return Alignment(ours, theirs, frozenset(placed), 2 * same / (len(a.stems) + len(b.stems)))


def _without_moved(places: Sequence[int], reading: Reading, moved: Counter[str]) -> list[int]:
    left, found = moved.copy(), []
    for place in places:
        its = reading.stems[place]
        if left[its] > 0:
            left[its] -= 1
        else:
            found.append(place)
    return found


def content_places(reading: Reading, places: Sequence[int]) -> list[int]:
    """The places that hold no filler word."""
    return [place for place in places if reading.content_words[place] not in v.FILLERS]


def counterparts(near: Near, ours: Sequence[int], theirs: Sequence[int]) -> list[tuple[int, int]]:
    """Pair words one to one: the nearest two, then the nearest of the rest, until one side has no more."""
    if not ours or not theirs:
        return []
    order = sorted((-float(near[i, j]), i, j) for i in ours for j in theirs)
    left, right, found = set(ours), set(theirs), []
    for _, i, j in order:
        if i in left and j in right:
            left.remove(i)
            right.remove(j)
            found.append((i, j))
    return found


def features(a: Reading, b: Reading, cosine: float, near: Near, found: Alignment) -> NDArray[np.float64]:
    """(len(FEATURES),) of a pair. `cosine`: of the whole texts."""
    one, other = max(1, len(a.stems)), max(1, len(b.stems))
    shared, union = set(a.stems) & set(b.stems), set(a.stems) | set(b.stems)
    best_a, best_b = ([0.0] * one, [0.0] * other)
    if near.size:
        best_a, best_b = near.max(axis=1).tolist(), near.max(axis=0).tolist()
    ours, theirs = content_places(a, found.ours), content_places(b, found.theirs)
    met = [float(near[pair]) for pair in counterparts(near, ours, theirs)]
    short = 1.0 / max(3.0, min(one, other))
    return np.array(
        [
            cosine,
            (1.0 - cosine) ** 0.5 if cosine < 1.0 else 0.0,
            max(0.0, 0.85 - cosine),
            len(shared) / (len(union) or 1),
            abs(log(one / other)),
            found.order,
            sum(best_a) / one,
            sum(best_b) / other,
            min(best_a),
            min(best_b),
            min(met, default=1.0),
            sum(met) / len(met) if met else 1.0,
            sum(1.0 - best_a[place] for place in ours) / one,
            sum(1.0 - best_b[place] for place in theirs) / other,
            len(met) * short,
            abs(len(ours) - len(theirs)) * short,
            1.0,
        ]
    )
