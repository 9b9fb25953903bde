"""Boosted trees as plain arrays, evaluated with numpy alone; `learn.boosted_trees` makes them.

Their inputs are the surface of a prompt and the predictions of the regressions; they predict the mean score of all
models, and the difference of each model from it. Words and embeddings enter by the regressions.
"""

from __future__ import annotations

import numpy as np

from groundplan.economics.routing.model import Doubles, Floats, Forest, Integers

MOST_ASKED = 8
"""Limit of splits of a tree: their results are the bits of a byte."""
_AT_ONCE = 64
"""Rows that are evaluated together, to limit memory."""


def to_parts(scores: Doubles) -> Doubles:
    """Scores as targets of trees: the mean, then the differences from it of all models but the last; rows or one
    row."""
    mean = scores.mean(axis=-1, keepdims=True)
    return np.concatenate([mean, scores[..., :-1] - mean], axis=-1)


def to_scores(parts: Doubles) -> Doubles:
    """Inverse of `to_parts`: the differences sum to 0."""
    mean, rest = parts[..., :1], parts[..., 1:]
    return np.concatenate([mean + rest, mean - rest.sum(axis=-1, keepdims=True)], axis=-1)


def build_forest(
    feature: Integers,
    threshold: Floats,
    left: Integers,
    right: Integers,
    value: Floats,
    owner: Integers,
    parts: int,
    depth: int,
) -> Forest:
    """Build trees from their nodes (trees, nodes); a leaf leads to itself. Raises `ValueError` if one has more than
    `MOST_ASKED` splits."""
    asks = (left != np.arange(left.shape[1])) & (left > 0)  # nothing leads to the root: what says so fills up a row
    most = int(asks.sum(axis=1).max(initial=0))
    if most > MOST_ASKED:
        raise ValueError("its trees are too large")
    nodes = np.argsort(~asks, axis=1, kind="stable")[:, :most]
    number = np.cumsum(asks, axis=1) - 1
    trees = np.arange(len(owner))
    reached = np.zeros((len(owner), 1 << most), dtype=np.float32)
    for answers in range(1 << most):
        at = np.zeros(len(owner), dtype=np.int64)
        for _ in range(depth):
            yes = (answers >> np.maximum(number[trees, at], 0)) & 1
            at = np.where(yes, left[trees, at], right[trees, at])
        reached[:, answers] = value[trees, at]
    asked, limits = np.take_along_axis(feature, nodes, axis=1), np.take_along_axis(threshold, nodes, axis=1)
    return Forest(feature, threshold, left, right, value, owner, parts, depth, asked, limits, reached)


def predict_scores(forest: Forest, shape: Floats) -> Doubles:
    """(models,) expected scores of one prompt."""
    sums = np.bincount(forest.owner, weights=_leaves(forest, shape), minlength=forest.parts)
    return to_scores(np.asarray(sums, dtype=np.float64))


def predict_all(forest: Forest, shapes: Floats) -> Doubles:
    """The same for each row."""
    sums = np.zeros((len(shapes), forest.parts))
    for start in range(0, len(shapes), _AT_ONCE):
        leaves = _leaves(forest, shapes[start : start + _AT_ONCE])
        for part in range(forest.parts):
            sums[start : start + _AT_ONCE, part] = leaves[:, forest.owner == part].sum(axis=1, dtype=np.float64)
    return to_scores(sums)


def _leaves(forest: Forest, shapes: Floats) -> Floats:
    """What each tree says; rows or one row. All that a tree may ask is answered at once, which is quicker than going
    from one to the next, and the answers are the number of a leaf."""
    trees, kinds = forest.reached.shape
    if kinds == 1:
        return np.broadcast_to(forest.reached[:, 0], (*shapes.shape[:-1], trees))
    answers = np.packbits(shapes[..., forest.asked] <= forest.limits, axis=-1, bitorder="little")[..., 0]
    return np.asarray(forest.reached.ravel()[np.arange(trees) * kinds + answers])
