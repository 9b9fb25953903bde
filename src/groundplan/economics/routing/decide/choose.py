"""Which model takes a prompt, from what is expected of each: the best score less what its cost is worth. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from groundplan.economics.routing.decide.predict import predict
from groundplan.economics.routing.model import Choice, Context, Doubles, Floats, Point, Prediction, Router, Whole


def favoured(scores: Doubles, strongest: int, bonus: float) -> Doubles:
    """Scores with that much more for the column of the strongest model."""
    if not bonus:
        return scores
    found = scores.copy()
    found[:, strongest] += bonus
    return found


def best(scores: Doubles, costs: Doubles, price: float, unit: float) -> Whole:
    """For each row the column with the best score less `price` for each `unit` (US dollars) of its cost.

    Ties go to the cheaper one, so that a model that adds nothing is never taken.
    """
    worth = scores - price * costs / unit
    top = worth.max(axis=1, keepdims=True)
    return np.asarray(np.argmin(np.where(worth >= top - 1e-12, costs, np.inf), axis=1), dtype=np.int64)


def choose(
    router: Router,
    text: str,
    embedding: Floats | None,
    allowed: frozenset[str],
    point: str,
    floor: float = 0.0,
    more: Mapping[str, float] | None = None,
    context: Context | None = None,
) -> Choice:
    """One of `allowed` for a prompt. `point`: which operating point; `floor`: least expected score of what is taken;
    `more`: model -> US dollars on top of what a call of it costs (waiting), or off it (a warm cache).

    The strongest allowed model takes it where the router is unsure, knows no such operating point, or expects too
    little of the others.
    """
    columns = [i for i, name in enumerate(router.models) if name in allowed]
    if not columns:
        raise ValueError("the router knows none of the models")
    strongest = max(columns, key=lambda i: (router.mean_scores[i], -router.mean_costs[i]))
    at = router.points.get(point)
    if len(columns) == 1:
        return Choice(router.models[strongest], "only", "no other model may take it")
    if at is None:
        return Choice(router.models[strongest], "strongest", f"nothing cheaper was proven to keep {point}")
    expected = predict(router, text, embedding, context)
    told = {router.models[i]: round(float(expected.scores[i]), 4) for i in columns}
    bills = expected.costs + np.array([(more or {}).get(name, 0.0) for name in router.models])
    costs = {router.models[i]: round(float(bills[i]), 9) for i in columns}
    if not expected.sure:
        return Choice(router.models[strongest], "unsure", "nothing like this prompt was in training", told, costs)
    picked, reason = _settle(router, Prediction(expected.scores, bills, True), columns, strongest, at, floor)
    return Choice(router.models[picked], "learned", reason, told, costs)


def _settle(
    router: Router, expected: Prediction, columns: list[int], strongest: int, at: Point, floor: float
) -> tuple[int, str]:
    """(column that is taken, why)"""
    fit = [i for i in columns if i == strongest or expected.scores[i] >= floor]
    unit = float(router.mean_costs[router.strongest])
    scores = favoured(expected.scores[None, :], strongest, at[1])[:, fit]
    picked = fit[int(best(scores, expected.costs[None, fit], at[0], unit)[0])]
    if picked == strongest:
        return picked, "the others are expected to answer worse by more than they save"
    loss = max(0.0, float(expected.scores[strongest] - expected.scores[picked]))
    saved = 1.0 - float(expected.costs[picked] / max(1e-30, expected.costs[strongest]))
    return picked, f"expected {saved:.0%} cheaper for {loss:.3f} less score"
