"""Prices that begin on a date, applied by the worker itself: each call is priced, reserved and settled as of its own
time, however late the blueprint with the new prices comes."""

from __future__ import annotations

from dataclasses import replace

import msgspec

from groundplan.blueprint.model import Deployment
from groundplan.core.errors import Unavailable
from groundplan.gateway.policy.approved import approved_of
from groundplan.gateway.policy.catalog import Catalog, index, start_of_day


def current_catalog(catalog: Catalog | None, now: float) -> Catalog:
    """This worker's catalog at the prices of `now`, seconds since the epoch. Raises `Unavailable` (`not_ready`) if it
    has none yet."""
    if catalog is None:
        raise Unavailable("no blueprint is loaded yet", code="not_ready", hint="Wait for /readyz.", retry_after=1.0)
    return catalog if now < catalog.prices_until else catalog_at(catalog, now)


def catalog_at(catalog: Catalog, now: float) -> Catalog:
    """The same catalog at the prices that have begun by `now`, seconds since the epoch; made once per start of a
    price."""
    while now >= catalog.prices_until:
        dated = catalog.dated_catalogs.get(catalog.prices_until)
        if dated is None:
            dated = catalog.dated_catalogs[catalog.prices_until] = _with_new_prices(catalog)
        catalog = dated
    return catalog


def _with_new_prices(catalog: Catalog) -> Catalog:
    places = [_with_new_rates(each, catalog.prices_until) for each in catalog.blueprint.deployments]
    blueprint = msgspec.structs.replace(catalog.blueprint, deployments=places)
    return replace(index(blueprint), gate=catalog.gate, approved=approved_of(blueprint))


def _with_new_rates(place: Deployment, moment: float) -> Deployment:
    then = place.rates.then
    if then is None or start_of_day(place.rates.then_from) > moment:
        return place
    return msgspec.structs.replace(place, rates=then)
