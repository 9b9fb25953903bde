"""Detection delay and false alarms of anomaly detection on spending: six kinds of injected anomalies at four sizes.

    python benchmarks/anomalies.py --json [--seed 1000] [--workloads 6]

Generated workloads (daily and weekly seasons, drift, bursts, call sizes with long tails, a cache, two models, many
callers) run for four weeks, which the product learns from, and one more week without any anomaly, in which every alarm
is false. Then each anomaly is injected at a random minute of that week; the delay is the minutes until its kind (or the
spend that it causes) is reported, at most four hours. Thresholds were chosen on seeds below 1000.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Any

import numpy as np

from groundplan.economics.anomaly.detect import WINDOW, Baseline, detect
from groundplan.economics.anomaly.model import KINDS, Hour, Kind, Minute

WEEKS = 4
START = datetime(2026, 1, 5, tzinfo=UTC)
MAX_DELAY = 240
"""Minutes after which an anomaly counts as missed."""
SIZES: dict[Kind, tuple[float, ...]] = {
    "spend": (1.5, 2.0, 4.0, 10.0),
    "tokens_per_call": (1.25, 1.5, 2.0, 4.0),
    "cache_rate": (0.75, 0.5, 0.25, 0.0),
    "mix": (0.1, 0.25, 0.5, 0.9),
    "new_caller": (0.02, 0.05, 0.2, 0.5),
    "runaway": (10.0, 30.0, 60.0, 200.0),
}
"""Factor of the usual spend, tokens per call and cache rate; share of calls that move to a dearer model or come from a
new caller; calls per minute of a loop."""


@dataclass
class Workload:
    """The expected calls of five weeks, minute by minute, and the shape of a call."""

    rate: Any
    """Expected calls of each minute."""
    tokens: float
    price: int
    """picodollars a token"""
    cached: float
    dear: float
    """Share of calls to the dearer model."""
    callers: int


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--workloads", type=int, default=6)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.workloads < 1:
        parser.error("--workloads must be 1 or more")
    value = measure(arguments.seed, arguments.workloads)
    print(json.dumps(value, indent=None if arguments.json else 1))
    return 0 if value["false_alarms_a_week"] <= 1 else 1


def measure(seed: int, workloads: int) -> dict[str, Any]:
    false_alarms: dict[str, list[int]] = {kind: [] for kind in KINDS}
    alarms_a_week: list[int] = []
    delays: dict[tuple[Kind, float], list[int | None]] = {
        (kind, size): [] for kind, sizes in SIZES.items() for size in sizes
    }
    for number in range(workloads):
        random = np.random.default_rng(seed + number)
        workload = make_workload(random)
        hours, quiet = learning_hours(random, workload), quiet_week(random, workload)
        known, busiest = known_callers(workload)
        found_alarms = alarms(hours, quiet, known, busiest)
        for kind in KINDS:
            false_alarms[kind].append(episodes([at for at, kinds in found_alarms if kind in kinds]))
        alarms_a_week.append(episodes([at for at, _ in found_alarms]))
        for (kind, size), found_delays in delays.items():
            found_delays.append(detection_delay(random, workload, hours, quiet, kind, size))
    rows = [_delay_row(kind, size, found_delays) for (kind, size), found_delays in delays.items()]
    return {
        "workloads": workloads,
        "false_alarms_a_week": round(sum(alarms_a_week) / workloads, 3),
        "most_of_one_workload": max(alarms_a_week),
        "false_by_kind": {kind: round(sum(counts) / workloads, 3) for kind, counts in false_alarms.items()},
        "delays": rows,
        "seed": seed,
    }


def _delay_row(kind: Kind, size: float, delays: list[int | None]) -> dict[str, Any]:
    found = [minutes for minutes in delays if minutes is not None]
    return {
        "kind": kind, "size": size, "found": len(found), "of": len(delays),
        "delay_min": median(found) if found else None,
    }  # fmt: skip


def make_workload(random: Any) -> Workload:
    minutes = (WEEKS + 1) * 7 * 1440
    steps = np.arange(minutes)
    day, hour = steps // 1440, steps % 1440 / 60
    office = random.random() < 0.7
    weekly = np.where(day % 7 < 5, 1.0, random.uniform(0.1, 0.4) if office else 1.0)
    daily = 0.1 + np.exp(-((hour - random.uniform(10, 15)) ** 2) / (2 * random.uniform(3, 5) ** 2))
    drift = np.exp(np.cumsum(random.normal(0, 0.04, (WEEKS + 1) * 7)))[day]
    hours = np.exp(random.normal(0, random.uniform(0.05, 0.15), minutes // 60))[steps // 60]
    rate = float(np.exp(random.uniform(math.log(3), math.log(120)))) * weekly * daily * drift * hours
    return Workload(rate, random.uniform(500, 4000), int(random.uniform(5e5, 5e6)), random.uniform(0.2, 0.6),
                    random.uniform(0.05, 0.2), int(random.integers(5, 40)))  # fmt: skip


def learning_hours(random: Any, workload: Workload) -> list[Hour]:
    hours = []
    for place in range(WEEKS * 7 * 24):
        rate = workload.rate[place * 60 : (place + 1) * 60].sum()
        hours.append(draw_hour(random, workload, START + timedelta(hours=place), float(rate)))
    return hours


def baseline(hours: list[Hour], quiet: list[Minute], minute: int) -> Baseline:
    """The product's baseline at a minute of the last week: the four weeks before its last complete hour."""
    recent_hours = [hour_of_minutes(quiet[place : place + 60]) for place in range(0, minute - WINDOW - 59, 60)]
    return Baseline([*hours, *recent_hours][-WEEKS * 7 * 24 :])


