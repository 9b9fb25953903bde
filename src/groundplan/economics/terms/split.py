"""What the cost of one attempt is made of, class by class, exactly. Pure; the shipper keeps it beside the attempt."""

from __future__ import annotations

from groundplan.blueprint.model import Rates
from groundplan.economics import price
from groundplan.economics.prices.parts import MILLION, parts
from groundplan.economics.terms.share import shares
from groundplan.ledger.model import Usage

BOUND = "bound"
"""Charged in full because nobody knows what was used: a crash, or an upstream that did not say."""
UNITS = ("images_made", "characters", "seconds")
"""What is priced by its number instead of by tokens."""
Split = dict[str, tuple[int, int]]
"""class -> (count, picodollars)"""
LONG, BY_TIME = "long", "by time"
"""What of a price is told beside its class of service: that of long prompts, and that of a time of day."""


def split(rates: Rates | None, usage: Usage, cost: int) -> Split:
    """Every class that was counted with its share of `cost` picodollars; the shares sum exactly to it.

    The class of service is the one at which the usage costs so much. What is beyond tokens is what was made, spoken or
    heard, else `bound`. Without rates the whole is `bound`.
    """
    if rates is None:
        return {BOUND: (0, cost)} if cost else {}
    taken, _ = _priced(rates, usage, cost)
    found = parts(taken, usage)
    weights = [part.count * part.rate for part in found]
    names, counts = [part.name for part in found], [part.count for part in found]
    for name, count, each in (("requests", 1, taken.request), ("images", usage.images, taken.image)):
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


def tier(rates: Rates | None, usage: Usage, cost: int) -> str:
    """At which price it was: `batch`, `priority`, `long`, `by time`, several with blanks between; empty: the standard
    one."""
    return "" if rates is None else _priced(rates, usage, cost)[1]


def _priced(rates: Rates, usage: Usage, cost: int) -> tuple[Rates, str]:
    """The rates of the time of day, class of service and tier that explain `cost`, with their name; standard where none
    does."""
    service, when = price.STANDARD, ""
    if price.cost(rates, usage) != cost:
        known = (way for way in _ways(rates) if price.cost(way[0], usage, way[1]) == cost)
        rates, service, when = next(known, (rates, service, when))
    taken, long = price.of_service(rates, service), ""
    while taken.long is not None and usage.input > taken.long_above:
        taken, long = taken.long, LONG
    names = ("" if service == price.STANDARD else service, long, when)
    return taken, " ".join(filter(None, names))


def _ways(rates: Rates) -> list[tuple[Rates, str, str]]:
    """Every (rates, class of service, name of the time of day) at which something may have been priced."""
    begun = () if rates.then is None else (rates.then,)
    times = [(each, "") for each in (rates, *begun)]
    times += [(window.rates, BY_TIME) for each in (rates, *begun) for window in each.windows]
    services = (price.STANDARD, price.BATCH, price.PRIORITY)
    return [(each, service, when) for each, when in times for service in services]
