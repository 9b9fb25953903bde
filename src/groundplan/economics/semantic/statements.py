"""Features of the difference of two statements, which `equivalence` weighs: no single word decides. Pure.

Statements of the same content are worded differently each time, so the score weighs all unmatched words together: how
near the farthest of them are to the words of the other text, how many there are, and how many no list of words has.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from groundplan.economics.semantic import vocabulary as v
from groundplan.economics.semantic.reading import Reading
from groundplan.economics.semantic.similarity import FEATURES as COMMON
from groundplan.economics.semantic.similarity import Alignment, Near, content_places, counterparts
from groundplan.economics.semantic.substitution import KNOWN_NEARNESS, qualifies
from groundplan.economics.semantic.synonyms import is_listed

OWN = (
    "instead_1", "instead_2", "instead_3", "over_1", "over_2", "placed_1", "any_2", "any_3",
    "meant", "meant_1", "meant_2", "meant_3", "meant_4", "instead_listed", "instead_unlisted", "overs",
    "words", "instead_far", "overs_far", "left", "qualified",
)  # fmt: skip
"""Numbers at the end count from the least near. `instead`: words left over with a counterpart; `over`: without one;
`any`: words left over, each to its nearest; `meant`: all words, whatever is known of them."""
FEATURES = (*COMMON[:-1], *(f"statement_{name}" for name in (*COMMON[:-1], *OWN)), "statement", "bias")
"""Questions have the first ones, statements those with the prefix: both are weighed separately."""


def combine_features(common: NDArray[np.float64], own: Iterable[float] | None) -> NDArray[np.float64]:
    """(len(FEATURES),) of a pair. `common`: of `similarity.features`; `own`: of `statement_features`, or None for
    questions."""
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
    """(len(OWN),) of two statements. `near`: nearness of their words; `meant`: by context alone."""
    ours, theirs = content_places(a, found.ours), content_places(b, found.theirs)
    met = counterparts(near, ours, theirs)
    over = (set(ours) - {i for i, _ in met}, set(theirs) - {j for _, j in met})
    best = (_best_nearness(near), _best_nearness(near.T))
    unmatched = sorted(
        side[place]
        for reading, side, places in zip((a, b), best, over, strict=True)
        for place in places
        if reading.content_words[place] not in v.EMPTY and reading.content_words[place] not in v.IMPLIED
    )
    replaced = sorted(float(near[pair]) for pair in met)
    placed = min((float(near[pair]) for pair in met if pair in found.placed), default=1.0)
    leftovers = sorted([*(best[0][i] for i in ours), *(best[1][j] for j in theirs)])
    by_context = sorted([*_best_nearness(meant), *_best_nearness(meant.T)])
    unknown = [
        is_listed(a.content_words[i]) and is_listed(b.content_words[j]) for i, j in met if near[i, j] < KNOWN_NEARNESS
    ]
    shorter = min(len(a.stems), len(b.stems))
    share = 1.0 / max(3, shorter)
    return (
        *_lowest(replaced, 3), *_lowest(unmatched, 2), placed, *_lowest(leftovers, 3)[1:],
        sum(by_context) / max(1, len(by_context)), *_lowest(by_context, 4),
        sum(unknown) * share, (len(unknown) - sum(unknown)) * share, len(unmatched) * share,
        shorter / 10, sum(1.0 - each for each in replaced), sum(1.0 - each for each in unmatched),
        len(replaced) + len(unmatched),
        float(any(qualifies(a, over[0], i) for i in over[0]) or any(qualifies(b, over[1], j) for j in over[1])),
    )  # fmt: skip


def _best_nearness(near: Near) -> list[float]:
    """For each row the nearness of its nearest counterpart."""
    most: list[float] = near.max(axis=1).tolist() if near.size else [0.0] * len(near)
    return most


def _lowest(ascending: list[float], many: int) -> list[float]:
    return (ascending + [1.0] * many)[:many]
