"""The surface of one response of a conversation: which deployments can make it, and its cost bound. Pure."""

from __future__ import annotations

from groundplan.blueprint.model import Deployment
from groundplan.core.errors import Invalid
from groundplan.economics import price
from groundplan.gateway.call.ask import Ask
from groundplan.gateway.surfaces.codec import Codec
from groundplan.gateway.surfaces.interface import Interface
from groundplan.gateway.surfaces.realtime.events import HINT
from groundplan.ledger.model import Usage


class Realtime(Interface):
    """The surface of one response of a conversation."""

    name = "realtime"
    deployment_kind = "realtime"
    filters_deployments = True

    def eligible_deployments(self, ask: Ask, deployments: tuple[Deployment, ...]) -> tuple[Deployment, ...]:  # noqa: ARG002
        found = tuple(d for d in deployments if d.http == 1 and not (d.proxy or "").startswith("https:"))
        if not found:
            raise Invalid("no deployment can be reached by WebSocket", code="realtime_way", hint=HINT)
        return found

    def codec(self, deployment: Deployment) -> Codec:  # noqa: ARG002 -- the contract's signature
        raise AssertionError("a conversation is no single request")

    def estimate(self, ask: Ask, deployment: Deployment, added: int, output_bytes: int, cap: int) -> tuple[Usage, int]:  # noqa: ARG002
        """As many tokens as the model takes and may make, at the dearest price."""
        usage = Usage(input=deployment.context_tokens, output=deployment.max_output_tokens)
        return usage, price.cost_bound(deployment.rates, usage.input, usage.output)


REALTIME = Realtime()
