"""Weights of predictors of scores that fit held-out observations best.

Separately for the mean over models and for the differences from it: a predictor of how hard a prompt is need not
predict which model answers it. Needs scipy, as training does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from groundplan.core.errors import Invalid
from groundplan.economics.routing.model import Blend, Doubles, Floats

Values = TypeVar("Values", Doubles, Floats)


def fit_blend(predictions: Sequence[Doubles], scores: Doubles) -> Blend:
    """Non-negative weights of predictors (rows, models): those of the means, then those of the differences. Each
    model's own mean is an offset and left out. Raises `Invalid` (`extra_missing`)."""
    try:
        from scipy.optimize import nnls  # noqa: PLC0415 -- heavy, and an extra
    except ImportError as error:
        hint = "pip install 'groundplan[economics]'"
        raise Invalid("training needs scipy, which is not here", code="extra_missing", hint=hint) from error

    def split(values: Doubles) -> tuple[Doubles, Doubles]:
        mean = values.mean(axis=1, keepdims=True)
        apart = values - mean
        return (mean - mean.mean()).ravel(), (apart - apart.mean(axis=0)).ravel()

    pairs, seen = [split(values) for values in predictions], split(scores)
    found: list[float] = []
    for place in range(2):
        weights, _ = nnls(np.stack([pair[place] for pair in pairs], axis=1), seen[place])
        found += [float(weight) for weight in weights]
    return tuple(found)


def weighted_part(weights: Sequence[float], place: int, values: Values) -> Values:
    """The weighted part of predictor number `place`: its values (..., models), by `weights`."""
    common, apart = weights[place], weights[len(weights) // 2 + place]
    mean = values.mean(axis=-1, keepdims=True)
    found: Values = np.asarray(common * mean + apart * (values - mean), dtype=values.dtype)
    return found
