"""Sends an unstreamed answer to the client once its cost is durable."""

from __future__ import annotations

import time

from groundplan.gateway.caching import cache
from groundplan.gateway.caching.idempotent_calls import remember
from groundplan.gateway.call import settle
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.call.delivery.to_client import EVENT_STREAM, JSON, send_all
from groundplan.gateway.call.exchange import Exchange
from groundplan.gateway.guard.kills import check_not_stopped
from groundplan.gateway.surfaces.answers import headers
from groundplan.gateway.upstream.connection import UNRESERVED_BYTES


async def send_refusal(gateway: Gateway, exchange: Exchange, status: int, data: bytes) -> None:
    """As `send_whole`, for a refusal of the upstream that is passed on to the client."""
    event = exchange.interface.error_event(exchange.ask, status, data) if exchange.ask is not None else b""
    await send_whole(gateway, exchange, "failed", status, event or data, "upstream_refused", streamed=bool(event))


async def send_whole(
    gateway: Gateway,
    exchange: Exchange,
    outcome: str,
    status: int,
    data: bytes,
    code: str,
    *,
    streamed: bool = False,
) -> None:
    """Send a settled answer once its call is durably finished. `streamed`: as an event stream, with status 200."""
    exchange.first_byte = time.perf_counter_ns()
    sequence = settle.finish(gateway, exchange, outcome, status, code, awaited=True)
    lines = headers(exchange, cost=True)
    if sequence is not None and (pending := gateway.journal.durable(sequence)) is not None:
        await pending
    if streamed:
        send(exchange, 200, data, lines, EVENT_STREAM)
    elif len(data) > UNRESERVED_BYTES:
        await send_large(gateway, exchange, status, data, lines)
    else:
        send(exchange, status, data, lines)


def send(exchange: Exchange, status: int, data: bytes, lines: bytes, kind: bytes = b"") -> None:
    """Send an answer at once. `lines`: further header lines; `kind`: its Content-Type line, JSON by default."""
    if exchange.sent_chunks is not None:
        exchange.sent_chunks.append(data)
        exchange.content_type_line = kind or JSON
    exchange.response.send(status, data, lines, content_type=kind or JSON)


async def send_large(
    gateway: Gateway, exchange: Exchange, status: int, data: bytes, lines: bytes, kind: bytes = b""
) -> None:
    """As `send`, but returns when the client has taken nearly all of it or is gone. Raises `Denied` where a kill came
    while the call was journalled."""
    check_not_stopped(gateway.live.policy, exchange)
    if exchange.sent_chunks is not None:
        exchange.sent_chunks.append(data)
        exchange.content_type_line = kind or JSON
    # calls that ask the same do not wait for this client to read
    if exchange.flight is not None:
        cache.finish_flight(gateway, exchange)
    remember(gateway, exchange)
    await send_all(gateway, exchange, status, data, lines, kind or JSON)
