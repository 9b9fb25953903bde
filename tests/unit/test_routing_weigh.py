"""What each regression of the router is worth is weighed on left-out prompts, and shipped as it was weighed."""

from __future__ import annotations

import numpy as np
import pytest

from groundplan.economics.routing.decide.features import BUCKETS
from groundplan.economics.routing.learn.fit import Fitted, OutOfFold
from groundplan.economics.routing.learn.stacking import fit_blend, weighted_part
from groundplan.economics.routing.model import Floats


def drawn(*shape: int, seed: int) -> Floats:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("width", [0, 7])
def test_weighed_regressions_say_what_their_weighed_expectations_say(width: int) -> None:
    models, shaped = 3, 5
    features = np.zeros((4, BUCKETS + shaped + width))
    features[:, :20], features[:, BUCKETS:] = drawn(4, 20, seed=1), drawn(4, shaped + width, seed=2)
    regressions = 2 if width else 1
    fitted = Fitted(
        drawn(BUCKETS + shaped + width, 2 * models, seed=3), drawn(2 * models, seed=4),
        drawn(regressions, models, seed=5),
    )  # fmt: skip
    out = OutOfFold(fitted.predict(features), fitted.parts(features, shaped) + fitted.alone, 1.0)
    assert np.sum(out.parts, axis=0) == pytest.approx(fitted.predict(features)[:, :models], abs=1e-5)
    weights = tuple(0.2 + place for place in range(2 * (regressions + 1)))
    heavy, told = fitted.with_weights(weights, shaped), out.with_weights(weights)
    assert heavy.predict(features) == pytest.approx(told.raw, abs=1e-4)
    assert heavy.parts(features, shaped) + heavy.alone == pytest.approx(told.alone, abs=1e-4)
    assert told.raw[:, models:] == pytest.approx(out.raw[:, models:]), "costs are those of the surface"


def test_what_tells_nothing_of_the_differences_weighs_nothing_in_them() -> None:
    dice = np.random.default_rng(3)
    hard, apart = dice.normal(size=(2000, 1)), dice.normal(size=(2000, 3))
    scores = hard + apart - apart.mean(axis=1, keepdims=True)
    noise = dice.normal(size=(2, 2000, 3))
    told = [np.repeat(hard, 3, axis=1) + 0.1 * noise[0], 0.5 * scores + 0.1 * noise[1]]
    weights = fit_blend(told, scores)
    assert weights[2] < 0.1 and weights[3] == pytest.approx(2.0, abs=0.2)
    whole = np.sum([weighted_part(weights, place, each) for place, each in enumerate(told)], axis=0)
    assert np.abs(whole - scores).std() < 0.25
