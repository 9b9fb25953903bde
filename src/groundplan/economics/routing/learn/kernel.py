"""Trains the kernel regression that `decide.kernel` evaluates: ridge regression in the span of landmarks (Nystroem).

Williams and Seeger 2001, Using the Nystroem method to speed up kernel machines.
"""

from __future__ import annotations

import numpy as np

from groundplan.economics.routing.decide.kernel import gaussian_kernel, kernel_points
from groundplan.economics.routing.model import Doubles, Floats, Kernel

LANDMARKS = 512
_PENALTY = 3.0
_JITTER = 1e-4
_SURFACE, _EXPECTED = 1.0, 0.2
"""Squared distance of prompts one deviation apart in every column of the surface, and in every expectation."""


def fit(inputs: Floats, vectors: Floats | None, scores: Doubles, shaped: int, seed: int) -> Kernel:
    """Train on the trees' inputs (rows, columns), of which the first `shaped` are the surface, on embeddings, and
    scores (rows, models)."""
    mean, deviation = inputs.mean(axis=0), np.maximum(inputs.std(axis=0), 1e-6)
    counts = np.where(np.arange(inputs.shape[1]) < shaped, shaped, max(1, inputs.shape[1] - shaped))
    reach = np.sqrt(np.where(np.arange(inputs.shape[1]) < shaped, _SURFACE, _EXPECTED) / counts).astype(np.float32)
    points = kernel_points(inputs, vectors, mean, deviation, reach)
    some = np.random.default_rng(seed).choice(len(points), min(LANDMARKS, len(points)), replace=False)
    # as they are kept, so that weights fit them
    landmarks = points[some].astype(np.float16).astype(np.float32)
    squares = np.square(landmarks).sum(axis=1)
    values, ways = np.linalg.eigh(gaussian_kernel(landmarks, landmarks, squares).astype(np.float64))
    spread = ways / np.sqrt(np.maximum(values, 0) + _JITTER)
    near = gaussian_kernel(points, landmarks, squares).astype(np.float64) @ spread
    middle, usual = near.mean(axis=0), scores.mean(axis=0)
    near -= middle
    found = np.linalg.solve(near.T @ near + _PENALTY * np.eye(near.shape[1]), near.T @ (scores - usual))
    weights, bias = spread @ found, usual - middle @ found
    return Kernel(mean, deviation, reach, landmarks, squares, weights.astype(np.float32), bias.astype(np.float32))
