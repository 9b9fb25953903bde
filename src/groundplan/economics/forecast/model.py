"""Types of forecasts. A series is regular: one value for each step, none left out."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Launch:
    """From `at` on there is `factor` times as much: a launch (above 1), or an end (below 1)."""

    at: datetime
    factor: float
    name: str = ""


@dataclass(frozen=True, slots=True)
class Series:
    """`values[i]` is what happened from `start + i * step` on, for one step."""

    start: datetime
    step: timedelta
    values: tuple[float, ...]
    holidays: frozenset[str] = frozenset()
    """ISO dates on which there is less to do than the weekday says."""
    launches: tuple[Launch, ...] = ()
    """Past ones explain a jump, future ones are expected."""
    growth_per_month: float | None = None
    """Declared, such as 0.05; None: what the series itself shows, damped."""
    whose: frozenset[tuple[str, str]] = frozenset()
    """(ISO date, countries of that holiday, such as `NO` or `NO US`): its effect differs by country. Holidays without a
    country have one common effect."""

    def at(self, place: int) -> datetime:
        return self.start + place * self.step

    @property
    def cycle(self) -> int:
        """Steps of a season: a week where the step divides a day, else none (1)."""
        if self.step > DAY or DAY % self.step or self.step < timedelta(minutes=5):
            return 1
        return 7 * (DAY // self.step)


@dataclass(frozen=True, slots=True)
class Forecast:
    """`low` to `high` holds the truth of a step in four of five cases; `middle` is as often too high as too low."""

    start: datetime
    step: timedelta
    middle: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    total: float
    """Of all steps together, expected."""
    total_low: float
    total_high: float
    method: str
    error: float | None
    """MASE at past origins: 1 is as good as repeating the last season; None: there was too little to look back on."""
    notes: tuple[str, ...] = ()
    detail: dict[str, Any] = field(default_factory=dict)
