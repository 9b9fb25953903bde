"""The WebSocket connection from a conversation to its deployment, and the last question before it ends.

Which deployment is asked, and what is passed on, is `conversation`'s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode

from groundplan.blueprint.model import Deployment
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.call.exchange import Exchange
from groundplan.gateway.call.trace import Trace
from groundplan.gateway.http.strict_json import DECODE_ERRORS
from groundplan.gateway.http.websocket import MESSAGE_BYTES
from groundplan.gateway.stalls import patient
from groundplan.gateway.surfaces.realtime.events import (
    CANCEL,
    CLEAR,
    ENDS,
    ServerEvent,
    beta,
    manner,
    read_server,
    usage_of,
)
from groundplan.gateway.upstream.connection import UpstreamFailure
from groundplan.gateway.upstream.dial import is_ip_address, open_socket
from groundplan.gateway.upstream.http1_pool import Http1Pool
from groundplan.gateway.upstream.targets import Target
from groundplan.ledger.model import Usage

PING_SECONDS = 20.0
"""How often an upstream is asked whether it is there, at least."""
CLOSE_SECONDS = 2.0
LAST_SECONDS = 1.0
"""How long an upstream may take to say what a response used that it broke off, or that nothing waits to be answered."""
NOTHING = Usage()
_CUT = (None, CloseCode.ABNORMAL_CLOSURE)
"""Of a connection that its other side did not close."""


class _Straight(connect):
    """Goes nowhere but where it is told: what an upstream names instead is declared nowhere."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        """None is followed."""
        return exc


@dataclass(frozen=True, slots=True)
class Link:
    """A connection, and by which target it was made."""

    socket: ClientConnection
    target: Target
    key: str
    """Reference of the provider's key that it uses, where its deployment has several."""


def target_of(gateway: Gateway, exchange: Exchange, deployment: Deployment) -> Target:
    """Where a deployment is, with the key that is to be used there. Raises `UpstreamFailure`."""
    if not deployment.keys:
        return gateway.targets.of(deployment)
    use = exchange.limit_use
    return gateway.targets.with_key(deployment, None if use is None else use.key_indexes.get(exchange.attempt_count))


async def link(
    gateway: Gateway, exchange: Exchange, deployment: Deployment, target: Target, trace: Trace | None
) -> Link:
    """Connect. Raises `UpstreamFailure`, `OSError`, `TimeoutError`, `WebSocketException`."""
    key = deployment.keys[target.key_index].key if deployment.keys else ""
    pool = target.pool
    if not isinstance(pool, Http1Pool):
        raise UpstreamFailure("refused", "it is not reached over HTTP/1.1", sent=False)
    model = quote(deployment.upstream_model, safe="")
    name, _, value = target.authorization_line.decode("ascii").strip().partition(": ")
    context, server_name = pool.tls_settings
    more: dict[str, Any] = {} if context is None else {"ssl": context, "server_hostname": server_name}
    headers = ({name: value} if name else {}) | beta(exchange.request.headers)
    headers |= {} if trace is None else trace.onwards()
    async with patient(deployment.connect_ms / 1000):
        if not is_ip_address(pool.address[0]):
            more["sock"] = await open_socket(gateway.loop, *pool.address)
        socket = await _Straight(
            f"ws{pool.url[4:]}/realtime?model={model}{manner(exchange.request.target)}",
            additional_headers=headers,
            user_agent_header="groundplan",
            compression=None,
            proxy=None,
            open_timeout=None,
            close_timeout=CLOSE_SECONDS / 2,
            ping_interval=None,  # the library's own would count as its silence that we stood still
            max_size=MESSAGE_BYTES,
            **more,
        )
    return Link(socket, target, key)


async def is_lost(socket: ClientConnection, deployment: Deployment) -> None:
    """Returns when the upstream answers a ping no more in the time in which it may be silent, though all that it said
    was read. Raises `ConnectionClosed`."""
    seconds = min(PING_SECONDS, deployment.idle_ms / 1000)
    while True:
        await asyncio.sleep(seconds)
        try:
            async with patient(seconds):
                await (await socket.ping())  # to ask waits, too, where it takes nothing of what was sent before
        except TimeoutError:
            if socket.transport.is_reading():  # else the client takes nothing, and its answer waits behind the rest
                return


async def end(socket: ClientConnection) -> None:
    """Close it; one that takes not even that is cut."""
    try:
        async with asyncio.timeout(CLOSE_SECONDS):
            await socket.close()
    except TimeoutError:
        socket.transport.abort()


class Leaving:
    """The last that is asked of an upstream, once nobody listens any more. `hear`: who looks at all that it still says;
    `heeded`: it took what it heard for a turn, to which it responds; `waits`: it responds to none by itself."""

    def __init__(
        self,
        socket: ClientConnection,
        hear: Callable[[ServerEvent, bytes], Awaitable[bytes]],
        *,
        heeded: bool,
        waits: bool,
    ) -> None:
        self._socket = socket
        self._hear = hear
        self.over = False
        """It said that nothing waits to be answered."""
        self._heeded = heeded
        self._waits = waits
        self._made = False
        """A response was begun since."""

    @property
    def certain(self) -> bool:
        """Whether it made a response since nobody listens, or is about to."""
        return self._made or self._heeded

    async def used(self, *, making: bool) -> Usage | None:
        """What a response has used that is being made, or is made of what was heard, once it was broken off; `NOTHING`
        where it certainly makes none, None where nobody can tell."""
        try:
            async with patient(LAST_SECONDS):
                if making or not self._heeded:
                    with suppress(ConnectionClosed):  # what it said before is there all the same
                        await self._socket.send(CANCEL if making else CLEAR)
                async for message in self._socket:
                    event = read_server(message)
                    await self._hear(event, message.encode() if isinstance(message, str) else message)
                    self.over |= event.type == "input_audio_buffer.cleared"
                    if event.type in ENDS:
                        return usage_of(event)
                    if event.type == "input_audio_buffer.committed":
                        self._heeded |= not self._waits
                    elif event.type == "input_audio_buffer.cleared" and not (making or self._heeded):
                        return NOTHING
                    elif event.of_response and not making:
                        making, self._made, self._heeded = True, True, False
                        await self._socket.send(CANCEL)
        except ConnectionClosed:
            pass
        except (TimeoutError, *DECODE_ERRORS):
            return None
        # one that took its leave had said all that it did
        self.over |= self._socket.close_code not in _CUT
        return NOTHING if self._socket.close_code not in _CUT and not (making or self._heeded) else None
