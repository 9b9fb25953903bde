"""Time as an argument. Production passes `SystemClock`; tests pass `groundplan.testing.ManualClock`."""

from __future__ import annotations

import logging
import time
from datetime import UTC, date, datetime, timedelta
from typing import Protocol

WARN_SECONDS = 60.0
"""A clock that was set back by more than this is logged; corrections by seconds are normal."""
CATCH_UP_RATE = 7 / 8
"""Speed of the reported time until a clock that was set back has caught up: an hour takes 8 hours, 2 minutes take 16
minutes."""
_MONOTONIC_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""Counts while the machine sleeps, since leases of this machine run out for others meanwhile."""
_log = logging.getLogger(__name__)


def end_of_day(day: date) -> datetime:
    """The end of a day (UTC). For 9999-12-31, which people write to mean never, the last representable moment."""
    if day == date.max:
        return datetime.max.replace(tzinfo=UTC)
    return datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)


def last_day(end: datetime) -> date:
    """The last day (UTC) of a period that ends at `end`; an end at midnight belongs to the day before."""
    return (end.astimezone(UTC) - timedelta.resolution).date()


class Clock(Protocol):
    """`now` is aware UTC wall time; `seconds` is the same in seconds since the epoch, for the request path; `monotonic`
    counts seconds that never go back and do not stop while the machine sleeps."""

    def now(self) -> datetime: ...

    def seconds(self) -> float: ...

    def monotonic(self) -> float: ...


class SystemClock:
    """The machine's clocks."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    seconds = staticmethod(time.time)

    def monotonic(self) -> float:
        return time.clock_gettime(_MONOTONIC_CLOCK)


class NonDecreasingClock:
    """Wraps a clock so that its wall time never goes back: after it was set back, time continues from the latest value,
    a little slower, until the wrapped clock has caught up.

    So no ended budget period, expired key or used-up day comes to life again. The catching up matters, too: a worker
    whose time stayed ahead of the others would use up each window of a shared limit before they reach it.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._read = clock.seconds
        self._latest = clock.seconds()
        self._set_back_at: float | None = None
        """`monotonic` when the wrapped clock was first seen behind `_latest`; None while it is not."""
        self._has_warned = False

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.seconds(), UTC)

    def seconds(self) -> float:
        now = self._read()
        if now >= self._latest and self._set_back_at is None:
            self._latest = now
            return now
        return self._catch_up(now)

    def monotonic(self) -> float:
        return self._clock.monotonic()

    def _catch_up(self, now: float) -> float:
        passed = self._clock.monotonic()
        if self._set_back_at is None:
            self._set_back_at = passed
        onward = self._latest + (passed - self._set_back_at) * CATCH_UP_RATE
        if now >= onward:
            self._latest, self._set_back_at, self._has_warned = now, None, False
            return now
        if onward - now > WARN_SECONDS and not self._has_warned:
            self._has_warned = True
            _log.warning(
                "this machine's clock was set back by %d s; periods, keys and limits go on from the latest time it "
                "told, a little slower, until it has caught up after %d min: if that time was wrong, and that is too "
                "long, start `groundplan up` anew",
                onward - now,
                (onward - now) / (1 - CATCH_UP_RATE) / 60,
            )
        return onward
