"""Boosted trees on the surface of a prompt as plain arrays, evaluated with numpy alone; `learn.grow` makes them.

They tell the mean score of all models, and how far each model's score is from it. Words are the regressions' matter.
"""

from __future__ import annotations

import numpy as np

from groundplan.economics.routing.model import Doubles, Floats, Forest


def scores_of(parts: Doubles) -> Doubles:
    """The other way round; rows or one row. The differences add up to nothing."""
    mean, rest = parts[..., :1], parts[..., 1:]
    return np.concatenate([mean + rest, mean - rest.sum(axis=-1, keepdims=True)], axis=-1)


def told(forest: Forest, shape: Floats) -> Doubles:
    """(models,) expected scores of one prompt by its surface."""
    trees = np.arange(len(forest.owner))
    at = np.zeros(len(trees), dtype=np.int64)
    for _ in range(forest.depth):
        below = shape[forest.feature[trees, at]] <= forest.threshold[trees, at]
        at = np.where(below, forest.left[trees, at], forest.right[trees, at])
    sums = np.bincount(forest.owner, weights=forest.value[trees, at], minlength=forest.parts)
    return scores_of(np.asarray(sums, dtype=np.float64))


def told_all(forest: Forest, shapes: Floats) -> Doubles:
    """The same for each row."""
    if not len(shapes):
        return np.zeros((0, forest.parts))
    return np.stack([told(forest, shape) for shape in shapes])
