"""Checks readings of a sensor for jumps, gaps, stuck values and drift, by declared bounds. Pure.

Ranges are checked like those of any table. Rates and gaps are checked only if readings have times.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby, pairwise
from typing import Any, Final

from groundplan.core.words import quantity

MAX_MAGNITUDE: Final = 1e100
"""Largest reading that counts: arithmetic with larger ones would overflow."""
MIN_DRIFT_READINGS: Final = 16
"""Fewest readings from which drift is computed."""

Failure = tuple[str, str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Reading:
    """A reading of a sensor; `row` counts from 1."""

    row: int
    value: float
    at: datetime | None


def sensor_failures(readings: Sequence[Reading], check: dict[str, Any]) -> Iterator[Failure]:
    """(code, message, figures) for each check that the readings of one sensor fail, in the order of their times; the
    figure `quote` is a value of the table."""
    ordered = sorted(readings, key=lambda one: one.at) if all(one.at for one in readings) else list(readings)  # type: ignore[arg-type,return-value]
    name = check["column"]
    if "rate" in check:
        yield from _rate_failures(ordered, check["rate"], name)
    if "gap" in check:
        yield from _gap_failures(ordered, check["gap"] / 1000, name)
    if "stuck" in check:
        yield from _stuck_failures(ordered, check["stuck"], name)
    if "drift" in check:
        yield from _drift_failures(ordered, check["drift"], name)


def _rate_failures(readings: Sequence[Reading], limit: float, name: str) -> Iterator[Failure]:
    """Changes of the value per minute above the limit."""
    jumps = []
    for one, other in pairwise(readings):
        minutes = _seconds_between(one, other) / 60
        change = abs(other.value - one.value)
        if (minutes > 0 and change / minutes > limit) or (minutes == 0 and one.at is not None and change > 0):
            jumps.append(other)
    if jumps:
        rows = ", ".join(f"row {one.row}" for one in jumps[:5])
        yield (
            "sensor_rate",
            f"'{name}' jumps by more than {limit:g} a minute {quantity(len(jumps), 'time')} ({rows})",
            {"jumps": len(jumps)},
        )


def _gap_failures(readings: Sequence[Reading], limit: float, name: str) -> Iterator[Failure]:
    gaps = [
        (_seconds_between(one, other), one) for one, other in pairwise(readings) if _seconds_between(one, other) > limit
    ]
    if gaps:
        longest, before = max(gaps, key=lambda gap: gap[0])
        which = "" if len(gaps) == 1 else "the longest "
        yield (
            "sensor_gap",
            f"'{name}' has {quantity(len(gaps), 'gap')}, {which}of {longest / 60:.0f} min after row {before.row}",
            {"gaps": len(gaps), "longest_s": longest},
        )


def _seconds_between(one: Reading, other: Reading) -> float:
    return 0.0 if one.at is None or other.at is None else (other.at - one.at).total_seconds()


def _stuck_failures(readings: Sequence[Reading], limit: int, name: str) -> Iterator[Failure]:
    runs = [
        (len(run), value, run[0].row)
        for value, group in groupby(readings, key=lambda r: r.value)
        for run in [list(group)]
    ]
    length, value, row = max(runs, default=(0, 0.0, 0))
    if length >= limit:
        yield (
            "sensor_stuck",
            f"'{name}' says the same {length} times in a row, from row {row}",
            {"run": length, "quote": f"{value:g}"},
        )


def _drift_failures(readings: Sequence[Reading], limit: float, name: str) -> Iterator[Failure]:
    """The distance between the means of the last and the first quarter, in standard deviations of the first quarter,
    but at least the sensor's resolution, since a constant value has no deviation."""
    if len(readings) < MIN_DRIFT_READINGS:
        return
    quarter = len(readings) // 4
    first, last = [r.value for r in readings[:quarter]], [r.value for r in readings[-quarter:]]
    step = min((b - a for a, b in pairwise(sorted({r.value for r in readings}))), default=0.0)
    spread = max(statistics.stdev(first), step)
    drift = (statistics.fmean(last) - statistics.fmean(first)) / spread if spread else 0.0
    if abs(drift) > limit:
        yield "sensor_drift", f"'{name}' drifted by {drift:+.1f} standard deviations", {"drift": round(drift, 2)}
