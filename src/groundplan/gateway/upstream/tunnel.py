"""A tunnel through an HTTP proxy: CONNECT, and on the same connection whatever comes after it.

Speaks to the proxy in plain HTTP/1.1 and reads nothing of what goes through. No request was sent through a tunnel that
failed to open, so every failure here is certainly not billed.
"""

from __future__ import annotations

import asyncio
import base64
import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar, cast

from groundplan.gateway.upstream.dial import open_connection

_HEAD_LIMIT = 16 << 10
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
        head, end, rest = self._data.partition(b"\r\n\r\n")
        if end:
            self._handle_answer(head + b"\r\n", rest)
        elif len(self._data) > _HEAD_LIMIT:
            self._fail("its answer has no end")

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 -- asyncio's signature
        self._fail("it closed the connection")

    def _handle_answer(self, head: bytes, rest: bytes) -> None:
        status = _STATUS.match(head)
        if status is None:
            self._fail("it does not speak HTTP/1.1")
        elif not status[1].startswith(b"2"):
            self._fail(f"it answered {status[1].decode('ascii')}")
        elif rest:
            self._fail("it sent more than its answer")
        elif not self.answered.done():
            self.answered.set_result(None)

    def _fail(self, reason: str) -> None:
        if not self.answered.done():
            self.answered.set_exception(TunnelRefused(f"the proxy opened no way: {reason}"))
            self.answered.exception()  # the waiter may have been cancelled: marks the exception as retrieved


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
