"""Detects drift of a learned router: its expectations compared with outcomes of answers. Pure.

A router drifts if, on the calls that it decided, the mean outcome surely differs from the mean expectation by more than
a tolerance: for all calls of a model, or for the half with the lowest or highest expectations, since opposite errors in
both halves would leave the mean unchanged. Few calls, or calls without outcomes, prove nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import sqrt
from statistics import median

LEAST = 50
"""Fewest verdicts to judge."""
TOLERANCE = 0.05
"""Difference of the means that is tolerated."""
SURE = 2.81
"""Standard errors that a difference must be beyond the tolerance: 99 % of a normal distribution, half of what is left
for all calls of a model..."""
SURE_OF_HALF = 3.03
"""...and a quarter for each half of them."""
LOW, HIGH = "least", "most"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One call that the router decided. `expected`: predicted score of the model that answered; `seen`: outcome of the
    answer; both 0 to 1."""

    model: str
    expected: float
    seen: float


@dataclass(frozen=True, slots=True)
class Drift:
    """Means of calls of one model."""

    model: str
    calls: int
    expected: float
    seen: float
    error: float
    """Standard error of the difference."""
    half: str = ""
    """`least` or `most`: the half of the calls with lower or higher expectations; empty: all calls of the model."""

    @property
    def difference(self) -> float:
        """Positive: answers are better than expected."""
        return self.seen - self.expected


def find_drift(verdicts: Sequence[Verdict]) -> list[Drift]:
    """Models that drift, one entry each, the largest difference first."""
    sure = []
    for model in sorted({each.model for each in verdicts}):
        mine = [each for each in verdicts if each.model == model]
        parts = [(measure_drift(model, mine), SURE), *((part, SURE_OF_HALF) for part in _halves(model, mine))]
        drifts = [part for part, limit in parts if part is not None and _is_significant(part, limit)]
        sure += drifts[:1]
    return sorted(sure, key=lambda each: -abs(each.difference))


def measure_drift(model: str, verdicts: Sequence[Verdict]) -> Drift | None:
    """The means of calls of one model, with the standard error of their difference; None: too few calls.

    The error is that of the mean difference, but not less than that of as many verdicts of 0 or 1 with the expected
    probabilities, so that a run of equal verdicts does not count as certainty.
    """
    count = len(verdicts)
    if count < LEAST:
        return None
    expected, seen = sum(v.expected for v in verdicts) / count, sum(v.seen for v in verdicts) / count
    gaps = [v.seen - v.expected for v in verdicts]
    mean = sum(gaps) / count
    spread = sum((gap - mean) ** 2 for gap in gaps) / (count - 1)
    least = sum(v.expected * (1 - v.expected) for v in verdicts) / count
    return Drift(model, count, expected, seen, sqrt(max(spread, least) / count))


def _halves(model: str, verdicts: Sequence[Verdict]) -> list[Drift | None]:
    """`measure_drift` of the halves with lower and higher expectations."""
    middle = median(each.expected for each in verdicts)
    low = measure_drift(model, [each for each in verdicts if each.expected < middle])
    high = measure_drift(model, [each for each in verdicts if each.expected >= middle])
    return [low and replace(low, half=LOW), high and replace(high, half=HIGH)]


def _is_significant(each: Drift, limit: float) -> bool:
    return abs(each.difference) - limit * each.error > TOLERANCE
