"""How similar two readings are, as numbers from which `equivalence` decides: whole texts, words shared and not shared.

Words are compared as they are meant in their texts: each has the embedding that the model gives it there, so that
another word for the same is told from another thing of the same sort. Pure; embeddings come as arguments.
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
from groundplan.economics.semantic.spelling import slips
from groundplan.economics.semantic.synonyms import listed, said_where

Vector = NDArray[np.float32]
Directions = NDArray[np.int8]
"""A row of 384 for each word, of any length."""
Near = NDArray[np.float32]
"""(words of one, words of the other), as their readings have them in `spoken`: cosines, 1 where two say the same."""
SIDE_BY_SIDE = 2
"""Words that may stand together in place of as many others."""
FEATURES = (
    "cosine", "distance", "apart", "shared", "length", "order", "mean_a", "mean_b", "worst_a", "worst_b", "least",
    "met", "open_a", "open_b", "swaps", "added", "bias",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Said:
    """A reading with its embeddings: the unit vector of the text, and of each word of `spoken` that is asked about the
    direction that it has within the text."""

    reading: Reading
    vector: Vector
    words: Directions


def cosine(a: Said, b: Said) -> float:
    """Of the whole texts."""
    return float(a.vector @ b.vector)


def nearness(ours: Directions, theirs: Directions, told: Near) -> Near:
    """How near each word of one is to each of the other, by their directions. `told`: what is `known` without them."""
    return np.maximum(told, meant(ours, theirs))


def meant(ours: Directions, theirs: Directions) -> Near:
    """How near words are in their texts, whatever is known of them. Sums of these products are exact."""
    one, other = ours.astype(np.float32), theirs.astype(np.float32)
    found = one @ other.T
    found /= np.maximum(_length(one)[:, None] * _length(other), 1e-6)
    return found


def _length(rows: Vector) -> Vector:
    return np.asarray(np.sqrt(np.einsum("ij,ij->i", rows, rows)), dtype=np.float32)


def known(words: Sequence[str], others: Sequence[str]) -> Near:
    """The same as far as it is told without a direction: 1 where two words say the same, 0 elsewhere. A slip of the pen
    is looked for in words that say nothing of the other text's."""
    near = np.zeros((len(words), len(others)), dtype=np.float32)
    met = list(said_where(words, others))
    said, again = {i for i, _ in met}, {j for _, j in met}
    ours, theirs = ([n for n in range(len(w)) if n not in of] for w, of in ((words, said), (others, again)))
    if ours and theirs:
        slips = slipped([words[i] for i in ours], [others[j] for j in theirs])
        met += [(ours[one], theirs[other]) for one, other in slips]
    for pair in met:
        near[pair] = 1.0
    return near


def slipped(words: Sequence[str], others: Sequence[str]) -> Iterator[tuple[int, int]]:
    """The places of words, or of their stems, of which one is the other with a slip of the pen."""
    yield from slips(words, others, listed)
    yield from slips([*map(stem, words)], [*map(stem, others)], listed)


@dataclass(frozen=True, slots=True)
class Compared:
    """Two readings side by side. `ours`, `theirs`: places of content words that the other has not, or has less often;
    `placed`: places at which words stand between the same words; `order`: share of words that follow each other."""

    ours: list[int]
    theirs: list[int]
    placed: frozenset[tuple[int, int]]
    order: float


def side_by_side(a: Reading, b: Reading) -> Compared:
    """What two readings share, word by word. The same word elsewhere counts as shared."""
    if a.stems == b.stems:
        return Compared([], [], frozenset(), 1.0)
    if b.stems < a.stems:  # of matches as long as each other the matcher takes the first of the first text
        turned = side_by_side(b, a)
        placed_so = frozenset((i, j) for j, i in turned.placed)
        return Compared(turned.theirs, turned.ours, placed_so, turned.order)
    matcher = SequenceMatcher(None, a.stems, b.stems, autojunk=False)
    ours, theirs, placed = list[int](), list[int](), set[tuple[int, int]]()
    begin, other_begin, same = 0, 0, 0
    for end, other_end, size in matcher.get_matching_blocks():
        ours += range(begin, end)
        theirs += range(other_begin, other_end)
        if 0 < end - begin == other_end - other_begin <= SIDE_BY_SIDE:
            placed.update(zip(range(begin, end), range(other_begin, other_end), strict=True))
        begin, other_begin, same = end + size, other_end + size, same + size
    moved = Counter(a.stems[i] for i in ours) & Counter(b.stems[j] for j in theirs) if ours and theirs else None
    if moved:
        ours, theirs = _without(ours, a, moved), _without(theirs, b, moved)
    return Compared(ours, theirs, frozenset(placed), 2 * same / (len(a.stems) + len(b.stems)))


def _without(places: Sequence[int], reading: Reading, moved: Counter[str]) -> list[int]:
    left, found = moved.copy(), []
    for place in places:
        its = reading.stems[place]
        if left[its] > 0:
            left[its] -= 1
        else:
            found.append(place)
    return found


def things(reading: Reading, places: Sequence[int]) -> list[int]:
    """Those of the places at which no filler stands."""
    return [place for place in places if reading.spoken[place] not in v.FILLERS]


def counterparts(near: Near, ours: Sequence[int], theirs: Sequence[int]) -> list[tuple[int, int]]:
    """The nearest of both, the nearest of the rest, and so on, until one side has no more: each has one of its own."""
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


def features(a: Reading, b: Reading, cosine: float, near: Near, found: Compared) -> NDArray[np.float64]:
    """(len(FEATURES),) of a pair. `cosine`: of the whole texts."""
    one, other = max(1, len(a.stems)), max(1, len(b.stems))
    shared, union = set(a.stems) & set(b.stems), set(a.stems) | set(b.stems)
    best_a, best_b = ([0.0] * one, [0.0] * other)
    if near.size:
        best_a, best_b = near.max(axis=1).tolist(), near.max(axis=0).tolist()
    ours, theirs = things(a, found.ours), things(b, found.theirs)
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
