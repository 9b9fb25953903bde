"""Forecasts a series of at most eight weeks: many curves, each weighted by its fit. Pure.

So few days show that usage grows, but hardly when growth ends. So the forecast averages many curves: growth by a
percentage a day up to some level (logistic), linear growth until some day, slowing growth, a step, a decline, and no
change. Each is weighted by its fit, so if days cannot distinguish curves, the interval covers them. Weekends are fitted
together with the curves: in two weeks of growth any later weekday seems a busy one. Steady series, and longer ones with
past origins, are left to `predict`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from groundplan.economics.forecast.level_shift import LevelShift
from groundplan.economics.forecast.model import DAY, Forecast, Series
from groundplan.economics.forecast.smooth import Floats

MOST: Final = 56
"""Days above which past origins of the series are used instead."""
LEAST: Final = 8
FEWEST: Final = 5
"""Fewest days for the end of a budget; below `LEAST` nothing else is forecast."""
STEADY: Final = 0.1
"""Highest probability of no change."""
HARDLY: Final = 0.25
"""As `STEADY`, for fewer days than `LEAST`."""
NOISY: Final = 0.4
"""Logarithmic deviation of steady days from which on their median tells less than their mean."""
SEASON: Final = 0.5
"""Share of the deviation from the likeliest curve: if days deviate less from others of their weekday, the pattern is
weekly and no change."""
METHOD: Final = "growth, steps and decline, weighed by how well they fit"
GROWS, FADES, STEPS, FLAT = "grows", "fades", "steps", "flat"
_OFFSET: Final = 0.01
"""Share of the mean that is added before taking logarithms."""
_FLOOR: Final = 0.05
"""Lowest deviation of days, however good the fit."""
_WANDER: Final = 0.1
"""Logarithmic drift of the level from any curve within four weeks."""
_POWER: Final = 0.7
"""Exponent of the likelihood, since adjacent days are correlated."""
_SEEN: Final = 1e-4
"""Weight below which a curve is left out."""
_WEEKEND: Final = 1.5 + math.log(7)
"""By how much a weekend must improve the log evidence, since any two of seven days may be one."""
_SHARES: Final = np.array([-1.96, -1.15, -0.76, -0.45, -0.19, 0.19, 0.45, 0.76, 1.15, 1.96])
"""Standard normal values that represent a tenth each, the outer ones the tails."""


@dataclass(frozen=True, slots=True)
class _Curve:
    """A curve: logarithms over known and future days. `chance`: prior probability."""

    kind: str
    chance: float
    logs: Floats
    since: int = 0
    """First day of a step."""


@dataclass(frozen=True, slots=True)
class _Fit:
    """Fitted parameters, one row for each curve."""

    curves: Floats
    weights: Floats
    level: Floats
    weekend: Floats
    """Effect of quiet days, at most 0."""
    noise: Floats
    """Deviation of days from the curve."""
    mean: Floats
    """Ratio of the mean to the median day."""
    quiet: Floats
    """1.0 for quiet days, future ones included."""
    days: float
    """Effective number of days for the level, older ones weighted less."""
    evidence: float


def forecast(
    series: Series, horizon: int, closed: Floats, jumps: Floats, growth: Floats, least: int = LEAST
) -> Forecast | None:
    """Forecast a young series; None if nothing has changed, or the series is too long. Over known and future days:
    `closed` is 1.0 on holidays, `jumps` the logarithmic effect of launches. `growth`: declared growth of each future
    day, which replaces the fitted one."""
    values = np.array(series.values)
    count = len(values)
    known = closed[:count] == 0
    if series.step != DAY or not least <= count <= MOST or known.sum() < least or not values.any():
        return None
    offset = float(values.mean()) * _OFFSET
    curves = list(_curves(count, horizon))
    logs = np.log(values + offset) - jumps[:count]
    fit = _fitted(curves, logs, known)
    if _weekly(logs, known) < SEASON * float(fit.noise[fit.weights.argmax()]):
        return None
    chances = {kind: _chance(curves, fit, kind) for kind in (GROWS, FADES, STEPS, FLAT)}
    few = count < LEAST
    if chances[FLAT] > (HARDLY if few else STEADY) and (few or float(fit.noise[0]) < NOISY):
        return None
    seen = _most_likely(fit)
    still = _ahead(seen, count, closed, jumps) + growth
    ahead = still if series.growth_per_month is not None else still + seen.curves[:, count:]
    middle, low, high = (np.maximum(each - offset, 0.0) for each in _days(ahead, seen))
    total, total_low, total_high = _sum(ahead, seen)
    week = _quantiles(seen.curves[:, max(0, count - 8)], seen.weights, 0.5)[0]
    return Forecast(
        start=series.at(count),
        step=series.step,
        middle=tuple(middle.tolist()),
        low=tuple(low.tolist()),
        high=tuple(high.tolist()),
        total=total,
        total_low=total_low,
        total_high=total_high,
        method=METHOD,
        error=None,
        notes=_notes(series, curves, fit, chances, math.exp(-week), _sum(still, seen)[0] / total),
        detail={"holiday_factors": {}, "origins": 0, "cycle": 7 if seen.quiet.any() else 1},
    )


def _curves(count: int, horizon: int) -> Iterator[_Curve]:
    """All curves, the first without a change. Prior probabilities sum to about one."""
    days = np.arange(count + horizon, dtype=np.float64)
    yield _Curve(FLAT, 0.4, np.zeros(len(days)))
    yield from _steps(days, count)
    yield from _logistic(days, count)
    yield from _ramps(days, count)
    for length in (0.25, 0.4, 0.6, 0.9):
        yield _Curve(GROWS, 0.06 / 4, np.log(-np.expm1(-(days + 1) / (length * count))))
    for rest in (0.02, 0.1, 0.3, 0.6):
        for length in (0.2, 0.4, 0.8, 1.5):
            yield _Curve(FADES, 0.1 / 16, np.log(rest + (1 - rest) * np.exp(-days / (length * count))))


def _logistic(days: Floats, count: int) -> Iterator[_Curve]:
    """Logistic growth that reaches half of its ceiling within the known days, or up to as long as twice as much again
    later."""
    for rate in (0.03, 0.06, 0.1, 0.15, 0.2, 0.25, 0.32, 0.45, 0.7):
        for half, chance in zip(
            (0.3, 0.5, 0.7, 0.85, 1.0, 1.2, 1.4, 1.7, 2.2), (*(1,) * 6, 0.8, 0.6, 0.3), strict=True
        ):
            yield _Curve(GROWS, 0.2 * chance / 70, -np.log1p(np.exp(-rate * (days - half * count))))


def _ramps(days: Floats, count: int) -> Iterator[_Curve]:
    """Linear growth from the beginning, or from a later day with some usage before, until today or for up to three
    times as long."""
    for begun in (0.5, 2.0, 0.3 * count, 0.7 * count, 1.5 * count):
        for more in (0.0, 0.25, 0.6, 1.2, 3.0):
            yield _Curve(GROWS, 0.1 / 25, np.log(np.minimum(days, (1 + more) * count) + begun))
    for since in range(2, count - 3):
        for before in (0.01, 0.2, 1.5):
            for more in (0.0, 0.25, 0.6, 1.2, 3.0):
                grown = np.maximum(np.minimum(days, count + more * (count - since)) - since + 1, 0.0)
                yield _Curve(GROWS, 0.12 / (count - 5) / 15, np.log(before + grown))


def _steps(days: Floats, count: int) -> Iterator[_Curve]:
    """Steps up or down; down only if it has lasted for a week, since people have holidays."""
    places = range(2, count - 2)
    for at in places:
        for size in (0.5, 1.0, 1.5, 2.0, 2.5, 3.3, 4.2):
            yield _Curve(STEPS, 0.15 / len(places) / 7, np.where(days < at, -size, 0.0), at)
            if at <= count - 7:
                yield _Curve(STEPS, 0.05 / len(places) / 7, np.where(days < at, size, 0.0), at)


def _weekly(logs: Floats, known: Floats) -> float:
    """Logarithmic deviation of days from the mean of their weekday; infinite with one week only."""
    squares, more = 0.0, 0
    for phase in range(7):
        mine = logs[phase::7][known[phase::7]]
        squares += float(((mine - mine.mean()) ** 2).sum()) if len(mine) else 0.0
        more += max(0, len(mine) - 1)
    return math.sqrt(squares / more + _FLOOR**2) if more >= 7 else math.inf


def _fitted(curves: list[_Curve], logs: Floats, known: Floats) -> _Fit:
    """Fit all curves, with the weekend of the highest evidence, or none."""
    made = np.array([curve.logs - curve.logs[len(logs) - 1] for curve in curves])
    chances = np.array([curve.chance for curve in curves])
    places = np.arange(made.shape[1]) % 7
    weekends = [((places == first) | (places == (first + 1) % 7)).astype(float) for first in range(7)]
    fits = [_least_squares(made, chances, logs, known, quiet) for quiet in (np.zeros(made.shape[1]), *weekends)]
    return max(fits, key=lambda fit: fit.evidence)


def _least_squares(made: Floats, chances: Floats, logs: Floats, known: Floats, quiet: Floats) -> _Fit:
    """Fit level and weekend of every curve at once, newer days weighted more."""
    count = len(logs)
    weight = np.where(known, 0.5 ** (np.arange(count)[::-1] / count), 0.0)
    whole, mine = float(weight.sum()), quiet[:count]
    left = logs - made[:, :count]
    mean, share = (left * weight).sum(axis=1) / whole, float((weight * mine).sum()) / whole
    spread = float((weight * (mine - share) ** 2).sum())
    weekend = np.zeros(len(made))
    if spread > 0:
        weekend = np.minimum(((left - mean[:, None]) * weight * (mine - share)).sum(axis=1) / spread, 0.0)
    level = mean - weekend * share
    missed = left - level[:, None] - weekend[:, None] * mine
    days = float(whole**2 / (weight**2).sum())
    variance = (weight * missed**2).sum(axis=1) / whole + _FLOOR**2
    told = np.log(chances) - 0.5 * _POWER * days * np.log(variance)
    most = float(told.max())
    shares = np.exp(told - most)
    evidence = most + math.log(float(shares.sum())) - (_WEEKEND if spread > 0 else 0.0)
    noise = np.sqrt(variance * days / max(1.0, days - (2 if spread > 0 else 1)))
    mean_of = (weight * np.exp(np.minimum(missed, 5.0))).sum(axis=1) / whole
    return _Fit(made, shares / shares.sum(), level, weekend, noise, mean_of, quiet, days, evidence)


def _chance(curves: list[_Curve], fit: _Fit, kind: str) -> float:
    return float(sum(weight for curve, weight in zip(curves, fit.weights.tolist(), strict=True) if curve.kind == kind))


def _most_likely(fit: _Fit) -> _Fit:
    """The fit without curves of negligible weight."""
    kept = fit.weights >= _SEEN * float(fit.weights.max())
    weights = fit.weights[kept]
    return replace(
        fit, curves=fit.curves[kept], weights=weights / weights.sum(), level=fit.level[kept],
        weekend=fit.weekend[kept], noise=fit.noise[kept], mean=fit.mean[kept],
    )  # fmt: skip


def _ahead(fit: _Fit, count: int, closed: Floats, jumps: Floats) -> Floats:
    """Logarithm of each future day for each curve at its present level; holidays count as weekends."""
    quiet = np.maximum(fit.quiet, closed)[count:]
    return np.asarray(fit.level[:, None] + fit.weekend[:, None] * quiet + jumps[count:])


def _days(ahead: Floats, fit: _Fit) -> tuple[Floats, Floats, Floats]:
    """(middle, low, high) of each future day."""
    horizon = ahead.shape[1]
    wander = _WANDER * np.sqrt(np.maximum(np.arange(1, horizon + 1), 7) / 28)
    spread = np.sqrt(fit.noise[:, None] ** 2 * (1 + 1 / fit.days) + wander**2)
    weights = np.repeat(fit.weights / len(_SHARES), len(_SHARES))
    found = []
    for place in range(horizon):
        drawn = (ahead[:, place, None] + spread[:, place, None] * _SHARES).ravel()
        found.append(_quantiles(drawn, weights, 0.5, 0.1, 0.9))
    middle, low, high = np.exp(np.array(found)).T
    return middle, low, high


def _sum(ahead: Floats, fit: _Fit) -> tuple[float, float, float]:
    """(middle, low, high) of the sum of all days, from their means, which exceed the medians."""
    horizon = ahead.shape[1]
    sums = np.log(np.exp(ahead).sum(axis=1) * fit.mean)
    spread = np.sqrt(fit.noise**2 * (1 / fit.days + 1 / horizon) + _WANDER**2 * max(horizon, 7) / 28)
    drawn = (sums[:, None] + spread[:, None] * _SHARES).ravel()
    weights = np.repeat(fit.weights / len(_SHARES), len(_SHARES))
    middle, low, high = map(math.exp, _quantiles(drawn, weights, 0.5, 0.1, 0.9))
    return middle, low, high


def _quantiles(values: Floats, weights: Floats, *shares: float) -> list[float]:
    order = np.argsort(values)
    places = np.searchsorted(np.cumsum(weights[order]), shares)
    return [float(values[order[min(int(place), len(values) - 1)]]) for place in places]


def _notes(
    series: Series, curves: list[_Curve], fit: _Fit, chances: dict[str, float], week: float, steady: float
) -> tuple[str, ...]:
    count = len(series.values)
    kind = max(chances, key=lambda each: chances[each])
    if kind == STEPS:
        found = max(zip(fit.weights.tolist(), curves, strict=True), key=lambda each: each[0] * (each[1].kind == STEPS))[
            1
        ]
        step = LevelShift(found.since, -float(found.logs[0]))
        day = series.at(step.place).date().isoformat()
        return (f"since {day} there is {step.text}, which is taken to stay: declare launches that end",)
    if kind == FLAT:
        return (f"days differ much, and {count} of them tell little of their mean",)
    if series.growth_per_month is not None:
        return ()
    if abs(math.log(week)) < _FLOOR:
        return (f"it changed within these {count} days, which do not tell how it goes on",)
    now = f"there is {week:.1f} times as much as a week ago" if week >= 1 else f"there is {week:.0%} of a week ago"
    goes = f"{count} days do not tell how long that goes on"
    return (f"{now}, and {goes}: if it ended today, the total would be {steady:.0%} of this",)
