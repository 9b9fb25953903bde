"""Regression trees as flat arrays, evaluated with numpy alone, so that planning needs no learning library.

A leaf points to itself: walking on from it stays there. Learning them is `train`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Trees:
    """A sum of trees. Node i goes left where feature[i] <= threshold[i]."""

    roots: NDArray[np.int32]
    feature: NDArray[np.int16]
    threshold: NDArray[np.float32]
    left: NDArray[np.int32]
    right: NDArray[np.int32]
    value: NDArray[np.float32]
    depth: int

    def predict(self, table: Floats) -> Floats:
        """[rows] for [rows, features]."""
        at = np.tile(self.roots, (len(table), 1))
        rows = np.arange(len(table))[:, None]
        for _ in range(self.depth):
            goes = table[rows, self.feature[at]] <= self.threshold[at]
            at = np.where(goes, self.left[at], self.right[at])
        total: Floats = self.value[at].sum(axis=1, dtype=np.float64)
        return total


def flatten(structures: list[dict[str, Any]], share: float) -> Trees:
    """Trees in LightGBM's own dump -> arrays; every value is multiplied by `share`."""
    nodes: list[tuple[int, float, int, int, float]] = []
    deepest = 1

    def walk(node: dict[str, Any], depth: int) -> int:
        nonlocal deepest
        deepest = max(deepest, depth)
        here = len(nodes)
        nodes.append((0, np.inf, here, here, 0.0))
        if "split_feature" not in node:
            nodes[here] = (0, np.inf, here, here, float(node["leaf_value"]) * share)
            return here
        left, right = walk(node["left_child"], depth + 1), walk(node["right_child"], depth + 1)
        nodes[here] = (int(node["split_feature"]), float(node["threshold"]), left, right, 0.0)
        return here

    roots = [walk(each["tree_structure"], 1) for each in structures]
    feature, threshold, left, right, value = (np.array(column) for column in zip(*nodes, strict=True))
    return Trees(
        np.array(roots, dtype=np.int32), feature.astype(np.int16), threshold.astype(np.float32),
        left.astype(np.int32), right.astype(np.int32), value.astype(np.float32), deepest,
    )  # fmt: skip
