"""Connects a conversation to a deployment: the first one that takes it up, with whichever of its keys.

Providers refuse after the handshake, too: OpenAI takes every connection, and tells in its first event that it does not
know the key or has no such model. So that event is waited for before the client is taken up. What goes on then is
`conversation`'s.
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
from groundplan.gateway.surfaces.realtime.events import meant, read_server
from groundplan.gateway.surfaces.realtime.upstream import Link, link, target_of
from groundplan.gateway.upstream.connection import UpstreamFailure
from groundplan.gateway.upstream.key_pool import KEY_STATUSES
from groundplan.gateway.upstream.pressure import DeploymentLoad

FIRST_SECONDS = 1.0
"""How long an upstream may take to say something first. Of one that says nothing before it is told something, nothing
is known then, and the conversation begins."""


@dataclass(frozen=True, slots=True)
class Connected:
    """A deployment that took a conversation up. `load`: its place there, which is held; `first`: what it said first."""

    link: Link
    deployment: Deployment
    load: DeploymentLoad
    first: Data | None


class _Refused(Exception):
    """It does not take the conversation up; `rest`: seconds for which it asked to be left alone."""

    def __init__(self, why: str, rest: float | None = None) -> None:
        super().__init__(why)
        self.rest = rest


async def connect(gateway: Gateway, exchange: Exchange, trace: Trace | None) -> Connected:
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
        # whoever comes next waits for how this ends
        turn = health.current_probe(deployment.name) if health.may_attempt(deployment.name, began) else None
        made: tuple[Link, Data | None] | None = None
        try:
            made = await _taken_up(gateway, exchange, deployment, trace)
        except (_Refused, UpstreamFailure, OSError, TimeoutError, WebSocketException) as error:
            told, rest = (str(error), error.rest) if isinstance(error, _Refused) else (type(error).__name__, None)
            reason = f"{deployment.name} did not take the connection ({told})"
            health.record_failure(deployment.name, gateway.loop.time(), rest)
            failed = True
        finally:
            if made is None:
                gateway.loads.release_place(load)
                if turn is not None:  # of one that failed just now there is none any more
                    health.cancel_probe(turn, gateway.loop.time())
        if made is not None:
            health.record_success(deployment.name, began)
            return Connected(made[0], deployment, load, made[1])
    limits.raise_if_limited(gateway, exchange, 1.0 if failed else None)
    hint = "Try again; `groundplan status` names deployments that fail."
    told = f"no deployment could be reached: {reason}"
    raise Unavailable(told, code="upstream_failed", hint=hint, retry_after=1.0)


async def _taken_up(
    gateway: Gateway, exchange: Exchange, deployment: Deployment, trace: Trace | None
) -> tuple[Link, Data | None] | None:
    """The connection, and what came first; None where a limit has no room. A key that is refused rests, and the next
    one is used. Raises `_Refused`, and as `link` does."""
    while await limits.admit_attempt(gateway, exchange, deployment, exchange.attempt_count):
        target = target_of(gateway, exchange, deployment)
        rest: float | None = None
        made: Link | None = None
        try:
            made = await link(gateway, exchange, deployment, target, trace)
            first, status = await _first(made.socket)
        except InvalidStatus as error:
            status = error.response.status_code
            asked = error.response.headers.get("retry-after", "")
            rest = retry_after(asked.encode("latin-1"), gateway.clock.now())
        except BaseException:
            if made is None and deployment.keys:
                gateway.targets.undo_key_use(deployment, target.key_index)
            raise
        else:
            if not status:
                return made, first
            made.socket.transport.abort()
        keys = gateway.targets.key_pool(deployment) if deployment.keys and status in KEY_STATUSES else None
        if keys is None or not keys.record_refusal(target.key_index, status, gateway.loop.time(), rest):
            raise _Refused(str(status), rest)
    return None


async def _first(socket: ClientConnection) -> tuple[Data | None, int]:
    """What it says first, and the status that this has where it is a refusal; 0: it is none, or is about what its
    client asked, who is told it. Raises `ConnectionClosed`."""
    try:
        async with patient(FIRST_SECONDS):
            said = await socket.recv()
    except TimeoutError:
        return None, 0
    except BaseException:
        socket.transport.abort()
        raise
    try:
        event = read_server(said)
    except DECODE_ERRORS:
        return said, 0  # whoever reads it says so
    return said, meant(event.error) if event.type == "error" else 0
