"""Sends bytes of an answer that is settled already, at the pace of its client, so that a kill can still cut it off."""

from __future__ import annotations

from collections.abc import Iterable

from groundplan.core.errors import Denied
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.call.exchange import Exchange

JSON = b"content-type: application/json\r\n"
_PIECE = 64 << 10
"""Bytes of a stream that are made for its client before it is looked at whether that takes them."""


class _Leaving:
    """What a kill for security may end."""

    __slots__ = ("exchange",)

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange

    def sever(self, error: Denied) -> None:  # noqa: ARG002 -- as that of a stream
        """There is no place for an error in it: its connection is cut, so that it does not look complete."""
        self.exchange.response.abort()


async def send_all(
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
        await exchange.response.send_large(status, data, lines, content_type, end)
    finally:
        gateway.streams.discard(leaving)


async def send_stream(gateway: Gateway, exchange: Exchange, parts: Iterable[bytes], head: bytes) -> None:
    """A stream of which everything is there: of a long one, as its client takes it, so that what it does not take yet
    is not in memory once more for each client. `head` is what it begins with; at least one part is to come."""
    response, kept, made, size = exchange.response, exchange.sent_chunks, list[bytes](), 0
    leaving = _Leaving(exchange)
    try:
        for part in parts:
            if size >= _PIECE:
                gateway.streams.add(leaving)
                response.write(b"".join(made), head)
                head, size = b"", 0
                made.clear()
                if response.is_write_paused:
                    await response.drain()
            made.append(part)
            size += len(part)
            if kept is not None:
                kept.append(part)
        response.end(b"".join(made), head)
    finally:
        gateway.streams.discard(leaving)
