"""What deployments cost: prices as declared, with their tiers, classes and hours, else the shipped list.

Pure. What a call costs by them is `economics`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date

import msgspec

from groundplan.blueprint import model as bp
from groundplan.catalog import model as doc
from groundplan.catalog.workspace import Workspace
from groundplan.core.errors import Invalid, Problem
from groundplan.core.money import format_usd
from groundplan.economics.price import FREE, find_rates
from groundplan.economics.prices import price_list
from groundplan.economics.prices.currency import USD, rate_on, rates_in_usd
from groundplan.economics.prices.time_of_day import highest_rates, with_windows
from groundplan.release.compile import budgets

Prices = Callable[[Workspace, doc.DeploymentDoc, date], bp.Rates | Problem]
"""Rates of a deployment on a day, or why there are none."""
MAX_SUCCESSORS = 5
"""Prices to come that a blueprint has of a deployment: those of a month, where a rate is declared for each week."""


def declared_or_listed(workspace: Workspace, deployment: doc.DeploymentDoc, day: date) -> bp.Rates | Problem:
    """The price at the deployment, else of its model document, else of the shipped price list."""
    kind, name, prices = "deployment", deployment.name, deployment.price
    described = workspace.models.get(deployment.model)
    if not prices and described is not None:
        kind, name, prices = "model", described.name, described.price
    try:
        declared = _declared_rates(workspace, kind, name, prices, day)
    except Invalid as error:
        return Problem(error.message, error.code, error.hint, workspace.where(kind, name, "price"))
    return find_rates(
        deployment.model,
        day,
        declared=declared,
        where=workspace.where(kind, name, "price") if prices else workspace.where(kind, name, "model"),
    )


def problems(workspace: Workspace, today: date) -> Iterator[Problem]:
    """Declared prices that say nothing of `today`: the first one begins later, or its currency has no rate yet. What
    holds on no day is told by `catalog.check`."""
    for deployment in workspace.deployments.values():
        described = workspace.models.get(deployment.model)
        prices = deployment.price or (described.price if described is not None else ())
        held = doc.price_on(prices, today)
        if not prices or (held is not None and held.since is not None):
            continue
        found = declared_or_listed(workspace, deployment, today)
        if isinstance(found, Problem) and found.code != "currency_unknown":
            yield found


def model_rates(workspace: Workspace | None, model: str, day: date) -> bp.Rates | Problem:
    """What a model costs that no deployment serves: by its document where it has a price, else by the list, with every
    tier of it."""
    described = None if workspace is None else workspace.models.get(model)
    declared: list[bp.Rates] = []
    if workspace is not None and described is not None and described.price:
        try:
            declared = _declared_rates(workspace, "model", described.name, described.price, day)
        except Invalid as error:
            return Problem(error.message, error.code, error.hint, workspace.where("model", described.name, "price"))
    return find_rates(model, day, declared=declared)


def rates_with_successors(workspace: Workspace, deployment: doc.DeploymentDoc, day: date) -> bp.Rates | Problem:
    """As `declared_or_listed`, with the next prices that begin after `day`, so that gateways price each call by its own
    moment."""
    rates = declared_or_listed(workspace, deployment, day)
    return (
        rates if isinstance(rates, Problem) else _append_successors(workspace, deployment, rates, day, MAX_SUCCESSORS)
    )


def _append_successors(
    workspace: Workspace, deployment: doc.DeploymentDoc, rates: bp.Rates, day: date, more: int
) -> bp.Rates:  # fmt: skip
    """`rates`, which hold on `day`, with so many that follow them, each within the one before."""
    for begins in price_change_days(workspace, deployment, day, date.max) if more else ():
        then = declared_or_listed(workspace, deployment, begins)
        if not isinstance(then, Problem) and then != rates:
            further = _append_successors(workspace, deployment, then, begins, more - 1)
            return msgspec.structs.replace(rates, then=further, then_from=begins.isoformat())
    return rates


def without_successors(rates: bp.Rates) -> bp.Rates:
    """Rates without what begins after them."""
    return msgspec.structs.replace(rates, then=None, then_from="")


def price_change_days(workspace: Workspace, deployment: doc.DeploymentDoc, after: date, until: date) -> list[date]:
    """The days after one and up to another, in order, on which its price may become another one."""
    described = workspace.models.get(deployment.model)
    prices = deployment.price or (described.price if described is not None else ())
    days = {each.since for each in prices if each.since is not None}
    for rule in workspace.company.currencies.values():
        days |= {each.since for each in rule.rates}
    days |= set(price_list.price_change_days(deployment.model, after, until))
    return sorted(day for day in days if after < day <= until)


def _declared_rates(
    workspace: Workspace, kind: str, name: str, prices: tuple[doc.Price, ...], day: date
) -> list[bp.Rates]:
    """Rates with the file that declares them; its line would make another blueprint of every comment above it. Those of
    other currencies are in USD at the rate of `day` where they hold on it. Raises `Invalid` where there is none."""
    file = workspace.where(kind, name, "price").file
    found = [_free_rates(price) if price.free else _rates_from_price(price, f"declared {file}") for price in prices]
    held = doc.price_on(prices, day)
    for place, price in enumerate(prices):
        if price is held and price.currency != USD and not price.free:
            rate = rate_on(budgets.currencies(workspace), price.currency, day)
            told = f"{found[place].source} in {price.currency} at {format_usd(rate)} USD"
            found[place] = msgspec.structs.replace(rates_in_usd(found[place], rate), source=told)
    return found


def _free_rates(price: doc.Price) -> bp.Rates:
    """From its day on, so that what was paid before stays paid, and what is paid later is."""
    return msgspec.structs.replace(FREE, effective=price.since.isoformat() if price.since else "")


_CLASSES = ("input", "output", "cache_read", "cache_write", "reasoning", "input_audio", "output_audio")


def _rates_from_price(price: doc.Price, source: str) -> bp.Rates:
    """A declared price with its tier for long prompts and its classes of service."""
    rates = bp.Rates(
        input=price.input,
        output=price.output,
        cache_read=price.cache_read,
        cache_write=price.cache_write,
        reasoning=price.reasoning,
        input_audio=price.input_audio,
        output_audio=price.output_audio,
        request=price.request,
        image=price.image,
        images=dict(sorted(price.images.items())),
        characters=price.characters,
        minute=price.minute,
        shortest=-(-price.shortest // 1000),
        flagged=price.flagged,
        source=source,
        effective=price.since.isoformat() if price.since else "",
    )
    long = None if price.long is None else _class_rates(rates, price.long)
    above = 0 if price.long is None else price.long.above
    classes = {
        name: None if found is None else _with_long(_class_rates(rates, found), long, above)
        for name, found in (("batch", price.batch), ("priority", price.priority), ("flex", price.flex))
    }
    whole = msgspec.structs.replace(rates, long=long, long_above=above, **classes)
    hours = [(*each.hours, _with_long(_class_rates(whole, each), long, above)) for each in price.hours]
    return with_windows(whole, hours)


def _class_rates(rates: bp.Rates, price: doc.ClassPrice) -> bp.Rates:
    said = {name: value for name in _CLASSES if (value := getattr(price, name)) is not None}
    return msgspec.structs.replace(rates, **said)


def _with_long(rates: bp.Rates, long: bp.Rates | None, above: int) -> bp.Rates:
    """A long prompt in another class of service costs the dearer of the two, since no list says less."""
    if long is None:
        return rates
    both = highest_rates((rates, long))
    dearer = {name: getattr(both, name) for name in _CLASSES}
    return msgspec.structs.replace(rates, long=msgspec.structs.replace(long, **dearer), long_above=above)
