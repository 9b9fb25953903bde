"""How long deployments take, as learned from what was seen: quantiles for hedges, and a peak-sensitive mean for
balancing. Pure; times are arguments. Nothing is kept beyond a worker's life.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable

_STEP = 1.1
_BOUNDS = [int(1000 * _STEP**power) for power in range(126)]
"""Microseconds, from 1 ms to 150 s: a quantile is at most a tenth too long."""
LEAST = 20
"""Samples before a quantile is believed."""
_MOST = 2000
"""Samples at which old ones are halved, so that what was learned follows the deployment."""
DECAY_SECONDS = 10.0
SILENT_SECONDS = 120.0
"""Times that are older say nothing of how slow it is now: who was too slow is tried again."""


class Learned:
    """Times of one deployment."""

    __slots__ = ("_all", "_lately", "_tried_again", "at", "peak")

    def __init__(self) -> None:
        self._all, self._lately = _Counts(), _Counts()
        """Whatever was seen, and what was since it was last silent for long."""
        self._tried_again = False
        """Enough was known of it before that."""
        self.peak = 0.0
        """Microseconds, as of `at`: jumps up with one slow answer, comes down slowly."""
        self.at = 0.0

    def expected(self, now: float) -> float:
        """The peak as it is now: it comes down without answers, too, since what is not asked gives none."""
        return self.peak * math.exp(min(0.0, self.at - now) / DECAY_SECONDS)

    def observe(self, microseconds: int, now: float) -> None:
        """One more answer."""
        if now - self.at > SILENT_SECONDS and self._lately.total:
            self._tried_again |= self._all.total >= LEAST
            self._lately = _Counts()
        place = bisect_left(_BOUNDS, microseconds)
        self._all.add(place)
        self._lately.add(place)
        if microseconds >= self.peak:
            self.peak = float(microseconds)
        else:
            weight = math.exp(-(now - self.at) / DECAY_SECONDS) if now > self.at else 1.0
            # many answers within one turn of the clock still count for something
            weight = min(weight, 0.99)
            self.peak = self.peak * weight + microseconds * (1 - weight)
        self.at = now

    def quantile(self, percent: int) -> float | None:
        """Seconds within which `percent` of the answers began; None while too few were seen."""
        return self._all.quantile(percent) if self._all.total >= LEAST else None

    def slow(self, now: float) -> float | None:
        """Seconds within which 95 % of its answers began lately; None while nothing is known of that. Of one that is
        tried again, half of the first few: what it did before is no more than why nobody asked it."""
        lately = self._lately
        if now - self.at > SILENT_SECONDS or not (self._tried_again or lately.total >= LEAST):
            return None
        return lately.quantile(95 if lately.total >= LEAST else 50)


class _Counts:
    """How many answers took how long."""

    __slots__ = ("_counts", "total")

    def __init__(self) -> None:
        self._counts = [0.0] * (len(_BOUNDS) + 1)
        self.total = 0.0

    def add(self, place: int) -> None:
        self._counts[place] += 1
        self.total += 1
        if self.total >= _MOST:
            self._counts = [count / 2 for count in self._counts]
            self.total = sum(self._counts)

    def quantile(self, percent: int) -> float:
        """In seconds."""
        wanted, seen = self.total * percent / 100, 0.0
        for place, count in enumerate(self._counts):
            seen += count
            if seen >= wanted and count:
                return _BOUNDS[min(place, len(_BOUNDS) - 1)] / 1e6
        return _BOUNDS[-1] / 1e6


class Times:
    """Of all deployments of one worker: whole answers and streams each by themselves."""

    __slots__ = ("_streams", "_whole")

    def __init__(self) -> None:
        self._whole: dict[str, Learned] = {}
        self._streams: dict[str, Learned] = {}

    def of(self, name: str, stream: bool) -> Learned:
        """Until the first byte of a stream, or until a whole answer."""
        book = self._streams if stream else self._whole
        found = book.get(name)
        if found is None:
            found = book[name] = Learned()
        return found

    def forget(self, names: Iterable[str]) -> None:
        """These are others from now on."""
        for name in names:
            self._whole.pop(name, None)
            self._streams.pop(name, None)
