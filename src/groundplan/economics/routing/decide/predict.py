"""What the learned router expects of a prompt: for each model a score and a cost. numpy alone; no clock, no I/O.

Which model is taken is `choose`'s; how the numbers were learned is `fit`'s.
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
    brief,
    hashed,
    hashes_of,
    known_share,
    plainly,
    surface,
    told,
    words_of,
)
from groundplan.economics.routing.model import Blend, Context, Doubles, Floats, Head, Prediction, Router

SURFACE_SCALE = 0.1
SURFACE_CLIP = 4.0
"""Surface numbers are standardised, cut at this many deviations, and weigh a tenth."""


_TELLS = 1e-5
"""Deviation in training above which a number can have told something."""


def reads_passages(router: Router) -> bool:
    """Whether what is found for a question may change what is expected of it."""
    return bool((router.surface_scale[SURFACE + CONVERSATION :] > _TELLS).any())


def predict(router: Router, text: str, embedding: Floats | None = None, context: Context | None = None) -> Prediction:
    """Expected scores and costs of one prompt. `embedding`: its unit vector, where there is one. What of its context is
    not known counts as usual."""
    text = read(router, text)
    words = words_of(text, apart=router.apart)
    counts = hashed(words, context.task if router.tasks and context is not None else ())
    buckets = np.fromiter(counts, dtype=np.int64, count=len(counts))
    weights = np.fromiter(counts.values(), dtype=np.float32, count=len(counts)) * router.idf[buckets]
    known = _known(router, words, weights)
    length = float(np.linalg.norm(weights))
    if length:
        weights /= np.float32(length)
    seen = seen_of(router, text, words, context)
    shape = standard(seen, router.surface_mean, router.surface_scale)
    sure = known >= router.strange_words
    head, dense = router.text, shape
    if router.full is not None and embedding is not None and router.centre.size:
        head, dense = router.full, np.concatenate([shape, embedding - router.centre])
        sure = sure and float((router.landmarks @ embedding).max()) >= router.strange_likeness
    by_words = weights @ head.weights[buckets]
    raw = by_words + dense @ head.weights[len(router.idf) :] + head.bias
    beside = _beside(router, head, seen, by_words, embedding)
    return corrected(head, router.mean_costs, raw, beside, sure)


def read(router: Router, text: str) -> str:
    """What the router reads of a prompt."""
    text = strip_courtesy(text) if router.bare else text
    return plainly(text) if router.plain else text


def asked(text: str, router: Router | None = None) -> str:
    """Of what a router looks at the embedding; None: one that is learned now."""
    if router is None:
        return brief(strip_courtesy(text))
    return brief(strip_courtesy(text) if router.bare else text, apart=router.apart)


def _known(router: Router, words: list[str], weights: Floats) -> float:
    """Share of a prompt that was in training."""
    if router.words.size:
        return known_share(hashes_of(words), router.words)
    return float(np.count_nonzero(weights)) / max(1, len(weights))


def seen_of(router: Router, text: str, words: list[str], context: Context | None) -> Floats:
    """The surface of a prompt, with its context where the router looks at it."""
    seen = surface(text, words, cased=not router.plain)
    if len(router.surface_mean) == SURFACE:
        return seen
    beside = np.full(CONTEXT, np.nan, dtype=np.float32) if context is None else told(context)
    return filled(np.concatenate([seen, beside]), router.surface_mean)


def filled(seen: Floats, mean: Floats) -> Floats:
    """With the mean for what is not known; rows or one row."""
    return np.where(np.isnan(seen), mean, seen).astype(np.float32)


def _beside(
    router: Router, head: Head, seen: Floats, by_words: Doubles, embedding: Floats | None
) -> tuple[Doubles, ...]:
    """What trees and kernel expect, as far as there are any. `by_words`: the words' part of the regressions."""
    models, trees, shape, vector = len(router.models), router.trees, seen, None
    parts = [by_words[:models]]
    if head is router.full and embedding is not None:
        meaning, trees, vector = embedding - router.centre, router.meant, embedding
        if router.components.size:
            shape = np.concatenate([seen, meaning @ router.components])
        parts.append(meaning @ head.weights[-len(meaning) :, :models])
    if trees is None:
        return ()
    looked = looked_at(shape, np.stack(parts), head.alone) if head.alone.size else shape
    by_trees = forest.told(trees, looked)
    return (by_trees,) if head.kernel is None else (by_trees, kernel.told(head.kernel, looked, vector))


def looked_at(shapes: Floats, parts: Doubles, alone: Floats) -> Floats:
    """What trees and kernel look at: the surface, and what each regression expects by itself; rows or one row. `parts`:
    (..., regressions, models), without `alone`, which is added."""
    told = forest.parts_of(parts + alone)
    return np.concatenate([shapes, told.reshape(*told.shape[:-2], -1)], axis=-1).astype(np.float32)


def blended(blend: Blend, told: Sequence[Doubles]) -> Doubles:
    """Scores by regressions, trees and kernel as one; rows or one row."""
    total = np.zeros_like(told[0])
    for common, apart, scores in zip(blend[: len(told)], blend[len(told) :], told, strict=True):
        mean = scores.mean(axis=-1, keepdims=True)
        total += common * mean + apart * (scores - mean)
    return total


def standard(shape: Floats, mean: Floats, scale: Floats) -> Floats:
    """Surface numbers as the predictor takes them; rows or one row."""
    cut = np.clip((shape - mean) / scale, -SURFACE_CLIP, SURFACE_CLIP)
    return np.asarray(cut * SURFACE_SCALE, dtype=np.float32)


def corrected(head: Head, mean_costs: Floats, raw: Floats, beside: Sequence[Doubles], sure: bool) -> Prediction:
    """Scores within 0..1 after calibration, costs within a tenth and ten times the model's mean."""
    models = len(mean_costs)
    linear: Doubles = raw[:models].astype(np.float64)
    joined = blended(head.blend, (linear, *beside)) if beside else linear
    scores = np.clip(head.offset + head.slope * joined, 0.0, 1.0)
    costs: Doubles = np.clip(raw[models:].astype(np.float64), 0.1, 10.0) * mean_costs
    return Prediction(scores.astype(np.float64), costs, sure)
