"""A streamed answer on its way from the upstream to the client, event by event.

The last event that the client gets anyway is held back until the call is settled, so that it can carry the `groundplan`
object; what an event means is the API surface's. Nothing is buffered beyond that: a slow client slows the upstream.
"""

from __future__ import annotations

import time

from groundplan.blueprint.model import Deployment
from groundplan.gateway import settle
from groundplan.gateway.answers import facts, headers
from groundplan.gateway.context import Gateway
from groundplan.gateway.exchange import Exchange
from groundplan.gateway.interface import Malformed, Relay
from groundplan.gateway.sse import EventReader, EventTooLarge
from groundplan.gateway.upstream import UpstreamConnection, UpstreamFailure

EVENT_STREAM = b"content-type: text/event-stream\r\ncache-control: no-cache\r\n"


class StreamBroken(Exception):
    """The upstream's stream cannot be used any further."""


async def stream(
    gateway: Gateway,
    exchange: Exchange,
    deployment: Deployment,
    connection: UpstreamConnection,
    sequence: int,
    relay: Relay,
) -> None:
    """Relay to the end and settle. Raises `StreamBroken` or `UpstreamFailure` only while the client has got nothing."""
    reader = EventReader()
    wait = deployment.first_token_ms / 1000
    try:
        while not relay.done and (data := await connection.chunk(wait)) is not None:
            out = b"".join([relay.take(found) for found in reader.feed(data)])
            exchange.output_bytes = relay.output_bytes
            if out:
                wait = deployment.idle_ms / 1000
                await _write(gateway, exchange, out, sequence)
        if not relay.complete:
            raise StreamBroken("the upstream's stream ended early")
    except (Malformed, StreamBroken, UpstreamFailure, EventTooLarge) as failure:
        if not exchange.response.started:
            raise StreamBroken(str(failure)) from failure
        await _break_off(gateway, exchange, relay, str(failure) or "an event is too large")
        return
    await _end(gateway, exchange, relay)


async def _write(gateway: Gateway, exchange: Exchange, out: bytes, sequence: int) -> None:
    response = exchange.response
    head = b""
    if not response.started:
        if (pending := gateway.journal.durable(sequence)) is not None:
            await pending
        exchange.first_byte = time.perf_counter_ns()
        head = response.start(200, EVENT_STREAM + headers(exchange, cost=False))
    response.write(out, head)
    if exchange.kept is not None:
        exchange.kept.append(out)
    if response.full:
        await response.drained()


async def _end(gateway: Gateway, exchange: Exchange, relay: Relay) -> None:
    """Settle, make it durable, and only then send the held chunk and the end."""
    settle.attempt(gateway, exchange, "ok", 200, relay.usage)
    last = relay.last(facts(exchange, settle.remaining(gateway, exchange)))
    await _last(gateway, exchange, "ok", last, "")


async def _break_off(gateway: Gateway, exchange: Exchange, relay: Relay, reason: str) -> None:
    """The client has a part already: tell it with a well-formed error event that the rest will not come."""
    settle.attempt(gateway, exchange, "failed", 200, relay.usage)
    await _last(gateway, exchange, "failed", relay.broken(reason, str(exchange.call)), "stream_broken")


async def _last(gateway: Gateway, exchange: Exchange, outcome: str, last: bytes, code: str) -> None:
    now = time.perf_counter_ns()
    exchange.first_byte = exchange.first_byte or now
    sequence = settle.finish(gateway, exchange, outcome, 200, code)
    if sequence is not None and (pending := gateway.journal.durable(sequence)) is not None:
        await pending
    response = exchange.response
    head = b"" if response.started else response.start(200, EVENT_STREAM + headers(exchange, cost=True))
    if exchange.kept is not None:
        exchange.kept.append(last)
    response.end(last, head)
