"""Whether a call that was admitted a while ago may still be sent: not on a policy lease that ran out, and not to what
was stopped, revoked or narrowed since.

Covers attempts that are about to be sent. Those already sent are ended by `guard.kills`.
"""

from __future__ import annotations

import asyncio

from groundplan.blueprint.model import Deployment
from groundplan.core.errors import Denied
from groundplan.gateway.call import admit
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.call.exchange import Exchange
from groundplan.gateway.call.identify import KEY_HEADERS, caller_of
from groundplan.gateway.policy.catalog import Plan
from groundplan.gateway.policy.snapshot import Policy
from groundplan.placement.guard import is_allowed

RENEWAL_SECONDS = 0.25
_POLL_SECONDS = 0.01


async def wait_for_policy(gateway: Gateway, plan: Plan) -> None:
    """Wait until live policy is confirmed, which comes at once where the worker had only stalled. Raises `Unavailable`
    (`policy_lease_expired`) where its lease and the workload's grace are over and it is not confirmed within 250 ms."""
    end = gateway.loop.time() + RENEWAL_SECONDS
    while not admit.is_policy_fresh(plan, gateway.live.age()) and gateway.loop.time() < end:  # noqa: ASYNC110 -- it has an end
        await asyncio.sleep(_POLL_SECONDS)
    admit.check_policy_age(plan, gateway.live.age())


def may_send(gateway: Gateway, exchange: Exchange, deployment: Deployment) -> bool:
    """Whether an admitted call may still be sent to the deployment. Raises `Denied` or `Unauthenticated` where it may
    be sent to none.

    A newer blueprint changes only where the workload's data may be: the call otherwise ends as it began. The expiry of
    its key does not stop it either.
    """
    policy, key, workload = gateway.live.policy, exchange.key, exchange.workload
    if key is None or workload is None:
        raise AssertionError("not admitted")
    admit.check_kills(policy, key, workload.name)
    if not admit.without_killed(policy, [deployment]):
        return False
    if policy is not exchange.policy and not _is_approved(gateway, exchange, deployment, policy):
        return False
    return may_hold_data(gateway, exchange, deployment)


def may_hold_data(gateway: Gateway, exchange: Exchange, deployment: Deployment) -> bool:
    """Whether the newest blueprint allows the workload's data at the deployment; true where it lacks the workload."""
    before, now, workload = exchange.catalog, gateway.live.catalog, exchange.workload
    plan = None if now is None or workload is None or now is before else now.plans.get(workload.name)
    if before is None or now is None or plan is None or now.number == before.number:
        return True
    sites = {site.name: site for site in (*before.blueprint.sites, *now.blueprint.sites)}
    return is_allowed(plan.workload, deployment, sites)


def _is_approved(gateway: Gateway, exchange: Exchange, deployment: Deployment, policy: Policy) -> bool:
    """Whether a newer policy still allows the caller and what the workload uses. Raises as `may_send`."""
    catalog, workload, headers = exchange.catalog, exchange.workload, exchange.request.headers
    if any(name in headers for name in KEY_HEADERS):  # sub-calls and lines of batches have none
        caller_of(headers, policy, 0.0)
    if catalog is None or workload is None or catalog.approved is None:
        return True
    now = gateway.clock.seconds()
    catalog.approved.check(policy, workload.name, now)
    try:
        return bool(catalog.approved.usable(policy, workload.name, [deployment], now))
    except Denied:
        return False  # another deployment may be usable
