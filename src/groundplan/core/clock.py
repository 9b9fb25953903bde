"""Time as an argument. Production passes `SystemClock`; tests pass `groundplan.testing.ManualClock`."""

from __future__ import annotations

import logging
import time
from datetime import UTC, date, datetime, timedelta
from typing import Protocol

WARN_SECONDS = 60.0
"""A clock that was set back by more is told about: corrections of seconds are everyday."""
CATCH_UP_RATE = 7 / 8
"""Of a clock that was set back, until the other has caught up: an hour takes eight, two minutes a quarter of one."""
_MONOTONIC_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""Others may be told meanwhile that a lease of this machine has run out."""
_log = logging.getLogger(__name__)


def end_of_day(day: date) -> datetime:
    """When a day is over (UTC). Of 9999-12-31, which people write for a day that never comes: the last moment."""
    if day == date.max:
        return datetime.max.replace(tzinfo=UTC)
    return datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)


def last_day(end: datetime) -> date:
    """The last day (UTC) of what is over at `end`: at midnight that is the day before, and not the one that begins."""
    return (end.astimezone(UTC) - timedelta.resolution).date()


class Clock(Protocol):
    """`now` is aware UTC wall time, for people and periods, `seconds` the same in seconds since the epoch, for the
    path of calls; `monotonic` is seconds that never go back, nor stand still while the machine sleeps."""

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
    """Another clock whose wall time never goes back: set back, it goes on from the latest time, a little slower, until
    the other has caught up. So no ended budget period, expired key or used-up day comes to life again, and a time that
    was wrong for a moment is not told for good: of a limit that several workers share, one that is ahead of the others
    has used up each window before they come to it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._read = clock.seconds
        self._latest = clock.seconds()
        self._since: float | None = None
        """`monotonic` at which the other clock was seen to be behind `_latest`; None while it is not."""
        self._told = False

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.seconds(), UTC)

    def seconds(self) -> float:
        now = self._read()
        if now >= self._latest and self._since is None:
            self._latest = now
            return now
        return self._behind(now)

    def monotonic(self) -> float:
        return self._clock.monotonic()

    def _behind(self, now: float) -> float:
        passed = self._clock.monotonic()
        if self._since is None:
            self._since = passed
        onward = self._latest + (passed - self._since) * CATCH_UP_RATE
        if now >= onward:
            self._latest, self._since, self._told = now, None, False
            return now
        if onward - now > WARN_SECONDS and not self._told:
            self._told = True
            _log.warning(
                "this machine's clock was set back by %d s; periods, keys and limits go on from the latest time it "
                "told, a little slower, until it has caught up after %d min: if that time was wrong, and that is too "
                "long, start `groundplan up` anew",
                onward - now,
                (onward - now) / (1 - CATCH_UP_RATE) / 60,
            )
        return onward
