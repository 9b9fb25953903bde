"""What a workload's choice of models saves, what it would cost elsewhere, and whether its floors of quality hold. Pure.

Answers are priced again with the tokens of the attempt that gave them: another model would have used others. So what
is said of a place that did not answer is about its price, never about its answers.
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
"""Judgements from which a share is told."""


@dataclass(frozen=True, slots=True)
class Place:
    """A deployment that the workload names. `barred`: why it takes none of its calls; empty where it may."""

    name: str
    model: str
    rates: Rates
    scores: Mapping[str, float]
    """Dimension of quality -> what is declared of its model."""
    barred: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """`cost`: picodollars, what checked it included. `counts`: of the attempt that answered, empty from the cache."""

    place: str
    cost: int
    counts: Mapping[str, int]
    paid: int = 0
    """What that attempt alone cost, tries before it and checks left out."""
    cached: bool = False
    saved: int = 0
    """Picodollars that the same answer cost when a model gave it."""
    at_ms: int = 0
    """When, since the epoch: prices may be by time of day."""


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """What the same answers would have cost at one place alone; `saves` is negative where that is more."""

    place: Place
    cost: int
    saves: int
    answers: int
    """That it gave itself."""


@dataclass(frozen=True, slots=True)
class Saved:
    """Picodollars against the strongest place that may take calls. `by_cache` is before look-ups and wrong answers."""

    strongest: str
    alone: int
    """What the strongest would have cost for every answer, also those from the cache."""
    cost: int
    by_routing: int
    by_cache: int
    answers: int
    cached: int


@dataclass(frozen=True, slots=True)
class Floor:
    """One dimension. `low`, `high`: 95 % interval of what was accepted; None with fewer than `LEAST` judgements."""

    dimension: str
    floor: float
    judged: int
    share: float | None
    low: float | None
    high: float | None
    kept: Kept


def elsewhere(answers: Sequence[Answer], places: Sequence[Place]) -> list[Elsewhere]:
    """Each place, the cheapest first."""
    asked = [each for each in answers if not each.cached]
    counts, cost = _counts(asked), sum(each.cost for each in asked)
    found = []
    for place in places:
        alike = not place.rates.windows and place.rates.long is None
        there = cost_of_counts(counts, place.rates) if alike else sum(_there(each, place.rates) for each in asked)
        mine = sum(each.place == place.name for each in asked)
        found.append(Elsewhere(place, there, cost - there, mine))
    return sorted(found, key=lambda each: (each.cost, each.place.name))


def strongest(answers: Sequence[Answer], places: Sequence[Place]) -> Place | None:
    """Of those that may take calls the one with the best declared scores; of equals, or unknown ones, the dearest."""
    counts = _counts([each for each in answers if not each.cached])
    able = [place for place in places if not place.barred]
    return max(
        able, key=lambda place: (_mean(place.scores), cost_of_counts(counts, place.rates), place.name), default=None
    )


def saved(answers: Sequence[Answer], places: Sequence[Place]) -> Saved | None:
    """None where no place may take calls."""
    best = strongest(answers, places)
    if best is None:
        return None
    asked = [each for each in answers if not each.cached]
    alone = sum(each.paid if each.place == best.name else _there(each, best.rates) for each in asked)
    cost, cached = sum(each.cost for each in asked), sum(each.saved for each in answers if each.cached)
    return Saved(best.name, alone + cached, cost, alone - cost, cached, len(answers), len(answers) - len(asked))


def floor_kept(dimension: str, floor: float, share: float, low: float, high: float, judged: int) -> Floor:
    """Kept where what was accepted is at the floor or above; not kept where surely it is below: the whole interval is;
    between both it is not known."""
    if judged < LEAST:
        return Floor(dimension, floor, judged, None, None, None, "unknown")
    kept: Kept = "yes" if share >= floor else "no" if high < floor else "unknown"
    return Floor(dimension, floor, judged, share, low, high, kept)


def told(found: Saved | None, others: Sequence[Elsewhere]) -> list[str]:
    """In words: what was saved, and which cheaper places take no calls, with the reason."""
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


def _there(answer: Answer, rates: Rates) -> int:
    """What it would have cost at that price then, with a prompt as long as its own."""
    rates, prompt = rates_at(rates, answer.at_ms), prompt_tokens(answer.counts)
    while rates.long is not None and prompt > rates.long_above:
        rates = rates.long
    return cost_of_counts(_counts([answer]), rates)


def _counts(answers: Sequence[Answer]) -> dict[str, int]:
    """Each is one request, also where its price was not by the request."""
    sums: dict[str, int] = {}
    for each in answers:
        for name, count in each.counts.items():
            sums[name] = sums.get(name, 0) + count
    return {**sums, "requests": len(answers)}


def _mean(scores: Mapping[str, float]) -> float:
    return sum(scores.values()) / len(scores) if scores else -1.0
