"""Detection delay and false alarms of the watch over spending: six kinds of anomalies at four sizes, injected.

    python benchmarks/anomalies.py --json [--seed 1000] [--workloads 6]

Generated workloads (daily and weekly seasons, drift, bursts, call sizes with long tails, a cache, two models, callers
who come and go) run for four weeks, which the product may learn from, and one more week without any anomaly, in which
every alarm is false. Then each anomaly is injected at a random minute of that week; the delay is the minutes until its
kind (or the spend that it causes) is told, of at most four hours. Thresholds were chosen on seeds below 1000.
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
LIMIT = 240
"""Minutes after which an anomaly counts as missed."""
SIZES: dict[Kind, tuple[float, ...]] = {
    "spend": (1.5, 2.0, 4.0, 10.0),
    "tokens_per_call": (1.25, 1.5, 2.0, 4.0),
    "cache_rate": (0.75, 0.5, 0.25, 0.0),
    "mix": (0.1, 0.25, 0.5, 0.9),
    "new_caller": (0.02, 0.05, 0.2, 0.5),
    "runaway": (10.0, 30.0, 60.0, 200.0),
}
"""Times the usual spend, tokens a call and cache rate; share of calls that move to a dearer model or come from a new
caller; calls a minute of a loop."""


@dataclass
class Workload:
    """Minutes of five weeks, and how calls look."""

    rate: Any
    """Expected calls of each minute."""
    tokens: float
    price: int
    """picodollars a token"""
    cached: float
    dear: float
    """Share of calls at the dearer model."""
    callers: int


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--workloads", type=int, default=6)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    if asked.workloads < 1:
        parser.error("--workloads must be 1 or more")
    value = measure(asked.seed, asked.workloads)
    print(json.dumps(value, indent=None if asked.json else 1))
    return 0 if value["false_alarms_a_week"] <= 1 else 1


def measure(seed: int, workloads: int) -> dict[str, Any]:
    false: dict[str, list[int]] = {kind: [] for kind in KINDS}
    weeks: list[int] = []
    delays: dict[tuple[Kind, float], list[int | None]] = {
        (kind, size): [] for kind, sizes in SIZES.items() for size in sizes
    }
    for number in range(workloads):
        random = np.random.default_rng(seed + number)
        workload = make_workload(random)
        hours, quiet = before(random, workload), week(random, workload)
        known, busiest = callers(workload)
        told = alarms(hours, quiet, known, busiest)
        for kind in KINDS:
            false[kind].append(episodes([at for at, kinds in told if kind in kinds]))
        weeks.append(episodes([at for at, _ in told]))
        for (kind, size), found in delays.items():
            found.append(delay(random, workload, hours, quiet, kind, size))
    rows = [
        {
            "kind": kind, "size": size, "found": sum(d is not None for d in found), "of": len(found),
            "delay_min": median([d for d in found if d is not None]) if any(d is not None for d in found) else None,
        }
        for (kind, size), found in delays.items()
    ]  # fmt: skip
    return {
        "workloads": workloads,
        "false_alarms_a_week": round(sum(weeks) / workloads, 3),
        "most_of_one_workload": max(weeks),
        "false_by_kind": {kind: round(sum(counts) / workloads, 3) for kind, counts in false.items()},
        "delays": rows,
        "seed": seed,
    }


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


def before(random: Any, workload: Workload) -> list[Hour]:
    hours = []
    for place in range(WEEKS * 7 * 24):
        rate = workload.rate[place * 60 : (place + 1) * 60].sum()
        hours.append(hour_of(random, workload, START + timedelta(hours=place), float(rate)))
    return hours


def baseline(hours: list[Hour], quiet: list[Minute], minute: int) -> Baseline:
    """What the product knows at a minute of the last week: the four weeks before its last whole hour."""
    seen = [whole(quiet[place : place + 60]) for place in range(0, minute - WINDOW - 59, 60)]
    return Baseline([*hours, *seen][-WEEKS * 7 * 24 :])


def whole(minutes: list[Minute]) -> Hour:
    by_model: dict[str, int] = {}
    for minute in minutes:
        for name, count in minute.by_model.items():
            by_model[name] = by_model.get(name, 0) + count
    return Hour(minutes[0].at, sum(m.calls for m in minutes), sum(m.cost for m in minutes),
                sum(m.tokens for m in minutes), sum(m.cached for m in minutes), by_model)  # fmt: skip


def hour_of(random: Any, workload: Workload, at: datetime, rate: float) -> Hour:
    one = minute_of(random, workload, at, rate)
    return Hour(at, one.calls, one.cost, one.tokens, one.cached, one.by_model)


def week(random: Any, workload: Workload) -> list[Minute]:
    first = WEEKS * 7 * 1440
    return [
        minute_of(random, workload, START + timedelta(minutes=first + place), float(workload.rate[first + place]))
        for place in range(7 * 1440)
    ]


def minute_of(
    random: Any, workload: Workload, at: datetime, rate: float, *, tokens: float = 1.0, cached: float = 1.0,
    moved: float = 0.0, new: float = 0.0, loop: float = 0.0,
) -> Minute:  # fmt: skip
    """Calls by chance; tokens of a call have a long tail; cached calls cost nothing, the dearer model five times."""
    calls = int(random.poisson(rate))
    hits = int(random.binomial(calls, workload.cached * cached))
    dear = int(random.binomial(calls - hits, min(1.0, workload.dear + moved)))
    each = random.lognormal(0, 0.8, calls + 1) * workload.tokens * tokens / math.exp(0.32)
    cost = (
        float(each[: calls - hits - dear].sum() + 5 * each[calls - hits - dear : calls - hits].sum()) * workload.price
    )
    by_caller = {}
    if calls:
        weights = random.multinomial(calls, _callers(workload.callers))
        by_caller = {f"caller-{place}": int(count) for place, count in enumerate(weights) if count}
    if new and calls:
        by_caller["stranger"] = int(random.binomial(calls, new))
    looped = int(random.poisson(loop)) if loop else 0
    if looped:
        by_caller["caller-0"] = by_caller.get("caller-0", 0) + looped
    by_model = {"small": calls - hits - dear + looped, "large": dear, "cache": hits}
    return Minute(at, calls + looped, int(cost + looped * workload.tokens * workload.price),
                  int(each[:calls].sum() + looped * workload.tokens), hits,
                  {name: count for name, count in by_model.items() if count}, by_caller)  # fmt: skip


def _callers(count: int) -> Any:
    weights = 1 / np.arange(1, count + 1)
    return weights / weights.sum()


def callers(workload: Workload) -> tuple[frozenset[str], dict[str, float]]:
    """Who is known, and the busiest minute of each: as the product has it from the last weeks."""
    shares, top = _callers(workload.callers), float(np.quantile(workload.rate, 0.999))
    busiest = {f"caller-{place}": top * share + 3 * math.sqrt(top * share) for place, share in enumerate(shares)}
    return frozenset(busiest), busiest


def alarms(
    hours: list[Hour], minutes: list[Minute], known: frozenset[str], busiest: dict[str, float]
) -> list[tuple[int, set[Kind]]]:
    """(minute, kinds) whenever something is told, looking at every minute; what is usual is read every three hours."""
    found = []
    past = baseline(hours, minutes, 0)
    for place in range(WINDOW, len(minutes)):
        if place % 180 == 0:
            past = baseline(hours, minutes, place)
        told = detect(past, minutes[place - WINDOW + 1 : place + 1], known, busiest)
        if told:
            found.append((place, {alarm.kind for alarm in told}))
    return found


def episodes(minutes: list[int]) -> int:
    """Alarms that are further apart than an hour are different ones, as the finding closes in between."""
    return sum(place == 0 or at - minutes[place - 1] > WINDOW for place, at in enumerate(minutes))


def delay(
    random: Any, workload: Workload, hours: list[Hour], quiet: list[Minute], kind: Kind, size: float
) -> int | None:
    known, busiest = callers(workload)
    busy = [place for place in range(WINDOW, len(quiet) - LIMIT) if 8 <= quiet[place].at.hour < 17]
    begins = int(random.choice(busy))
    past = baseline(hours, quiet, begins)
    changed = list(quiet[begins - WINDOW : begins])
    counts_as = {kind, "spend", "new_caller"} if kind == "runaway" else {kind, "spend"}
    for place in range(LIMIT):
        minute = quiet[begins + place]
        rate = float(workload.rate[WEEKS * 7 * 1440 + begins + place])
        asked: dict[str, Any] = {
            "spend": {"rate": rate * size}, "tokens_per_call": {"rate": rate, "tokens": size},
            "cache_rate": {"rate": rate, "cached": size}, "mix": {"rate": rate, "moved": size},
            "new_caller": {"rate": rate, "new": size}, "runaway": {"rate": rate, "loop": size},
        }[kind]  # fmt: skip
        changed.append(minute_of(random, workload, minute.at, **asked))
        told = detect(past, changed[-WINDOW:], known, busiest)
        if any(alarm.kind in counts_as for alarm in told):
            return place + 1
    return None


if __name__ == "__main__":
    raise SystemExit(main())
