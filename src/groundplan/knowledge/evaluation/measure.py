"""Figures of rankings: nDCG@10, recall@100, reciprocal rank, each with a confidence interval over the questions.

Computed by ir-measures (extra `knowledge`). Searches nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from groundplan.core.errors import Invalid

NAMES: Final = ("ndcg@10", "recall@100", "mrr@10")
_SAMPLES = 1000

Ranking = Mapping[str, float]
"""Document -> score; the higher comes first."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Means over the questions by name, the bounds between which they are with 95 %, and each question's own."""

    means: dict[str, float]
    bounds: dict[str, tuple[float, float]]
    by_question: dict[str, dict[str, float]]

    def json(self) -> dict[str, Any]:
        """Means, and bounds as `confidence`."""
        return {**self.means, "confidence": {name: list(bounds) for name, bounds in self.bounds.items()}}


def measure(relevant: Mapping[str, Mapping[str, int]], rankings: Mapping[str, Ranking]) -> Figures:
    """Of all judged questions; one without a ranking counts nothing. Of none, 0, and it could be anything. Raises
    `Invalid` (extra_missing)."""
    if not relevant:
        return Figures(dict.fromkeys(NAMES, 0.0), dict.fromkeys(NAMES, (0.0, 1.0)), {})
    try:
        import ir_measures  # noqa: PLC0415 -- an extra
        from ir_measures import RR, R, nDCG  # noqa: PLC0415
    except ImportError as error:
        raise Invalid(
            "ir-measures is not installed", code="extra_missing", hint="pip install 'groundplan[knowledge]'"
        ) from error
    measures = dict(zip((nDCG @ 10, R @ 100, RR @ 10), NAMES, strict=True))
    run = {query: dict(ranking) for query, ranking in rankings.items() if ranking}
    values: dict[str, dict[str, float]] = {name: dict.fromkeys(relevant, 0.0) for name in NAMES}
    judged = {query: dict(grades) for query, grades in relevant.items()}
    for one in ir_measures.iter_calc(list(measures), judged, run):
        values[measures[one.measure]][one.query_id] = float(one.value)
    by_question: dict[str, dict[str, float]] = defaultdict(dict)
    for name, own in values.items():
        for query, value in own.items():
            by_question[query][name] = value
    means = {name: round(float(np.mean(list(own.values()))), 5) for name, own in values.items()}
    bounds = {name: confidence_interval(list(own.values())) for name, own in values.items()}
    return Figures(means, bounds, dict(by_question))


def confidence_interval(values: list[float]) -> tuple[float, float]:
    """Where the mean lies with 95 %, by drawing the questions again a thousand times."""
    random = np.random.default_rng(0)
    own = np.array(values)
    means = [own[random.integers(0, len(own), len(own))].mean() for _ in range(_SAMPLES)]
    low, high = np.percentile(means, (2.5, 97.5))
    return round(float(low), 5), round(float(high), 5)
