"""Savings of a workload's choice of models, costs at other deployments, and whether quality floors hold. Pure.

Answers are repriced with the tokens of the attempt that gave them, although another model would have used others. So
figures of a deployment that did not answer compare its price, not its answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from groundplan.blueprint.model import Rates
from groundplan.core.money import short_usd
from groundplan.economics.prices.reprice import cost_of_counts, prompt_tokens
from groundplan.economics.prices.time_of_day import rates_at

Kept = Literal["yes", "no", "unknown"]
LEAST: Final = 5
"""Judgements from which on a share is reported."""


@dataclass(frozen=True, slots=True)
class Place:
    """A deployment that the workload names. `barred`: why it takes none of its calls; empty: it may."""

    name: str
    model: str
    rates: Rates
    scores: Mapping[str, float]
    """Dimension of quality -> what is declared of its model."""
    barred: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer. `cost`: picodollars, checks of the answer included; `counts`: token counts of the attempt that
    answered, empty for an answer from the cache."""

    place: str
    cost: int
    counts: Mapping[str, int]
    paid: int = 0
    """Picodollars of that attempt alone, without earlier attempts and checks."""
    cached: bool = False
    saved: int = 0
    """Picodollars that the same answer cost when a model gave it."""
    at_ms: int = 0
    """Time since the epoch, for prices by time of day."""


@dataclass(frozen=True, slots=True)
class AlternativeCost:
    """Cost of the same answers at one place alone. `saves`: negative if that is more."""

    place: Place
    cost: int
    saves: int
    answers: int
    """Answers that it gave itself."""


@dataclass(frozen=True, slots=True)
class RoutingSavings:
    """Savings in picodollars against the strongest place that may take calls. `by_cache`: before the cost of look-ups
    and wrong answers."""

    strongest: str
    alone: int
    """Cost of all answers at the strongest place, those from the cache included."""
    cost: int
    by_routing: int
    by_cache: int
    answers: int
    cached: int


@dataclass(frozen=True, slots=True)
class Floor:
    """Quality in one dimension. `low`, `high`: 95 % interval of the accepted share; None with fewer than `LEAST`
    judgements."""

    dimension: str
    floor: float
    judged: int
    share: float | None
    low: float | None
    high: float | None
    kept: Kept


def compare_places(answers: Sequence[Answer], places: Sequence[Place]) -> list[AlternativeCost]:
    """The cost of the answers at each place, the cheapest first."""
    asked = [each for each in answers if not each.cached]
    counts, cost = _counts(asked), sum(each.cost for each in asked)
    found = []
    for place in places:
        alike = not place.rates.windows and place.rates.long is None
        there = cost_of_counts(counts, place.rates) if alike else sum(_cost_at(each, place.rates) for each in asked)
        mine = sum(each.place == place.name for each in asked)
        found.append(AlternativeCost(place, there, cost - there, mine))
    return sorted(found, key=lambda each: (each.cost, each.place.name))


def strongest_place(answers: Sequence[Answer], places: Sequence[Place]) -> Place | None:
    """The place with the best declared scores among those that may take calls; of equal scores the dearest."""
    counts = _counts([each for each in answers if not each.cached])
    able = [place for place in places if not place.barred]
    return max(
        able,
        key=lambda place: (_mean_score(place.scores), cost_of_counts(counts, place.rates), place.name),
        default=None,
    )


def routing_savings(answers: Sequence[Answer], places: Sequence[Place]) -> RoutingSavings | None:
    """Savings of routing and cache; None if no place may take calls."""
    best = strongest_place(answers, places)
    if best is None:
        return None
    asked = [each for each in answers if not each.cached]
    alone = sum(each.paid if each.place == best.name else _cost_at(each, best.rates) for each in asked)
    cost, cached = sum(each.cost for each in asked), sum(each.saved for each in answers if each.cached)
    return RoutingSavings(
        best.name, alone + cached, cost, alone - cost, cached, len(answers), len(answers) - len(asked)
    )


def check_floor(dimension: str, floor: float, share: float, low: float, high: float, judged: int) -> Floor:
    """Judge a floor: `yes` if the accepted share reaches it, `no` if the whole interval is below, else `unknown`."""
    if judged < LEAST:
        return Floor(dimension, floor, judged, None, None, None, "unknown")
    kept: Kept = "yes" if share >= floor else "no" if high < floor else "unknown"
    return Floor(dimension, floor, judged, share, low, high, kept)


def describe_savings(found: RoutingSavings | None, others: Sequence[AlternativeCost]) -> list[str]:
    """Sentences: what was saved, and which cheaper places take no calls, with the reason."""
    if found is None or not found.answers:
        return []
    lines = []
    if found.by_routing > 0 or found.by_cache > 0:
        lines.append(
            f"Of the {short_usd(found.alone)} that {found.strongest} alone would have cost for {found.answers:,} "
            f"answers, choosing models saved {short_usd(max(0, found.by_routing))} and answers from the cache "
            f"{short_usd(found.by_cache)} ({found.cached:,} of them)."
        )
    for each in others:
        if each.place.barred and each.saves > 0:
            lines.append(
                f"{each.place.name} ({each.place.model}) would have been {short_usd(each.saves)} cheaper and takes "
                f"none of these calls: {each.place.barred}."
            )
    return lines


def _cost_at(answer: Answer, rates: Rates) -> int:
    """Cost of an answer at these rates, at its time and its prompt's length."""
    rates, prompt = rates_at(rates, answer.at_ms), prompt_tokens(answer.counts)
    while rates.long is not None and prompt > rates.long_above:
        rates = rates.long
    return cost_of_counts(_counts([answer]), rates)


def _counts(answers: Sequence[Answer]) -> dict[str, int]:
    """Sums of counts; each answer is one request, also if it had no price per request."""
    sums: dict[str, int] = {}
    for each in answers:
        for name, count in each.counts.items():
            sums[name] = sums.get(name, 0) + count
    return {**sums, "requests": len(answers)}


def _mean_score(scores: Mapping[str, float]) -> float:
    return sum(scores.values()) / len(scores) if scores else -1.0
