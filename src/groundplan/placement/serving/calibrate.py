"""Calibrates the serving model by observed times, and reports its error before and after. Pure.

Each model on each hardware gets one factor for each time: the median of observed over predicted, shrunk towards 1 while
there are few days (as if five days without any difference had been observed before). The error after calibration is
by leave-one-out: of each day with the factor of the other days.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import exp, log
from statistics import median

from groundplan.placement.serving.model import Estimate, Serving

PRIOR_DAYS = 5
MIN_WIDTH = 0.15
"""natural logarithm: observed times vary from day to day by at least this much"""


@dataclass(frozen=True, slots=True)
class ObservedDay:
    """The observed times of one deployment on one day, in milliseconds, and the prediction for its load."""

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
        """The calibrated prediction."""
        return replace(
            served,
            first_token=_scale_estimate(served.first_token, self.first_token, self.width[0]),
            per_token=_scale_estimate(served.per_token, self.per_token, self.width[1]),
            basis="own traffic",
        )


def calibrate(days: Sequence[ObservedDay]) -> Calibration | None:
    """The calibration by these days; None without any."""
    if not days:
        return None
    first = [log(day.first_token / day.predicted.first_token.middle) for day in days]
    each = [log(day.per_token / day.predicted.per_token.middle) for day in days]
    return Calibration(
        days=len(days),
        first_token=exp(_shrunk_median(first)),
        per_token=exp(_shrunk_median(each)),
        before=(_median_error(first), _median_error(each)),
        after=(_median_error(_leave_one_out_residuals(first)), _median_error(_leave_one_out_residuals(each))),
        width=(_interval_width(first), _interval_width(each)),
    )


def _shrunk_median(logs: Sequence[float]) -> float:
    return median(logs) * len(logs) / (len(logs) + PRIOR_DAYS)


def _leave_one_out_residuals(logs: Sequence[float]) -> list[float]:
    """The residual of each day after the factor of the other days."""
    return [
        value - (_shrunk_median([*logs[:at], *logs[at + 1 :]]) if len(logs) > 1 else 0.0)
        for at, value in enumerate(logs)
    ]


def _median_error(logs: Sequence[float]) -> float:
    return median(abs(exp(-value) - 1) for value in logs)


def _interval_width(logs: Sequence[float]) -> float:
    residuals = sorted(abs(value) for value in _leave_one_out_residuals(logs))
    return max(MIN_WIDTH, residuals[min(len(residuals) - 1, int(0.9 * len(residuals)))])


def _scale_estimate(estimate: Estimate, factor: float, width: float) -> Estimate:
    middle = estimate.middle * factor
    return Estimate(middle, middle * exp(-width), middle * exp(width))
