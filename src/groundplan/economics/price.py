"""What a call costs: the rates of a deployment, and the exact cost of a usage. The only implementation of this formula.

Rates are picodollars per million tokens. A declared price wins over the price list that ships with the package
`genai-prices` (`prices.listed`). Nothing here fetches prices, stores them or knows currencies besides USD.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import msgspec

from groundplan.blueprint.model import Rates
from groundplan.core.errors import Problem, Where
from groundplan.economics.prices import price_list
from groundplan.economics.prices.parts import usage_parts
from groundplan.ledger.model import Usage

MILLION = 1_000_000
STANDARD, BATCH, PRIORITY, FLEX = "standard", "batch", "priority", "flex"
"""Classes of service."""
AUTO = "auto"
"""Requested class that leaves the choice to a setting at the provider: the call ends as standard, priority or flex."""
BATCHES = "batches"
"""Listed in `serves` of a deployment whose provider has a batch endpoint of its own."""

FREE = Rates(input=0, output=0, source="declared free")


def find_rates(
    model: str,
    day: date,
    *,
    declared: Sequence[Rates] = (),
    where: Where | None = None,
) -> Rates | Problem:
    """Return the rates of `model` on `day`: the newest declared price in force, else the shipped price list.

    Declared prices are rates with their first day in `effective` (empty: always). Where the list has tiers by prompt
    length, `long` holds the next longer one, and so on for all of them, since a provider bills what it counts, whatever
    length was declared. `windows` holds prices by time of day; the rates outside them are the highest of the day, so
    that a bound is never understated. An unknown price is a problem `price_missing`.
    """
    iso_day = day.isoformat()
    in_force = [price for price in declared if price.effective <= iso_day]
    if in_force:
        return max(in_force, key=lambda price: price.effective)
    found = price_list.rates(model, day)
    if found is not None:
        return found
    future = min((price.effective for price in declared), default="")
    note = f"; the declared price starts only on {future}" if future else ""
    return Problem(
        message=f"no price is known for the model '{model}'{note}",
        code="price_missing",
        hint="Add a price without `from:` for the time before."
        if future
        else "Declare it at the deployment: price: {input: 0.15 USD/Mtok, output: 0.60 USD/Mtok}, or price: free.",
        where=where,
    )


def has_listed_price(model: str, at: date) -> bool:
    """Whether the shipped price list has this model."""
    return price_list.rates(model, at) is not None


def cost(rates: Rates, usage: Usage, service: str = STANDARD) -> int:
    """Picodollars that `usage` costs: each token is charged once at its finest reported class; rounded up at the end.

    Classes that overlap (audio that was also cached) are filled from the dearest down, never beyond the reported total,
    so a cost is at most `cost_bound` of the totals. `service`: standard | batch | priority | flex.
    """
    if service != STANDARD:
        rates = service_rates(rates, service)
    while rates.long is not None and usage.input > rates.long_above:
        rates = rates.long
    if usage.details is not None and rates.details is not None:
        total = sum(part.count * part.rate for part in usage_parts(rates, usage))
        return -(-total // MILLION) + rates.request + usage.images * rates.image
    if not (usage.cache_read or usage.cache_write or usage.input_audio):
        total = usage.input * rates.input
    else:
        total = _cost_by_class(
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
        total += _cost_by_class(
            usage.output,
            rates.output,
            ((usage.reasoning, rates.reasoning), (usage.output_audio, rates.output_audio)),
        )
    return -(-total // MILLION) + rates.request + usage.images * rates.image


def cache_savings(rates: Rates, usage: Usage, service: str = STANDARD) -> int:
    """Picodollars saved by reading input from the provider's own cache, compared with the same tokens uncached."""
    if not usage.cache_read:
        return 0
    plain = msgspec.structs.replace(usage, cache_read=0)
    return max(0, cost(rates, plain, service) - cost(rates, usage, service))


def service_rates(rates: Rates, service: str) -> Rates:
    """Rates of a class of service; the standard rates where it has none of its own."""
    if service == FLEX:
        return rates.flex or rates
    found = rates.batch if service == BATCH else rates.priority if service == PRIORITY else None
    return found or rates


def batch_line_service(rates: Rates, serves: Sequence[str]) -> str:
    """Class of service of a batch line that is sent as a single call to the ordinary endpoint of a deployment.

    The batch price of the price list, and that of a deployment with a batch endpoint of its own, apply only to such an
    endpoint. A batch price that is declared for any other deployment can only apply to its calls.
    """
    declared = rates.batch is not None and not rates.source.startswith(price_list.PRICE_LIST)
    return BATCH if declared and BATCHES not in serves else STANDARD


def cost_bound(rates: Rates, input_tokens: int, output_tokens: int, images: int = 0, service: str = STANDARD) -> int:
    """The most in picodollars that a call with at most these tokens can cost, whatever classes they turn out to be.

    A call requested as `priority` or `auto` may be served as priority or as standard, so its bound is the dearer of
    both; `flex` may be served as standard too, which is never cheaper. Web searches have no bound; gateways refuse the
    tools that make them.
    """
    if service == STANDARD and rates.long is None:
        return _bound_of_tier(rates, input_tokens, output_tokens, images)
    if service == BATCH:
        return _bound_across_tiers(service_rates(rates, BATCH), input_tokens, output_tokens, images)
    most = _bound_across_tiers(rates, input_tokens, output_tokens, images)
    if service not in (STANDARD, FLEX) and rates.priority is not None:
        return max(most, _bound_across_tiers(rates.priority, input_tokens, output_tokens, images))
    return most


def _bound_across_tiers(rates: Rates, input_tokens: int, output_tokens: int, images: int) -> int:
    """The dearest of the tiers by prompt length that this many input tokens can reach."""
    most = _bound_of_tier(rates, input_tokens, output_tokens, images)
    while rates.long is not None and input_tokens > rates.long_above:
        rates = rates.long
        most = max(most, _bound_of_tier(rates, input_tokens, output_tokens, images))
    return most


def _bound_of_tier(rates: Rates, input_tokens: int, output_tokens: int, images: int) -> int:
    highest_input, highest_output = rates.highest_token_rates
    total = input_tokens * highest_input + output_tokens * highest_output
    return -(-total // MILLION) + rates.request + images * rates.image


def _cost_by_class(total: int, base: int, classes: tuple[tuple[int, int | None], ...]) -> int:
    """Picodollar-tokens of input or output; `total` includes the classes, a class without a rate costs `base`."""
    rest = max(total, *(count for count, _ in classes))
    amount = 0
    for count, rate in sorted(((count, base if rate is None else rate) for count, rate in classes), key=_by_rate):
        taken = min(count, rest)
        amount += taken * rate
        rest -= taken
    return amount + rest * base


def _by_rate(item: tuple[int, int]) -> int:
    return -item[1]
