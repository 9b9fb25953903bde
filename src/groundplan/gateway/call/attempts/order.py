"""The order in which the deployments of a call are asked: as its workload balances them, unhealthy ones last, and while
its placement changes those that served it before. Asks nobody; which of them it may ask was decided before.
"""

from __future__ import annotations

import random

from groundplan.blueprint.model import Deployment, Ramp, Workload
from groundplan.economics.price import FLEX
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.call.exchange import Exchange
from groundplan.gateway.upstream.choose import PREFIX_BYTES, Facts, beginning
from groundplan.gateway.upstream.health import Health


def in_order(gateway: Gateway, exchange: Exchange, workload: Workload, now: float, health: Health) -> list[Deployment]:
    """All of them, the one to ask first in front. `now`: by the clock of the loop; `health`: what is known against them
    as this call asks them."""
    if workload.reliability.balance != "ordered" and len(exchange.deployments) > 1 and exchange.route is None:
        return _balanced(gateway, exchange, workload, now, health)
    order = health.order(exchange.deployments, now)
    if exchange.plan is not None and exchange.plan.ramp is not None and exchange.route is None:
        return _going_over(gateway, workload, order, exchange.plan.ramp, now, health)
    return order


def health_of(gateway: Gateway, exchange: Exchange) -> Health:
    """What is known against deployments as this call asks them."""
    return gateway.flex if exchange.ask is not None and exchange.ask.service == FLEX else gateway.health


def _balanced(gateway: Gateway, exchange: Exchange, workload: Workload, now: float, health: Health) -> list[Deployment]:
    """Those that the workload prefers, balanced; then its fallbacks, and those that are not well. One of them that is
    to be tried by one call comes before all: behind those that are well it would never be asked again."""
    rule = workload.reliability
    peers = workload.deployments[: rule.peers] if rule.peers is not None else workload.deployments
    tried = None
    if health.troubled:
        tried = health.due([d for d in exchange.deployments if d.name in peers and d.weight], now)
    order = health.order(exchange.deployments, now)
    if tried is not None:
        order = [tried, *(d for d in order if d is not tried)]
    well = [d for d in order if d.name in peers and health.closed(d.name)]
    if len(well) < 2:
        return order
    ask = exchange.ask
    stream = ask is not None and ask.stream
    system = (workload.system_prompt or "").encode()
    told = beginning(ask.fields) if ask is not None and rule.balance == "prefix" else b""
    facts = Facts(
        workload=workload.name,
        running=gateway.loads.running,
        peak=lambda name: gateway.times.of(name, stream).expected(now),
        bounds=exchange.bounds,
        prefix=(system + told)[:PREFIX_BYTES],
        dice=random.random,
    )
    chosen = gateway.balance.arrange(rule.balance, well, facts)
    if tried is not None:
        chosen = [tried, *chosen]
    return [*chosen, *(d for d in order if d not in chosen)]


def _going_over(
    gateway: Gateway, workload: Workload, order: list[Deployment], ramp: Ramp, now: float, health: Health
) -> list[Deployment]:
    """While its place changes, calls that are not yet to go over ask the place that served them before first."""
    origin = next((d for d in order if d.name == ramp.origin), None)
    if origin is None or order[0].name != ramp.to or gateway.balance.goes_over(workload.name, ramp.share):
        return order
    if not health.closed(origin.name) and health.due([origin], now) is None:
        return order
    return [origin, *(d for d in order if d is not origin)]
