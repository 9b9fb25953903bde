"""Trains boosted trees with LightGBM, as the arrays that `decide.forest` evaluates. Needs the extra `economics`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from groundplan.core.errors import Invalid, Unavailable
from groundplan.economics.routing.decide import forest
from groundplan.economics.routing.model import Doubles, Floats, Forest, Integers

ROUNDS = 350
DRAWS = 3
"""Ensembles of trees for a router of two models, to average out random draws; fewer for more models, so that evaluation
takes no longer."""
_SETTINGS: Mapping[str, Any] = {
    "objective": "regression", "learning_rate": 0.03, "num_leaves": 6, "min_child_samples": 60, "feature_fraction": 0.5,
    "bagging_fraction": 0.7, "bagging_freq": 1, "lambda_l2": 20.0, "num_threads": 1, "verbose": -1,
    "deterministic": True, "force_row_wise": True,
}  # fmt: skip
"""Small trees and a low learning rate: the signal is weak and noisy."""


def draw_count(models: int) -> int:
    """Number of ensembles for so many models."""
    return max(1, round(2 * DRAWS / models))


def grow(shapes: Floats, scores: Doubles, seed: int, times: int = 1) -> Forest:
    """Train trees on inputs (rows, columns) and scores (rows, models); those of differences `times` times with other
    seeds, and averaged. Raises `Invalid` (`extra_missing`)."""
    try:
        import lightgbm  # noqa: PLC0415 -- heavy, and an extra
    except ImportError as error:
        hint = "pip install 'groundplan[economics]'"
        raise Invalid("training needs LightGBM, which is not here", code="extra_missing", hint=hint) from error
    except OSError as error:
        hint = "Install the system's package libgomp1."
        raise Unavailable(f"LightGBM does not load: {error}", code="openmp_missing", hint=hint) from error
    trees: list[dict[str, Any]] = []
    owners: list[int] = []
    parts = forest.to_parts(scores)
    shares: list[float] = []
    for owner in range(parts.shape[1]):
        for draw in range(times if owner else 1):
            data = lightgbm.Dataset(shapes, parts[:, owner])
            made = lightgbm.train({**_SETTINGS, "seed": seed + draw}, data, ROUNDS).dump_model()["tree_info"]
            trees += [tree["tree_structure"] for tree in made]
            owners += [owner] * len(made)
            shares += [1.0 / times if owner else 1.0] * len(made)
    return _pack(trees, np.array(owners, dtype=np.int64), np.array(shares, dtype=np.float32), parts.shape[1])


def _pack(trees: Sequence[dict[str, Any]], owner: Integers, shares: Floats, parts: int) -> Forest:
    """Nodes of each tree as rows, values weighted by the tree's share; a leaf leads to itself, so that all trees have
    one depth."""
    walked = [_nodes(tree) for tree in trees]
    most = max(len(nodes) for nodes, _ in walked)
    shape = (len(walked), most)
    feature, left, right = (np.zeros(shape, dtype=np.int64) for _ in range(3))
    threshold, value = np.zeros(shape, dtype=np.float32), np.zeros(shape, dtype=np.float32)
    for row, (nodes, _) in enumerate(walked):
        for place, node in enumerate(nodes):
            feature[row, place], threshold[row, place], left[row, place], right[row, place], value[row, place] = node
    deepest = max(depth for _, depth in walked)
    return forest.build_forest(feature, threshold, left, right, value * shares[:, None], owner, parts, deepest)


def _nodes(tree: dict[str, Any]) -> tuple[list[tuple[int, float, int, int, float]], int]:
    """(feature, threshold, left, right, value) of each node, the root first; and how deep the tree is."""
    found: list[tuple[int, float, int, int, float]] = []
    deepest = 0

    def walk(node: dict[str, Any], depth: int) -> int:
        nonlocal deepest
        deepest, place = max(deepest, depth), len(found)
        if "leaf_value" in node and "split_feature" not in node:
            found.append((0, 0.0, place, place, float(node["leaf_value"])))
            return place
        found.append((0, 0.0, place, place, 0.0))
        left, right = walk(node["left_child"], depth + 1), walk(node["right_child"], depth + 1)
        found[place] = (int(node["split_feature"]), float(node["threshold"]), left, right, 0.0)
        return place

    walk(tree, 0)
    return found, deepest
