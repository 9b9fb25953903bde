"""What the cost of one attempt is made of, class by class, exactly. Pure; the shipper keeps it beside the attempt."""

from __future__ import annotations

from groundplan.blueprint.model import Rates
from groundplan.economics import price
from groundplan.economics.prices.parts import MILLION, parts
from groundplan.economics.terms.apportion import shares
from groundplan.ledger.model import Usage

BOUND = "bound"
"""Charged in full because nobody knows what was used: a crash, or an upstream that did not say."""
UNITS = ("images_made", "characters", "seconds")
"""What is priced by its number instead of by tokens."""
_NOTHING = Usage()
Split = dict[str, tuple[int, int]]
"""class -> (count, picodollars)"""
LONG, BY_TIME = "long", "by time"
"""What of a price is told beside its class of service: that of long prompts, and that of a time of day."""


def split(rates: Rates | None, usage: Usage, cost: int) -> Split:
    """The first half of `explained`."""
    return explained(rates, usage, cost)[0]


def tier(rates: Rates | None, usage: Usage, cost: int) -> str:
    """The second half of `explained`."""
    return explained(rates, usage, cost)[1]


def explained(rates: Rates | None, usage: Usage, cost: int) -> tuple[Split, str]:
    """Every class that was counted with its share of `cost` picodollars, which sum exactly to it; and at which price it
    was: `batch`, `priority`, `flex`, `long`, `by time`, several with blanks between; empty: the standard one.

    The class of service is the one at which the usage costs so much. What is beyond tokens is what was made, spoken or
    heard, the price of a request for each search unit of a rerank, else `bound`. Without rates the whole is `bound`.
    """
    if rates is None:
        return {BOUND: (0, cost)} if cost else {}, ""
    if cost and cost == rates.flagged and usage == _NOTHING:
        return {"requests": (1, cost)}, ""  # the fee of one that was refused for what it says, which is exact
    taken, told = _priced(rates, usage, cost)
    found = parts(taken, usage)
    weights = [part.count * part.rate for part in found]
    counted = [(part.name, part.count) for part in found]
    if taken.request:
        counted.append(("requests", 1))
        weights.append(taken.request * MILLION)
    if usage.images and taken.image:
        counted.append(("images", usage.images))
        weights.append(usage.images * taken.image * MILLION)
    known = min(cost, -(-sum(weights) // MILLION))
    amounts = shares(known, weights) if weights else []
    made = {name: (count, amount) for (name, count), amount in zip(counted, amounts, strict=True)}
    if rest := cost - known if weights else cost:
        name = next((name for name in UNITS if getattr(usage, name)), BOUND)
        count = 0 if name == BOUND else int(getattr(usage, name))
        if name == BOUND and taken.request and not usage.output and rest % taken.request == 0:
            name, count, rest = "requests", 1 + rest // taken.request, made["requests"][1] + rest
        made[name] = (count, rest)
    return made, told


def _priced(rates: Rates, usage: Usage, cost: int) -> tuple[Rates, str]:
    """The rates of the time of day, class of service and tier that explain `cost`, with their name; standard where none
    does."""
    service, when = price.STANDARD, ""
    if price.cost(rates, usage) != cost:
        known = (way for way in _ways(rates, usage.service_tier) if price.cost(way[0], usage, way[1]) == cost)
        rates, service, when = next(known, (rates, service, when))
    taken, long = price.of_service(rates, service), ""
    while taken.long is not None and usage.input > taken.long_above:
        taken, long = taken.long, LONG
    if service == price.STANDARD:
        service = ""
    return taken, " ".join(filter(None, (service, long, when))) if service or long or when else ""


def _ways(rates: Rates, named: str) -> list[tuple[Rates, str, str]]:
    """Every (rates, class of service, name of the time of day) at which something may have been priced. `named`: the
    tier that its answer names, since batches and flex often cost the same."""
    begun = [rates]
    while (then := begun[-1].then) is not None:
        begun.append(then)
    times = [(each, "") for each in begun]
    times += [(window.rates, BY_TIME) for each in begun for window in each.windows]
    services = [price.STANDARD, price.BATCH, price.PRIORITY]
    services.insert(1 if named == price.FLEX else 3, price.FLEX)
    return [(each, service, when) for each, when in times for service in services]
