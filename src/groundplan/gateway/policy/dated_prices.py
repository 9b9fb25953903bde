"""Prices that begin on a date, taken up by the worker itself: each call is priced, reserved and settled as on its own
moment, however late the blueprint comes that is made of them.
"""

from __future__ import annotations

from dataclasses import replace

import msgspec

from groundplan.blueprint.model import Deployment
from groundplan.core.errors import Unavailable
from groundplan.gateway.policy.approved import approved_of
from groundplan.gateway.policy.catalog import Catalog, begins, index


def newest(catalog: Catalog | None, now: float) -> Catalog:
    """The blueprint that this worker has, at the prices of `now`, seconds since the epoch. Raises `Unavailable`
    (`not_ready`) where it has none yet."""
    if catalog is None:
        raise Unavailable("no blueprint is loaded yet", code="not_ready", hint="Wait for /readyz.", retry_after=1.0)
    return catalog if now < catalog.prices_until else at(catalog, now)


def at(catalog: Catalog, now: float) -> Catalog:
    """The same blueprint at the prices that have begun by `now`, seconds since the epoch; made once for each start."""
    while now >= catalog.prices_until:
        begun = catalog.later.get(catalog.prices_until)
        if begun is None:
            begun = catalog.later[catalog.prices_until] = _begun(catalog)
        catalog = begun
    return catalog


def _begun(catalog: Catalog) -> Catalog:
    places = [_priced(each, catalog.prices_until) for each in catalog.blueprint.deployments]
    blueprint = msgspec.structs.replace(catalog.blueprint, deployments=places)
    return replace(index(blueprint), gate=catalog.gate, approved=approved_of(blueprint))


def _priced(place: Deployment, moment: float) -> Deployment:
    then = place.rates.then
    if then is None or begins(place.rates.then_from) > moment:
        return place
    return msgspec.structs.replace(place, rates=then)
