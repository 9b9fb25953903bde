"""What the cost of one attempt is made of, class by class, exactly. Pure; the shipper keeps it beside the attempt."""

from __future__ import annotations

from groundplan.blueprint.model import Rates
from groundplan.economics import price
from groundplan.economics.prices.parts import MILLION, Part, parts
from groundplan.economics.terms.share import shares
from groundplan.ledger.model import Usage

BOUND = "bound"
"""Charged in full because nobody knows what was used: a crash, or an upstream that did not say."""
UNITS = ("images_made", "characters", "seconds")
"""What is priced by its number instead of by tokens."""
Split = dict[str, tuple[int, int]]
"""class -> (count, picodollars)"""


def split(rates: Rates | None, usage: Usage, cost: int) -> Split:
    """Every class that was counted with its share of `cost` picodollars; the shares sum exactly to it.

    The class of service is the one at which the usage costs so much. What is beyond tokens is what was made, spoken or
    heard, else `bound`. Without rates the whole is `bound`.
    """
    if rates is None:
        return {BOUND: (0, cost)} if cost else {}
    found, tier = _priced(rates, usage, cost)
    weights = [part.count * part.rate for part in found]
    names, counts = [part.name for part in found], [part.count for part in found]
    for name, count, each in (("requests", 1, tier.request), ("images", usage.images, tier.image)):
        if count and each:
            names.append(name)
            counts.append(count)
            weights.append(count * each * MILLION)
    known = min(cost, -(-sum(weights) // MILLION))
    amounts = shares(known, weights) if weights else []
    made = {name: (count, amount) for name, count, amount in zip(names, counts, amounts, strict=True)}
    if rest := cost - sum(amounts):
        name = next((name for name in UNITS if getattr(usage, name)), BOUND)
        count = 0 if name == BOUND else int(getattr(usage, name))
        made[name] = (count, rest)
    return made


def _priced(rates: Rates, usage: Usage, cost: int) -> tuple[list[Part], Rates]:
    """The parts, and the rates of the time of day, class of service and tier that explain `cost`; standard where none
    does."""
    services = (price.STANDARD, price.BATCH, price.PRIORITY)
    ways = [(each, service) for each in (rates, *(window.rates for window in rates.windows)) for service in services]
    rates, service = next((way for way in ways if price.cost(way[0], usage, way[1]) == cost), (rates, price.STANDARD))
    tier = price.of_service(rates, service)
    while tier.long is not None and usage.input > tier.long_above:
        tier = tier.long
    return parts(tier, usage), tier
