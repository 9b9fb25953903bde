"""Evaluates routing on unseen prompts: cross-validated by groups, compared with ridge regressions, mixing and the
oracle.

For each fold everything (features, penalty, calibration, operating point) comes from the other folds alone. Needs
scikit-learn, as training does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from math import sqrt
from random import Random
from typing import TypedDict

import numpy as np

from groundplan.economics.routing.decide.choose import best_columns, choose, is_in_doubt, with_bonus
from groundplan.economics.routing.decide.features import split_words, word_hashes
from groundplan.economics.routing.decide.predict import normalize_prompt, predict
from groundplan.economics.routing.learn.baselines import plain_ridge, tuned_ridge
from groundplan.economics.routing.learn.evaluation_set import FOLDS, folds_of
from groundplan.economics.routing.learn.fit import INNER_FOLDS, train
from groundplan.economics.routing.learn.operating_points import error_of_mean, group_numbers, label, operating_points
from groundplan.economics.routing.learn.perturb import KINDS
from groundplan.economics.routing.model import Doubles, Floats, Integers, Matrix, Point, Router
from groundplan.economics.routing.versions.artifact import dump, load

KEEPS = (0.99, 0.98, 0.95)
STRICTER = (1.0, 0.995)
"""Further operating points: a stricter one may be the one that proves a share."""
_TAIL = 0.025
"""Error of the reported interval at either end."""
REPHRASED_PROMPTS = 1000
"""Prompts that are rephrased, to see whether the same model takes them."""
Embed = Callable[[Sequence[str]], Floats]
"""Embeds prompts as a gateway does: unit vectors."""


class Robustness(TypedDict):
    robust: dict[str, float]
    robust_away: dict[str, float]
    one_choice: float


@dataclass(frozen=True, slots=True)
class HeldOutResult:
    """Result of a way of choosing on unseen prompts."""

    saved: float
    """Share of the best single model's bill."""
    kept: float
    """Share of the best single model's score."""
    error: float
    """Standard error of `kept`, over groups."""
    low: float
    high: float
    """95 % interval of `kept`."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """`routed`, `ridge`, `tuned` and `mixed` by share to keep; predictions are for figures that need a ranking."""

    best: str
    routed: dict[str, HeldOutResult]
    ridge: dict[str, HeldOutResult]
    """A plain ridge on TF-IDF of words."""
    tuned: dict[str, HeldOutResult]
    """A tuned ridge on the same features."""
    mixed: dict[str, float]
    """Savings of randomly mixing two models at that share, chosen in hindsight."""
    oracle_saved: float
    oracle_kept: float
    predicted: Doubles
    """(rows, models) expected scores of unseen prompts."""
    plain: Doubles
    tuned_plain: Doubles
    abstained: float
    calibration: float
    """Mean distance of expected from seen scores over tenths of predictions (expected calibration error)."""
    at: str
    """The operating point of the following."""
    robust: dict[str, float]
    """Kind of rephrasing -> share of unseen prompts that go to the same model."""
    robust_away: dict[str, float]
    """The same among prompts that went to another model than the strongest; empty: none did."""
    one_choice: float
    """Share of prompts that went to the most frequent model: the score of always choosing it."""


@dataclass(frozen=True, slots=True)
class _Picks:
    """Choices on unseen prompts, filled fold by fold: by share to keep the column chosen for each row, and (rows,
    models) expected scores."""

    taken: dict[str, Integers]
    expected: Doubles

    @staticmethod
    def of(matrix: Matrix, keeps: Sequence[float]) -> _Picks:
        """Of no row yet."""
        rows = len(matrix.samples)
        return _Picks({label(keep): np.zeros(rows, dtype=np.int64) for keep in keeps}, np.zeros_like(matrix.scores))

    def note(self, fold: Integers, taken: Mapping[str, Integers], expected: Doubles) -> None:
        """Of the rows of a fold."""
        self.expected[fold] = expected
        for name, columns in taken.items():
            self.taken[name][fold] = columns

    def kept(self, matrix: Matrix, strongest: int) -> dict[str, HeldOutResult]:
        return {name: held_out_result(matrix, strongest, columns) for name, columns in self.taken.items()}


def evaluate(
    matrix: Matrix,
    vectors: Floats | None,
    keeps: Sequence[float] = KEEPS,
    *,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    embed: Embed | None = None,
    at: float | None = None,
) -> Evaluation:
    """Cross-validate. `vectors`: embeddings of the prompts, row by row; None: by words alone. `embed`: embeds rephrased
    prompts; without it a router with embeddings is not tested on them. `at`: the share to keep for rephrased prompts,
    by default the first of `keeps`."""
    rows, point = len(matrix.samples), label(keeps[0] if at is None else at)
    parts = folds_of([sample.group for sample in matrix.samples], FOLDS, seed)
    routed, ridge, tuned = (_Picks.of(matrix, keeps) for _ in range(3))
    sure = np.zeros(rows, dtype=bool)
    again: list[RephrasedChoices] = []
    for number, fold in enumerate(parts):
        rest = np.setdiff1d(np.arange(rows), fold)
        seen = matrix.take(rest)
        # through its bytes: what is judged is what is shipped
        router = load(
            dump(train(seen, None if vectors is None else vectors[rest], keeps, seed=seed, alone=vectors is None))
        )
        part = None if vectors is None else vectors[fold]
        picked, expected, sure[fold] = apply(router, matrix.take(fold), part, keeps)
        routed.note(fold, picked, expected)
        ridge.note(fold, *apply_ridge(plain_ridge, seen, matrix.take(fold), router, keeps, seed))
        tuned.note(fold, *apply_ridge(tuned_ridge, seen, matrix.take(fold), router, keeps, seed))
        some = matrix.take(fold[: max(1, REPHRASED_PROMPTS // len(parts))])
        if vectors is None or embed is not None:
            again.append(choices_when_rephrased(router, some, point, seed + number, embed))
        if progress is not None:
            progress(number + 1, len(parts))
    means, bills = matrix.scores.mean(axis=0), matrix.costs.sum(axis=0)
    strongest = max(range(len(means)), key=lambda i: (means[i], -bills[i]))
    oracle = best_columns(matrix.scores, matrix.costs, 1e-9, 1.0)
    return Evaluation(
        best=matrix.models[strongest],
        routed=routed.kept(matrix, strongest),
        ridge=ridge.kept(matrix, strongest),
        tuned=tuned.kept(matrix, strongest),
        mixed={label(keep): _best_mix(means, bills, strongest, keep) for keep in keeps},
        oracle_saved=held_out_result(matrix, strongest, oracle).saved,
        oracle_kept=held_out_result(matrix, strongest, oracle).kept,
        predicted=routed.expected,
        plain=ridge.expected,
        tuned_plain=tuned.expected,
        abstained=1.0 - float(sure.mean()),
        calibration=calibration_error(routed.expected, matrix.scores),
        at=point,
        **_robustness(again, matrix.models[strongest]),
    )


@dataclass(frozen=True, slots=True)
class RephrasedChoices:
    """The models chosen for prompts, and for their rephrasings."""

    first: list[str]
    again: dict[str, list[str]]
    """Kind of rephrasing -> models, prompt by prompt."""

    def same(self, kind: str) -> list[bool]:
        return [model == before for model, before in zip(self.again[kind], self.first, strict=True)]


def choices_when_rephrased(
    router: Router, matrix: Matrix, point: str, seed: int, embed: Embed | None = None
) -> RephrasedChoices:
    """Choose models for prompts and for each kind of rephrasing. `embed`: embeds questions as the gateway does, if the
    router uses embeddings."""
    allowed = frozenset(router.models)

    def taken(prompts: Sequence[str]) -> list[str]:
        vectors = None if embed is None or router.full is None else embed(prompts)
        return [
            choose(
                router, prompt, None if vectors is None else vectors[at], allowed, point, context=sample.context
            ).model
            for at, (prompt, sample) in enumerate(zip(prompts, matrix.samples, strict=True))
        ]

    dice = Random(seed)
    first = taken([sample.prompt for sample in matrix.samples])
    return RephrasedChoices(
        first,
        {kind: taken([change(sample.prompt, dice) for sample in matrix.samples]) for kind, change in KINDS.items()},
    )


def _robustness(found: Sequence[RephrasedChoices], strongest: str) -> Robustness:
    first = [model for each in found for model in each.first]
    same = {kind: [same for each in found for same in each.same(kind)] for kind in KINDS if found}
    away = [at for at, model in enumerate(first) if model != strongest]
    return {
        "robust": {kind: float(np.mean(told)) for kind, told in same.items()},
        "robust_away": {kind: float(np.mean([told[at] for at in away])) for kind, told in same.items() if away},
        "one_choice": max(map(first.count, set(first)), default=0) / max(1, len(first)),
    }


def apply(
    router: Router, matrix: Matrix, vectors: Floats | None, keeps: Sequence[float]
) -> tuple[dict[str, Integers], Doubles, Floats]:
    """Apply a router prompt by prompt, as a gateway does: (columns chosen by share to keep, expected scores, whether it
    was sure)."""
    predictions = [
        predict(router, sample.prompt, None if vectors is None else vectors[i], sample.context)
        for i, sample in enumerate(matrix.samples)
    ]
    scores, costs = np.stack([each.scores for each in predictions]), np.stack([each.costs for each in predictions])
    sure = np.array([each.sure for each in predictions])
    unit = float(router.mean_costs[router.strongest])
    picked = {}
    for keep in keeps:
        chosen = _pick_columns(scores, costs, router.points.get(label(keep)), router.strongest, unit)
        loss = scores[:, router.strongest] - scores[np.arange(len(scores)), chosen]
        doubtful = is_in_doubt(router.doubted.get(label(keep), ()), loss)
        picked[label(keep)] = np.where(sure & ~doubtful, chosen, router.strongest)
    return picked, scores, sure


def fully_known_share(router: Router, matrix: Matrix) -> float | None:
    """The share of prompts of which all words were in training; 1 for those of training. None for routers that do not
    store words (before format 4)."""
    if not router.words.size:
        return None
    hashes = [
        word_hashes(split_words(normalize_prompt(router, sample.prompt), apart=router.apart))
        for sample in matrix.samples
    ]
    return float(np.mean([bool(np.isin(each, router.words).all()) for each in hashes]))


def apply_ridge(
    fitted: Callable[[Matrix, Matrix], Doubles],
    seen: Matrix,
    asked: Matrix,
    router: Router,
    keeps: Sequence[float],
    seed: int,
) -> tuple[dict[str, Integers], Doubles]:
    """As `apply`, for a ridge trained on `seen`, at operating points chosen in the same way."""
    ones = np.ones_like(seen.scores)
    predictions = np.zeros_like(seen.scores)
    for fold in folds_of([sample.group for sample in seen.samples], INNER_FOLDS, seed):
        rest = np.setdiff1d(np.arange(len(seen.samples)), fold)
        predictions[fold] = fitted(seen.take(rest), seen.take(fold))
    points = operating_points(seen, np.hstack([predictions, ones]), router, keeps)
    scores = fitted(seen, asked)
    costs = np.ones_like(scores) * router.mean_costs
    unit = float(router.mean_costs[router.strongest])
    picked = {}
    for keep in keeps:
        picked[label(keep)] = _pick_columns(scores, costs, points.get(label(keep)), router.strongest, unit)
    return picked, scores


def _pick_columns(scores: Doubles, costs: Doubles, point: Point | None, strongest: int, unit: float) -> Integers:
    if point is None:
        return np.full(len(scores), strongest)
    return best_columns(with_bonus(scores, strongest, point[1]), costs, point[0], unit)


def held_out_result(matrix: Matrix, strongest: int, picked: Integers) -> HeldOutResult:
    """The savings and quality of `picked`, a column for each row, relative to the strongest model for every prompt. If
    the strongest model is never right, nothing can be lost."""
    rows = np.arange(len(picked))
    bill, score = matrix.costs[:, strongest].sum(), float(matrix.scores[:, strongest].mean())
    got = matrix.scores[rows, picked] if score > 0 else matrix.scores[:, strongest]
    groups = group_numbers([sample.group for sample in matrix.samples])
    kept = float(got.mean() / score) if score > 0 else 1.0
    error = error_of_mean((got - matrix.scores[:, strongest]) / (score or 1.0), groups)
    sizes = np.bincount(groups).astype(np.float64)
    low, high = interval(kept, error, len(rows), float(sizes.sum() ** 2 / np.square(sizes).sum()))
    return HeldOutResult(_saved_share(float(matrix.costs[rows, picked].sum()), float(bill)), kept, error, low, high)


def _saved_share(cost: float, of: float) -> float:
    """Share by which a cost is below a bill; 0 for an empty bill."""
    return 1.0 - cost / of if of > 0 else 0.0


def interval(kept: float, error: float, rows: int, groups: float) -> tuple[float, float]:
    """95 % interval of a kept share: Student's t over groups, by their effective number (Kish 1965), since the error of
    one large group among small ones says little. Few losses in a sample do not prove that there are as few: the lower
    end is Wilson's (1927)."""
    from scipy.special import stdtrit  # noqa: PLC0415 -- heavy, and an extra

    if groups < 2:
        return float("-inf"), float("inf")
    times = float(stdtrit(groups - 1, 1 - _TAIL))
    room = times / (2 * rows)
    return kept - times * (room + sqrt(error**2 + room**2)), kept + times * error


