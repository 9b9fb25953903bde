"""What a call costs: rates of a deployment, and the exact cost of a usage. The one place of this formula.

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
from groundplan.economics.prices.parts import parts
from groundplan.ledger.model import Usage

MILLION = 1_000_000
STANDARD, BATCH, PRIORITY, FLEX = "standard", "batch", "priority", "flex"
"""Classes of service."""
AUTO = "auto"
"""What a request asks for that leaves its class to a setting at the provider: it ends as standard, priority or flex."""
BATCHES = "batches"
"""In `serves` of a deployment whose provider has a batch endpoint of its own."""


FREE = Rates(input=0, output=0, source="declared free")


def price_of(
    model: str,
    at: date,
    *,
    declared: Sequence[Rates] = (),
    where: Where | None = None,
) -> Rates | Problem:
    """Rates of `model` on the day `at`: the newest declared price in force, else the shipped price list.

    Declared prices are rates with their first day in `effective` (empty: always). Where the list has tiers by prompt
    length, `long` has the next longer one: all of them, since a provider bills what it counts, whatever length was
    declared. `windows`: prices by time of day, with the dearest around them, so that a bound is
    never understated. An unknown price is a problem `price_missing`.
    """
    day = at.isoformat()
    in_force = [price for price in declared if price.effective <= day]
    if in_force:
        return max(in_force, key=lambda price: price.effective)
    found = price_list.rates(model, at)
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


def known_price(model: str, at: date) -> bool:
    """Whether the shipped price list has this model."""
    return price_list.rates(model, at) is not None


def cost(rates: Rates, usage: Usage, service: str = STANDARD) -> int:
    """Picodollars that `usage` costs, each token charged once at its finest reported class, rounded up at the end.

    Classes that overlap (audio that was also cached) are filled from the dearest on, never beyond the reported total,
    so a cost is at most `bound` of the totals. `service`: standard | batch | priority |
    flex.
    """
    if service != STANDARD:
        rates = of_service(rates, service)
    while rates.long is not None and usage.input > rates.long_above:
        rates = rates.long
    if usage.details is not None and rates.details is not None:
        total = sum(part.count * part.rate for part in parts(rates, usage))
        return -(-total // MILLION) + rates.request + usage.images * rates.image
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
    if service == FLEX:
        return rates.flex or rates
    found = rates.batch if service == BATCH else rates.priority if service == PRIORITY else None
    return found or rates


def of_line(rates: Rates, serves: Sequence[str]) -> str:
    """The class of service of a batch's line that is made as a call, at the ordinary endpoint of a deployment.

    The price list's price of batches, and that of a deployment with a batch endpoint of its own, are of such an
    endpoint. A price of batches that is declared of any other deployment can only be of calls.
    """
    declared = rates.batch is not None and not rates.source.startswith(price_list.LIST)
    return BATCH if declared and BATCHES not in serves else STANDARD


def bound(rates: Rates, input_tokens: int, output_tokens: int, images: int = 0, service: str = STANDARD) -> int:
    """The most in picodollars that a call with at most these tokens can cost, whatever classes they turn out to be.

    What is asked for as `priority` or `auto` may end as the one or as standard, so it is the dearer of them; so may
    `flex`, which is dearer nowhere. Searches of the web have no bound; gateways refuse the tools that make them.
    """
    if service == STANDARD and rates.long is None:
        return _bound(rates, input_tokens, output_tokens, images)
    if service == BATCH:
        return _longest(of_service(rates, BATCH), input_tokens, output_tokens, images)
    most = _longest(rates, input_tokens, output_tokens, images)
    if service not in (STANDARD, FLEX) and rates.priority is not None:
        return max(most, _longest(rates.priority, input_tokens, output_tokens, images))
    return most


def _longest(rates: Rates, input_tokens: int, output_tokens: int, images: int) -> int:
    """The dearest of the tiers by the prompt's length that so many tokens can reach."""
    most = _bound(rates, input_tokens, output_tokens, images)
    while rates.long is not None and input_tokens > rates.long_above:
        rates = rates.long
        most = max(most, _bound(rates, input_tokens, output_tokens, images))
    return most


def _bound(rates: Rates, input_tokens: int, output_tokens: int, images: int) -> int:
    highest_input, highest_output = rates.dearest
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
