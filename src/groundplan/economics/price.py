"""What a call costs: rates of a deployment, and the exact cost of a usage. The one place of this formula.

Rates are picodollars per million tokens. A declared price wins over the price list that ships with the package
`genai-prices` (a snapshot, read offline). Nothing here fetches prices, stores them or knows currencies besides USD.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, time
from decimal import ROUND_CEILING, Decimal
from typing import Any

import msgspec

from groundplan.blueprint.model import Rates
from groundplan.core.errors import Problem, Where
from groundplan.core.money import PICO
from groundplan.ledger.model import Usage

MILLION = 1_000_000
STANDARD, BATCH, PRIORITY = "standard", "batch", "priority"
"""Classes of service."""
_DEFAULT_CONTEXT = 8192


FREE = Rates(input=0, output=0, source="declared free")


def price_of(
    model: str,
    at: date,
    *,
    declared: Sequence[Rates] = (),
    context_tokens: int = _DEFAULT_CONTEXT,
    where: Where | None = None,
) -> Rates | Problem:
    """Rates of `model` on the day `at`: the newest declared price in force, else the shipped price list.

    Declared prices are rates with their first day in `effective` (empty: always). Where the list has tiers by prompt
    length, `long` has the dearest one that `context_tokens` can reach, from the first one's length on; of prices by
    time of day the dearest is taken, so that a cost is never understated. An unknown price is a problem
    `price_missing`.
    """
    day = at.isoformat()
    in_force = [price for price in declared if price.effective <= day]
    if in_force:
        return max(in_force, key=lambda price: price.effective)
    listed = _listed_rates(model, at, context_tokens)
    if listed is not None:
        return listed
    future = min((price.effective for price in declared), default="")
    note = f"; the declared price starts only on {future}" if future else ""
    return Problem(
        message=f"no price is known for the model '{model}'{note}",
        code="price_missing",
        hint="Declare it at the deployment: price: {input: 0.15 USD/Mtok, output: 0.60 USD/Mtok}, or price: free.",
        where=where,
    )


def known_price(model: str, at: date) -> bool:
    """Whether the shipped price list has this model."""
    return _listed_rates(model, at, _DEFAULT_CONTEXT) is not None


def cost(rates: Rates, usage: Usage, service: str = STANDARD) -> int:
    """Picodollars that `usage` costs, each token charged once at its finest reported class, rounded up at the end.

    Classes that overlap (audio that was also cached) are filled from the dearest on, never beyond the reported total,
    so a cost is at most `bound` of the totals. `service`: standard | batch | priority.
    """
    if service != STANDARD:
        rates = of_service(rates, service)
    if rates.long is not None and usage.input > rates.long_above:
        rates = rates.long
    if not (usage.cache_read or usage.cache_write or usage.input_audio):
        total = usage.input * rates.input
    else:
        total = _side(
            usage.input,
            rates.input,
            (
                (usage.cache_read, rates.cache_read),
                (usage.cache_write, rates.cache_write),
                (usage.input_audio, rates.input_audio),
            ),
        )
    if not (usage.reasoning or usage.output_audio):
        total += usage.output * rates.output
    else:
        total += _side(
            usage.output,
            rates.output,
            ((usage.reasoning, rates.reasoning), (usage.output_audio, rates.output_audio)),
        )
    return -(-total // MILLION) + rates.request + usage.images * rates.image


def saved_by_cache(rates: Rates, usage: Usage, service: str = STANDARD) -> int:
    """Picodollars that reading input from the provider's own cache saved, against the same tokens without it."""
    if not usage.cache_read:
        return 0
    plain = msgspec.structs.replace(usage, cache_read=0)
    return max(0, cost(rates, plain, service) - cost(rates, usage, service))


def of_service(rates: Rates, service: str) -> Rates:
    """Rates of a class of service; the standard ones where it has none of its own."""
    found = rates.batch if service == BATCH else rates.priority if service == PRIORITY else None
    return found or rates


def dearest(rates: Rates) -> tuple[int, int]:
    """The highest rate that an input token and an output token can have, picodollars per million."""
    return (
        max(rates.input, rates.cache_read or 0, rates.cache_write or 0, rates.input_audio or 0),
        max(rates.output, rates.reasoning or 0, rates.output_audio or 0),
    )


def bound(rates: Rates, input_tokens: int, output_tokens: int, images: int = 0, service: str = STANDARD) -> int:
    """The most in picodollars that a call with at most these tokens can cost, whatever classes they turn out to be."""
    if service != STANDARD:
        rates = of_service(rates, service)
    most = _bound(rates, input_tokens, output_tokens, images)
    if rates.long is not None and input_tokens > rates.long_above:
        most = max(most, _bound(rates.long, input_tokens, output_tokens, images))
    return most


