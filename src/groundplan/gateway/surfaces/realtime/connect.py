"""Connects a conversation to a deployment: the first one that accepts it, with any of its keys.

Providers refuse after the handshake, too: OpenAI accepts every connection, and reports an unknown key or model in its
first event. So that event is awaited before the client's handshake is accepted. `conversation` passes on the events
that follow.
"""

from __future__ import annotations

from dataclasses import dataclass

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import InvalidStatus, WebSocketException
from websockets.typing import Data

from groundplan.blueprint.model import Deployment
from groundplan.core.errors import Unavailable
from groundplan.gateway.call import limits
from groundplan.gateway.call.attempts.retry import retry_after
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.call.exchange import Exchange
from groundplan.gateway.call.trace import Trace
from groundplan.gateway.http.strict_json import DECODE_ERRORS
from groundplan.gateway.stalls import patient
from groundplan.gateway.surfaces.realtime.events import error_status, read_server
from groundplan.gateway.surfaces.realtime.upstream import UpstreamLink, open_link, target_of
from groundplan.gateway.upstream.connection import UpstreamFailure
from groundplan.gateway.upstream.key_pool import KEY_STATUSES
from groundplan.gateway.upstream.pressure import DeploymentLoad
from groundplan.gateway.upstream.tunnel import TunnelRefused

FIRST_SECONDS = 1.0
"""How long to wait for the upstream's first event. An upstream that sends nothing before the client does has
shown no error by then, and the conversation begins."""


@dataclass(frozen=True, slots=True)
class Connection:
    """A deployment that accepted the conversation. `load`: where it holds a place; `first`: the upstream's first
    event."""

    link: UpstreamLink
    deployment: Deployment
    load: DeploymentLoad
    first: Data | None


class _ConnectionRefused(Exception):
    """The deployment does not accept the conversation; `retry_after`: seconds until it may, where that is known."""

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


async def connect(gateway: Gateway, exchange: Exchange, trace: Trace | None) -> Connection:
    """Connect to the first deployment that answers. Raises `Unavailable`, or `Exhausted` where a limit of one has no
    room; no place is held then."""
    reason, health, failed = "none may be used now", gateway.health, False
    for deployment in health.order(exchange.deployments, gateway.loop.time()):
        load = gateway.loads.of(deployment)
        if not load.has_room:
            reason = f"{deployment.name} has as many conversations as it may"
            continue
        load.running += 1
        began = gateway.loop.time()
        # with its breaker half-open this one is the probe, and later conversations wait for its outcome
        turn = health.current_probe(deployment.name) if health.may_attempt(deployment.name, began) else None
        connected: tuple[UpstreamLink, Data | None] | None = None
        try:
            connected = await _connect_to(gateway, exchange, deployment, trace)
        except (_ConnectionRefused, UpstreamFailure, OSError, TimeoutError, WebSocketException) as error:
            cause = str(error) if isinstance(error, (_ConnectionRefused, TunnelRefused)) else type(error).__name__
            reason = f"{deployment.name} did not take the connection ({cause})"
            delay = error.retry_after if isinstance(error, (_ConnectionRefused, UpstreamFailure)) else None
            health.record_failure(deployment.name, gateway.loop.time(), delay)
            failed = True
        finally:
            if connected is None:
                gateway.loads.release_place(load)
                if turn is not None:  # after a failure just now the turn is over
                    health.cancel_probe(turn, gateway.loop.time())
        if connected is not None:
            health.record_success(deployment.name, began)
            link, first_event = connected
            return Connection(link, deployment, load, first_event)
    now = gateway.loop.time()
    key_seconds = limits.resting_key_seconds(gateway, exchange)
    rest_seconds = [health.retry_after_left(each.name, now, is_last_resort=True) for each in exchange.deployments]
    seconds = max(1.0, min(key_seconds if key_seconds and not failed else [*key_seconds, *rest_seconds], default=0.0))
    limits.raise_if_limited(gateway, exchange, seconds if failed or key_seconds else None)
    hint = "Try again; `groundplan status` names deployments that fail."
    message = f"no deployment could be reached: {reason}"
    raise Unavailable(message, code="upstream_failed", hint=hint, retry_after=seconds)


def count_failure(gateway: Gateway, exchange: Exchange, used_key: str, status: int = 0) -> None:
    """Count a failure of a response's deployment, so that it is asked last for a while; where its key was refused
    (`status`) and there is another one, only the key rests."""
    deployment = exchange.deployment
    if deployment is None:
        return
    now = gateway.loop.time()
    index = next((number for number, key in enumerate(deployment.keys) if key.key == used_key), None)
    keys = gateway.targets.key_pool(deployment) if index is not None and status in KEY_STATUSES else None
    if keys is None or index is None:
        gateway.health.record_failure(deployment.name, now, None)
    elif not keys.record_refusal(index, status, now, None):
        gateway.health.record_failure(deployment.name, now, keys.rest_seconds(now))


async def _connect_to(
    gateway: Gateway, exchange: Exchange, deployment: Deployment, trace: Trace | None
) -> tuple[UpstreamLink, Data | None] | None:
    """(link, first event); None where a limit has no room. A key that is refused rests, and the next one is used.
    Raises `_ConnectionRefused`, and as `open_link` does."""
    while await limits.admit_attempt(gateway, exchange, deployment, exchange.attempt_count):
        target = target_of(gateway, exchange, deployment)
        retry_delay: float | None = None
        link: UpstreamLink | None = None
        try:
            link = await open_link(gateway, exchange, deployment, target, trace)
            first_event, status = await _first_event(link.socket)
        except InvalidStatus as error:
            status = error.response.status_code
            header = error.response.headers.get("retry-after", "")
            retry_delay = retry_after(header.encode("latin-1"), gateway.clock.now())
        except BaseException:
            if link is None and deployment.keys:
                gateway.targets.undo_key_use(deployment, target.key_index)
            raise
        else:
            if not status:
                return link, first_event
            link.socket.transport.abort()
        if not deployment.keys or status not in KEY_STATUSES:
            raise _ConnectionRefused(str(status), retry_delay)
        keys, now = gateway.targets.key_pool(deployment), gateway.loop.time()
        if not keys.record_refusal(target.key_index, status, now, retry_delay):
            raise _ConnectionRefused(str(status), keys.rest_seconds(now))
    return None


async def _first_event(socket: ClientConnection) -> tuple[Data | None, int]:
    """(the upstream's first event, the HTTP status that it amounts to if it is a refusal); 0: it is none, or is about
    the client's request and is passed on. Raises `ConnectionClosed`."""
    try:
        async with patient(FIRST_SECONDS):
            message = await socket.recv()
    except TimeoutError:
        return None, 0
    except BaseException:
        socket.transport.abort()
        raise
    try:
        event = read_server(message)
    except DECODE_ERRORS:
        return message, 0  # `conversation` will report it
    return message, error_status(event.error) if event.type == "error" else 0
