"""Kernel regression on landmarks as plain arrays, evaluated with numpy alone; `learn.kernel` makes them.

A prompt is a point: the standardised inputs of the trees, and its embedding. Its prediction is weighted by its
similarity to some training prompts. Trees are piecewise constant; this is smooth.
"""

from __future__ import annotations

import numpy as np

from groundplan.economics.routing.model import Doubles, Floats, Kernel

_CLIP = 4.0
"""Deviations at which numbers are cut."""
_MEANING = np.float32(0.5**0.5)
"""Scale of embeddings: two of opposite meaning are two units apart, squared."""


def kernel_points(inputs: Floats, vectors: Floats | None, mean: Floats, deviation: Floats, reach: Floats) -> Floats:
    """Points from the trees' inputs and embeddings, if any; rows or one row."""
    cut = np.clip((inputs - mean) / deviation, -_CLIP, _CLIP) * reach
    return cut if vectors is None else np.concatenate([cut, vectors * _MEANING], axis=-1)


def gaussian_kernel(points: Floats, landmarks: Floats, squares: Floats) -> Floats:
    """(..., landmarks) Gaussian kernel: 1 for the same point, towards 0 far away. `squares`: landmarks' squared
    lengths."""
    apart = np.square(points).sum(axis=-1)[..., None] + squares - 2 * (points @ landmarks.T)
    return np.exp(-np.maximum(apart, 0))


def predict_scores(kernel: Kernel, inputs: Floats, vectors: Floats | None) -> Doubles:
    """(models,) expected scores of one prompt, or of each row."""
    points = kernel_points(inputs, vectors, kernel.mean, kernel.deviation, kernel.reach)
    near = gaussian_kernel(points, kernel.landmarks, kernel.squares)
    return np.asarray(near @ kernel.weights + kernel.bias, dtype=np.float64)
