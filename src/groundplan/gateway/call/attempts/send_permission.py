"""Whether a call that was admitted a while ago may still be sent: not on a policy lease that ran out, and not by what
was stopped, revoked or narrowed since.

A call that was sent is ended by kills, as they are heard of; here is only what is about to be.
"""

from __future__ import annotations

import asyncio

from groundplan.blueprint.model import Deployment
from groundplan.core.errors import Denied
from groundplan.gateway.call import admit
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.call.exchange import Exchange
from groundplan.gateway.call.identify import KEY_HEADERS, caller
from groundplan.gateway.policy.catalog import Plan
from groundplan.gateway.policy.snapshot import Policy
from groundplan.placement.guard import may

RENEWAL_SECONDS = 0.25
_LOOK_SECONDS = 0.01


async def renewed(gateway: Gateway, plan: Plan) -> None:
    """Once live policy is confirmed, as it is at once where a worker only stood still. Raises `Unavailable`
    (`policy_lease_expired`) where its lease and the workload's grace are over, and it is not within 250 ms."""
    end = gateway.loop.time() + RENEWAL_SECONDS
    while not admit.is_confirmed(plan, gateway.live.age()) and gateway.loop.time() < end:  # noqa: ASYNC110 -- it has an end
        await asyncio.sleep(_LOOK_SECONDS)
    admit.check_policy_age(plan, gateway.live.age())


def may_be_sent(gateway: Gateway, exchange: Exchange, deployment: Deployment) -> bool:
    """Whether an admitted call may still go there. Raises `Denied`, `Unauthenticated` where it may go nowhere any more.

    A blueprint that came since changes nothing but where its workload's data may be: what was begun ends as it was
    begun. Neither does the end of a key's days.
    """
    policy, key, workload = gateway.live.policy, exchange.key, exchange.workload
    if key is None or workload is None:
        raise AssertionError("not admitted")
    admit.check_kills(policy, key, workload.name)
    if not admit.not_killed(policy, [deployment]):
        return False
    if policy is not exchange.policy and not _is_approved(gateway, exchange, deployment, policy):
        return False
    return may_hold(gateway, exchange, deployment)


def may_hold(gateway: Gateway, exchange: Exchange, deployment: Deployment) -> bool:
    """Whether data of an admitted call's workload may be there by the newest blueprint, where that has the workload."""
    before, now, workload = exchange.catalog, gateway.live.catalog, exchange.workload
    plan = None if now is None or workload is None or now is before else now.plans.get(workload.name)
    if before is None or now is None or plan is None or now.number == before.number:
        return True
    sites = {site.name: site for site in (*before.blueprint.sites, *now.blueprint.sites)}
    return may(plan.workload, deployment, sites)


def _is_approved(gateway: Gateway, exchange: Exchange, deployment: Deployment, policy: Policy) -> bool:
    """Whether its caller and what it uses are good by a policy that came since. Raises as `may_be_sent`."""
    catalog, workload, headers = exchange.catalog, exchange.workload, exchange.request.headers
    if any(name in headers for name in KEY_HEADERS):  # what the gateway itself asks, and lines of batches, have none
        caller(headers, policy, 0.0)
    if catalog is None or workload is None or catalog.approved is None:
        return True
    now = gateway.clock.seconds()
    catalog.approved.check(policy, workload.name, now)
    try:
        return bool(catalog.approved.usable(policy, workload.name, [deployment], now))
    except Denied:
        return False  # others of its deployments may be
