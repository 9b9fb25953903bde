"""Whether a conversation that goes on still may, by live policy as it is now. It ends nothing (`realtime` does)."""

from __future__ import annotations

from groundplan.blueprint.model import Deployment
from groundplan.core.errors import Denied
from groundplan.gateway.call import admit
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.call.exchange import Exchange
from groundplan.gateway.call.identify import check_grants, check_key
from groundplan.gateway.policy.snapshot import KeyEntry, Policy


class Permission:
    """Of a conversation, as whom it was admitted."""

    def __init__(self, gateway: Gateway, admitted: Exchange) -> None:
        if admitted.key is None or admitted.plan is None:
            raise AssertionError("not admitted")
        self._gateway = gateway
        self._person = admitted.person
        self._key, self._plan = admitted.key, admitted.plan
        self._seen: Policy | None = None
        self._known: KeyEntry | None = None
        """The key as `_seen` has it: it is looked for among all keys, which may be many."""

    def check(self, deployment: Deployment) -> None:
        """Raises `Denied`, `Unavailable` where it may not go on at this deployment."""
        gateway, workload = self._gateway, self._plan.workload.name
        policy, catalog = gateway.live.policy, gateway.live.catalog
        if policy is not self._seen:
            self._seen = policy
            self._known = next((each for each in policy.keys.values() if each.id == self._key.id), None)
        if self._known is None:
            raise Denied("this API key is no longer valid", code="invalid_api_key", hint="Use another key.")
        check_key(self._known, policy, gateway.clock.now().timestamp())
        admit.check_kills(policy, self._known, workload)
        if catalog is not None and catalog.granted:
            check_grants(catalog, policy, self._known, self._person, gateway.clock.now().date())
        admit.check_policy_age(self._plan, gateway.live.age())
        if catalog is not None and catalog.approved is not None:
            now = gateway.clock.seconds()
            catalog.approved.check(policy, workload, now)
            catalog.approved.usable(policy, workload, [deployment], now)
        if not admit.not_killed(policy, [deployment]):
            raise Denied(f"{deployment.name} is stopped", code="killed", hint="Connect again.")
