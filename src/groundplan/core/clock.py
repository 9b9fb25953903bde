"""Time as an argument. Production passes `SystemClock`; tests pass `groundplan.testing.ManualClock`."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """`now` is aware UTC wall time, for people and periods; `monotonic` is seconds that never go back."""

    def now(self) -> datetime: ...

    def monotonic(self) -> float: ...


class SystemClock:
    """The machine's clocks."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()


class OnwardClock:
    """Another clock whose wall time never goes back: set back, it goes on from the latest time at the usual pace, until
    the other has caught up. So no ended budget period, expired key or used-up day comes to life again."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._latest = clock.now()
        self._since: float | None = None
        """`monotonic` at which the other clock was seen to be behind `_latest`; None while it is not."""

    def now(self) -> datetime:
        now = self._clock.now()
        if now >= self._latest and self._since is None:
            self._latest = now
            return now
        return self._behind(now)

    def monotonic(self) -> float:
        return self._clock.monotonic()

    def _behind(self, now: datetime) -> datetime:
        seconds = self._clock.monotonic()
        if self._since is None:
            self._since = seconds
        onward = self._latest + timedelta(seconds=seconds - self._since)
        if now >= onward:
            self._latest, self._since = now, None
            return now
        return onward
