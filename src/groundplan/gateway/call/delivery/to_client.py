"""Sends bytes of an answer at the pace of its client, so that a kill can still cut it off."""

from __future__ import annotations

from collections.abc import Iterable

from groundplan.core.errors import Denied
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.call.exchange import Exchange

JSON = b"content-type: application/json\r\n"
EVENT_STREAM = b"content-type: text/event-stream\r\ncache-control: no-cache\r\nx-accel-buffering: no\r\n"
"""Header lines of a stream. The last one makes nginx, and proxies that read it, pass on each piece at once."""
_PIECE_BYTES = 64 << 10
"""Bytes of a stream that are produced before checking whether the client takes them."""


class _SeverableSend:
    """An answer being sent, which a kill for security may end."""

    __slots__ = ("exchange",)

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange

    def sever(self, error: Denied) -> None:  # noqa: ARG002 -- as that of a stream
        """Cut the connection, so that the answer does not look complete: it has no place for an error."""
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
    """Send `data`, then `end`. Returns when the client has taken nearly all of it or is gone; at once where it is
    small."""
    leaving = _SeverableSend(exchange)
    gateway.streams.add(leaving)
    try:
        await exchange.response.send_large(status, data, lines, content_type, end)
    finally:
        gateway.streams.discard(leaving)


async def write_large(gateway: Gateway, exchange: Exchange, data: bytes, head: bytes) -> None:
    """Write a large part of a stream. Returns when the client has taken nearly all of it or is gone. `head`: the
    response head, or empty."""
    response, leaving = exchange.response, _SeverableSend(exchange)
    gateway.streams.add(leaving)
    try:
        for start in range(0, len(data), _PIECE_BYTES):
            response.write(data[start : start + _PIECE_BYTES], head)
            head = b""
            if response.is_write_paused:
                await response.drain()
    finally:
        gateway.streams.discard(leaving)


async def send_stream(gateway: Gateway, exchange: Exchange, parts: Iterable[bytes], head: bytes) -> None:
    """Send a complete stream, a long one only as its client takes it, so that it is not copied in memory for each
    client. `head`: the response head; `parts` has at least one."""
    response, sent_chunks, pending, size = exchange.response, exchange.sent_chunks, list[bytes](), 0
    leaving = _SeverableSend(exchange)
    try:
        for part in parts:
            if size >= _PIECE_BYTES:
                gateway.streams.add(leaving)
                response.write(b"".join(pending), head)
                head, size = b"", 0
                pending.clear()
                if response.is_write_paused:
                    await response.drain()
            pending.append(part)
            size += len(part)
            if sent_chunks is not None:
                sent_chunks.append(part)
        response.end(b"".join(pending), head)
    finally:
        gateway.streams.discard(leaving)