def hour_of_minutes(minutes: list[Minute]) -> Hour:
    by_model: dict[str, int] = {}
    for minute in minutes:
        for name, count in minute.by_model.items():
            by_model[name] = by_model.get(name, 0) + count
    return Hour(minutes[0].at, sum(m.calls for m in minutes), sum(m.cost for m in minutes),
                sum(m.tokens for m in minutes), sum(m.cached for m in minutes), by_model)  # fmt: skip


def draw_hour(random: Any, workload: Workload, at: datetime, rate: float) -> Hour:
    minute = draw_minute(random, workload, at, rate)
    return Hour(at, minute.calls, minute.cost, minute.tokens, minute.cached, minute.by_model)


def quiet_week(random: Any, workload: Workload) -> list[Minute]:
    first = WEEKS * 7 * 1440
    return [
        draw_minute(random, workload, START + timedelta(minutes=first + place), float(workload.rate[first + place]))
        for place in range(7 * 1440)
    ]


def draw_minute(
    random: Any, workload: Workload, at: datetime, rate: float, *, tokens: float = 1.0, cached: float = 1.0,
    moved_share: float = 0.0, stranger_share: float = 0.0, loop_rate: float = 0.0,
) -> Minute:  # fmt: skip
    """A random minute with `rate` expected calls. Tokens of a call have a long tail; cached calls cost nothing, the
    dearer model five times as much."""
    calls = int(random.poisson(rate))
    cache_hits = int(random.binomial(calls, workload.cached * cached))
    dear_calls = int(random.binomial(calls - cache_hits, min(1.0, workload.dear + moved_share)))
    tokens_by_call = random.lognormal(0, 0.8, calls + 1) * workload.tokens * tokens / math.exp(0.32)
    cost = (
        float(
            tokens_by_call[: calls - cache_hits - dear_calls].sum()
            + 5 * tokens_by_call[calls - cache_hits - dear_calls : calls - cache_hits].sum()
        )
        * workload.price
    )
    by_caller = {}
    if calls:
        weights = random.multinomial(calls, _caller_shares(workload.callers))
        by_caller = {f"caller-{place}": int(count) for place, count in enumerate(weights) if count}
    if stranger_share and calls:
        by_caller["stranger"] = int(random.binomial(calls, stranger_share))
    loop_calls = int(random.poisson(loop_rate)) if loop_rate else 0
    if loop_calls:
        by_caller["caller-0"] = by_caller.get("caller-0", 0) + loop_calls
    by_model = {"small": calls - cache_hits - dear_calls + loop_calls, "large": dear_calls, "cache": cache_hits}
    return Minute(at, calls + loop_calls, int(cost + loop_calls * workload.tokens * workload.price),
                  int(tokens_by_call[:calls].sum() + loop_calls * workload.tokens), cache_hits,
                  {name: count for name, count in by_model.items() if count}, by_caller)  # fmt: skip


def _caller_shares(count: int) -> Any:
    weights = 1 / np.arange(1, count + 1)
    return weights / weights.sum()


def known_callers(workload: Workload) -> tuple[frozenset[str], dict[str, float]]:
    """The known callers and the busiest minute of each, as the product has them from the last weeks."""
    shares, top = _caller_shares(workload.callers), float(np.quantile(workload.rate, 0.999))
    busiest = {f"caller-{place}": top * share + 3 * math.sqrt(top * share) for place, share in enumerate(shares)}
    return frozenset(busiest), busiest


def alarms(
    hours: list[Hour], minutes: list[Minute], known: frozenset[str], busiest: dict[str, float]
) -> list[tuple[int, set[Kind]]]:
    """(minute, kinds) of each minute with an alarm; every minute is checked, the baseline renewed every three hours."""
    alarm_minutes = []
    usual = baseline(hours, minutes, 0)
    for place in range(WINDOW, len(minutes)):
        if place % 180 == 0:
            usual = baseline(hours, minutes, place)
        found_alarms = detect(usual, minutes[place - WINDOW + 1 : place + 1], known, busiest)
        if found_alarms:
            alarm_minutes.append((place, {alarm.kind for alarm in found_alarms}))
    return alarm_minutes


def episodes(minutes: list[int]) -> int:
    """The number of findings: alarms further apart than an hour count separately, as the finding closes in between."""
    return sum(place == 0 or at - minutes[place - 1] > WINDOW for place, at in enumerate(minutes))


def detection_delay(
    random: Any, workload: Workload, hours: list[Hour], quiet: list[Minute], kind: Kind, size: float
) -> int | None:
    known, busiest = known_callers(workload)
    office_minutes = [place for place in range(WINDOW, len(quiet) - MAX_DELAY) if 8 <= quiet[place].at.hour < 17]
    start = int(random.choice(office_minutes))
    usual = baseline(hours, quiet, start)
    minutes = list(quiet[start - WINDOW : start])
    counts_as = {kind, "spend", "new_caller"} if kind == "runaway" else {kind, "spend"}
    for place in range(MAX_DELAY):
        minute = quiet[start + place]
        rate = float(workload.rate[WEEKS * 7 * 1440 + start + place])
        change: dict[str, Any] = {
            "spend": {"rate": rate * size}, "tokens_per_call": {"rate": rate, "tokens": size},
            "cache_rate": {"rate": rate, "cached": size}, "mix": {"rate": rate, "moved_share": size},
            "new_caller": {"rate": rate, "stranger_share": size}, "runaway": {"rate": rate, "loop_rate": size},
        }[kind]  # fmt: skip
        minutes.append(draw_minute(random, workload, minute.at, **change))
        found_alarms = detect(usual, minutes[-WINDOW:], known, busiest)
        if any(alarm.kind in counts_as for alarm in found_alarms):
            return place + 1
    return None


if __name__ == "__main__":
    raise SystemExit(main())
