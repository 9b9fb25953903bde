"""Projects a pilot from its facts: cost, latency and limits at ten and a hundred times the calls.

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
from groundplan.placement.explain.words import format_usd
from groundplan.placement.terms.facts import DAYS
from groundplan.placement.terms.queue import wait_seconds

FACTORS = (1, 10, 100)
FEW_DAYS = 5


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
class GrowthLimits:
    """The limits that end growth; None: not declared."""

    budget_usd_month: float | None = None
    calls_day: int | None = None
    people: int | None = None
    quota_tokens_minute: float | None = None
    concurrent: int | None = None
    """calls that its first deployment serves at once"""
    first_token_ms: float | None = None
    peak: float = 3.0


@dataclass(frozen=True, slots=True)
class ScaledPilot:
    """The pilot at one multiple. Intervals are (low, middle, high)."""

    factor: float
    calls_day: float
    usd_month: tuple[float, float, float]
    first_token_ms: tuple[float, float, float] | None
    """with waiting; infinite where capacity does not suffice"""
    broken_limits: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Projection:
    """A pilot projected to production loads."""

    workload: str
    days: int
    scaled: tuple[ScaledPilot, ...]
    first_break: tuple[float, str] | None
    """(factor, the limit that is reached there first); None: no limit up to a factor of ten thousand"""


def project(workload: str, days: Sequence[Day], limits: GrowthLimits) -> Projection:
    """Project a pilot. Raises `Invalid` (`pilot_no_facts`) where it has no calls."""
    used = [day for day in days if day.calls]
    if not used:
        raise Invalid(
            f"{workload} has had no calls",
            code="pilot_no_facts",
            hint="Let the pilot run for some days; its facts are what is projected.",
        )
    breaks = list(_growth_breaks(used, limits))
    first = min((each for each in breaks if each[0] < 10_000), default=None)
    return Projection(workload, len(used), tuple(_scale(used, limits, breaks, f) for f in FACTORS), first)


def _scale(
    days: Sequence[Day], limits: GrowthLimits, breaks: Sequence[tuple[float, str]], factor: float
) -> ScaledPilot:
    calls = mean(day.calls for day in days)
    each = [day.usd / day.calls for day in days]
    middle = sum(day.usd for day in days) / sum(day.calls for day in days)
    half = _half_interval(each)
    month = calls * factor * DAYS
    return ScaledPilot(
        factor,
        calls * factor,
        (max(0.0, middle - half) * month, middle * month, (middle + half) * month),
        _first_token_interval(days, limits, factor),
        tuple(what for at, what in sorted(breaks) if at < factor),
    )


def _first_token_interval(
    days: Sequence[Day], limits: GrowthLimits, factor: float
) -> tuple[float, float, float] | None:
    """Time to the first token with its interval; longer calls also make others wait longer."""
    found = [_first_token_with_waiting(days, limits, factor, side) for side in (-1, 0, 1)]
    low, middle, high = (max(0.0, each) if each is not None else None for each in found)
    return None if low is None or middle is None or high is None else (low, middle, high)


def _first_token_with_waiting(days: Sequence[Day], limits: GrowthLimits, factor: float, side: int = 0) -> float | None:
    """Median time to the first token with the waiting of the busiest hour; `side` -1 and 1 give the ends of the
    interval."""
    seen = [day.first_token_ms for day in days if day.first_token_ms is not None]
    if not seen:
        return None
    seconds = [day.seconds for day in days if day.seconds is not None]
    first = mean(seen) + side * _half_interval(seen)
    if limits.concurrent is None or not seconds:
        return first
    arrivals = mean(day.calls for day in days) * factor * limits.peak / 86_400
    waits = wait_seconds(limits.concurrent, arrivals, max(1e-3, mean(seconds) + side * _half_interval(seconds)))
    return first + waits * 1000


def _half_interval(values: Sequence[float]) -> float:
    """Half the width of the 90 % interval of the mean."""
    half = 1.645 * (stdev(values) / sqrt(len(values)) if len(values) > 1 else values[0])
    return half * (3 if len(values) < FEW_DAYS else 1)


def _growth_breaks(days: Sequence[Day], limits: GrowthLimits) -> Iterator[tuple[float, str]]:
    """(factor, description) of every limit that ends growth."""
    calls = mean(day.calls for day in days)
    cost = mean(day.usd for day in days) * DAYS
    tokens = mean(day.tokens for day in days) * limits.peak / 1440
    if limits.budget_usd_month is not None and cost > 0:
        yield limits.budget_usd_month / cost, f"its budget of {format_usd(limits.budget_usd_month)} a month"
    if limits.calls_day is not None:
        yield limits.calls_day / calls, f"its cap of {limits.calls_day:,} calls a day"
    people = max(day.people for day in days)
    if limits.people is not None and people:
        yield limits.people / people, f"its cap of {limits.people:,} people"
    if limits.quota_tokens_minute is not None and tokens:
        yield limits.quota_tokens_minute / tokens, f"the quota of {limits.quota_tokens_minute:,.0f} tokens a minute"
    seconds = [day.seconds for day in days if day.seconds is not None]
    if limits.concurrent is not None and seconds:
        at_once = calls * limits.peak / 86_400 * mean(seconds)
        yield limits.concurrent / at_once if at_once else inf, f"room for {limits.concurrent} calls at once"
    if limits.first_token_ms is not None:
        yield _latency_break(days, limits), f"{limits.first_token_ms:,.0f} ms to the first token"


def _latency_break(days: Sequence[Day], limits: GrowthLimits) -> float:
    """The factor at which waiting breaks the latency objective."""
    for step in range(81):
        factor: float = 10 ** (step / 20)
        waited = _first_token_with_waiting(days, limits, factor)
        if waited is None:
            return inf
        if limits.first_token_ms is not None and waited > limits.first_token_ms:
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
                "broken": list(each.broken_limits),
            }
            for each in found.scaled
        ],
        "breaks_first": None
        if found.first_break is None
        else {"factor": round(found.first_break[0], 2), "what": found.first_break[1]},
        "words": list(describe(found)),
    }


def _finite(value: float) -> float | None:
    """None where infinite: capacity does not suffice."""
    return None if value == inf else round(value, 1)


def describe(found: Projection) -> Iterator[str]:
    """The projection in sentences."""
    for each in found.scaled:
        low, middle, high = each.usd_month
        calls = "today's calls" if each.factor == 1 else f"{each.factor:g} times the calls"
        start = f"At {calls} ({each.calls_day:,.0f} a day) {found.workload} costs "
        yield f"{start}{format_usd(middle)} a month ({format_usd(low)} to {format_usd(high)})."
        if each.first_token_ms is not None:
            first = [f"{value:,.0f} ms" if value < inf else "without end" for value in each.first_token_ms]
            yield f"Its first token then takes {first[1]} ({first[0]} to {first[2]})."
    if found.first_break is None:
        yield "Nothing that is declared breaks within ten thousand times."
    else:
        yield f"What breaks first is {found.first_break[1]}, at {found.first_break[0]:.3g} times."
    if found.days < FEW_DAYS:
        yield f"It rests on {quantity(found.days, 'day')}: the intervals are wide."
