"""What an attempt sends, and where: the target of its deployment, and the request body in the upstream's format.

Sending and reading are `attempt`'s.
"""

from __future__ import annotations

from groundplan.blueprint.model import Deployment
from groundplan.gateway.call.admit import output_cap
from groundplan.gateway.call.exchange import Exchange
from groundplan.gateway.call.ground import system_messages
from groundplan.gateway.surfaces.codec import Codec
from groundplan.gateway.upstream.providers import SERVICE
from groundplan.gateway.upstream.targets import Target, Targets


def is_translated(deployment: Deployment, codec: Codec) -> bool:
    """Whether the local translation service asks the deployment, in its provider's own format."""
    return deployment.api != "openai" and codec.translated


def choose_target(targets: Targets, exchange: Exchange, deployment: Deployment, codec: Codec) -> Target:
    """The target of the call's current attempt, with the provider key that limits allotted to it. Raises
    `UpstreamFailure`."""
    use = exchange.limit_use
    if deployment.api != "openai" and codec.translated:
        return targets.through_service(
            SERVICE, deployment, None if use is None else use.key_indexes.get(exchange.attempt_number)
        )
    if not deployment.keys:
        return targets.of(deployment)
    return targets.with_key(deployment, None if use is None else use.key_indexes.get(exchange.attempt_number))


def encode_request(exchange: Exchange, deployment: Deployment, codec: Codec) -> bytes:
    """The request body for the upstream. May run in a thread: touches nothing but this call."""
    ask, workload = exchange.ask, exchange.workload
    if ask is None or workload is None:
        raise AssertionError("not admitted")
    system = (
        system_messages(workload, exchange.passages, exchange.grounding_notes) if exchange.interface.grounded else []
    )
    return codec.request_body(ask, deployment, output_cap(exchange, deployment), system)
