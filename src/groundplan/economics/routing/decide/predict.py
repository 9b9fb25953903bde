"""Predicts a score and a cost of each model for a prompt. numpy alone; no clock, no I/O.

`choose` chooses the model; `fit` learns the parameters.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from groundplan.economics.routing.decide import forest, kernel
from groundplan.economics.routing.decide.courtesy import strip_courtesy
from groundplan.economics.routing.decide.features import (
    CONTEXT,
    CONVERSATION,
    SURFACE,
    abbreviate,
    context_features,
    hash_counts,
    known_share,
    normalize_text,
    split_words,
    surface_features,
    word_hashes,
)
from groundplan.economics.routing.model import Blend, Context, Doubles, Floats, Head, Prediction, Router

SURFACE_SCALE = 0.1
SURFACE_CLIP = 4.0
"""Surface numbers are standardised, cut at this many deviations, and weigh a tenth."""


_INFORMATIVE_DEVIATION = 1e-5
"""Deviation in training above which a feature may have influenced predictions."""


def reads_passages(router: Router) -> bool:
    """Whether the passages found for a question may change its prediction."""
    return bool((router.surface_scale[SURFACE + CONVERSATION :] > _INFORMATIVE_DEVIATION).any())


def predict(router: Router, text: str, embedding: Floats | None = None, context: Context | None = None) -> Prediction:
    """Expected scores and costs of one prompt. `embedding`: its unit vector, if any. Unknown context counts as the mean
    of training."""
    text = normalize_prompt(router, text)
    words = split_words(text, apart=router.apart)
    counts = hash_counts(words, context.task if router.tasks and context is not None else ())
    buckets = np.fromiter(counts, dtype=np.int64, count=len(counts))
    weights = np.fromiter(counts.values(), dtype=np.float32, count=len(counts)) * router.idf[buckets]
    known = _known_share(router, words, weights)
    length = float(np.linalg.norm(weights))
    if length:
        weights /= np.float32(length)
    surface = prompt_surface(router, text, words, context)
    shape = standardize(surface, router.surface_mean, router.surface_scale)
    sure = known >= router.strange_words
    head, dense = router.text, shape
    if router.full is not None and embedding is not None and router.centre.size:
        head, dense = router.full, np.concatenate([shape, embedding - router.centre])
        sure = sure and float((router.landmarks @ embedding).max()) >= router.strange_likeness
    by_words = weights @ head.weights[buckets]
    raw = by_words + dense @ head.weights[len(router.idf) :] + head.bias
    learner_scores = _learner_scores(router, head, surface, by_words, embedding)
    return calibrate(head, router.mean_costs, raw, learner_scores, sure)


def normalize_prompt(router: Router, text: str) -> str:
    """The part of a prompt that the router reads, normalised as in training."""
    text = strip_courtesy(text) if router.bare else text
    return normalize_text(text) if router.plain else text


def text_to_embed(text: str, router: Router | None = None) -> str:
    """The text whose embedding a router uses. `router`: None for one that is being trained."""
    if router is None:
        return abbreviate(strip_courtesy(text))
    return abbreviate(strip_courtesy(text) if router.bare else text, apart=router.apart)


def _known_share(router: Router, words: list[str], weights: Floats) -> float:
    """Share of a prompt's words that were in training."""
    if router.words.size:
        return known_share(word_hashes(words), router.words)
    return float(np.count_nonzero(weights)) / max(1, len(weights))


def prompt_surface(router: Router, text: str, words: list[str], context: Context | None) -> Floats:
    """Surface features of a prompt, with those of its context if the router uses them."""
    seen = surface_features(text, words, cased=not router.plain)
    if len(router.surface_mean) == SURFACE:
        return seen
    beside = np.full(CONTEXT, np.nan, dtype=np.float32) if context is None else context_features(context)
    return fill_missing(np.concatenate([seen, beside]), router.surface_mean)


def fill_missing(seen: Floats, mean: Floats) -> Floats:
    """Replace NaN by the mean; rows or one row."""
    return np.where(np.isnan(seen), mean, seen).astype(np.float32)


def _learner_scores(
    router: Router, head: Head, seen: Floats, by_words: Doubles, embedding: Floats | None
) -> tuple[Doubles, ...]:
    """Scores predicted by trees and kernel, if there are any. `by_words`: the words' part of the regressions."""
    models, trees, shape, vector = len(router.models), router.trees, seen, None
    parts = [by_words[:models]]
    if head is router.full and embedding is not None:
        meaning, trees, vector = embedding - router.centre, router.meant, embedding
        if router.components.size:
            shape = np.concatenate([seen, meaning @ router.components])
        parts.append(meaning @ head.weights[-len(meaning) :, :models])
    if trees is None:
        return ()
    inputs = learner_inputs(shape, np.stack(parts), head.alone) if head.alone.size else shape
    by_trees = forest.predict_scores(trees, inputs)
    return (by_trees,) if head.kernel is None else (by_trees, kernel.predict_scores(head.kernel, inputs, vector))


def learner_inputs(shapes: Floats, parts: Doubles, alone: Floats) -> Floats:
    """Inputs of trees and kernel: the surface, and the prediction of each regression by itself; rows or one row.
    `parts`: (..., regressions, models), without `alone`, which is added."""
    expectations = forest.to_parts(parts + alone)
    return np.concatenate([shapes, expectations.reshape(*expectations.shape[:-2], -1)], axis=-1).astype(np.float32)


def blend_scores(blend: Blend, predictions: Sequence[Doubles]) -> Doubles:
    """Weighted scores of regressions, trees and kernel; rows or one row."""
    total = np.zeros_like(predictions[0])
    for common, differences, scores in zip(
        blend[: len(predictions)], blend[len(predictions) :], predictions, strict=True
    ):
        mean = scores.mean(axis=-1, keepdims=True)
        total += common * mean + differences * (scores - mean)
    return total


def standardize(shape: Floats, mean: Floats, scale: Floats) -> Floats:
    """Standardise surface features for the regressions; rows or one row."""
    cut = np.clip((shape - mean) / scale, -SURFACE_CLIP, SURFACE_CLIP)
    return np.asarray(cut * SURFACE_SCALE, dtype=np.float32)


def calibrate(head: Head, mean_costs: Floats, raw: Floats, learner_scores: Sequence[Doubles], sure: bool) -> Prediction:
    """Calibrated scores, clipped to 0..1, and costs, clipped to a tenth and ten times the model's mean."""
    models = len(mean_costs)
    linear: Doubles = raw[:models].astype(np.float64)
    joined = blend_scores(head.blend, (linear, *learner_scores)) if learner_scores else linear
    scores = np.clip(head.offset + head.slope * joined, 0.0, 1.0)
    costs: Doubles = np.clip(raw[models:].astype(np.float64), 0.1, 10.0) * mean_costs
    return Prediction(scores.astype(np.float64), costs, sure)
