"""Prices by prompt length: which tier a changed length has, and the effect on the price. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Final

from groundplan.blueprint.model import Rates
from groundplan.economics.price import BATCH, FLEX, PRIORITY, service_rates
from groundplan.economics.prices.reprice import TOKEN_CLASSES, class_rate, tier_rates
from groundplan.economics.terms.split import LONG

_LONGEST: Final = 1 << 60
"""Tokens that no prompt has."""


def tier_edges(own: Rates, other: Rates | None, factor: Fraction) -> tuple[int, ...]:
    """Lengths of prompts, as they were, between which each has one tier: of `own` before and after they are `factor`
    times as long, and of `other`, another model's, after. In order; empty where no length makes a difference."""
    before, others = set(_limits(own)), set() if other is None else set(_limits(other))
    if factor == 1 and not others:
        return ()
    after = {min(_LONGEST, int(limit / factor)) for limit in before | others} if factor > 0 else set()
    return tuple(sorted(before | after))


def rates_for_prompt(rates: Rates, tier: str, tokens: Fraction) -> Rates:
    """Of a call with a prompt of so many tokens, in the class of service and at the time of day of a tier of the
    ledger."""
    rates = tier_rates(rates, " ".join(name for name in tier.split(" ") if name != LONG))
    while rates.long is not None and tokens > rates.long_above:
        rates = rates.long
    return rates


def class_unit_rate(rates: Rates, name: str) -> int:
    """Picodollars of a million tokens of a class, or of one of what is counted otherwise; 0 for what has none."""
    if name in TOKEN_CLASSES:
        return class_rate(rates, name)
    if name == "searches":
        return 0 if rates.details is None else rates.details.search
    return {"requests": rates.request, "images": rates.image}.get(name, 0)


def _limits(rates: Rates) -> Iterator[int]:
    """Of every class of service at any time of the day."""
    times = (rates, *(window.rates for window in rates.windows))
    for each in (service_rates(time, service) for time in times for service in ("", BATCH, PRIORITY, FLEX)):
        tier: Rates = each
        while tier.long is not None:
            yield tier.long_above
            tier = tier.long
