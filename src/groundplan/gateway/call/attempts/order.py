"""The order in which the deployments of a call are tried: as its workload balances them, unhealthy ones last, and,
while its placement changes, partly those that served it before. Sends nothing; which deployments are allowed was
decided before.
"""

from __future__ import annotations

import random

from groundplan.blueprint.model import Deployment, Ramp, Workload
from groundplan.economics.price import FLEX
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.call.exchange import Exchange
from groundplan.gateway.upstream.choose import PREFIX_BYTES, BalancingInputs, prompt_prefix
from groundplan.gateway.upstream.health import Health


def ordered_deployments(
    gateway: Gateway, exchange: Exchange, workload: Workload, now: float, health: Health
) -> list[Deployment]:
    """All deployments of the call, the first to try in front. `now`: by the clock of the loop; `health`: the health
    that applies to this call, see `health_of`."""
    if workload.reliability.balance != "ordered" and len(exchange.deployments) > 1 and exchange.route is None:
        return _balance(gateway, exchange, workload, now, health)
    order = health.order(exchange.deployments, now)
    if exchange.plan is not None and exchange.plan.ramp is not None and exchange.route is None:
        return _apply_ramp(gateway, workload, order, exchange.plan.ramp, now, health)
    return order


def health_of(gateway: Gateway, exchange: Exchange) -> Health:
    """The health of deployments that applies to this call: that of the tier flex is kept apart."""
    return gateway.flex_health if exchange.ask is not None and exchange.ask.service == FLEX else gateway.health


def _balance(gateway: Gateway, exchange: Exchange, workload: Workload, now: float, health: Health) -> list[Deployment]:
    """The workload's preferred deployments, balanced; then its fallbacks and the unhealthy ones. A preferred one that
    is due for a probe comes first: behind the healthy ones it would never be tried again."""
    rule = workload.reliability
    peers = workload.deployments[: rule.peers] if rule.peers is not None else workload.deployments
    probed = None
    if health.has_problems:
        probed = health.due_for_probe([d for d in exchange.deployments if d.name in peers and d.weight], now)
    order = health.order(exchange.deployments, now)
    if probed is not None:
        order = [probed, *(d for d in order if d is not probed)]
    healthy = [d for d in order if d.name in peers and health.is_closed(d.name)]
    if len(healthy) < 2:
        return order
    ask = exchange.ask
    stream = ask is not None and ask.stream
    system = (workload.system_prompt or "").encode()
    beginning_bytes = prompt_prefix(ask.fields) if ask is not None and rule.balance == "prefix" else b""
    facts = BalancingInputs(
        workload=workload.name,
        running=gateway.loads.running,
        peak_latency=lambda name: gateway.latencies.of(name, stream).expected_peak(now),
        max_costs=exchange.bounds,
        prefix=(system + beginning_bytes)[:PREFIX_BYTES],
        random=random.random,
    )
    chosen = gateway.balance.order(rule.balance, healthy, facts)
    if probed is not None:
        chosen = [probed, *chosen]
    return [*chosen, *(d for d in order if d not in chosen)]


def _apply_ramp(
    gateway: Gateway, workload: Workload, order: list[Deployment], ramp: Ramp, now: float, health: Health
) -> list[Deployment]:
    """While the placement changes, put the previous deployment first for the share of calls that do not move yet."""
    origin = next((d for d in order if d.name == ramp.origin), None)
    if origin is None or order[0].name != ramp.to or gateway.balance.takes_ramp(workload.name, ramp.share):
        return order
    if not health.is_closed(origin.name) and health.due_for_probe([origin], now) is None:
        return order
    return [origin, *(d for d in order if d is not origin)]
