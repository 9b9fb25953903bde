"""An answer in one piece on its way to its client. What it is, and what it cost, was settled and written before."""

from __future__ import annotations

from groundplan.core.errors import Denied
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.call.exchange import Exchange

JSON = b"content-type: application/json\r\n"


class _Leaving:
    """What a kill for security may end."""

    __slots__ = ("exchange",)

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange

    def sever(self, error: Denied) -> None:  # noqa: ARG002 -- as that of a stream
        """There is no place for an error in it: its connection is cut, so that it does not look complete."""
        self.exchange.response.cut()


async def leave(
    gateway: Gateway,
    exchange: Exchange,
    status: int,
    data: bytes | memoryview,
    lines: bytes,
    content_type: bytes = JSON,
    end: bytes = b"",
) -> None:
    """Returns when the client has all of it but a little, or is gone; at once where it is no large one. `end` follows
    `data`."""
    leaving = _Leaving(exchange)
    gateway.streams.add(leaving)
    try:
        await exchange.response.send_slowly(status, data, lines, content_type, end)
    finally:
        gateway.streams.discard(leaving)
