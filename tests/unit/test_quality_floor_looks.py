"""A floor of quality that is kept is hardly ever said to be missed, however often it is looked at; one that is missed
is found."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from groundplan.economics.experiment.sequential import LEAST
from groundplan.economics.levers.quality_floor import Judged, find_below_floor

FLOOR = 0.9
MODELS = 4000


@cache
def most_told(judged: int) -> int:
    """The most of so many judgements that may be accepted with which a model is told, or -1: with none."""
    low, high = -1, judged
    while low < high:
        middle = (low + high + 1) // 2
        told = find_below_floor([Judged("m", "tone", middle, judged)], {"tone": FLOOR})
        low, high = (middle, high) if told else (low, middle - 1)
    return low


def accepted(share: float, judged: int, seed: int) -> NDArray[np.int64]:
    """(MODELS, judged): how many were accepted so far."""
    said = np.random.default_rng(seed).random((MODELS, judged)) < share
    return np.cumsum(said, axis=1, dtype=np.int64)


def told_by(so_far: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Of each model, whether any look after each of its judgements would tell it."""
    limits = np.array([most_told(count) for count in range(1, so_far.shape[1] + 1)])
    return np.asarray((so_far <= limits).any(axis=1))


def test_a_model_exactly_at_its_floor_is_told_by_one_in_a_hundred_looked_at_after_each_judgement() -> None:
    assert told_by(accepted(FLOOR, 1000, seed=1)).mean() < 0.01


def test_a_model_well_below_is_found() -> None:
    assert told_by(accepted(0.8, 400, seed=2)).mean() > 0.95
    assert told_by(accepted(0.5, 40, seed=3)).mean() > 0.95


def test_a_history_that_moves_on_forgets_and_still_tells_hardly_any() -> None:
    span, renewed = 200, 5
    so_far = accepted(FLOOR, span * (renewed + 1), seed=4)
    history = so_far[:, span:] - so_far[:, :-span]
    first = told_by(so_far[:, :span])
    assert (first | (history <= most_told(span)).any(axis=1)).mean() < 0.01 * (renewed + 1)


def test_few_judgements_prove_nothing() -> None:
    assert most_told(LEAST - 1) == -1 < most_told(LEAST)
