"""Whether what a learned router expects is still what is seen: its expectations beside what is said of answers. Pure.

A router drifts when, on the calls that it decided, the mean of what was seen differs from the mean of what it expected
by more than a tolerance, surely: of all of a model's calls, or of the half of which it expected least, or most, since
an error of one kind in each half leaves the mean as it was. Few calls, or calls without any verdict, prove nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import sqrt
from statistics import median

LEAST = 50
"""Verdicts before anything is said."""
TOLERANCE = 0.05
"""Difference of the means that does not matter."""
SURE = 2.81
"""Standard errors that a difference must be beyond the tolerance: 99 % of a normal distribution, half of what is left
for all calls of a model..."""
SURE_OF_HALF = 3.03
"""...and a quarter for each half of them."""
LOW, HIGH = "least", "most"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One call that the router decided: what it expected of the model that answered (0 to 1), and what was said of the
    answer (0 to 1)."""

    model: str
    expected: float
    seen: float


@dataclass(frozen=True, slots=True)
class Drift:
    """What was found about calls of one model."""

    model: str
    calls: int
    expected: float
    seen: float
    error: float
    """Standard error of the difference."""
    half: str = ""
    """Of which it is: `least` or `most` was expected of them; empty: all of the model's."""

    @property
    def difference(self) -> float:
        """Positive: answers are better than expected."""
        return self.seen - self.expected


def found(verdicts: Sequence[Verdict]) -> list[Drift]:
    """Models of which what is seen surely is not what is expected, the largest difference first; one of each."""
    sure = []
    for model in sorted({each.model for each in verdicts}):
        mine = [each for each in verdicts if each.model == model]
        parts = [(measured(model, mine), SURE), *((part, SURE_OF_HALF) for part in _halves(model, mine))]
        drifts = [part for part, limit in parts if part is not None and _surely(part, limit)]
        sure += drifts[:1]
    return sorted(sure, key=lambda each: -abs(each.difference))


def measured(model: str, verdicts: Sequence[Verdict]) -> Drift | None:
    """The means of calls of one model, and how sure their difference is; None: there are too few.

    The error is that of a mean of differences, but never less than that of as many verdicts of 0 or 1 that go as
    expected, so that a run of equal verdicts is not taken for certainty.
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
    """The same of those of which least was expected, and of those of which most was."""
    middle = median(each.expected for each in verdicts)
    low = measured(model, [each for each in verdicts if each.expected < middle])
    high = measured(model, [each for each in verdicts if each.expected >= middle])
    return [low and replace(low, half=LOW), high and replace(high, half=HIGH)]


def _surely(each: Drift, limit: float) -> bool:
    return abs(each.difference) - limit * each.error > TOLERANCE
