"""The WebSocket connection from a conversation to its deployment, and the final exchange before it closes.

Which deployment is asked, and what is passed on, is decided in `conversation`.
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
    RESPONSE_ENDS,
    ServerEvent,
    beta_header,
    passed_parameters,
    read_server,
    usage_of,
)
from groundplan.gateway.upstream.connection import UpstreamFailure
from groundplan.gateway.upstream.dial import is_ip_address, open_socket
from groundplan.gateway.upstream.http1_pool import Http1Pool
from groundplan.gateway.upstream.targets import Target
from groundplan.gateway.upstream.tunnel import open_tunnel_socket
from groundplan.ledger.model import Usage

PING_SECONDS = 20.0
"""The longest time between two pings to an upstream."""
CLOSE_SECONDS = 2.0
LAST_SECONDS = 1.0
"""How long an upstream may take to report the usage of a cancelled response, or that no turn waits for a response."""
NO_USAGE = Usage()
_UNCLEAN_CLOSE = (None, CloseCode.ABNORMAL_CLOSURE)
"""Close codes of a connection that its other side did not close."""


class _NoRedirect(connect):
    """A connection that follows no redirects: their targets are not declared."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        """Follow none."""
        return exc


@dataclass(frozen=True, slots=True)
class UpstreamLink:
    """A connection, and the target that it was made by."""

    socket: ClientConnection
    target: Target
    key: str
    """Reference of the provider key that the connection uses; empty where the deployment has only one."""


def target_of(gateway: Gateway, exchange: Exchange, deployment: Deployment) -> Target:
    """The target of a deployment, with the provider key to use. Raises `UpstreamFailure`."""
    if not deployment.keys:
        return gateway.targets.of(deployment)
    use = exchange.limit_use
    return gateway.targets.with_key(deployment, None if use is None else use.key_indexes.get(exchange.attempt_count))


async def open_link(
    gateway: Gateway, exchange: Exchange, deployment: Deployment, target: Target, trace: Trace | None
) -> UpstreamLink:
    """Connect to a deployment. Raises `UpstreamFailure`, `OSError`, `TimeoutError`, `WebSocketException`."""
    key = deployment.keys[target.key_index].key if deployment.keys else ""
    pool = target.pool
    if not isinstance(pool, Http1Pool):
        raise UpstreamFailure("refused", "it is not reached over HTTP/1.1", sent=False)
    model = quote(deployment.upstream_model, safe="")
    name, _, value = target.authorization_line.decode("ascii").strip().partition(": ")
    context, server_name = pool.tls_settings
    more: dict[str, Any] = {} if context is None else {"ssl": context, "server_hostname": server_name}
    headers = ({name: value} if name else {}) | beta_header(exchange.request.headers)
    headers |= {} if trace is None else trace.onwards()
    async with patient(deployment.connect_ms / 1000):
        if pool.proxy is not None:
            more["sock"] = await open_tunnel_socket(gateway.loop, pool.proxy, pool.address)
        elif not is_ip_address(pool.address[0]):
            more["sock"] = await open_socket(gateway.loop, *pool.address)
        socket = await _NoRedirect(
            f"ws{pool.url[4:]}/realtime?model={model}{passed_parameters(exchange.request.target)}",
            additional_headers=headers,
            user_agent_header="groundplan",
            compression=None,
            proxy=None,  # the library would take one from the environment
            open_timeout=None,
            close_timeout=CLOSE_SECONDS / 2,
            ping_interval=None,  # the library's own would count our stalls as its silence
            max_size=MESSAGE_BYTES,
            **more,
        )
    return UpstreamLink(socket, target, key)


async def wait_until_lost(socket: ClientConnection, deployment: Deployment) -> None:
    """Return once the upstream does not answer a ping in the time in which it may be silent, although everything that
    it sent was read. Raises `ConnectionClosed`."""
    seconds = min(PING_SECONDS, deployment.idle_ms / 1000)
    while True:
        await asyncio.sleep(seconds)
        try:
            async with patient(seconds):
                await (await socket.ping())  # the ping itself waits while earlier data is not taken
        except TimeoutError:
            if socket.transport.is_reading():  # else the client is slow, and the pong waits behind unread data
                return


async def close_socket(socket: ClientConnection) -> None:
    """Close the connection; abort it where closing takes too long."""
    try:
        async with asyncio.timeout(CLOSE_SECONDS):
            await socket.close()
    except TimeoutError:
        socket.transport.abort()


class FinalExchange:
    """The final exchange with an upstream, after the client left. `handle`: called with every further event;
    `turn_taken`: the upstream committed a turn and will respond to it; `responds_on_request`: it makes no response by
    itself."""

    def __init__(
        self,
        socket: ClientConnection,
        handle: Callable[[ServerEvent, bytes], Awaitable[bytes]],
        *,
        turn_taken: bool,
        responds_on_request: bool,
    ) -> None:
        self._socket = socket
        self._handle = handle
        self.has_ended = False
        """Whether the upstream said that no turn waits for a response."""
        self._turn_taken = turn_taken
        self._responds_on_request = responds_on_request
        self._has_begun = False
        """Whether the upstream began a response since."""

    @property
    def has_response(self) -> bool:
        """Whether the upstream made a response since the client left, or is about to."""
        return self._has_begun or self._turn_taken

    async def end_response(self, *, making: bool) -> Usage | None:
        """Cancel the response that is being made (`making`), or that the upstream makes of audio it has, and return its
        usage; `NO_USAGE` where it certainly makes none, None where that is unknown."""
        try:
            async with patient(LAST_SECONDS):
                if making or not self._turn_taken:
                    with suppress(ConnectionClosed):  # what it sent before can still be read
                        await self._socket.send(CANCEL if making else CLEAR)
                async for message in self._socket:
                    event = read_server(message)
                    await self._handle(event, message.encode() if isinstance(message, str) else message)
                    self.has_ended |= event.type == "input_audio_buffer.cleared"
                    if event.type in RESPONSE_ENDS:
                        return usage_of(event)
                    if event.type == "input_audio_buffer.committed":
                        self._turn_taken |= not self._responds_on_request
                    elif event.type == "input_audio_buffer.cleared" and not (making or self._turn_taken):
                        return NO_USAGE
                    elif event.concerns_response and not making:
                        making, self._has_begun, self._turn_taken = True, True, False
                        await self._socket.send(CANCEL)
        except ConnectionClosed:
            pass
        except (TimeoutError, *DECODE_ERRORS):
            return None
        # an upstream that closed properly had sent everything
        self.has_ended |= self._socket.close_code not in _UNCLEAN_CLOSE
        return NO_USAGE if self._socket.close_code not in _UNCLEAN_CLOSE and not (making or self._turn_taken) else None
