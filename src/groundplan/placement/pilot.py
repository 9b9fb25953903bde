"""From a pilot's facts to its cost, latency and limits at ten and a hundred times the users, and what breaks first.

Per-call figures are means of days with their 90 % interval (normal approximation on days; with fewer than five days it
is three times as wide). Costs grow in proportion to calls; waiting grows as Erlang's C says where own hardware serves.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf, sqrt
from statistics import mean, stdev
from typing import Any

from groundplan.core.errors import Invalid
from groundplan.core.words import quantity
from groundplan.placement.explain.words import usd
from groundplan.placement.terms.facts import DAYS
from groundplan.placement.terms.queue import wait_seconds

FACTORS = (1, 10, 100)
FEW = 5


@dataclass(frozen=True, slots=True)
class Day:
    """One day of a pilot."""

    day: str
    calls: int
    usd: float
    tokens: int
    people: int
    first_token_ms: float | None
    """median"""
    seconds: float | None
    """median of a whole call"""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What ends growth; None: nothing is said."""

    budget_usd_month: float | None = None
    calls_day: int | None = None
    people: int | None = None
    quota_tokens_minute: float | None = None
    concurrent: int | None = None
    """calls that its first deployment bears at once"""
    first_token_ms: float | None = None
    peak: float = 3.0


@dataclass(frozen=True, slots=True)
class Scaled:
    """The pilot at one multiple. Intervals are (low, middle, high)."""

    factor: float
    calls_day: float
    usd_month: tuple[float, float, float]
    first_token_ms: tuple[float, float, float] | None
    """with waiting; infinite where there is not room enough"""
    broken: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Projection:
    """A pilot on its way to production."""

    workload: str
    days: int
    scaled: tuple[Scaled, ...]
    first: tuple[float, str] | None
    """(multiple, what breaks there first); None: nothing within ten thousandfold"""


def project(workload: str, days: Sequence[Day], bounds: Bounds) -> Projection:
    """Project a pilot. Raises `Invalid` (`pilot_no_facts`) where it has no calls."""
    used = [day for day in days if day.calls]
    if not used:
        raise Invalid(
            f"{workload} has had no calls",
            code="pilot_no_facts",
            hint="Let the pilot run for some days; its facts are what is projected.",
        )
    limits = list(_limits(used, bounds))
    first = min((each for each in limits if each[0] < 10_000), default=None)
    return Projection(workload, len(used), tuple(_at(used, bounds, limits, f) for f in FACTORS), first)


def _at(days: Sequence[Day], bounds: Bounds, limits: Sequence[tuple[float, str]], factor: float) -> Scaled:
    calls = mean(day.calls for day in days)
    each = [day.usd / day.calls for day in days]
    middle = sum(day.usd for day in days) / sum(day.calls for day in days)
    half = _half(each)
    month = calls * factor * DAYS
    return Scaled(
        factor,
        calls * factor,
        (max(0.0, middle - half) * month, middle * month, (middle + half) * month),
        _times(days, bounds, factor),
        tuple(what for at, what in sorted(limits) if at < factor),
    )


def _times(days: Sequence[Day], bounds: Bounds, factor: float) -> tuple[float, float, float] | None:
    """Time to the first token with its interval; a call that takes longer also makes others wait longer."""
    found = [_waited(days, bounds, factor, side) for side in (-1, 0, 1)]
    low, middle, high = (max(0.0, each) if each is not None else None for each in found)
    return None if low is None or middle is None or high is None else (low, middle, high)


def _waited(days: Sequence[Day], bounds: Bounds, factor: float, side: int = 0) -> float | None:
    """Median time to the first token, with what waiting adds in the busiest hour; `side` -1 and 1 are the ends of the
    interval."""
    seen = [day.first_token_ms for day in days if day.first_token_ms is not None]
    if not seen:
        return None
    seconds = [day.seconds for day in days if day.seconds is not None]
    first = mean(seen) + side * _half(seen)
    if bounds.concurrent is None or not seconds:
        return first
    arrivals = mean(day.calls for day in days) * factor * bounds.peak / 86_400
    waits = wait_seconds(bounds.concurrent, arrivals, max(1e-3, mean(seconds) + side * _half(seconds)))
    return first + waits * 1000


