"""Trains the learned router: ridge regressions of every model's score and cost on words, surface and embedding, and
trees and a kernel regression on their predictions.

Needs scikit-learn (extra `economics`) and runs outside the product, never in a gateway. Penalty, calibration and
operating points come from prompts held out group by group within the training set. `evaluate` measures the quality;
people decide whether a router is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from groundplan.core.errors import Invalid
from groundplan.economics.routing.decide import forest, kernel
from groundplan.economics.routing.decide.courtesy import strip_courtesy
from groundplan.economics.routing.decide.features import (
    BUCKETS,
    CONTEXT,
    context_features,
    hash_counts,
    normalize_text,
    split_words,
    surface_features,
    word_hashes,
)
from groundplan.economics.routing.decide.predict import blend_scores, fill_missing, learner_inputs, standardize
from groundplan.economics.routing.learn import boosted_trees
from groundplan.economics.routing.learn import kernel as kernels
from groundplan.economics.routing.learn.evaluation_set import folds_of
from groundplan.economics.routing.learn.operating_points import doubtful_ranges, group_numbers, operating_points
from groundplan.economics.routing.learn.stacking import fit_blend, weighted_part
from groundplan.economics.routing.model import (
    Blend,
    Doubles,
    Floats,
    Forest,
    Hashes,
    Head,
    Integers,
    Matrix,
    Router,
    Sample,
)
from groundplan.economics.routing.versions.artifact import check_size

PENALTIES = (0.5, 1.5, 3.0, 6.0, 12.0, 24.0)
INNER_FOLDS = 4
ENOUGH_ROWS = 1500
"""Held-out prompts that suffice to choose a penalty."""
LANDMARKS = 64
LEAST_WEIGHT = 0.05
"""Lowest weight of a regression: its prediction is an input of the trees even if it is weak by itself."""
LEAST_ROWS = 400
"""Fewest prompts for trees and kernel: with less they would fit noise."""
_STRANGE = 0.002
"""Share of training prompts that count as strange."""
_MOST_KNOWN = 0.6
"""Share of known words that always suffices: prompts of a template share all of theirs."""
_TOLERANCE = 1e-3
_DENSE = {True: 0.3, False: 3.0}
"""Penalties of the surface and of the embedding."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """Features of prompts before anything is learned: counts (sparse), surface, embeddings (or None)."""

    counts: Any
    shapes: Floats
    vectors: Floats | None

    def take(self, rows: Integers) -> Prepared:
        return Prepared(self.counts[rows], self.shapes[rows], None if self.vectors is None else self.vectors[rows])


def import_sparse() -> Any:
    """scipy.sparse. Raises `Invalid` (`extra_missing`)."""
    try:
        import scipy.sparse  # noqa: PLC0415 -- heavy, and an extra
    except ImportError as error:
        raise _missing_extra() from error
    return scipy.sparse


def _missing_extra() -> Invalid:
    return Invalid(
        "training needs libraries that are not installed here",
        code="extra_missing",
        hint="pip install 'groundplan[economics]'",
    )


@dataclass(frozen=True, slots=True)
class Fitted:
    """The mean of three ridge regressions: on words, on the surface, and on the embedding."""

    weights: Floats
    """(columns, targets)"""
    bias: Floats
    alone: Floats
    """(regressions, models): the shares of the words' and the embedding's regression in the bias."""

    def predict(self, features: Any) -> Doubles:
        """(rows, targets) predictions of the mean."""
        return np.asarray(features @ self.weights + self.bias, dtype=np.float64)

    def with_weights(self, weights: Blend, shaped: int) -> Fitted:
        """With weights for the regressions: of words, of the surface, and of the embedding if there is one."""
        models, columns = self.alone.shape[1], self.weights.shape[0]
        found, bias = self.weights.copy(), self.bias.copy()
        own = [self.alone[0], self.bias[:models] - self.alone.sum(axis=0), *self.alone[1:]]
        bias[:models] = 0
        for place, (low, high) in enumerate(pairwise(_edges(shaped, columns))):
            found[low:high, :models] = weighted_part(weights, place, self.weights[low:high, :models])
            own[place] = weighted_part(weights, place, own[place])
            bias[:models] += own[place]
        return Fitted(found, bias, np.stack([own[0], *own[2:]]))

    def parts(self, features: Any, shaped: int) -> Doubles:
        """(rows, regressions, models): the words' part of the scores, then the embedding's, both without `alone`."""
        models = self.alone.shape[1]
        edges = (0, BUCKETS), (BUCKETS + shaped, features.shape[1])
        found = [features[:, low:high] @ self.weights[low:high, :models] for low, high in edges if high > low]
        return np.stack(found, axis=1).astype(np.float64)


def ridge(features: Any, targets: Doubles, penalty: float, shaped: int) -> Fitted:
    """Train the regressions; `shaped`: columns of the surface. Their errors differ, so together they rank better than
    one regression on all columns. Costs, the second half of the targets, are predicted from the surface alone, which
    has the length."""
    try:
        from sklearn.linear_model import Ridge  # noqa: PLC0415 -- heavy, and an extra
    except ImportError as error:
        raise _missing_extra() from error
    parts = list(pairwise(_edges(shaped, features.shape[1])))
    models = targets.shape[1] // 2
    weights: Floats = np.zeros((features.shape[1], targets.shape[1]), dtype=np.float32)
    bias: Floats = np.zeros(targets.shape[1], dtype=np.float32)
    alone: list[Doubles] = []
    for low, high in parts:
        block, lengths = features[:, low:high], low == BUCKETS
        wanted = slice(None) if lengths else slice(models)
        if low == 0:
            model = Ridge(alpha=penalty, solver="sparse_cg", tol=_TOLERANCE).fit(block, targets[:, wanted])
        else:
            model = Ridge(alpha=_DENSE[lengths]).fit(block.toarray(), targets[:, wanted])
        found = np.atleast_2d(np.asarray(model.coef_, dtype=np.float32)).T
        weights[low:high, wanted] = found
        weights[low:high, :models] /= len(parts)
        own = np.asarray(model.intercept_, dtype=np.float32)
        bias[:models] += own[:models] / len(parts)
        if lengths:
            bias[models:] = own[models:]
        else:
            alone.append(own[:models] / len(parts))
    return Fitted(weights, bias, np.stack(alone).astype(np.float32))


def _edges(shaped: int, columns: int) -> list[int]:
    """Boundaries of the columns of the regressions."""
    return sorted({0, BUCKETS, BUCKETS + shaped, columns})


def prepare(samples: Sequence[Sample], vectors: Floats | None) -> Prepared:
    """Compute features of prompts; `vectors`: their unit embeddings, row by row. Contexts are used if any prompt has
    one."""
    matrices = import_sparse()
    starts, buckets, values = [0], list[int](), list[float]()
    rows = []
    for sample in samples:
        text = normalize_text(strip_courtesy(sample.prompt))
        words = split_words(text)
        counts = hash_counts(words, task_of(sample))
        buckets += counts.keys()
        values += counts.values()
        starts.append(len(buckets))
        rows.append(surface_features(text, words))
    shapes = np.stack(rows)
    if any(sample.context is not None for sample in samples):
        unknown = np.full(CONTEXT, np.nan, dtype=np.float32)
        beside = np.stack([unknown if each.context is None else context_features(each.context) for each in samples])
        shapes = np.hstack([shapes, fill_missing(beside, _means(beside))])
    counted = matrices.csr_matrix((np.array(values, dtype=np.float32), buckets, starts), shape=(len(samples), BUCKETS))
    return Prepared(counted, shapes, vectors)


def task_of(sample: Sample) -> Sequence[str]:
    """The task labels of a sample, if it has any."""
    return () if sample.context is None else sample.context.task


def _means(values: Floats) -> Floats:
    """Mean of the known values of each column; 0 without any."""
    known = ~np.isnan(values)
    return np.asarray(np.nansum(values, axis=0) / np.maximum(known.sum(axis=0), 1), dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Scales:
    """Scaling of features, learned from training prompts alone."""

    idf: Floats
    mean: Floats
    deviation: Floats
    centre: Floats


def fit_scales(seen: Prepared) -> Scales:
    rows = seen.counts.shape[0]
    found = np.bincount(seen.counts.indices, minlength=BUCKETS)
    # what training never saw has a part in a prompt's length, too, as what it alone says has in training: else the
    # words that are known would tell more of it than the same words of prompts that were left out
    idf = (np.log((rows + 1) / (found + 1)) + 1).astype(np.float32)
    deviation = np.maximum(seen.shapes.std(axis=0), 1e-6)
    centre = np.zeros(0, dtype=np.float32) if seen.vectors is None else seen.vectors.mean(axis=0)
    return Scales(idf, seen.shapes.mean(axis=0), deviation, centre)


def feature_matrix(scales: Scales, prompts: Prepared, *, embedded: bool) -> Any:
    """The feature matrix that `predict` uses row by row: words (unit length), surface, embedding."""
    matrices = import_sparse()
    words = prompts.counts.multiply(scales.idf).tocsr()
    lengths = np.sqrt(np.asarray(words.multiply(words).sum(axis=1)).ravel())
    words = matrices.diags(1 / np.maximum(lengths, 1e-9)) @ words
    dense = [standardize(prompts.shapes, scales.mean, scales.deviation)]
    if embedded and prompts.vectors is not None:
        dense.append(prompts.vectors - scales.centre)
    return matrices.hstack([words, matrices.csr_matrix(np.hstack(dense))]).tocsr()


def targets_of(matrix: Matrix) -> tuple[Doubles, Floats]:
    """(scores next to costs as multiples of the mean, mean costs)."""
    means = np.maximum(matrix.costs.mean(axis=0), 1e-12)
    return np.hstack([matrix.scores, np.clip(matrix.costs / means, 0, 10)]), means.astype(np.float32)


@dataclass(frozen=True, slots=True)
class OutOfFold:
    """Predictions for prompts by a predictor that did not see their group."""

    raw: Doubles
    alone: Doubles
    """(rows, regressions, models): what the words' regression expects by itself, then the embedding's."""
    penalty: float

    @property
    def parts(self) -> list[Doubles]:
        """(rows, models) predictions by words, by surface, and by embedding if there is one."""
        models = self.alone.shape[2]
        return [self.alone[:, 0], self.raw[:, :models] - self.alone.sum(axis=1), *self.alone[:, 1:].swapaxes(0, 1)]

    def with_weights(self, weights: Blend) -> OutOfFold:
        """As `Fitted.with_weights`."""
        parts = [weighted_part(weights, place, part) for place, part in enumerate(self.parts)]
        raw = np.hstack([np.sum(parts, axis=0), self.raw[:, self.alone.shape[2] :]])
        return OutOfFold(raw, np.stack([parts[0], *parts[2:]], axis=1), self.penalty)


def out_of_fold(matrix: Matrix, features: Any, penalties: Sequence[float], seed: int, shaped: int) -> OutOfFold:
    """Cross-validated predictions within a training set, under the penalty that predicts differences of scores best.

    Only differences between models decide, so errors that all models share do not count.
    """
    targets, _ = targets_of(matrix)
    folds = folds_of([sample.group for sample in matrix.samples], INNER_FOLDS, seed)
    predictions = {penalty: np.zeros_like(targets) for penalty in penalties}
    alone: dict[float, list[Doubles]] = {penalty: [] for penalty in penalties}
    done: list[Integers] = []
    for fold in folds:
        rest = np.setdiff1d(np.arange(len(matrix.samples)), fold)
        for penalty in penalties:
            fitted = ridge(features[rest], targets[rest], penalty, shaped)
            predictions[penalty][fold] = fitted.predict(features[fold])
            alone[penalty].append(fitted.parts(features[fold], shaped) + fitted.alone)
        done.append(fold)
        if len(penalties) > 1 and sum(map(len, done)) >= ENOUGH_ROWS:
            penalties = (_best_penalty(matrix, predictions, penalties, np.concatenate(done)),)
    chosen = _best_penalty(matrix, predictions, penalties, np.concatenate(done))
    rows = np.argsort(np.concatenate(done))
    return OutOfFold(predictions[chosen], np.concatenate(alone[chosen])[rows], chosen)


def _best_penalty(
    matrix: Matrix, predictions: dict[float, Doubles], penalties: Sequence[float], rows: Integers
) -> float:
    def centred(values: Doubles) -> Doubles:
        return np.asarray(values - values.mean(axis=1, keepdims=True))

    truth = centred(matrix.scores[rows])
    count = len(matrix.models)
    return min(penalties, key=lambda each: float(np.square(centred(predictions[each][rows, :count]) - truth).mean()))


def _head(
    matrix: Matrix, features: Any, shapes: Floats, vectors: Floats | None, seed: int
) -> tuple[Head, Forest | None, Doubles]:
    """Train a predictor, with trees and kernel if there are enough prompts; returns it with its calibrated held-out
    predictions (scores next to relative costs). `shapes`: unscaled surfaces (rows, columns)."""
    shaped, count = shapes.shape[1], len(matrix.models)
    out = out_of_fold(matrix, features, PENALTIES, seed, shaped)
    targets, _ = targets_of(matrix)
    weights = tuple(max(LEAST_WEIGHT, each) for each in fit_blend(out.parts, matrix.scores))
    fitted = ridge(features, targets, out.penalty, shaped).with_weights(weights, shaped)
    out = out.with_weights(weights)
    # expectations that were left out: those of the fitted regressions know the answers
    inputs = learner_inputs(shapes, out.alone, np.zeros_like(fitted.alone))
    trees, predictions = None, out.raw.copy()
    blend: Blend = (1.0, 1.0)
    near = None
    if len(inputs) >= LEAST_ROWS:
        trees = boosted_trees.grow(inputs, matrix.scores, seed, boosted_trees.draw_count(count))
        near = kernels.fit(inputs, vectors, matrix.scores, shaped, seed)
        every = predictions[:, :count], *_out_of_fold_learners(matrix, inputs, vectors, shaped, seed)
        blend = fit_blend(every, matrix.scores)
        predictions[:, :count] = blend_scores(blend, every)
    # a slope for each model would undo what was weighed for their differences
    slope = np.ones(count, dtype=np.float32)
    offset = (matrix.scores - predictions[:, :count]).mean(axis=0).astype(np.float32)
    alone = np.zeros((0, 0), dtype=np.float32) if trees is None else fitted.alone
    head = Head(fitted.weights, fitted.bias, slope, offset, blend, alone, near)
    predictions[:, :count] = np.clip(head.offset + head.slope * predictions[:, :count], 0, 1)
    return head, trees, predictions


def _out_of_fold_learners(
    matrix: Matrix, inputs: Floats, vectors: Floats | None, shaped: int, seed: int
) -> tuple[Doubles, Doubles]:
    """Held-out scores by trees and by kernel."""
    by_trees, by_kernel = np.zeros_like(matrix.scores), np.zeros_like(matrix.scores)
    for fold in folds_of([sample.group for sample in matrix.samples], INNER_FOLDS, seed):
        rest = np.setdiff1d(np.arange(len(inputs)), fold)
        seen, asked = (None, None) if vectors is None else (vectors[rest], vectors[fold])
        by_trees[fold] = forest.predict_all(boosted_trees.grow(inputs[rest], matrix.scores[rest], seed), inputs[fold])
        near = kernels.fit(inputs[rest], seen, matrix.scores[rest], shaped, seed)
        by_kernel[fold] = kernel.predict_scores(near, inputs[fold], asked)
    return by_trees, by_kernel


def train(
    matrix: Matrix,
    vectors: Floats | None,
    keeps: Sequence[float],
    *,
    name: str = "router",
    seed: int = 0,
    alone: bool = True,
) -> Router:
    """Train a router. `vectors`: embeddings of the prompts; `keeps`: shares of the best single model's score to find
    operating points for; `alone`: it must also work without an embedding."""
    check_size(len(matrix.models), embedded=vectors is not None)
    seen = prepare(matrix.samples, vectors)
    scales = fit_scales(seen)
    trees, meant, full, text = None, None, None, None
    if vectors is None or alone:
        text, trees, predictions = _head(matrix, feature_matrix(scales, seen, embedded=False), seen.shapes, None, seed)
    if vectors is not None:
        full, meant, predictions = _head(
            matrix, feature_matrix(scales, seen, embedded=True), seen.shapes, vectors, seed
        )
        words = full.weights[: BUCKETS + seen.shapes.shape[1]]
        text = text or replace(full, weights=words, alone=full.alone[:1], kernel=None)
    if text is None:
        raise AssertionError("nothing was learned")
    means = matrix.scores.mean(axis=0)
    _, costs = targets_of(matrix)
    strongest = max(range(len(means)), key=lambda i: (means[i], -costs[i]))
    landmarks, likeness = _landmarks(vectors, seed)
    vocabulary, strange = _vocabulary(matrix.samples)
    router = Router(
        name=name,
        version=0,
        models=matrix.models,
        mean_scores=means.astype(np.float32),
        mean_costs=costs,
        strongest=strongest,
        idf=scales.idf,
        surface_mean=scales.mean,
        surface_scale=scales.deviation,
        centre=scales.centre,
        landmarks=landmarks,
        text=text,
        full=full,
        trees=trees,
        components=np.zeros((0, 0), dtype=np.float32),
        meant=meant,
        strange_words=strange,
        strange_likeness=likeness,
        words=vocabulary,
        tasks=any(task_of(sample) for sample in matrix.samples),
    )
    points = operating_points(matrix, predictions, router, keeps)
    return replace(router, points=points, doubted=doubtful_ranges(matrix, predictions, router, points))


def _vocabulary(samples: Sequence[Sample]) -> tuple[Hashes, float]:
    """(sorted hashes of all words; the share of words known from other groups below which only strange prompts are)"""
    hashes = [word_hashes(split_words(normalize_text(strip_courtesy(sample.prompt)))) for sample in samples]
    groups = np.repeat(group_numbers([sample.group for sample in samples]), [len(each) for each in hashes])
    every = np.unique((np.concatenate(hashes).astype(np.uint64) << np.uint64(32)) | groups.astype(np.uint64))
    known, count = np.unique((every >> np.uint64(32)).astype(np.uint32), return_counts=True)
    common = known[count > 1]
    shares = [float(np.isin(each, common, assume_unique=True).mean()) if len(each) else 1.0 for each in hashes]
    return known, min(_MOST_KNOWN, float(np.quantile(shares, _STRANGE)) * 0.9)


def _landmarks(vectors: Floats | None, seed: int) -> tuple[Floats, float]:
    """(prompts far from each other, each next one the farthest from those before; the similarity to the nearest one
    below which only strange prompts are)"""
    if vectors is None:
        return np.zeros((0, 0), dtype=np.float32), 0.0
    first = int(np.random.default_rng(seed).integers(len(vectors)))
    picked, nearest = [first], vectors @ vectors[first]
    while len(picked) < min(LANDMARKS, len(vectors)):
        picked.append(int(nearest.argmin()))
        nearest = np.maximum(nearest, vectors @ vectors[picked[-1]])
    # a prompt that was not in training is a little farther from the landmarks than those that were
    return vectors[picked].astype(np.float32), float(np.quantile(nearest, _STRANGE)) * 0.8
