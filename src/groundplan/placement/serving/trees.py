"""Regression trees as flat arrays, evaluated with numpy alone, so that planning needs no learning library.

A leaf is its own child, so that further steps stay there. `benchmarks/serving_train.py` trains the trees.
"""

from __future__ import annotations

from dataclasses import dataclass

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
        """[rows] the predictions for `table` [rows, features]."""
        node = np.tile(self.roots, (len(table), 1))
        rows = np.arange(len(table))[:, None]
        for _ in range(self.depth):
            goes_left = table[rows, self.feature[node]] <= self.threshold[node]
            node = np.where(goes_left, self.left[node], self.right[node])
        total: Floats = self.value[node].sum(axis=1, dtype=np.float64)
        return total
