"""What the cost of one attempt consists of, class by class, exactly. Pure; the shipper stores it with the attempt."""

from __future__ import annotations

from groundplan.blueprint.model import Rates
from groundplan.economics import price
from groundplan.economics.prices.parts import MILLION, usage_parts
from groundplan.economics.terms.apportion import shares
from groundplan.ledger.model import Usage

BOUND = "bound"
"""Term of a cost charged at its bound because the usage is unknown: a crash, or an upstream that did not report it."""
UNITS = ("images_made", "characters", "seconds")
"""Classes that are priced per unit instead of per token."""
_NOTHING = Usage()
Split = dict[str, tuple[int, int]]
"""class -> (count, picodollars)"""
LONG, BY_TIME = "long", "by time"
"""Words of a tier that follow the class of service: the price of long prompts, and one by time of day."""


def split_cost(rates: Rates | None, usage: Usage, cost: int) -> Split:
    """The first half of `explain_cost`: the cost by class."""
    return explain_cost(rates, usage, cost)[0]


def explain_cost(rates: Rates | None, usage: Usage, cost: int) -> tuple[Split, str]:
    """Split `cost` picodollars over the counted classes (shares sum exactly to it), and name the tier it was priced at.

    The tier is `batch`, `priority`, `flex`, `long`, `by time`, several of them separated by blanks, or empty for the
    standard price. The class of service is the one at which the usage costs exactly this. An amount beyond tokens is
    that of generated images, spoken characters or audio seconds, the request price of each search unit of a rerank,
    else `bound`. Without rates all of it is `bound`.
    """
    if rates is None:
        return {BOUND: (0, cost)} if cost else {}, ""
    if cost and cost == rates.flagged and usage == _NOTHING:
        return {"requests": (1, cost)}, ""  # the exact fee of a request that was refused for its content
    matching, tier = _matching_rates(rates, usage, cost)
    found = usage_parts(matching, usage)
    weights = [part.count * part.rate for part in found]
    counted = [(part.name, part.count) for part in found]
    if matching.request:
        counted.append(("requests", 1))
        weights.append(matching.request * MILLION)
    if usage.images and matching.image:
        counted.append(("images", usage.images))
        weights.append(usage.images * matching.image * MILLION)
    known = min(cost, -(-sum(weights) // MILLION))
    amounts = shares(known, weights) if weights else []
    by_class = {name: (count, amount) for (name, count), amount in zip(counted, amounts, strict=True)}
    if rest := cost - known if weights else cost:
        name = next((name for name in UNITS if getattr(usage, name)), BOUND)
        count = 0 if name == BOUND else int(getattr(usage, name))
        if name == BOUND and matching.request and not usage.output and rest % matching.request == 0:
            name, count, rest = "requests", 1 + rest // matching.request, by_class["requests"][1] + rest
        by_class[name] = (count, rest)
    return by_class, tier


def _matching_rates(rates: Rates, usage: Usage, cost: int) -> tuple[Rates, str]:
    """The rates (time of day, class of service, prompt length) at which the usage costs `cost`, and their tier's name;
    the standard rates where none do."""
    service, when = price.STANDARD, ""
    if price.cost(rates, usage) != cost:
        candidates = _candidate_rates(rates, usage.service_tier)
        matching = (each for each in candidates if price.cost(each[0], usage, each[1]) == cost)
        rates, service, when = next(matching, (rates, service, when))
    found, long = price.service_rates(rates, service), ""
    while found.long is not None and usage.input > found.long_above:
        found, long = found.long, LONG
    if service == price.STANDARD:
        service = ""
    return found, " ".join(filter(None, (service, long, when))) if service or long or when else ""


def _candidate_rates(rates: Rates, named: str) -> list[tuple[Rates, str, str]]:
    """Every (rates, class of service, `BY_TIME` or empty) at which a usage may have been priced. `named`: the tier that
    the answer names, tried early since batches and flex often cost the same."""
    begun = [rates]
    while (then := begun[-1].then) is not None:
        begun.append(then)
    times = [(each, "") for each in begun]
    times += [(window.rates, BY_TIME) for each in begun for window in each.windows]
    services = [price.STANDARD, price.BATCH, price.PRIORITY]
    services.insert(1 if named == price.FLEX else 3, price.FLEX)
    return [(each, service, when) for each, when in times for service in services]
