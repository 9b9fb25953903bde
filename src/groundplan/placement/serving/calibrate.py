"""The serving model set right by what the gateways saw, and how far off it was before and after. Pure.

Each model at each hardware gets one factor for each time: the median of seen over predicted, drawn towards none while
few days were seen (as if five days without any difference had been seen before). Errors after are of days that the
factor was not made from, one day left out in turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import exp, log
from statistics import median

from groundplan.placement.serving.model import Estimate, Serving

PRIOR_DAYS = 5
NARROWEST = 0.15
"""Natural logarithm: seen times vary by that much from day to day at least"""


@dataclass(frozen=True, slots=True)
class Seen:
    """What one day of one deployment took, in milliseconds, beside what was predicted for its load."""

    day: str
    first_token: float
    per_token: float
    predicted: Serving


@dataclass(frozen=True, slots=True)
class Calibration:
    """Factors on the predicted times, and the median error before and with them."""

    days: int
    first_token: float
    per_token: float
    before: tuple[float, float]
    """(first token, per token): median of |predicted / seen - 1|"""
    after: tuple[float, float]
    width: tuple[float, float]
    """natural logarithms of half the 90 % interval of days"""

    def apply(self, served: Serving) -> Serving:
        """The same answer by own traffic."""
        return replace(
            served,
            first_token=_moved(served.first_token, self.first_token, self.width[0]),
            per_token=_moved(served.per_token, self.per_token, self.width[1]),
            basis="own traffic",
        )


def calibrate(days: Sequence[Seen]) -> Calibration | None:
    """From the days that were seen; None without any."""
    if not days:
        return None
    first = [log(day.first_token / day.predicted.first_token.middle) for day in days]
    each = [log(day.per_token / day.predicted.per_token.middle) for day in days]
    return Calibration(
        days=len(days),
        first_token=exp(_drawn(first)),
        per_token=exp(_drawn(each)),
        before=(_error(first), _error(each)),
        after=(_error(_rest(first)), _error(_rest(each))),
        width=(_width(first), _width(each)),
    )


def _drawn(logs: Sequence[float]) -> float:
    return median(logs) * len(logs) / (len(logs) + PRIOR_DAYS)


def _rest(logs: Sequence[float]) -> list[float]:
    """What is left of each day by the factor of the others."""
    return [value - (_drawn([*logs[:at], *logs[at + 1 :]]) if len(logs) > 1 else 0.0) for at, value in enumerate(logs)]


def _error(logs: Sequence[float]) -> float:
    return median(abs(exp(-value) - 1) for value in logs)


def _width(logs: Sequence[float]) -> float:
    rest = sorted(abs(value) for value in _rest(logs))
    return max(NARROWEST, rest[min(len(rest) - 1, int(0.9 * len(rest)))])


def _moved(estimate: Estimate, factor: float, width: float) -> Estimate:
    middle = estimate.middle * factor
    return Estimate(middle, middle * exp(-width), middle * exp(width))
