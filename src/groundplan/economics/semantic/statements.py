"""What two statements differ in, as numbers from which `equivalence` weighs it: no single word of them decides. Pure.

Who tells something puts it otherwise each time, so of statements a score weighs all words that are left over together:
how near the farthest of them are to what the other says, how many there are, and how many stand in no list of words.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from groundplan.economics.semantic import vocabulary as v
from groundplan.economics.semantic.reading import Reading
from groundplan.economics.semantic.similarity import FEATURES as COMMON
from groundplan.economics.semantic.similarity import Alignment, Near, content_places, counterparts
from groundplan.economics.semantic.substitution import KNOWN, qualifies
from groundplan.economics.semantic.synonyms import listed

OWN = (
    "instead_1", "instead_2", "instead_3", "over_1", "over_2", "placed_1", "any_2", "any_3",
    "meant", "meant_1", "meant_2", "meant_3", "meant_4", "instead_listed", "instead_unlisted", "overs",
    "words", "instead_far", "overs_far", "left", "qualified",
)  # fmt: skip
"""Numbers at the end count from the least near. `instead`: words left over with a counterpart; `over`: without one;
`any`: words left over, each to its nearest; `meant`: all words, whatever is known of them."""
FEATURES = (*COMMON[:-1], *(f"statement_{name}" for name in (*COMMON[:-1], *OWN)), "statement", "bias")
"""Of questions the first ones, of statements those named so: each sort of request is weighed by itself."""


def combine_features(common: NDArray[np.float64], own: Iterable[float] | None) -> NDArray[np.float64]:
    """(len(FEATURES),) of a pair. `common`: what `similarity` tells; `own`: what `told` does, of statements."""
    found = np.zeros(len(FEATURES))
    found[-1] = 1.0
    many = len(COMMON) - 1
    if own is None:
        found[:many] = common[:-1]
    else:
        found[many : 2 * many] = common[:-1]
        found[2 * many : -2] = tuple(own)
        found[-2] = 1.0
    return found


def statement_features(a: Reading, b: Reading, near: Near, meant: Near, found: Alignment) -> tuple[float, ...]:
    """(len(OWN),) of two statements. `near`: how near their words are, with what is known; `meant`: without it."""
    ours, theirs = content_places(a, found.ours), content_places(b, found.theirs)
    met = counterparts(near, ours, theirs)
    over = (set(ours) - {i for i, _ in met}, set(theirs) - {j for _, j in met})
    best = (_most(near), _most(near.T))
    said = sorted(
        side[place]
        for reading, side, places in zip((a, b), best, over, strict=True)
        for place in places
        if reading.spoken[place] not in v.EMPTY and reading.spoken[place] not in v.IMPLIED
    )
    instead = sorted(float(near[pair]) for pair in met)
    placed = min((float(near[pair]) for pair in met if pair in found.placed), default=1.0)
    left = sorted([*(best[0][i] for i in ours), *(best[1][j] for j in theirs)])
    alone = sorted([*_most(meant), *_most(meant.T)])
    unknown = [listed(a.spoken[i]) and listed(b.spoken[j]) for i, j in met if near[i, j] < KNOWN]
    short = min(len(a.stems), len(b.stems))
    share = 1.0 / max(3, short)
    return (
        *_least(instead, 3), *_least(said, 2), placed, *_least(left, 3)[1:],
        sum(alone) / max(1, len(alone)), *_least(alone, 4),
        sum(unknown) * share, (len(unknown) - sum(unknown)) * share, len(said) * share,
        short / 10, sum(1.0 - each for each in instead), sum(1.0 - each for each in said), len(instead) + len(said),
        float(any(qualifies(a, over[0], i) for i in over[0]) or any(qualifies(b, over[1], j) for j in over[1])),
    )  # fmt: skip


def _most(near: Near) -> list[float]:
    """Of each word how near the nearest of the other's is."""
    most: list[float] = near.max(axis=1).tolist() if near.size else [0.0] * len(near)
    return most


def _least(ascending: list[float], many: int) -> list[float]:
    return (ascending + [1.0] * many)[:many]
