"""Deployments whose price changes only because a day has begun: by a dated price, currency rate or list price. Pure.

Changes of the price list or of the workspace are not covered: they take effect with the next apply.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta

import msgspec

from groundplan.blueprint import model as bp
from groundplan.catalog import model as doc
from groundplan.catalog.workspace import Workspace
from groundplan.core.errors import Problem
from groundplan.economics.price import FREE
from groundplan.release.compile.pricing import Prices, price_change_days, without_successors

_DAY = timedelta(days=1)


def begun_rates(workspace: Workspace, served: bp.Blueprint, today: date, prices: Prices) -> dict[str, bp.Rates]:
    """Deployment -> today's rates, where they differ from the served ones and the served ones are those of an earlier
    day. `workspace` is what `served` was made from."""
    found: dict[str, bp.Rates] = {}
    for deployment in served.deployments:
        item = workspace.deployments.get(deployment.name)
        if item is None or item.model != deployment.model:
            continue
        rates = prices(workspace, item, today)
        if isinstance(rates, Problem) or without_successors(rates) == without_successors(deployment.rates):
            continue
        before = (prices(workspace, item, day) for day in _last_days(workspace, item, today))
        if any(
            not isinstance(each, Problem) and without_successors(each) == without_successors(deployment.rates)
            for each in before
        ):
            found[deployment.name] = rates
    return found


def differs_only_in_prices(before: bp.Blueprint, after: bp.Blueprint) -> bool:
    """Whether two blueprints differ in nothing but prices."""
    return _unpriced(before) == _unpriced(after)


def _unpriced(blueprint: bp.Blueprint) -> bp.Blueprint:
    places = [msgspec.structs.replace(each, rates=FREE) for each in blueprint.deployments]
    return msgspec.structs.replace(blueprint, number=0, rollback_of=None, deployments=places)


def _last_days(workspace: Workspace, item: doc.DeploymentDoc, today: date) -> Iterator[date]:
    """Yield the last day of each earlier price, the newest first."""
    yield from (start - _DAY for start in reversed(price_change_days(workspace, item, date.min, today)))
