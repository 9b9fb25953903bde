"""A tunnel through an HTTP proxy: CONNECT, and on the same connection whatever comes after it.

Speaks to the proxy in plain HTTP/1.1 and reads nothing of what goes through. No request was sent through a tunnel that
failed to open, so every failure here is certainly not billed.
"""

from __future__ import annotations

import asyncio
import base64
import re
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar, cast

from groundplan.gateway.upstream.dial import open_connection, open_socket

_HEAD_LIMIT = 16 << 10
_NO_WAY = "the proxy opened no way"
_STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3})[ \r]")

P = TypeVar("P", bound=asyncio.Protocol)


class TunnelRefused(OSError):
    """The proxy did not open a tunnel."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """Where the proxy listens, and `user:password` for it (empty: none)."""

    host: str
    port: int
    credentials: str = ""

    def request(self, host: str, port: int) -> bytes:
        """The CONNECT request for an upstream."""
        name = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        lines = [f"CONNECT {name} HTTP/1.1", f"host: {name}"]
        if self.credentials:
            encoded = base64.b64encode(self.credentials.encode()).decode("ascii")
            lines.append(f"proxy-authorization: Basic {encoded}")
        return "\r\n".join([*lines, "", ""]).encode("ascii")


class _ConnectAnswer(asyncio.Protocol):
    """Reads the proxy's answer to one CONNECT."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.answered: asyncio.Future[None] = loop.create_future()
        self._data = b""

    def data_received(self, data: bytes) -> None:
        self._data += data
        reason = _refusal_reason(self._data)
        if reason:
            self._fail(reason)
        elif reason is not None and not self.answered.done():
            self.answered.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 -- asyncio's signature
        self._fail("it closed the connection")

    def _fail(self, reason: str) -> None:
        if not self.answered.done():
            self.answered.set_exception(TunnelRefused(f"{_NO_WAY}: {reason}"))
            self.answered.exception()  # the waiter may have been cancelled: marks the exception as retrieved


def _refusal_reason(data: bytes) -> str | None:
    """Why the data that came after CONNECT opens no tunnel; empty: it opens one; None: its head is not complete."""
    head, end, rest = data.partition(b"\r\n\r\n")
    if not end:
        return "its answer has no end" if len(data) > _HEAD_LIMIT else None
    status = _STATUS.match(head + b"\r\n")
    if status is None:
        return "it does not speak HTTP/1.1"
    if not status[1].startswith(b"2"):
        return f"it answered {status[1].decode('ascii')}"
    return "it sent more than its answer" if rest else ""


async def open_tunnel_socket(loop: asyncio.AbstractEventLoop, proxy: Proxy, address: tuple[str, int]) -> socket.socket:
    """A socket connected to `address` through `proxy`, for a client that does the rest itself. Raises `OSError`."""
    sock = await open_socket(loop, proxy.host, proxy.port)
    try:
        await loop.sock_sendall(sock, proxy.request(*address))
        data = b""
        while (reason := _refusal_reason(data)) is None:
            received = await loop.sock_recv(sock, _HEAD_LIMIT)
            if not received:
                raise TunnelRefused(f"{_NO_WAY}: it closed the connection")
            data += received
        if reason:
            raise TunnelRefused(f"{_NO_WAY}: {reason}")
    except BaseException:
        sock.close()
        raise
    return sock


async def open_tunnel(
    proxy: Proxy,
    address: tuple[str, int],
    tls: ssl.SSLContext | None,
    server_name: str | None,
    protocol_factory: Callable[[], P],
) -> P:
    """A connected protocol from `protocol_factory`, through `proxy`, inside TLS if a context is given. Raises
    `OSError`."""
    loop = asyncio.get_running_loop()
    plain, opening = await open_connection(loop, lambda: _ConnectAnswer(loop), proxy.host, proxy.port)
    try:
        plain.write(proxy.request(*address))
        await opening.answered
        protocol = protocol_factory()
        transport: asyncio.BaseTransport | None = plain
        if tls is None:
            plain.set_protocol(protocol)
        else:
            transport = await loop.start_tls(plain, protocol, tls, server_hostname=server_name)
        if transport is None:
            raise TunnelRefused("the proxy closed the way as TLS began")
    except BaseException:
        plain.abort()
        raise
    protocol.connection_made(cast(asyncio.Transport, transport))
    return protocol
