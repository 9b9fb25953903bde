"""Forecasts against repeating the last season: error (MASE) and how often the 80 % interval holds the truth.

    python benchmarks/forecast.py FOLDER --json [--seed 1000] [--beside AutoETS]

FOLDER has request traces (azure_llm_2023_code.csv.gz, azure_llm_2023_conv.csv.gz and
mooncake_conversation_trace.jsonl.gz), of which calls and tokens are counted by 15 s. Generated seasons come beside
them: hours and days of workloads with daily and weekly seasons, growth, holidays, launches and noise, by `--seed` (the
settings of the product were tried on seeds below 1000 only). Every series is forecast from several past origins; what
came after each was not seen. MASE divides the error by that of repeating the last season within what was seen (without
a season: the last value). `plain` is of the generated series without launches alone, of which nobody knows more.

`--beside MODEL` forecasts with a model of statsforecast instead (AutoETS, AutoTheta, MSTL, AutoARIMA), where that is
installed: the same series, origins and intervals. It is told the seasons, and nothing of holidays and launches.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from groundplan.economics.forecast.model import Launch, Series
from groundplan.economics.forecast.predict import MIN_VALUES, forecast

STEP_S = 15
SERIES = 12
"""Generated ones of each kind."""
START = datetime(2026, 1, 5, tzinfo=UTC)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--beside", metavar="MODEL", help="of statsforecast, instead of the product's")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    if not asked.folder.is_dir():
        print(f"{asked.folder} is not there: name a folder of request traces", file=sys.stderr)
        return 66
    try:
        found = list(traces(asked.folder))
    except (OSError, EOFError, zlib.error, ValueError, TypeError, KeyError, IndexError) as error:
        print(f"{asked.folder} has a trace that cannot be read: {error}", file=sys.stderr)
        return 66
    for name, series, horizon, origins in found:
        if len(series.values) < needed(series, horizon, origins):
            print(f"{name} is too short to forecast from {origins} places of it, and left out", file=sys.stderr)
    found = [each for each in found if len(each[1].values) >= needed(*each[1:])]
    sets = {"traces": found, "hours": list(hours(asked.seed)), "days": list(days(asked.seed))}
    if not sets["traces"]:
        print(f"{asked.folder} has none of the traces; only generated seasons are measured", file=sys.stderr)
    with_ = ours if asked.beside is None else beside(asked.beside)
    value = summary({name: [judged(*each, with_) for each in made] for name, made in sets.items() if made})
    print(json.dumps(value, indent=None if asked.json else 1))
    return 0 if value["better"] >= 0.15 and 0.75 <= value["coverage"] <= 0.85 else 1


def traces(folder: Path) -> Iterator[tuple[str, Series, int, int]]:
    for name in ("code", "conv"):
        path = folder / f"azure_llm_2023_{name}.csv.gz"
        if path.is_file():
            with gzip.open(path, "rt") as file:
                rows = [line.rstrip().split(",") for line in list(file)[1:] if line.strip()]
            times = [datetime.fromisoformat(row[0][:26]).replace(tzinfo=UTC).timestamp() for row in rows]
            yield from counted(f"azure {name}", times, [int(row[1]) + int(row[2]) for row in rows])
    path = folder / "mooncake_conversation_trace.jsonl.gz"
    if path.is_file():
        with gzip.open(path, "rt") as file:
            calls = [json.loads(line) for line in file]
        times = [call["timestamp"] / 1000 for call in calls]
        yield from counted("mooncake", times, [call["input_length"] + call["output_length"] for call in calls])


def counted(name: str, times: list[float], tokens: list[int]) -> Iterator[tuple[str, Series, int, int]]:
    """Calls and tokens of each step."""
    if not times:
        return
    first = min(times)
    places = ((np.array(times) - first) // STEP_S).astype(int)
    for what, weights in (("calls", np.ones(len(times))), ("tokens", np.array(tokens, dtype=float))):
        values = np.bincount(places, weights=weights)[:-1]
        yield f"{name} {what}", Series(START, timedelta(seconds=STEP_S), tuple(values)), 20, 8


def needed(series: Series, horizon: int, origins: int) -> int:
    """Values without which it cannot be forecast from so many places."""
    return 2 * max(series.cycle, MIN_VALUES) + horizon + max(1, horizon // 2) * (origins - 1)


def hours(seed: int) -> Iterator[tuple[str, Series, int, int]]:
    for number in range(SERIES):
        yield f"hours {number}", generated(seed + number, 24, 10 * 7), 168, 3


def days(seed: int) -> Iterator[tuple[str, Series, int, int]]:
    for number in range(SERIES):
        yield f"days {number}", generated(seed + 100 + number, 1, 40 * 7), 28, 4


def generated(seed: int, per_day: int, count: int) -> Series:
    """A workload of `count` days in `per_day` steps."""
    random = np.random.default_rng(seed)
    steps = np.arange(count * per_day)
    day, hour = steps // per_day, steps % per_day * (24 / per_day)
    office = random.random() < 0.7
    weekly = np.where(day % 7 < 5, 1.0, random.uniform(0.05, 0.4) if office else random.uniform(0.8, 1.2))
    daily = np.ones(len(steps))
    if per_day > 1:
        peak = random.uniform(10, 15)
        daily = 0.08 + np.exp(-((hour - peak) ** 2) / (2 * random.uniform(2.5, 5) ** 2))
    growth = np.exp(day / 30 * math.log1p(random.uniform(-0.03, 0.12)))
    wander = np.exp(np.cumsum(random.normal(0, random.uniform(0.005, 0.03), count)))[day]
    holidays = set(random.choice(count, size=max(2, count // 45), replace=False).tolist())
    closed = np.where(np.isin(day, list(holidays)) & office, random.uniform(0.1, 0.4), 1.0)
    launches = []
    level = np.ones(len(steps))
    if random.random() < 0.5:
        at, factor = int(random.integers(count // 3, count)), float(random.uniform(1.3, 2.5))
        level[day >= at] = factor
        launches.append(Launch(START + timedelta(days=at), factor))
    mean = random.uniform(20, 2000) * weekly * daily * growth * wander * closed * level / per_day**0.5
    spread = random.uniform(0.03, 0.2)
    values = random.poisson(mean * random.gamma(1 / spread**2, spread**2, len(steps))).astype(float)
    dates = [(START + timedelta(days=int(each))).date().isoformat() for each in holidays if office]
    return Series(START, timedelta(hours=24 / per_day), tuple(values), frozenset(dates), tuple(launches))


class Band(NamedTuple):
    """80 % of the truth is meant to lie from low to high."""

    middle: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


def ours(series: Series, horizon: int) -> Band:
    """The product's."""
    made = forecast(series, horizon)
    return Band(made.middle, made.low, made.high)


