"""Boosted trees as plain arrays, evaluated with numpy alone; `learn.grow` makes them.

They look at the surface of a prompt and at what the regressions expect of it, and tell the mean score of all models,
and how far each model's score is from it. Words and embeddings are the regressions' matter.
"""

from __future__ import annotations

import numpy as np

from groundplan.economics.routing.model import Doubles, Floats, Forest


def parts_of(scores: Doubles) -> Doubles:
    """Scores as the trees take and tell them: the mean, then the differences from it of all but the last; rows or one
    row."""
    mean = scores.mean(axis=-1, keepdims=True)
    return np.concatenate([mean, scores[..., :-1] - mean], axis=-1)


def scores_of(parts: Doubles) -> Doubles:
    """The other way round. The differences add up to nothing."""
    mean, rest = parts[..., :1], parts[..., 1:]
    return np.concatenate([mean + rest, mean - rest.sum(axis=-1, keepdims=True)], axis=-1)


def told(forest: Forest, shape: Floats) -> Doubles:
    """(models,) expected scores of one prompt."""
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
