"""What the same tokens cost at another price. Pure: counts stay as they were measured, so pricing them back gives the
first amount again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from groundplan.blueprint.model import Rates
from groundplan.economics.price import BATCH, FLEX, PRIORITY, of_service
from groundplan.economics.prices.parts import MILLION
from groundplan.economics.prices.time_of_day import HOUR, in_hour
from groundplan.economics.terms.split import BY_TIME, LONG

_OUTPUT = frozenset({"output", "reasoning", "output_audio", "output_image", "output_video", "citations"})
TOKENS = (
    "input", "output", "cache_read", "cache_write", "reasoning", "input_audio", "output_audio", "cache_write_1h",
    "cache_read_audio", "cache_read_image", "input_image", "input_video", "output_image", "output_video", "citations",
)  # fmt: skip


Used = Mapping[tuple[str, int | None], Mapping[str, int]]
"""(tier of the ledger, hour of the day in UTC or None for any) -> class -> how many"""


@dataclass(frozen=True, slots=True)
class Repriced:
    """picodollars"""

    then: int
    now: int

    @property
    def difference(self) -> int:
        return self.now - self.then


def priced(counts: Mapping[str, int], rates: Rates, tier: str = "") -> int:
    """picodollars of what was counted by class, rounded up at the end; what nobody counted (`bound`) costs nothing.

    `tier` is the ledger's (`terms.split.tier`); sums of the standard one are priced as short prompts. Images that were
    made cost as the dearest size: sums do not know how large each was.
    """
    rates = of_tier(rates, tier)
    total = sum(count * rate_of(rates, name) for name, count in counts.items() if name in TOKENS)
    total += counts.get("characters", 0) * rates.characters
    searches = rates.details.search if rates.details is not None else 0
    return (
        -(-total // MILLION)
        - (-counts.get("seconds", 0) * rates.minute // 60)
        + counts.get("requests", 0) * rates.request
        + counts.get("images", 0) * rates.image
        + counts.get("images_made", 0) * max(rates.images.values(), default=0)
        + counts.get("searches", 0) * searches
    )


def priced_by_hour(counts: Mapping[int | None, Mapping[str, int]], rates: Rates) -> int:
    """As `priced`, of what was counted in each hour of the day, UTC (None: at any). In an hour in which the price
    changes each minute is taken to have had as many."""
    total = sum(
        priced(each, there) * minutes
        for hour, each in counts.items()
        for minutes, there in ([(HOUR, rates)] if hour is None else in_hour(rates, hour))
    )
    return -(-total // HOUR)


def of_tier(rates: Rates, tier: str) -> Rates:
    """The rates that stand behind a tier of the ledger; at a time of day the cheapest, since the dearest are around
    it."""
    if BY_TIME in tier and rates.windows:
        rates = min((window.rates for window in rates.windows), key=lambda each: (each.input, each.output))
    names = tier.split()
    for service in (BATCH, PRIORITY, FLEX):
        rates = of_service(rates, service) if service in names else rates
    return rates.long if LONG in names and rates.long is not None else rates


def prompt_of(counts: Mapping[str, int]) -> int:
    """Tokens of the prompt among what was counted by class."""
    return sum(count for name, count in counts.items() if name in TOKENS and name not in _OUTPUT)


def repriced(used: Used, then: Rates, now: Rates) -> Repriced:
    """What was used at each of the prices."""
    return Repriced(*(sum(_at(rates, *key, counts) for key, counts in used.items()) for rates in (then, now)))


def _at(rates: Rates, tier: str, hour: int | None, counts: Mapping[str, int]) -> int:
    """As `priced`; in an hour in which a price by time of day ends, at the one that the tier tells (that of a price at
    which all was the same tells the dearest), else as if each minute had as many."""
    if hour is None or not rates.windows:
        return priced(counts, rates, tier)
    there = in_hour(rates, hour)
    around = msgspec.structs.replace(rates, windows=[])
    there = [(minutes, each) for minutes, each in there if (each != around) is (BY_TIME in tier)] or there
    whole = sum(minutes for minutes, _ in there)
    return -(-sum(priced(counts, each, tier) * minutes for minutes, each in there) // whole)


def rate_of(rates: Rates, name: str) -> int:
    """Of a class; one without a rate costs as the side that it is on."""
    own = getattr(rates, name, None)
    if own is None and rates.details is not None:
        own = getattr(rates.details, name, None)
    if isinstance(own, int):
        return own
    if name == "cache_write_1h" and rates.cache_write is not None:
        return rates.cache_write
    return rates.output if name in _OUTPUT else rates.input