def _bound(rates: Rates, input_tokens: int, output_tokens: int, images: int) -> int:
    highest_input, highest_output = dearest(rates)
    total = input_tokens * highest_input + output_tokens * highest_output
    return -(-total // MILLION) + rates.request + images * rates.image


def _side(total: int, base: int, classes: tuple[tuple[int, int | None], ...]) -> int:
    """Picodollar-tokens of one side; `total` includes the classes, a class without a rate costs `base`."""
    rest = max(total, *(count for count, _ in classes))
    amount = 0
    for count, rate in sorted(((count, base if rate is None else rate) for count, rate in classes), key=_by_rate):
        taken = min(count, rest)
        amount += taken * rate
        rest -= taken
    return amount + rest * base


def _by_rate(item: tuple[int, int]) -> int:
    return -item[1]


def _listed_rates(model: str, at: date, context_tokens: int) -> Rates | None:
    """Rates from the shipped list, None where it does not have the model or does not price it by tokens."""
    # The list takes 0.2 s and 30 MB, which only planning should pay; gateways import this module for `cost`.
    from importlib import metadata  # noqa: PLC0415

    from genai_prices import data_snapshot  # noqa: PLC0415

    provider, _, reference = model.rpartition("/")
    snapshot = data_snapshot.get_snapshot()
    try:
        _, info = snapshot.find_provider_model(reference, None, provider or None, None)
    except LookupError:
        return None
    candidates, effective = _in_force(info.prices, at)
    source = f"genai-prices {metadata.version('genai-prices')} {model}"
    rates = _tier(candidates, 0, source, effective)
    starts = [start for prices in candidates for start in _tier_starts(prices) if start < context_tokens]
    if rates is None or not starts:
        return rates
    return msgspec.structs.replace(
        rates, long_above=max(0, min(starts) - 1), long=_tier(candidates, context_tokens, source, effective)
    )


def _tier(candidates: list[Any], context_tokens: int, source: str, effective: str) -> Rates | None:
    """The dearest rates that a prompt of fewer than `context_tokens` can have; 0: those of a short one."""
    classes = {
        name: max(rates) if (rates := _class_rates(candidates, key, context_tokens)) else None
        for name, key in _CLASSES.items()
    }
    if classes["input"] is None:
        return None
    requests = _class_rates(candidates, "requests_kcount", context_tokens)
    return Rates(
        input=_pico(classes["input"]),
        output=_pico(classes["output"] or Decimal(0)),
        cache_read=_maybe(classes["cache_read"]),
        cache_write=_maybe(classes["cache_write"]),
        reasoning=_maybe(classes["reasoning"]),
        input_audio=_maybe(classes["input_audio"]),
        output_audio=_maybe(classes["output_audio"]),
        request=_pico(max(requests) / 1000) if requests else 0,
        source=source,
        effective=effective,
    )


def _tier_starts(prices: Any) -> list[int]:
    """Prompt lengths from which on something costs otherwise."""
    values = [getattr(prices, key, None) for key in _CLASSES.values()]
    return [tier.start for value in values if value is not None for tier in getattr(value, "tiers", ())]


_CLASSES = {
    "input": "input_mtok",
    "output": "output_mtok",
    "cache_read": "cache_read_mtok",
    "cache_write": "cache_write_mtok",
    "reasoning": "output_reasoning_mtok",
    "input_audio": "input_audio_mtok",
    "output_audio": "output_audio_mtok",
}


def _in_force(prices: Any, at: date) -> tuple[list[Any], str]:
    """Price lists that may apply at some time of the day `at`, and since when."""
    if not isinstance(prices, list):
        return [prices], ""
    started = datetime.combine(at, time.min, UTC)
    by_hour: list[Any] = []
    for conditional in reversed(prices):
        constraint = conditional.constraint
        start = getattr(constraint, "start_date", None)
        if constraint is None or (start is not None and constraint.active(started)):
            return [*by_hour, conditional.prices], start.isoformat() if start else ""
        if start is None:
            by_hour.append(conditional.prices)
    return [*by_hour, prices[0].prices], ""


def _class_rates(candidates: list[Any], key: str, context_tokens: int) -> list[Decimal]:
    found: list[Decimal] = []
    for prices in candidates:
        value = getattr(prices, key, None)
        if value is None:
            continue
        if isinstance(value, Decimal):
            found.append(value)
        else:
            found.append(value.base)
            found.extend(tier.price for tier in value.tiers if tier.start < context_tokens)
    return found


def _pico(usd: Decimal) -> int:
    """Picodollars of an amount of USD, rounded up."""
    return int((usd * PICO).to_integral_value(ROUND_CEILING))


def _maybe(usd: Decimal | None) -> int | None:
    return None if usd is None else _pico(usd)