def _half(values: Sequence[float]) -> float:
    """Of the 90 % interval of the mean."""
    half = 1.645 * (stdev(values) / sqrt(len(values)) if len(values) > 1 else values[0])
    return half * (3 if len(values) < FEW else 1)


def _limits(days: Sequence[Day], bounds: Bounds) -> Iterator[tuple[float, str]]:
    """(multiple, what) of everything that ends growth."""
    calls = mean(day.calls for day in days)
    cost = mean(day.usd for day in days) * DAYS
    tokens = mean(day.tokens for day in days) * bounds.peak / 1440
    if bounds.budget_usd_month is not None and cost > 0:
        yield bounds.budget_usd_month / cost, f"its budget of {usd(bounds.budget_usd_month)} a month"
    if bounds.calls_day is not None:
        yield bounds.calls_day / calls, f"its cap of {bounds.calls_day:,} calls a day"
    people = max(day.people for day in days)
    if bounds.people is not None and people:
        yield bounds.people / people, f"its cap of {bounds.people:,} people"
    if bounds.quota_tokens_minute is not None and tokens:
        yield bounds.quota_tokens_minute / tokens, f"the quota of {bounds.quota_tokens_minute:,.0f} tokens a minute"
    seconds = [day.seconds for day in days if day.seconds is not None]
    if bounds.concurrent is not None and seconds:
        at_once = calls * bounds.peak / 86_400 * mean(seconds)
        yield bounds.concurrent / at_once if at_once else inf, f"room for {bounds.concurrent} calls at once"
    if bounds.first_token_ms is not None:
        yield _breaks(days, bounds), f"{bounds.first_token_ms:,.0f} ms to the first token"


def _breaks(days: Sequence[Day], bounds: Bounds) -> float:
    """The multiple at which waiting breaks the objective."""
    for step in range(81):
        factor: float = 10 ** (step / 20)
        waited = _waited(days, bounds, factor)
        if waited is None:
            return inf
        if bounds.first_token_ms is not None and waited > bounds.first_token_ms:
            return factor
    return inf


def to_json(found: Projection) -> dict[str, Any]:
    return {
        "workload": found.workload,
        "days": found.days,
        "scaled": [
            {
                "factor": each.factor,
                "calls_day": round(each.calls_day, 1),
                "usd_month": {n: round(v, 2) for n, v in zip(("low", "middle", "high"), each.usd_month, strict=True)},
                "first_token_ms": None if each.first_token_ms is None else _finite(each.first_token_ms[1]),
                "first_token_interval_ms": None
                if each.first_token_ms is None
                else {"low": _finite(each.first_token_ms[0]), "high": _finite(each.first_token_ms[2])},
                "broken": list(each.broken),
            }
            for each in found.scaled
        ],
        "breaks_first": None if found.first is None else {"factor": round(found.first[0], 2), "what": found.first[1]},
        "words": list(words(found)),
    }


def _finite(value: float) -> float | None:
    """None: there is not room enough."""
    return None if value == inf else round(value, 1)


def words(found: Projection) -> Iterator[str]:
    """The projection in sentences."""
    for each in found.scaled:
        low, middle, high = each.usd_month
        calls = "today's calls" if each.factor == 1 else f"{each.factor:g} times the calls"
        told = f"At {calls} ({each.calls_day:,.0f} a day) {found.workload} costs "
        yield f"{told}{usd(middle)} a month ({usd(low)} to {usd(high)})."
        if each.first_token_ms is not None:
            first = [f"{value:,.0f} ms" if value < inf else "without end" for value in each.first_token_ms]
            yield f"Its first token then takes {first[1]} ({first[0]} to {first[2]})."
    if found.first is None:
        yield "Nothing that is declared breaks within ten thousand times."
    else:
        yield f"What breaks first is {found.first[1]}, at {found.first[0]:.3g} times."
    if found.days < FEW:
        yield f"It rests on {quantity(found.days, 'day')}: the intervals are wide."