def beside(model: str) -> Callable[[Series, int], Band]:
    """A model of statsforecast as a forecaster of ours."""
    models = import_module("statsforecast.models")

    def predict(series: Series, horizon: int) -> Band:
        per_day = round(timedelta(days=1) / series.step)
        season = 24 if per_day == 24 else 7 if per_day == 1 else 1
        found = models.MSTL([24, 168]) if model == "MSTL" and season == 24 else None
        found = found or getattr(models, model if model != "MSTL" else "AutoETS")(season_length=season)
        made = found.forecast(y=np.array(series.values), h=horizon, level=[80])
        return Band(*(np.maximum(made[key], 0.0) for key in ("mean", "lo-80", "hi-80")))

    return predict


def judged(
    name: str, series: Series, horizon: int, origins: int, with_: Callable[[Series, int], Band]
) -> dict[str, Any]:
    """Both errors over all origins, and how many of the values were within the interval."""
    held: list[bool] = []
    errors, naive, scales = [], [], []
    cycle = series.cycle
    gap = max(1, horizon // 2)
    for origin in range(len(series.values) - horizon - gap * (origins - 1), len(series.values) - horizon + 1, gap):
        seen = Series(
            series.start, series.step, series.values[:origin], series.holidays, series.launches, series.growth_per_month
        )
        truth = np.array(series.values[origin : origin + horizon])
        made = with_(seen, horizon)
        repeated = np.array([series.values[origin - cycle + step % cycle] for step in range(horizon)])
        before = np.array(seen.values)
        scales.append(float(np.abs(before[cycle:] - before[:-cycle]).mean()) or 1.0)  # what never changes has no error
        errors.append(float(np.abs(np.array(made.middle) - truth).mean()) / scales[-1])
        naive.append(float(np.abs(repeated - truth).mean()) / scales[-1])
        held.extend((np.array(made.low) <= truth) & (truth <= np.array(made.high)))
    return {
        "series": name, "mase": float(np.mean(errors)), "naive_mase": float(np.mean(naive)),
        "coverage": float(np.mean(held)), "values": len(held), "launches": len(series.launches),
    }  # fmt: skip


def summary(found: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    every = [row for rows in found.values() for row in rows]
    return {
        **_whole(every),
        "sets": {name: _whole(rows) for name, rows in found.items()},
        "plain": _whole([row for row in every if not row["launches"] and not row["series"].startswith(("a", "m"))]),
        "series": [{key: _round(value) for key, value in row.items()} for row in every],
    }


def _whole(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Series count alike, whatever their length."""
    mase, naive = (float(np.mean([row[key] for row in rows])) for key in ("mase", "naive_mase"))
    coverage = float(np.mean([row["coverage"] for row in rows]))
    return {
        "mase": round(mase, 4), "naive_mase": round(naive, 4), "better": round(1 - mase / naive, 4) if naive else 0.0,
        "coverage": round(coverage, 4),
    }  # fmt: skip


def _round(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value


if __name__ == "__main__":
    raise SystemExit(main())
