"""Forecasts compared with repeating the last season: error (MASE) and coverage of the 80 % interval.

    python benchmarks/forecast.py FOLDER --json [--seed 1000] [--beside AutoETS]

FOLDER has request traces (azure_llm_2023_code.csv.gz, azure_llm_2023_conv.csv.gz and
mooncake_conversation_trace.jsonl.gz), whose calls and tokens are counted per 15 s. Generated series are added: hours
and days of workloads with daily and weekly seasons, growth, holidays, launches and noise, by `--seed` (the settings of
the product were tried on seeds below 1000 only). Every series is forecast from several past origins; the values after
an origin are not seen. MASE divides the error by that of repeating the last season within the values seen (without a
season: the last value). `plain` covers only the generated series without launches, which no forecaster knows more of.

`--beside MODEL` forecasts with a model of statsforecast instead (AutoETS, AutoTheta, MSTL, AutoARIMA), where that is
installed: the same series, origins and intervals. The model gets the seasons, but neither holidays nor launches.
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
"""Generated series of each kind."""
START = datetime(2026, 1, 5, tzinfo=UTC)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--beside", metavar="MODEL", help="of statsforecast, instead of the product's")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if not arguments.folder.is_dir():
        print(f"{arguments.folder} is not there: name a folder of request traces", file=sys.stderr)
        return 66
    try:
        trace_series = list(traces(arguments.folder))
    except (OSError, EOFError, zlib.error, ValueError, TypeError, KeyError, IndexError) as error:
        print(f"{arguments.folder} has a trace that cannot be read: {error}", file=sys.stderr)
        return 66
    for name, series, horizon, origins in trace_series:
        if len(series.values) < values_needed(series, horizon, origins):
            print(f"{name} is too short to forecast from {origins} places of it, and left out", file=sys.stderr)
    trace_series = [entry for entry in trace_series if len(entry[1].values) >= values_needed(*entry[1:])]
    sets = {"traces": trace_series, "hours": list(hours(arguments.seed)), "days": list(days(arguments.seed))}
    if not sets["traces"]:
        print(f"{arguments.folder} has none of the traces; only generated seasons are measured", file=sys.stderr)
    forecaster = product_forecast if arguments.beside is None else statsforecast_forecaster(arguments.beside)
    value = summarize(
        {
            name: [evaluate_series(*entry, forecaster) for entry in series_set]
            for name, series_set in sets.items()
            if series_set
        }
    )
    print(json.dumps(value, indent=None if arguments.json else 1))
    return 0 if value["better"] >= 0.15 and 0.75 <= value["coverage"] <= 0.85 else 1


def traces(folder: Path) -> Iterator[tuple[str, Series, int, int]]:
    """(name, series, horizon, origins) of calls and of tokens of each trace in the folder."""
    for trace in ("code", "conv"):
        path = folder / f"azure_llm_2023_{trace}.csv.gz"
        if path.is_file():
            with gzip.open(path, "rt") as file:
                rows = [line.rstrip().split(",") for line in list(file)[1:] if line.strip()]
            times = [datetime.fromisoformat(row[0][:26]).replace(tzinfo=UTC).timestamp() for row in rows]
            yield from count_by_step(f"azure {trace}", times, [int(row[1]) + int(row[2]) for row in rows])
    path = folder / "mooncake_conversation_trace.jsonl.gz"
    if path.is_file():
        with gzip.open(path, "rt") as file:
            calls = [json.loads(line) for line in file]
        times = [call["timestamp"] / 1000 for call in calls]
        yield from count_by_step("mooncake", times, [call["input_length"] + call["output_length"] for call in calls])


def count_by_step(name: str, times: list[float], tokens: list[int]) -> Iterator[tuple[str, Series, int, int]]:
    """(name, series, horizon, origins) of the calls and of the tokens of each step; `times` are in seconds."""
    if not times:
        return
    first = min(times)
    steps = ((np.array(times) - first) // STEP_S).astype(int)
    for measure, weights in (("calls", np.ones(len(times))), ("tokens", np.array(tokens, dtype=float))):
        values = np.bincount(steps, weights=weights)[:-1]
        yield f"{name} {measure}", Series(START, timedelta(seconds=STEP_S), tuple(values)), 20, 8


def values_needed(series: Series, horizon: int, origins: int) -> int:
    """Values that a series must have at least to be forecast from so many origins."""
    return 2 * max(series.cycle, MIN_VALUES) + horizon + max(1, horizon // 2) * (origins - 1)


def hours(seed: int) -> Iterator[tuple[str, Series, int, int]]:
    for number in range(SERIES):
        yield f"hours {number}", generate_series(seed + number, 24, 10 * 7), 168, 3


def days(seed: int) -> Iterator[tuple[str, Series, int, int]]:
    for number in range(SERIES):
        yield f"days {number}", generate_series(seed + 100 + number, 1, 40 * 7), 28, 4


def generate_series(seed: int, per_day: int, count: int) -> Series:
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
        launch_day, factor = int(random.integers(count // 3, count)), float(random.uniform(1.3, 2.5))
        level[day >= launch_day] = factor
        launches.append(Launch(START + timedelta(days=launch_day), factor))
    mean = random.uniform(20, 2000) * weekly * daily * growth * wander * closed * level / per_day**0.5
    spread = random.uniform(0.03, 0.2)
    values = random.poisson(mean * random.gamma(1 / spread**2, spread**2, len(steps))).astype(float)
    dates = [(START + timedelta(days=int(holiday))).date().isoformat() for holiday in holidays if office]
    return Series(START, timedelta(hours=24 / per_day), tuple(values), frozenset(dates), tuple(launches))


class Band(NamedTuple):
    """A forecast; 80 % of the true values should lie from low to high."""

    middle: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


def product_forecast(series: Series, horizon: int) -> Band:
    """The product's forecast."""
    prediction = forecast(series, horizon)
    return Band(prediction.middle, prediction.low, prediction.high)


