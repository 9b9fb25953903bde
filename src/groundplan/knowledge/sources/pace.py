"""Limits the rate of a connector's requests, so that it never overloads its source."""

from __future__ import annotations

import time
from collections.abc import Callable


class RateLimiter:
    """Waits before a request if the last one was less than 1 / `rate` seconds ago."""

    def __init__(
        self, rate: float, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._gap = 1.0 / rate
        self._clock, self._sleep = clock, sleep
        self._next = 0.0

    def slow_down(self, seconds: float) -> None:
        """Keep at least `seconds` (at most 60) between requests from now on, as a server asks."""
        self._gap = max(self._gap, min(seconds, 60.0))

    def wait(self) -> None:
        now = self._clock()
        if now < self._next:
            self._sleep(self._next - now)
        self._next = max(now, self._next) + self._gap
