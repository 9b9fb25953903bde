"""Computes what the same usage costs at another price. Pure; counts stay as measured, so that repricing them back gives
the original amount again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from groundplan.blueprint.model import Rates
from groundplan.economics.price import BATCH, FLEX, PRIORITY, service_rates
from groundplan.economics.prices.parts import MILLION
from groundplan.economics.prices.time_of_day import MINUTES_PER_HOUR, rates_in_hour
from groundplan.economics.terms.split import BY_TIME, LONG

_OUTPUT_CLASSES = frozenset({"output", "reasoning", "output_audio", "output_image", "output_video", "citations"})
TOKEN_CLASSES = (
    "input", "output", "cache_read", "cache_write", "reasoning", "input_audio", "output_audio", "cache_write_1h",
    "cache_read_audio", "cache_read_image", "input_image", "input_video", "output_image", "output_video", "citations",
)  # fmt: skip


UsageCounts = Mapping[tuple[str, int | None], Mapping[str, int]]
"""(tier of the ledger, hour of the day in UTC or None for any) -> class -> count"""


@dataclass(frozen=True, slots=True)
class RepricedUsage:
    """Cost of the same usage at old and at new rates, in picodollars."""

    old_cost: int
    new_cost: int

    @property
    def difference(self) -> int:
        return self.new_cost - self.old_cost


def cost_of_counts(counts: Mapping[str, int], rates: Rates, tier: str = "") -> int:
    """Picodollars of counts by class, rounded up at the end; uncounted usage (`bound`) costs nothing.

    `tier` is the ledger's (`terms.split.explain_cost`); sums of the standard tier are priced as short prompts.
    Generated images cost as the most expensive size, since sums do not record sizes.
    """
    rates = tier_rates(rates, tier)
    total = sum(count * class_rate(rates, name) for name, count in counts.items() if name in TOKEN_CLASSES)
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
    """As `cost_of_counts`, for counts by hour of the day, UTC (None: at any hour). Where the price changes within an
    hour, its usage is assumed to be spread evenly over its minutes."""
    total = sum(
        cost_of_counts(hour_counts, rates_in_force) * minutes
        for hour, hour_counts in counts.items()
        for minutes, rates_in_force in ([(MINUTES_PER_HOUR, rates)] if hour is None else rates_in_hour(rates, hour))
    )
    return -(-total // MINUTES_PER_HOUR)


def tier_rates(rates: Rates, tier: str) -> Rates:
    """Rates of a tier of the ledger; for a price by time of day those of the cheapest window, since the rates outside
    the windows are the highest."""
    if BY_TIME in tier and rates.windows:
        rates = min(
            (window.rates for window in rates.windows), key=lambda candidate: (candidate.input, candidate.output)
        )
    names = tier.split()
    for service in (BATCH, PRIORITY, FLEX):
        rates = service_rates(rates, service) if service in names else rates
    return rates.long if LONG in names and rates.long is not None else rates


def prompt_tokens(counts: Mapping[str, int]) -> int:
    """Prompt tokens among counts by class."""
    return sum(count for name, count in counts.items() if name in TOKEN_CLASSES and name not in _OUTPUT_CLASSES)


def reprice(usage: UsageCounts, old_rates: Rates, new_rates: Rates) -> RepricedUsage:
    """Cost of the same usage at `old_rates` and at `new_rates`."""
    return RepricedUsage(
        *(sum(_cost_in_hour(rates, *key, counts) for key, counts in usage.items()) for rates in (old_rates, new_rates))
    )


def _cost_in_hour(rates: Rates, tier: str, hour: int | None, counts: Mapping[str, int]) -> int:
    """As `cost_of_counts`, at the rates of one hour. If the price changes within the hour, the rates that the tier
    names apply (without a time of day: the highest); otherwise usage is assumed to be spread evenly over its
    minutes."""
    if hour is None or not rates.windows:
        return cost_of_counts(counts, rates, tier)
    in_hour = rates_in_hour(rates, hour)
    dearest = msgspec.structs.replace(rates, windows=[])
    in_hour = [
        (minutes, rates_in_force)
        for minutes, rates_in_force in in_hour
        if (rates_in_force != dearest) is (BY_TIME in tier)
    ] or in_hour
    total_minutes = sum(minutes for minutes, _ in in_hour)
    return -(
        -sum(cost_of_counts(counts, rates_in_force, tier) * minutes for minutes, rates_in_force in in_hour)
        // total_minutes
    )


def class_rate(rates: Rates, name: str) -> int:
    """Rate of a class; a class without a rate of its own costs as input or as output."""
    rate = getattr(rates, name, None)
    if rate is None and rates.details is not None:
        rate = getattr(rates.details, name, None)
    if isinstance(rate, int):
        return rate
    if name == "cache_write_1h" and rates.cache_write is not None:
        return rates.cache_write
    return rates.output if name in _OUTPUT_CLASSES else rates.input