def statsforecast_forecaster(model: str) -> Callable[[Series, int], Band]:
    """A model of statsforecast with the interface of `product_forecast`."""
    models = import_module("statsforecast.models")

    def predict(series: Series, horizon: int) -> Band:
        per_day = round(timedelta(days=1) / series.step)
        season = 24 if per_day == 24 else 7 if per_day == 1 else 1
        fitted = models.MSTL([24, 168]) if model == "MSTL" and season == 24 else None
        fitted = fitted or getattr(models, model if model != "MSTL" else "AutoETS")(season_length=season)
        prediction = fitted.forecast(y=np.array(series.values), h=horizon, level=[80])
        return Band(*(np.maximum(prediction[key], 0.0) for key in ("mean", "lo-80", "hi-80")))

    return predict


def evaluate_series(
    name: str, series: Series, horizon: int, origins: int, forecaster: Callable[[Series, int], Band]
) -> dict[str, Any]:
    """Errors of the forecaster and of repeating the season over all origins, and the coverage of the interval."""
    in_interval: list[bool] = []
    errors, naive, scales = [], [], []
    cycle = series.cycle
    gap = max(1, horizon // 2)
    for origin in range(len(series.values) - horizon - gap * (origins - 1), len(series.values) - horizon + 1, gap):
        known = Series(
            series.start, series.step, series.values[:origin], series.holidays, series.launches, series.growth_per_month
        )
        truth = np.array(series.values[origin : origin + horizon])
        band = forecaster(known, horizon)
        repeated = np.array([series.values[origin - cycle + step % cycle] for step in range(horizon)])
        history = np.array(known.values)
        scales.append(float(np.abs(history[cycle:] - history[:-cycle]).mean()) or 1.0)  # a constant series has no error
        errors.append(float(np.abs(np.array(band.middle) - truth).mean()) / scales[-1])
        naive.append(float(np.abs(repeated - truth).mean()) / scales[-1])
        in_interval.extend((np.array(band.low) <= truth) & (truth <= np.array(band.high)))
    return {
        "series": name, "mase": float(np.mean(errors)), "naive_mase": float(np.mean(naive)),
        "coverage": float(np.mean(in_interval)), "values": len(in_interval), "launches": len(series.launches),
    }  # fmt: skip


def summarize(rows_by_set: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    all_rows = [row for rows in rows_by_set.values() for row in rows]
    return {
        **_means(all_rows),
        "sets": {name: _means(rows) for name, rows in rows_by_set.items()},
        "plain": _means([row for row in all_rows if not row["launches"] and not row["series"].startswith(("a", "m"))]),
        "series": [{key: _round(value) for key, value in row.items()} for row in all_rows],
    }


def _means(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Means over the series, each with the same weight, whatever its length."""
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
