"""Compiles prices of deployments: declared ones with their tiers, classes and hours, else those of the shipped list.

Pure. `economics` prices calls by them.
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
"""future prices of a deployment in a blueprint: a month's, if a rate is declared for each week"""


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


def price_problems(workspace: Workspace, today: date) -> Iterator[Problem]:
    """Problems of declared prices that do not apply today: the first one begins later, or its currency has no rate yet.
    `catalog.check` reports those that never apply."""
    for deployment in workspace.deployments.values():
        described = workspace.models.get(deployment.model)
        prices = deployment.price or (described.price if described is not None else ())
        price_in_force = doc.price_on(prices, today)
        if not prices or (price_in_force is not None and price_in_force.since is not None):
            continue
        found = declared_or_listed(workspace, deployment, today)
        if isinstance(found, Problem) and found.code != "currency_unknown":
            yield found


def model_rates(workspace: Workspace | None, model: str, day: date) -> bp.Rates | Problem:
    """The rates of a model that no deployment serves: by its document if that has a price, else by the list, with all
    tiers."""
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
    workspace: Workspace, deployment: doc.DeploymentDoc, rates: bp.Rates, day: date, remaining: int
) -> bp.Rates:  # fmt: skip
    """`rates`, which apply on `day`, with at most `remaining` later ones, each nested in the one before."""
    for start in price_change_days(workspace, deployment, day, date.max) if remaining else ():
        successor = declared_or_listed(workspace, deployment, start)
        if not isinstance(successor, Problem) and successor != rates:
            later = _append_successors(workspace, deployment, successor, start, remaining - 1)
            return msgspec.structs.replace(rates, then=later, then_from=start.isoformat())
    return rates


def without_successors(rates: bp.Rates) -> bp.Rates:
    """Rates without their successors."""
    return msgspec.structs.replace(rates, then=None, then_from="")


def price_change_days(workspace: Workspace, deployment: doc.DeploymentDoc, after: date, until: date) -> list[date]:
    """The days after `after` and up to `until`, in order, on which the deployment's price may change."""
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
    """Rates with the file that declares them as source; with its line, every comment above would change the blueprint.
    The price in force on `day` is converted to USD at that day's rate. Raises `Invalid` where there is none."""
    file = workspace.where(kind, name, "price").file
    found = [_free_rates(price) if price.free else _rates_from_price(price, f"declared {file}") for price in prices]
    price_in_force = doc.price_on(prices, day)
    for place, price in enumerate(prices):
        if price is price_in_force and price.currency != USD and not price.free:
            rate = rate_on(budgets.compile_currencies(workspace), price.currency, day)
            source = f"{found[place].source} in {price.currency} at {format_usd(rate)} USD"
            found[place] = msgspec.structs.replace(rates_in_usd(found[place], rate), source=source)
    return found


def _free_rates(price: doc.Price) -> bp.Rates:
    """Free rates from the price's day on: earlier and later prices stay as they are."""
    return msgspec.structs.replace(FREE, effective=price.since.isoformat() if price.since else "")


_CLASSES = ("input", "output", "cache_read", "cache_write", "reasoning", "input_audio", "output_audio")


def _rates_from_price(price: doc.Price, source: str) -> bp.Rates:
    """The rates of a declared price, with its tier for long prompts, classes of service and hours."""
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
    with_classes = msgspec.structs.replace(rates, long=long, long_above=above, **classes)
    hours = [(*each.hours, _with_long(_class_rates(with_classes, each), long, above)) for each in price.hours]
    return with_windows(with_classes, hours)


def _class_rates(rates: bp.Rates, price: doc.ClassPrice) -> bp.Rates:
    declared_fields = {name: value for name in _CLASSES if (value := getattr(price, name)) is not None}
    return msgspec.structs.replace(rates, **declared_fields)


def _with_long(rates: bp.Rates, long: bp.Rates | None, above: int) -> bp.Rates:
    """Rates with the tier for long prompts at the higher of its own and the class's rates, since no list has less."""
    if long is None:
        return rates
    highest = highest_rates((rates, long))
    highest_fields = {name: getattr(highest, name) for name in _CLASSES}
    return msgspec.structs.replace(rates, long=msgspec.structs.replace(long, **highest_fields), long_above=above)
