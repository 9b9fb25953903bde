"""Learns how long deployments take: quantiles for hedging, and a peak-sensitive mean for balancing. Pure; times are
arguments. Nothing outlives the worker."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable

_STEP = 1.1
_BOUNDS = [int(1000 * _STEP**power) for power in range(126)]
"""Microseconds, from 1 ms to 150 s: a quantile is at most a tenth too long."""
MIN_SAMPLES = 20
"""Samples before a quantile is used."""
_MAX_SAMPLES = 2000
"""Number of samples at which old ones are halved, so that the estimate follows the deployment."""
DECAY_SECONDS = 10.0
OUTDATED_SECONDS = 120.0
"""Older samples do not tell how slow a deployment is now: one that was too slow is tried again."""


class LatencyEstimate:
    """The latencies of one deployment."""

    __slots__ = ("_all_time", "_had_samples", "_recent", "peak", "peak_at")

    def __init__(self) -> None:
        self._all_time, self._recent = _Histogram(), _Histogram()
        """All samples, and those since the last long silence."""
        self._had_samples = False
        """There were enough samples before that silence."""
        self.peak = 0.0
        """Microseconds, as of `peak_at`: jumps up with one slow answer, comes down slowly."""
        self.peak_at = 0.0

    def expected_peak(self, now: float) -> float:
        """The peak as of `now`: it also comes down without answers, since a deployment that is not used gives none."""
        return self.peak * math.exp(min(0.0, self.peak_at - now) / DECAY_SECONDS)

    def observe(self, microseconds: int, now: float) -> None:
        """Add one answer."""
        if now - self.peak_at > OUTDATED_SECONDS and self._recent.total:
            self._had_samples |= self._all_time.total >= MIN_SAMPLES
            self._recent = _Histogram()
        bucket = bisect_left(_BOUNDS, microseconds)
        self._all_time.add(bucket)
        self._recent.add(bucket)
        if microseconds >= self.peak:
            self.peak = float(microseconds)
        else:
            weight = math.exp(-(now - self.peak_at) / DECAY_SECONDS) if now > self.peak_at else 1.0
            # many answers within one tick of the clock still count
            weight = min(weight, 0.99)
            self.peak = self.peak * weight + microseconds * (1 - weight)
        self.peak_at = now

    def quantile(self, percent: int) -> float | None:
        """Seconds within which `percent` of the answers began; None if there are too few samples."""
        return self._all_time.quantile(percent) if self._all_time.total >= MIN_SAMPLES else None

    def recent_p95(self, now: float) -> float | None:
        """Seconds within which 95 % of the recent answers began; None if that is unknown. After a long silence, the
        median of the first few: earlier answers only tell why the deployment was avoided."""
        recent = self._recent
        if now - self.peak_at > OUTDATED_SECONDS or not (self._had_samples or recent.total >= MIN_SAMPLES):
            return None
        return recent.quantile(95 if recent.total >= MIN_SAMPLES else 50)


class _Histogram:
    """Histogram of latencies."""

    __slots__ = ("_counts", "total")

    def __init__(self) -> None:
        self._counts = [0.0] * (len(_BOUNDS) + 1)
        self.total = 0.0

    def add(self, bucket: int) -> None:
        self._counts[bucket] += 1
        self.total += 1
        if self.total >= _MAX_SAMPLES:
            self._counts = [count / 2 for count in self._counts]
            self.total = sum(self._counts)

    def quantile(self, percent: int) -> float:
        """The quantile in seconds."""
        wanted, seen = self.total * percent / 100, 0.0
        for bucket, count in enumerate(self._counts):
            seen += count
            if seen >= wanted and count:
                return _BOUNDS[min(bucket, len(_BOUNDS) - 1)] / 1e6
        return _BOUNDS[-1] / 1e6


class LatencyEstimates:
    """The estimates of all deployments of one worker, for complete answers and streams separately."""

    __slots__ = ("_answers", "_streams")

    def __init__(self) -> None:
        self._answers: dict[str, LatencyEstimate] = {}
        self._streams: dict[str, LatencyEstimate] = {}

    def of(self, name: str, stream: bool) -> LatencyEstimate:
        """The estimate until the first byte of a stream, or until a complete answer."""
        estimates = self._streams if stream else self._answers
        estimate = estimates.get(name)
        if estimate is None:
            estimate = estimates[name] = LatencyEstimate()
        return estimate

    def forget(self, names: Iterable[str]) -> None:
        """Forget deployments that have changed or are gone."""
        for name in names:
            self._answers.pop(name, None)
            self._streams.pop(name, None)
