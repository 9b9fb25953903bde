"""What a month would cost if: more people, other prices, longer contexts, another model, a cache, a pilot at scale.

Pure arithmetic on what a month's parts cost; what does not change is left as it was measured. It says nothing about how
good the answers of another model would be.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from groundplan.blueprint.model import Rates
from groundplan.core.errors import Invalid
from groundplan.economics.forecast.tiers import class_unit_rate, rates_for_prompt
from groundplan.economics.prices.parts import MILLION
from groundplan.economics.prices.reprice import TOKEN_CLASSES, cost_of_counts
from groundplan.economics.prices.time_of_day import MINUTES_PER_HOUR, rates_in_hour

MOST = 1e6
"""The largest factor of a scenario."""
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?[%x]?", re.ASCII | re.IGNORECASE)
INPUT = ("input", "cache_read", "cache_write", "cache_write_1h", "input_audio", "input_image", "input_video")


@dataclass(frozen=True, slots=True)
class CallGroup:
    """One class of a month: how many, and picodollars."""

    name: str
    count: int
    cost: int
    answers: bool = True
    """Of answers to callers: what another model or a longer context would change."""
    tier: str = ""
    """Tier of its price, as in the ledger."""
    prompt: int | None = None
    """Tokens of a prompt that has the same tiers, before and after, as those of all its calls; None: their price does
    not depend on it, or how long they are is not known any more, so they keep their tier."""
    own: Rates | None = None
    """Of its deployment, where `prompt` is known."""
    hour: int | None = None
    """Of the day, UTC, where the other model's price is by time of day."""


@dataclass(frozen=True, slots=True)
class Change:
    """Every field that is left alone changes nothing."""

    users: float = 1.0
    """Times as many people, and calls with them."""
    price: float = 1.0
    """Times what tokens cost."""
    context: float = 1.0
    """Times as many input tokens a call."""
    output: float = 1.0
    cache_share: float = 0.0
    """Of calls that are answered from the cache."""
    rates: Rates | None = None
    """Another model's."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """Picodollars a month before and after, with what each step of the change contributed, in this order."""

    before: int
    after: int
    steps: tuple[tuple[str, int], ...]


def what_if(parts: list[CallGroup], change: Change) -> Scenario:
    """The same month under `change`. Raises `Invalid` (`scenario_invalid`) for factors that cannot be."""
    if min(change.users, change.price, change.context, change.output) < 0 or not 0 <= change.cache_share < 1:
        raise Invalid(
            "factors of a scenario are 0 or more, and a cache answers less than all calls",
            code="scenario_invalid",
            hint="Write users=10, price=-30%, context=2, cache=20%.",
        )
    now = [Fraction(part.cost) for part in parts]
    counts = [Fraction(part.count) for part in parts]
    before = sum(part.cost for part in parts)
    steps: list[tuple[str, int]] = []
    last = Fraction(before)

    def note(name: str) -> None:
        nonlocal last
        total = sum(now, Fraction(0))
        if round(total) != round(last):
            steps.append((name, round(total) - round(last)))
        last = total

    for place, part in enumerate(parts):
        factor = _longer(part, change)
        counts[place] *= factor
        now[place] = _in_its_tier(part, change, counts[place], now[place] * factor)
    note("tokens a call")
    if change.rates is not None:
        now = [_at(change.rates, each, change, *was) for each, *was in zip(parts, counts, now, strict=True)]
        note("another model")
    now = [cost * _exact(change.price) for cost in now]
    note("prices")
    now = [cost * _exact(change.users) for cost in now]
    note("people")
    now = [cost * (1 - _exact(change.cache_share)) for cost in now]
    note("cache")
    return Scenario(before, round(sum(now, Fraction(0))), tuple(steps))


def parse_changes(texts: list[str]) -> Change:
    """From `users=10`, `price=-30%`, `context=2`, `output=0.5`, `cache=20%`. Raises `Invalid` (`scenario_invalid`)."""
    values: dict[str, float] = {}
    for text in texts:
        name, _, amount = text.partition("=")
        if name not in ("users", "price", "context", "output", "cache") or name in values:
            raise _unreadable(text)
        values[name] = _factor(text, amount.strip())
    return Change(
        users=values.get("users", 1.0),
        price=values.get("price", 1.0),
        context=values.get("context", 1.0),
        output=values.get("output", 1.0),
        cache_share=values.get("cache", 0.0),
    )


def _factor(text: str, amount: str) -> float:
    """`10` is ten times, `-30%` and `+20%` are relative to 1, and a cache's `20%` is its share."""
    if _NUMBER.fullmatch(amount) is None or abs(number := float(amount.rstrip("%x"))) > MOST:
        raise _unreadable(text)
    if not amount.endswith("%"):
        return number
    return number / 100 if text.startswith("cache=") else round(1 + number / 100, 12)


def _unreadable(text: str) -> Invalid:
    return Invalid(
        f"'{text[:40]}' is no change of a scenario",
        code="scenario_invalid",
        hint="Write users=10, price=-30%, context=2, output=0.5 or cache=20%, each once.",
    )


def _exact(factor: float) -> Fraction:
    """As it was written: amounts have more digits than a float has."""
    return Fraction(repr(factor))


def _longer(part: CallGroup, change: Change) -> Fraction:
    """How many times as many there are."""
    if not part.answers:
        return Fraction(1)
    if part.name in INPUT:
        return _exact(change.context)
    return _exact(change.output) if part.name in ("output", "reasoning") else Fraction(1)


def _in_its_tier(part: CallGroup, change: Change, count: Fraction, cost: Fraction) -> Fraction:
    """What that part costs where its prompts are so long that another tier of its own price holds, or no longer are."""
    if part.own is None or part.prompt is None or not part.answers:
        return cost
    then = class_unit_rate(rates_for_prompt(part.own, part.tier, Fraction(part.prompt)), part.name)
    now = class_unit_rate(rates_for_prompt(part.own, part.tier, part.prompt * _exact(change.context)), part.name)
    if then:
        return cost * Fraction(now, then)
    return count * Fraction(now, MILLION if part.name in TOKEN_CLASSES else 1) if now else cost


def _at(rates: Rates, part: CallGroup, change: Change, count: Fraction, cost: Fraction) -> Fraction:
    """What that part costs at another model; images, seconds and searches that it has no price for stay as they are. In
    an hour in which its price changes each minute is taken to have had as many."""
    if not part.answers:
        return cost
    times = [(MINUTES_PER_HOUR, rates)] if part.hour is None else rates_in_hour(rates, part.hour)
    other = sum(
        (_there(each, part, change, count) * Fraction(minutes, MINUTES_PER_HOUR) for minutes, each in times),
        Fraction(0),
    )
    return other if count and (other or part.name in TOKEN_CLASSES or part.name == "requests") else cost


def _there(rates: Rates, part: CallGroup, change: Change, count: Fraction) -> int:
    tier = part.tier
    if part.prompt is not None:
        rates, tier = rates_for_prompt(rates, tier, part.prompt * _exact(change.context)), ""
    return cost_of_counts({part.name: round(count)}, rates, tier)
