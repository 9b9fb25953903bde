"""A streamed answer on its way from the upstream to the client, event by event.

The last data chunk that the client gets anyway is held back until the call is settled, so that it can carry the
`groundplan` object. Nothing is buffered beyond that: a slow client slows the upstream down.
"""

from __future__ import annotations

import time

import msgspec

from groundplan.blueprint.model import Deployment
from groundplan.gateway import settle
from groundplan.gateway.answers import error_body, facts, headers
from groundplan.gateway.context import Gateway
from groundplan.gateway.exchange import Exchange
from groundplan.gateway.sse import DONE, Chunk, EventReader, EventTooLarge, event, read_chunk, splice, without_usage
from groundplan.gateway.upstream import UpstreamConnection, UpstreamFailure
from groundplan.ledger.model import Usage

EVENT_STREAM = b"content-type: text/event-stream\r\ncache-control: no-cache\r\n"


class StreamBroken(Exception):
    """The upstream's stream cannot be used any further."""


class Relay:
    """State of one stream: what to hold back, what the usage is, whether it ended well."""

    __slots__ = ("done", "finished", "held", "include_usage", "output_bytes", "usage")

    def __init__(self, include_usage: bool) -> None:
        self.include_usage = include_usage
        self.held: bytes | None = None
        self.usage: Usage | None = None
        self.output_bytes = 0
        self.finished = False
        self.done = False

    def take(self, data: bytes) -> bytes:
        """Events for the client after one more event of the upstream. Raises `StreamBroken`."""
        if data == DONE:
            self.done = True
            return b""
        try:
            chunk = read_chunk(data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise StreamBroken("the upstream's stream is not what the API promises") from error
        if chunk.failed():
            raise StreamBroken("the upstream reported an error in its stream")
        if chunk.usage is not None:
            self.usage = chunk.usage.usage() or self.usage
        self.output_bytes += chunk.output_bytes()
        return self._pass(data, chunk)

    def _pass(self, data: bytes, chunk: Chunk) -> bytes:
        if not chunk.choices and chunk.usage is not None and not self.include_usage:
            return b""
        if chunk.usage is not None and not self.include_usage:
            data = without_usage(data)
        earlier = event(self.held) if self.held is not None else b""
        self.held = None
        if chunk.finishes() or (not chunk.choices and self.finished):
            self.finished = True
            self.held = data
            return earlier
        return earlier + event(data)

    @property
    def complete(self) -> bool:
        return self.finished


async def stream(
    gateway: Gateway, exchange: Exchange, deployment: Deployment, connection: UpstreamConnection, sequence: int
) -> None:
    """Relay to the end and settle. Raises `StreamBroken` or `UpstreamFailure` only while the client has got nothing."""
    ask = exchange.ask
    relay = Relay(ask is not None and ask.include_usage)
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
    except (StreamBroken, UpstreamFailure, EventTooLarge) as failure:
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
    last = b""
    if relay.held is not None:
        last = event(splice(relay.held, b"groundplan", facts(exchange, settle.remaining(gateway, exchange))))
    last += b"data: [DONE]\n\n"
    await _last(gateway, exchange, "ok", last, "")


async def _break_off(gateway: Gateway, exchange: Exchange, relay: Relay, reason: str) -> None:
    """The client has a part already: tell it with a well-formed error event that the rest will not come."""
    settle.attempt(gateway, exchange, "failed", 200, relay.usage)
    hint = "What came so far is all there is; ask again."
    body = error_body(f"the answer broke off: {reason}", "stream_broken", hint, "api_error", call_id=str(exchange.call))
    await _last(gateway, exchange, "failed", event(body), "stream_broken")


async def _last(gateway: Gateway, exchange: Exchange, outcome: str, last: bytes, code: str) -> None:
    now = time.perf_counter_ns()
    exchange.steps.append(("serve", (now - exchange.started) // 1000))
    exchange.first_byte = exchange.first_byte or now
    sequence = settle.finish(gateway, exchange, outcome, 200, code)
    if sequence is not None and (pending := gateway.journal.durable(sequence)) is not None:
        await pending
    response = exchange.response
    head = b"" if response.started else response.start(200, EVENT_STREAM + headers(exchange, cost=True))
    if exchange.kept is not None:
        exchange.kept.append(last)
    response.end(last, head)
