"""Forecasts of new workloads: totals from 10 to 42 days of history, for the shapes of growth of such short histories.

    python benchmarks/forecast_young.py --json

For each shape and length: the factor by which totals of the next 14 and 28 days are too low or high (the median of
forecast / actual, and the median deviation), and how many lie within the 80 % interval. The further growth is drawn
independently of the known days: it ends soon, late or not at all within the forecast horizon.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from groundplan.economics.forecast.model import DAY, Series
from groundplan.economics.forecast.predict import forecast

Floats = NDArray[np.float64]
START: Final = datetime(2026, 1, 5, tzinfo=UTC)
LENGTHS: Final = (10, 12, 14, 17, 21, 28, 35, 42)
AHEAD: Final = (14, 28)
SERIES_DAYS: Final = 70
"""Days of each series: the longest history and the longest horizon after it."""


def normalize_at(values: Floats, seen: int) -> Floats:
    """Scale the series to 1 on the last known day."""
    scaled: Floats = values / values[seen - 1]
    return scaled


def saturating(random: np.random.Generator, seen: int) -> Floats:
    """15 to 30 % a day; half of all users have it some time from the middle of the known days on."""
    rate, half = math.log(random.uniform(1.15, 1.3)), random.uniform(0.5, 1.6) * seen
    values: Floats = 1 / (1 + np.exp(-rate * (np.arange(SERIES_DAYS) - half)))
    return normalize_at(values, seen)


def ramp(random: np.random.Generator, seen: int) -> Floats:
    """Linear growth from a launch on, until the last known day or some day after it."""
    start, end = random.uniform(-3, 0), seen + random.uniform(0, 1.5) * seen
    values: Floats = np.minimum(np.arange(SERIES_DAYS), end) - start + 0.5
    return normalize_at(values, seen)


def slowing(random: np.random.Generator, seen: int) -> Floats:
    """A widely announced launch: fast at first, and slower as fewer users are left."""
    values: Floats = 1 - np.exp(-(np.arange(SERIES_DAYS) + 1) / (random.uniform(0.3, 1.0) * seen))
    return normalize_at(values, seen)


def monthly(random: np.random.Generator, seen: int) -> Floats:
    """Exponential growth of 5 to 60 % a month."""
    values: Floats = np.exp(np.arange(SERIES_DAYS) * math.log(random.uniform(1.05, 1.6)) / 30)
    return normalize_at(values, seen)


def launched(random: np.random.Generator, seen: int) -> Floats:
    """A few days of little use, then all users at once."""
    launch_day, factor = random.integers(4, max(5, seen - 3)), random.uniform(2.5, 12)
    return np.where(np.arange(SERIES_DAYS) < launch_day, 1 / factor, 1.0)


def piloted(random: np.random.Generator, seen: int) -> Floats:
    """A small pilot, and linear growth since it was opened to others."""
    opened, end = random.uniform(0.25, 0.65) * seen, seen + random.uniform(0, 1.5) * seen
    values: Floats = random.uniform(0.2, 2) + np.maximum(np.minimum(np.arange(SERIES_DAYS), end) - opened, 0.0)
    return normalize_at(values, seen)


def flat(_: np.random.Generator, __: int) -> Floats:
    """No growth."""
    return np.ones(SERIES_DAYS)


def wandering(random: np.random.Generator, seen: int) -> Floats:
    values: Floats = np.exp(np.cumsum(random.normal(0, random.uniform(0.02, 0.06), SERIES_DAYS)))
    return normalize_at(values, seen)


def fading(random: np.random.Generator, seen: int) -> Floats:
    """Use that fades after everybody has tried it once."""
    values: Floats = random.uniform(0.15, 0.6) + np.exp(-np.arange(SERIES_DAYS) / (random.uniform(0.3, 0.8) * seen))
    return normalize_at(values, seen)


def bursty(random: np.random.Generator, _: int) -> Floats:
    """Some days many times as much as others, as with few users who experiment."""
    spread = random.uniform(0.6, 1.2)
    values: Floats = random.gamma(1 / spread**2, spread**2, SERIES_DAYS)
    return values


def weekly(random: np.random.Generator, _: int) -> Floats:
    """A week of very different days, some of them without any use, as of jobs and shifts."""
    week = np.exp(random.normal(0, 1.2, 7)) * (random.random(7) > random.uniform(0, 0.6))
    week[0] = 1.0
    values: Floats = week[np.arange(SERIES_DAYS) % 7]
    return values


SHAPES: Final[dict[str, Callable[[np.random.Generator, int], Floats]]] = {
    each.__name__: each
    for each in (saturating, ramp, slowing, monthly, launched, piloted, fading, flat, wandering, bursty, weekly)
}


def generate_series(shape: str, seen: int, seed: int) -> tuple[float, ...]:
    """Counts of `SERIES_DAYS` days, of which `seen` are known: half of the series of an office, noise of 3 to 35 %."""
    random = np.random.default_rng([seed, seen, list(SHAPES).index(shape)])
    level = random.uniform(30, 2000)
    office = random.random() < 0.5
    weekend = random.uniform(0.05, 0.4) if office else random.uniform(0.8, 1.2)
    first = int(random.integers(7))
    weekday_factor = np.where((np.arange(SERIES_DAYS) + first) % 7 < 5, 1.0, weekend)
    spread = random.uniform(0.03, 0.35)
    noise = random.gamma(1 / spread**2, spread**2, SERIES_DAYS)
    counts = random.poisson(level * SHAPES[shape](random, seen) * weekday_factor * noise).astype(float)
    return tuple(counts.tolist())


def evaluate_shape(shape: str, seen: int, seeds: range) -> dict[str, Any]:
    """The row of a shape and length: ratios of forecast to actual totals, and coverage of the interval."""
    ratios, in_interval, widths = [], [], []
    for seed in seeds:
        values = generate_series(shape, seen, seed)
        for horizon in AHEAD:
            prediction = forecast(Series(START, DAY, values[:seen]), horizon)
            actual = sum(values[seen : seen + horizon])
            ratios.append(math.log(max(prediction.total, 1e-9) / actual))
            in_interval.append(prediction.total_low <= actual <= prediction.total_high)
            widths.append(prediction.total_high / max(prediction.total_low, 1e-9))
    return {
        "shape": shape, "days": seen, "said": round(math.exp(float(np.median(ratios))), 3),
        "off": round(math.exp(float(np.median(np.abs(ratios)))) - 1, 3),
        "off_mean": round(math.exp(float(np.mean(np.abs(ratios)))) - 1, 3),
        "held": round(float(np.mean(in_interval)), 3), "width": round(float(np.median(widths)), 2),
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--series", type=int, default=40, help="of each shape and length")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    seeds = range(arguments.seed, arguments.seed + arguments.series)
    rows = [evaluate_shape(shape, seen, seeds) for shape in SHAPES for seen in LENGTHS]
    if arguments.json:
        print(json.dumps({"rows": rows}))
        return 0
    print(f"{'shape':12}{'days':>5}{'said':>8}{'off':>8}{'mean':>8}{'held':>7}{'width':>8}")
    for row in rows:
        print(
            f"{row['shape']:12}{row['days']:5}{row['said']:8.2f}{row['off']:8.2f}{row['off_mean']:8.2f}"
            f"{row['held']:7.2f}{row['width']:8.1f}"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
