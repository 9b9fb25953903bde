"""Readings of a sensor: jumps, gaps, a stuck value and drift, by declared bounds. Pure.

Ranges are a check of tables like any other. Without times, rates and gaps cannot be known and are not told.
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
"""No reading is larger: with such numbers nothing can be reckoned."""
MIN_DRIFT_READINGS: Final = 16
"""Fewer readings say nothing about drift."""

Told = tuple[str, str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Reading:
    """`row` counts from 1."""

    row: int
    value: float
    at: datetime | None


def sensor_failures(readings: Sequence[Reading], check: dict[str, Any]) -> Iterator[Told]:
    """(code, what is wrong, figures) for the readings of one sensor, in the order of their times; `quote` of the
    figures is a value of it."""
    ordered = sorted(readings, key=lambda one: one.at) if all(one.at for one in readings) else list(readings)  # type: ignore[arg-type,return-value]
    name = check["column"]
    if "rate" in check:
        yield from _rate(ordered, check["rate"], name)
    if "gap" in check:
        yield from _gap(ordered, check["gap"] / 1000, name)
    if "stuck" in check:
        yield from _stuck(ordered, check["stuck"], name)
    if "drift" in check:
        yield from _drift(ordered, check["drift"], name)


def _rate(readings: Sequence[Reading], most: float, name: str) -> Iterator[Told]:
    """Change of value in a minute."""
    jumps = []
    for one, other in pairwise(readings):
        minutes = _seconds(one, other) / 60
        change = abs(other.value - one.value)
        if (minutes > 0 and change / minutes > most) or (minutes == 0 and one.at is not None and change > 0):
            jumps.append(other)
    if jumps:
        rows = ", ".join(f"row {one.row}" for one in jumps[:5])
        yield (
            "sensor_rate",
            f"'{name}' jumps by more than {most:g} a minute {quantity(len(jumps), 'time')} ({rows})",
            {"jumps": len(jumps)},
        )


def _gap(readings: Sequence[Reading], most: float, name: str) -> Iterator[Told]:
    gaps = [(_seconds(one, other), one) for one, other in pairwise(readings) if _seconds(one, other) > most]
    if gaps:
        longest, before = max(gaps, key=lambda gap: gap[0])
        which = "" if len(gaps) == 1 else "the longest "
        yield (
            "sensor_gap",
            f"'{name}' has {quantity(len(gaps), 'gap')}, {which}of {longest / 60:.0f} min after row {before.row}",
            {"gaps": len(gaps), "longest_s": longest},
        )


def _seconds(one: Reading, other: Reading) -> float:
    return 0.0 if one.at is None or other.at is None else (other.at - one.at).total_seconds()


def _stuck(readings: Sequence[Reading], least: int, name: str) -> Iterator[Told]:
    runs = [
        (len(run), value, run[0].row)
        for value, group in groupby(readings, key=lambda r: r.value)
        for run in [list(group)]
    ]
    length, value, row = max(runs, default=(0, 0.0, 0))
    if length >= least:
        yield (
            "sensor_stuck",
            f"'{name}' says the same {length} times in a row, from row {row}",
            {"run": length, "quote": f"{value:g}"},
        )


def _drift(readings: Sequence[Reading], most: float, name: str) -> Iterator[Told]:
    """How far the mean of the last quarter is from that of the first, in standard deviations of the first: that is no
    less than the step in which the sensor tells values, since one that stands still has none."""
    if len(readings) < MIN_DRIFT_READINGS:
        return
    quarter = len(readings) // 4
    first, last = [r.value for r in readings[:quarter]], [r.value for r in readings[-quarter:]]
    step = min((b - a for a, b in pairwise(sorted({r.value for r in readings}))), default=0.0)
    spread = max(statistics.stdev(first), step)
    moved = (statistics.fmean(last) - statistics.fmean(first)) / spread if spread else 0.0
    if abs(moved) > most:
        yield "sensor_drift", f"'{name}' drifted by {moved:+.1f} standard deviations", {"drift": round(moved, 2)}
