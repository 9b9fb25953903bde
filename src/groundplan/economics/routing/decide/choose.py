"""Chooses the model for a prompt by expected scores and costs: the best score less the worth of its cost. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from groundplan.economics.routing.decide.predict import predict
from groundplan.economics.routing.model import (
    Choice,
    Context,
    Doubles,
    Floats,
    Integers,
    LossRange,
    Point,
    Prediction,
    Router,
)


def with_bonus(scores: Doubles, strongest: int, bonus: float) -> Doubles:
    """Scores with a bonus for the column of the strongest model."""
    if not bonus:
        return scores
    found = scores.copy()
    found[:, strongest] += bonus
    return found


def best_columns(scores: Doubles, costs: Doubles, price: float, unit: float) -> Integers:
    """For each row the column with the best score less `price` for each `unit` (US dollars) of its cost.

    Ties go to the cheaper one, so that a model that adds nothing is never taken.
    """
    worth = scores - price * costs / unit
    top = worth.max(axis=1, keepdims=True)
    return np.asarray(np.argmin(np.where(worth >= top - 1e-12, costs, np.inf), axis=1), dtype=np.int64)


def proven_point(router: Router, keep: str) -> str | None:
    """The operating point for a share to keep: its own, else the next stricter one that was proven; None: none."""
    if keep in router.points:
        return keep
    stricter = [each for each in router.points if float(each) > float(keep)]
    return min(stricter, key=float, default=None)


def is_in_doubt(doubted: Sequence[LossRange], loss: Doubles) -> NDArray[np.bool_]:
    """Whether training prompts with such an expected loss did surely worse than expected; row by row."""
    found = np.zeros(len(loss), dtype=bool)
    for least, most in doubted:
        found |= (loss >= least) & (loss <= most)
    return found


def choose(
    router: Router,
    text: str,
    embedding: Floats | None,
    allowed: frozenset[str],
    point: str,
    floor: float = 0.0,
    extra_costs: Mapping[str, float] | None = None,
    context: Context | None = None,
    rates: Mapping[str, float] | None = None,
) -> Choice:
    """Choose one of `allowed` for a prompt. `point`: the operating point, or else the next stricter one that was
    proven; `floor`: lowest expected score of a chosen model; `extra_costs`: model -> US dollars added to the cost of a
    call (waiting, or negative for a warm cache); `rates`: model -> ratio of its present price to that in training.

    The strongest allowed model takes the prompt if the router is unsure, has no such operating point, or expects too
    little of the others.
    """
    columns = [i for i, name in enumerate(router.models) if name in allowed]
    if not columns:
        raise ValueError("the router knows none of the models")
    strongest = max(columns, key=lambda i: (router.mean_scores[i], -router.mean_costs[i]))
    proven = proven_point(router, point)
    if len(columns) == 1:
        return Choice(router.models[strongest], "only", "no other model may take it")
    if proven is None:
        return Choice(router.models[strongest], "strongest", f"nothing cheaper was proven to keep {point}")
    expected = predict(router, text, embedding, context)
    scores_by_model = {router.models[i]: round(float(expected.scores[i]), 4) for i in columns}
    now = np.array([(rates or {}).get(name, 1.0) for name in router.models])
    bills = expected.costs * now + np.array([(extra_costs or {}).get(name, 0.0) for name in router.models])
    plain_costs = {router.models[i]: float(expected.costs[i]) for i in columns}
    costs = {router.models[i]: round(float(bills[i]), 9) for i in columns}
    if not expected.sure:
        why = "nothing like this prompt was in training"
        return Choice(router.models[strongest], "unsure", why, scores_by_model, costs, plain_costs)
    judged = Prediction(expected.scores, bills, True)
    unit = float(router.mean_costs[router.strongest] * now[router.strongest])
    picked, reason = _pick_column(judged, columns, strongest, router.points[proven], floor, unit)
    loss = expected.scores[strongest] - expected.scores[[picked]]
    if picked != strongest and is_in_doubt(router.doubted.get(proven, ()), loss)[0]:
        why = "where it expected as much of others in training, they did worse"
        return Choice(router.models[strongest], "unsure", why, scores_by_model, costs, plain_costs)
    if proven != point:
        reason += f", as is proven to keep {proven}; {point} was not trained"
    return Choice(router.models[picked], "learned", reason, scores_by_model, costs, plain_costs)


def _pick_column(
    expected: Prediction, columns: list[int], strongest: int, at: Point, floor: float, unit: float
) -> tuple[int, str]:
    """(chosen column, reason). `unit`: US dollars of a usual call of the strongest model."""
    fit = [i for i in columns if i == strongest or expected.scores[i] >= floor]
    scores = with_bonus(expected.scores[None, :], strongest, at[1])[:, fit]
    picked = fit[int(best_columns(scores, expected.costs[None, fit], at[0], unit)[0])]
    if picked == strongest:
        return picked, "the others are expected to answer worse by more than they save"
    loss = max(0.0, float(expected.scores[strongest] - expected.scores[picked]))
    saved = 1.0 - float(expected.costs[picked] / max(1e-30, expected.costs[strongest]))
    return picked, f"expected {saved:.0%} cheaper for {loss:.3f} less score"
