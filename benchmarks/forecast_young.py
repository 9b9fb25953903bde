"""Forecasts of what is new: totals from 10 to 42 days of history, for shapes of growth that histories so short have.

    python benchmarks/forecast_young.py --json

For each shape and length: how many times too low or high totals of the next 14 and 28 days are (the median of
said / came, and the median of how far off), and how many lie within the 80 % interval. How each grows on is drawn after
the days that are known: growth that is seen ends soon, late or not at all within what is asked for.
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
MOST: Final = 70
"""Days of each series, at least those of the longest history and what comes after it."""


def until(made: Floats, seen: int) -> Floats:
    """With 1 on the last day that is known."""
    found: Floats = made / made[seen - 1]
    return found


def saturating(random: np.random.Generator, seen: int) -> Floats:
    """15 to 30 % a day, and everybody who wants it has it some day from the middle of what is seen on."""
    rate, half = math.log(random.uniform(1.15, 1.3)), random.uniform(0.5, 1.6) * seen
    made: Floats = 1 / (1 + np.exp(-rate * (np.arange(MOST) - half)))
    return until(made, seen)


def ramp(random: np.random.Generator, seen: int) -> Floats:
    """As many more each day from a launch on, until some day from the last one seen on."""
    begun, ends = random.uniform(-3, 0), seen + random.uniform(0, 1.5) * seen
    made: Floats = np.minimum(np.arange(MOST), ends) - begun + 0.5
    return until(made, seen)


def slowing(random: np.random.Generator, seen: int) -> Floats:
    """A launch that everybody hears of: fast at first, and slower as fewer are left."""
    made: Floats = 1 - np.exp(-(np.arange(MOST) + 1) / (random.uniform(0.3, 1.0) * seen))
    return until(made, seen)


def monthly(random: np.random.Generator, seen: int) -> Floats:
    """5 to 60 % a month."""
    made: Floats = np.exp(np.arange(MOST) * math.log(random.uniform(1.05, 1.6)) / 30)
    return until(made, seen)


def launched(random: np.random.Generator, seen: int) -> Floats:
    """A few days of little, then everybody at once."""
    at, times = random.integers(4, max(5, seen - 3)), random.uniform(2.5, 12)
    return np.where(np.arange(MOST) < at, 1 / times, 1.0)


def piloted(random: np.random.Generator, seen: int) -> Floats:
    """A pilot of few, and as many more each day since it was opened."""
    since, ends = random.uniform(0.25, 0.65) * seen, seen + random.uniform(0, 1.5) * seen
    made: Floats = random.uniform(0.2, 2) + np.maximum(np.minimum(np.arange(MOST), ends) - since, 0.0)
    return until(made, seen)


def flat(_: np.random.Generator, __: int) -> Floats:
    return np.ones(MOST)


def wandering(random: np.random.Generator, seen: int) -> Floats:
    made: Floats = np.exp(np.cumsum(random.normal(0, random.uniform(0.02, 0.06), MOST)))
    return until(made, seen)


def fading(random: np.random.Generator, seen: int) -> Floats:
    """What everybody tries once."""
    made: Floats = random.uniform(0.15, 0.6) + np.exp(-np.arange(MOST) / (random.uniform(0.3, 0.8) * seen))
    return until(made, seen)


def bursty(random: np.random.Generator, _: int) -> Floats:
    """Some days many times as much as others, as where few people try things."""
    spread = random.uniform(0.6, 1.2)
    made: Floats = random.gamma(1 / spread**2, spread**2, MOST)
    return made


def weekly(random: np.random.Generator, _: int) -> Floats:
    """A week of days that differ much, on some of which there is nothing, as of jobs and shifts."""
    week = np.exp(random.normal(0, 1.2, 7)) * (random.random(7) > random.uniform(0, 0.6))
    week[0] = 1.0
    made: Floats = week[np.arange(MOST) % 7]
    return made


SHAPES: Final[dict[str, Callable[[np.random.Generator, int], Floats]]] = {
    each.__name__: each
    for each in (saturating, ramp, slowing, monthly, launched, piloted, fading, flat, wandering, bursty, weekly)
}


def generated(shape: str, seen: int, seed: int) -> tuple[float, ...]:
    """Counts of `MOST` days, of which `seen` are known: half of them of an office, with noise of 3 to 35 %."""
    random = np.random.default_rng([seed, seen, list(SHAPES).index(shape)])
    level = random.uniform(30, 2000)
    office = random.random() < 0.5
    weekend = random.uniform(0.05, 0.4) if office else random.uniform(0.8, 1.2)
    first = int(random.integers(7))
    weekly = np.where((np.arange(MOST) + first) % 7 < 5, 1.0, weekend)
    spread = random.uniform(0.03, 0.35)
    noise = random.gamma(1 / spread**2, spread**2, MOST)
    drawn = random.poisson(level * SHAPES[shape](random, seen) * weekly * noise).astype(float)
    return tuple(drawn.tolist())


def judged(shape: str, seen: int, seeds: range) -> dict[str, Any]:
    ratios, held, widths = [], [], []
    for seed in seeds:
        values = generated(shape, seen, seed)
        for horizon in AHEAD:
            made = forecast(Series(START, DAY, values[:seen]), horizon)
            came = sum(values[seen : seen + horizon])
            ratios.append(math.log(max(made.total, 1e-9) / came))
            held.append(made.total_low <= came <= made.total_high)
            widths.append(made.total_high / max(made.total_low, 1e-9))
    return {
        "shape": shape, "days": seen, "said": round(math.exp(float(np.median(ratios))), 3),
        "off": round(math.exp(float(np.median(np.abs(ratios)))) - 1, 3),
        "off_mean": round(math.exp(float(np.mean(np.abs(ratios)))) - 1, 3),
        "held": round(float(np.mean(held)), 3), "width": round(float(np.median(widths)), 2),
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--series", type=int, default=40, help="of each shape and length")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    seeds = range(asked.seed, asked.seed + asked.series)
    rows = [judged(shape, seen, seeds) for shape in SHAPES for seen in LENGTHS]
    if asked.json:
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
