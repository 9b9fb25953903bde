"""Checks whether an open conversation may continue under the current live policy. Ends nothing (`conversation`
does)."""

from __future__ import annotations

from operator import attrgetter

from groundplan.blueprint.model import Deployment
from groundplan.core.errors import Denied
from groundplan.gateway.call import admit
from groundplan.gateway.call.attempts.send_permission import may_hold_data, wait_for_policy
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.call.exchange import Exchange
from groundplan.gateway.call.identify import check_grants, check_key, key_digest

_identity = attrgetter("site", "model", "upstream_model", "url")
"""What identifies a deployment: a change makes it another one than the conversation is connected to."""


def current_deployment(exchange: Exchange, deployment: Deployment) -> Deployment:
    """The conversation's deployment as it is declared now, for its next response. Raises `Denied`."""
    now = next((d for d in exchange.deployments if d.name == deployment.name), None)
    if now is None:
        raise Denied(f"{deployment.name} may not serve this any more", code="killed", hint="Connect again.")
    if _identity(now) != _identity(deployment) or now.max_output_tokens < deployment.max_output_tokens:
        # the connection is to the old one, at its cost, and with its cap of answers
        message = f"{deployment.name} is another one since this was connected"
        raise Denied(message, code="deployment_changed", hint="Connect again.")
    return now


class Permission:
    """The permission of one conversation, for the caller that it was admitted for."""

    def __init__(self, gateway: Gateway, admitted: Exchange) -> None:
        if admitted.key is None or admitted.plan is None:
            raise AssertionError("not admitted")
        self._gateway, self._admitted = gateway, admitted
        self._person = admitted.person
        self._plan = admitted.plan
        self._hash = key_digest(admitted.request.headers)

    async def wait_until_current(self) -> None:
        """Wait until live policy is confirmed, which takes time after a stall or a change of the clock. Raises
        `Unavailable`."""
        await wait_for_policy(self._gateway, self._plan)

    def check(self, deployment: Deployment) -> None:
        """Raise `Denied` or `Unavailable` where the conversation may not continue at this deployment."""
        gateway, workload = self._gateway, self._plan.workload.name
        policy, catalog = gateway.live.policy, gateway.live.catalog
        key = policy.keys.get(self._hash)
        if key is None:
            raise Denied("this API key is no longer valid", code="invalid_api_key", hint="Use another key.")
        check_key(key, policy, gateway.clock.now().timestamp())
        if self._person and self._person not in policy.active:  # a person for whom a key acts
            message, hint = "the person of this conversation is not active any more", "Name an active person."
            raise Denied(message, code="person_unknown", hint=hint)
        admit.check_kills(policy, key, workload)
        now = gateway.clock.seconds()
        if catalog is not None:
            plan = catalog.plans.get(workload)
            if plan is None:
                raise admit.workload_unknown(workload)
            admit.check_workload(plan, now)  # audio goes to the provider even if no response may begin
            if catalog.granted_workloads:
                check_grants(catalog, policy, key, self._person, gateway.clock.now().date())
        admit.check_policy_age(self._plan, gateway.live.age())
        if catalog is not None and catalog.approved is not None:
            catalog.approved.check(policy, workload, now)
            catalog.approved.usable(policy, workload, [deployment], now)
        if not admit.without_killed(policy, [deployment]):
            raise Denied(f"{deployment.name} is stopped", code="killed", hint="Connect again.")
        if not may_hold_data(gateway, self._admitted, deployment):
            message = f"{deployment.name} is not where the data of {workload} may be any more"
            raise Denied(message, code="deployment_changed", hint="Connect again.")