def least_prompts(keep: float) -> int | None:
    """The fewest prompts that prove a share if none has a loss; None: no number does."""
    if keep >= 1:
        return None
    return next(rows for rows in count(max(2, int(3.8 / (1 - keep)))) if interval(1.0, 0.0, rows, rows)[0] >= keep)


def lowest_shown_point(routed: Mapping[str, HeldOutResult], keep: float) -> str | None:
    """The lowest operating point at or above `keep` that saves something and whose interval does not reach below
    `keep`; None: none does."""
    able = [name for name, each in routed.items() if float(name) >= keep and each.saved > 0 and each.low >= keep]
    return min(able, key=float, default=None)


def _best_mix(means: Doubles, bills: Doubles, strongest: int, keep: float) -> float:
    """The highest savings of randomly mixing the strongest and one other model at a share of its score."""
    goal, most = keep * means[strongest], 0.0
    for other in range(len(means)):
        loss = means[strongest] - means[other]
        share = 1.0 if loss <= 1e-12 else min(1.0, (means[strongest] - goal) / loss)
        most = max(most, share * _saved_share(bills[other], bills[strongest]))
    return float(most)


def calibration_error(predicted: Doubles, seen: Doubles) -> float:
    """Expected calibration error over all models, in tenths of equally many predictions."""
    expected, truth = predicted.ravel(), seen.ravel()
    order = np.argsort(expected, kind="stable")
    parts = np.array_split(order, 10)
    return float(
        sum(abs(expected[part].mean() - truth[part].mean()) * len(part) for part in parts if len(part)) / len(expected)
    )
