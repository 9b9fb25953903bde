"""How a stream ends: with its last bytes, or with a well-formed error event. Both only once the end of the call is
durable."""

from __future__ import annotations

import time

from groundplan.core.errors import Unavailable
from groundplan.core.money import format_usd
from groundplan.gateway.caching import cache
from groundplan.gateway.caching.idempotent_calls import remember
from groundplan.gateway.call import settle
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.call.delivery.to_client import EVENT_STREAM, write_large
from groundplan.gateway.call.exchange import Exchange
from groundplan.gateway.surfaces.answers import headers
from groundplan.gateway.surfaces.codec import Relay
from groundplan.gateway.upstream.connection import UNRESERVED_BYTES


async def break_off(gateway: Gateway, exchange: Exchange, relay: Relay, reason: str, code: str) -> None:
    """End a stream of which the client has a part with a well-formed error event.

    Audio has no place for an error: there the connection is cut, so that it does not look complete.
    """
    event = _error_event(exchange, relay, reason, code)
    if not event:
        settle.finish(gateway, exchange, "failed", 200, code)
        return
    await finish_stream(gateway, exchange, "failed", event, code, relay)


def _error_event(exchange: Exchange, relay: Relay, reason: str, code: str) -> bytes:
    """The error event, with the cost so far; empty where the stream has no place for one."""
    event = relay.error_event(reason, str(exchange.call))
    id = b'"%b"' % exchange.id
    event = event.replace(id, b'%b,"cost_usd":"%b"' % (id, format_usd(exchange.cost).encode()))
    return event if code == "stream_broken" else event.replace(b'"stream_broken"', b'"%b"' % code.encode())


async def finish_stream(
    gateway: Gateway, exchange: Exchange, outcome: str, last: bytes, code: str, relay: Relay | None = None
) -> None:
    """Finish the call of a stream, wait until that is durable, and only then send the last bytes: a fraction of a
    millisecond at the end of a stream goes unnoticed.

    Where it cannot be made durable, a client that has a part gets the error event of `relay`. Otherwise raises
    `Unavailable`.
    """
    now = time.perf_counter_ns()
    exchange.first_byte = exchange.first_byte or now
    sequence = settle.finish(gateway, exchange, outcome, 200, code)
    await send_end(gateway, exchange, sequence, last, relay)


async def send_end(
    gateway: Gateway, exchange: Exchange, sequence: int | None, last: bytes, relay: Relay | None
) -> None:
    """Send the last bytes of a call whose end has that `sequence` in the journal. Raises as `finish_stream`."""
    response = exchange.response
    if sequence is not None and (pending := gateway.journal.durable(sequence, patient=True)) is not None:
        try:
            await pending
        except Unavailable as error:
            event = b"" if relay is None else _error_event(exchange, relay, error.message, error.code)
            if not event or not response.started:
                raise
            last = event
    head = b"" if response.started else response.start(200, EVENT_STREAM + headers(exchange, cost=True))
    if exchange.sent_chunks is not None and last:
        exchange.sent_chunks.append(last)
    if len(last) > UNRESERVED_BYTES:
        # calls that ask the same do not wait for this client to read
        if exchange.flight is not None:
            cache.finish_flight(gateway, exchange)
        remember(gateway, exchange)
        await write_large(gateway, exchange, last, head)
        response.end()
    else:
        response.end(last, head)
