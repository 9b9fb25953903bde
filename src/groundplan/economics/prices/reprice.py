"""What the same usage costs at another price. Pure: counts stay as measured, so pricing them back gives the original
amount again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from groundplan.blueprint.model import Rates
from groundplan.economics.price import BATCH, FLEX, PRIORITY, service_rates
from groundplan.economics.prices.parts import MILLION
from groundplan.economics.prices.time_of_day import HOUR, rates_in_hour
from groundplan.economics.terms.split import BY_TIME, LONG

_OUTPUT = frozenset({"output", "reasoning", "output_audio", "output_image", "output_video", "citations"})
TOKENS = (
    "input", "output", "cache_read", "cache_write", "reasoning", "input_audio", "output_audio", "cache_write_1h",
    "cache_read_audio", "cache_read_image", "input_image", "input_video", "output_image", "output_video", "citations",
)  # fmt: skip


UsageCounts = Mapping[tuple[str, int | None], Mapping[str, int]]
"""(tier of the ledger, hour of the day in UTC or None for any) -> class -> count"""


@dataclass(frozen=True, slots=True)
class Repriced:
    """Cost of a usage at an earlier and at the current price, in picodollars."""

    then: int
    now: int

    @property
    def difference(self) -> int:
        return self.now - self.then


def cost_of_counts(counts: Mapping[str, int], rates: Rates, tier: str = "") -> int:
    """Picodollars of counts by class, rounded up at the end; uncounted usage (`bound`) costs nothing.

    `tier` is the ledger's (`terms.split.explain_cost`); sums of the standard tier are priced as short prompts.
    Generated images cost as the dearest size, since sums do not tell how large each was.
    """
    rates = tier_rates(rates, tier)
    total = sum(count * class_rate(rates, name) for name, count in counts.items() if name in TOKENS)
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


def cost_of_hourly_counts(counts: Mapping[int | None, Mapping[str, int]], rates: Rates) -> int:
    """As `cost_of_counts`, for counts in each hour of the day, UTC (None: at any hour). In an hour in which the price
    changes, usage is taken as evenly spread over its minutes."""
    total = sum(
        cost_of_counts(each, there) * minutes
        for hour, each in counts.items()
        for minutes, there in ([(HOUR, rates)] if hour is None else rates_in_hour(rates, hour))
    )
    return -(-total // HOUR)


def tier_rates(rates: Rates, tier: str) -> Rates:
    """Rates of a tier of the ledger; for a price by time of day those of the cheapest window, since the rates outside
    the windows are the highest."""
    if BY_TIME in tier and rates.windows:
        rates = min((window.rates for window in rates.windows), key=lambda each: (each.input, each.output))
    names = tier.split()
    for service in (BATCH, PRIORITY, FLEX):
        rates = service_rates(rates, service) if service in names else rates
    return rates.long if LONG in names and rates.long is not None else rates


def prompt_tokens(counts: Mapping[str, int]) -> int:
    """Prompt tokens among counts by class."""
    return sum(count for name, count in counts.items() if name in TOKENS and name not in _OUTPUT)


def reprice(used: UsageCounts, then: Rates, now: Rates) -> Repriced:
    """Cost of the same usage at the rates `then` and `now`."""
    return Repriced(*(sum(_cost_in_hour(rates, *key, counts) for key, counts in used.items()) for rates in (then, now)))


def _cost_in_hour(rates: Rates, tier: str, hour: int | None, counts: Mapping[str, int]) -> int:
    """As `cost_of_counts`, at the rates of one hour. Where a price by time of day ends in it, the rates that the
    tier names apply (without a time of day: the highest), else usage counts as evenly spread over its minutes.
    """
    if hour is None or not rates.windows:
        return cost_of_counts(counts, rates, tier)
    rates_there = rates_in_hour(rates, hour)
    dearest = msgspec.structs.replace(rates, windows=[])
    rates_there = [
        (minutes, each) for minutes, each in rates_there if (each != dearest) is (BY_TIME in tier)
    ] or rates_there
    total_minutes = sum(minutes for minutes, _ in rates_there)
    return -(-sum(cost_of_counts(counts, each, tier) * minutes for minutes, each in rates_there) // total_minutes)


def class_rate(rates: Rates, name: str) -> int:
    """Rate of a class; one without a rate of its own costs as input or as output."""
    own = getattr(rates, name, None)
    if own is None and rates.details is not None:
        own = getattr(rates.details, name, None)
    if isinstance(own, int):
        return own
    if name == "cache_write_1h" and rates.cache_write is not None:
        return rates.cache_write
    return rates.output if name in _OUTPUT else rates.input
