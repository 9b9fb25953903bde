"""Sequential tests that may be evaluated at any time: confidence sequences for means and their differences. Pure.

The interval holds at all looks together, so stopping when it excludes something is sound. That of a mean is exact, also
where hardly anything else than one value is seen: a mean is excluded where a bet against it, a mixture of all other
means (Robbins 1970), has won so much that Ville's inequality forbids it; for observations between two ends the bet is
fair as for those at an end. That of a difference is the mixture boundary for sums with an estimated variance
(asymptotic confidence sequence: Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, "Time-uniform central limit theory and
asymptotic confidence sequences", 2021); small samples are widened by counting one more observation at each end.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, lgamma, log, sqrt

LEAST = 20
"""Observations of each arm before anything is concluded."""
BET = 0.5
"""Parameters of the beta mixture: Jeffreys' prior."""
AIM = 500
"""Number of observations for which the interval is tuned to be narrowest."""


@dataclass(frozen=True, slots=True)
class Tally:
    """Observations of one arm, each between 0 and 1: their number, sum and sum of squares."""

    count: int = 0
    total: float = 0.0
    squares: float = 0.0

    @property
    def mean(self) -> float:
        return self.total / self.count if self.count else 0.0


@dataclass(frozen=True, slots=True)
class Range:
    """Interval of a mean or a difference, valid at all times together at its level."""

    value: float
    low: float
    high: float
    count: int


def mean_range(seen: Tally, level: float = 0.95) -> Range:
    """The mean of observations between 0 and 1."""
    hits = min(max(0.0, seen.total), float(seen.count))
    limit = log(1 / (1 - level))
    low = _lower_limit(hits, seen.count - hits, limit)
    high = 1.0 - _lower_limit(seen.count - hits, hits, limit)
    return Range(seen.mean, min(low, seen.mean), max(high, seen.mean), seen.count)


def open_range(seen: Tally, left_open: int, level: float = 0.95) -> Range:
    """The mean of observations between 0 and 1, `left_open` of which are unknown."""
    if not left_open:
        return mean_range(seen, level)
    count = seen.count + left_open
    low = mean_range(Tally(count, seen.total, seen.squares), level).low
    high = mean_range(Tally(count, seen.total + left_open, seen.squares + left_open), level).high
    return Range(seen.mean, low, high, seen.count)


def _lower_limit(hits: float, misses: float, limit: float) -> float:
    """The lowest mean that is not excluded."""
    if hits <= 0:
        return 0.0
    mixed = _beta(hits, misses) - _beta(0, 0)
    low, high = 0.0, hits / (hits + misses)
    for _ in range(50):
        middle = (low + high) / 2
        won = mixed - hits * log(middle) - (misses * log(1 - middle) if misses else 0.0)
        low, high = (middle, high) if won >= limit else (low, middle)
    return low


def _beta(hits: float, misses: float) -> float:
    """Logarithm of the beta function, with the prior `BET`."""
    return lgamma(hits + BET) + lgamma(misses + BET) - lgamma(hits + misses + 2 * BET)


def difference(a: Tally, b: Tally, level: float = 0.95) -> Range:
    """Mean of `b` less mean of `a`, of independent observations; -1 to 1 until both have `LEAST`."""
    count = min(a.count, b.count)
    value = b.mean - a.mean
    if count < LEAST:
        return Range(value, -1.0, 1.0, count)
    # as if each of `count` pairs had the variance that both means together have
    variance = count * (_variance(a) / a.count + _variance(b) / b.count)
    radius = _radius(variance, count, 1 - level)
    return Range(value, max(-1.0, value - radius), min(1.0, value + radius), count)


def _variance(seen: Tally) -> float:
    """Variance of the observations with one more 0 and one more 1."""
    count = seen.count + 2
    return max(1e-12, (seen.squares + 1.0) / count - ((seen.total + 1.0) / count) ** 2)


def _radius(variance: float, count: int, alpha: float) -> float:
    """Half width of the two-sided mixture boundary."""
    if count <= 0:
        return inf
    rho = (-2 * log(alpha) + log(-2 * log(alpha)) + 1) / AIM
    spread = count * rho + 1
    return sqrt(variance * 2 * spread / (count * count * rho) * log(sqrt(spread) / alpha))
