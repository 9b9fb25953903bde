"""Relays a streamed answer from the upstream to the client, event by event.

The last event is held back until the call is settled, so that it can carry the `groundplan` object. Nothing is buffered
beyond that: a slow client slows the upstream. Events are interpreted by the API surface's relay; what happens when a
stream fails is described in docs/streams.md; whether another deployment continues it is decided by `serve`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from groundplan.blueprint.model import Deployment
from groundplan.core.errors import Denied
from groundplan.gateway.call import settle, stored_answers
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.call.delivery.stream_end import finish_stream, send_end
from groundplan.gateway.call.delivery.to_client import EVENT_STREAM, write_large
from groundplan.gateway.call.exchange import Exchange
from groundplan.gateway.http.chunk_template import ChunkTemplate
from groundplan.gateway.http.sse import MAX_EVENT, EventReader, EventTooLarge, format_event
from groundplan.gateway.http.strict_json import DECODE_ERRORS
from groundplan.gateway.surfaces.answers import facts, headers
from groundplan.gateway.surfaces.codec import DeniedAnswer, ErrorAnswer, Malformed, Relay
from groundplan.gateway.surfaces.openai_relay import OpenAIRelay
from groundplan.gateway.surfaces.upstream_json import STREAM
from groundplan.gateway.upstream.connection import (
    BODY_LIMIT,
    FOREVER,
    UNRESERVED_BYTES,
    BodyMemory,
    UpstreamConnection,
    UpstreamFailure,
    remaining_wait,
)
from groundplan.gateway.upstream.secret_masking import mask

if TYPE_CHECKING:
    from groundplan.gateway.guard.relay import GuardedRelay

BURST_BYTES = 32 << 10
"""Larger pieces are handled in parts, with other calls in between: a proxy may deliver a whole answer at once, of which
each event is checked or translated."""


class StreamBroken(Exception):
    """The upstream's stream cannot be used any further."""

    refusal: Denied | None = None
    """Set where a guardrail or a kill ended the stream."""
    error_body: bytes = b""
    """The error with which the stream began, where that is all of it."""
    kind: str = "cut"
    """Kind of failure, as of an `UpstreamFailure`."""
    hint: str = ""
    """As that of an `UpstreamFailure`."""


class Streaming:
    """The stream of one attempt: `open` reads until there is something for the client, `relay_rest` relays the rest."""

    __slots__ = (
        "_connection",
        "_deployment",
        "_exchange",
        "_failure",
        "_first_token_by",
        "_has_pumped",
        "_idle_limit",
        "_openai_relay",
        "_pass_through",
        "_pending_output",
        "_reader",
        "_reserved_bytes",
        "guarded",
        "relay",
        "secrets",
    )  # fmt: skip

    content_type_lines = EVENT_STREAM
    """Content-Type and further header lines for the client."""
    can_pass_through = True
    """Whether chunks may be passed through without being parsed, as nothing here needs their text."""

    def __init__(self, connection: UpstreamConnection, deployment: Deployment, relay: Relay) -> None:
        self._connection = connection
        self._deployment = deployment
        self._reader = EventReader(BODY_LIMIT if deployment.kind == "images" else MAX_EVENT)
        self._reserved_bytes = UNRESERVED_BYTES
        """Size up to which an unfinished event may grow."""
        self._pending_output = b""
        self._failure: Malformed | EventTooLarge | None = None
        """The failure of an event, raised by the coroutine that waits for data."""
        self._exchange: Exchange | None = None
        self._first_token_by = 0.0
        """By the loop's clock: the latest time for the first token."""
        self._has_pumped = False
        """Whether the pump has sent the client something since it was last asked."""
        self._idle_limit = 0.0
        """Seconds for which the upstream may be silent while its data is pumped."""
        self.relay = relay
        self._openai_relay = relay if isinstance(relay, OpenAIRelay) else None
        self._pass_through: tuple[OpenAIRelay, ChunkTemplate, Callable[[bytes], bool]] | None = None
        """Set while the next chunk may be passed through: (relay that counts it, its template, the client's writer)."""
        self.secrets: tuple[bytes, ...] = ()
        """Our own secrets, which are masked where the upstream repeats one in one piece."""
        self.guarded: GuardedRelay | None = None
        """The relay with guardrails, which may hold output back: what it has received counts as progress all the
        same."""

    async def open(self, gateway: Gateway, started_at: float, seconds: float, memory: BodyMemory) -> None:
        """Read until there is something for the client, or to the end of a stream that has nothing for it, within
        `seconds` after `started_at`. `memory` is asked for room for a large event.

        Raises `StreamBroken`.
        """
        relay, connection, now = self.relay, self._connection, gateway.loop.time
        self._first_token_by = first_token_by = started_at + seconds
        try:
            while not relay.done:
                remaining = first_token_by - now()
                if remaining <= 0:
                    remaining = gateway.stalls.remaining(started_at, seconds, connection.call_deadline)
                data = await connection.read_chunk(remaining_wait(remaining))
                if data is None:
                    break
                self._pending_output = await self._feed_in_parts(data)
                if self._failure is not None:
                    raise self._failure  # the client has nothing yet, so another attempt may follow
                if self._pending_output or relay.output_bytes or (self.guarded is not None and self.guarded.has_output):
                    return  # also where the model reasons, which the client's API does not show
                waited = await self._reserve(memory, connection.call_deadline - now())
                started_at += waited
                self._first_token_by = first_token_by = min(first_token_by + waited, connection.call_deadline)
        except (Malformed, UpstreamFailure, EventTooLarge) as failure:
            broken = _stream_broken(failure)
            if isinstance(failure, ErrorAnswer) and not relay.output_bytes:
                broken.error_body = failure.data
            raise broken from failure
        if not relay.complete:
            raise StreamBroken("the upstream's stream ended early")

    async def relay_rest(self, gateway: Gateway, exchange: Exchange, sequence: int, memory: BodyMemory) -> None:
        """Relay the stream to its end; settle its attempt, unless that is done together with the call. `memory`: as for
        `open`. Raises `StreamBroken`, when the client may have a part already."""
        self._exchange = exchange
        guard, guarded = exchange.guard, self.guarded
        self._connection.call_deadline = FOREVER  # the deadline holds for the first byte only
        if guard is not None and guarded is not None:
            guard.adopt(guarded)
        if self._pending_output:
            await self._send_first(gateway, exchange, sequence, memory)
        elif exchange.response.started and (pending := gateway.journal.durable(sequence)) is not None:
            await pending  # the rest of a stream: its first words may be held back, as they may repeat what was sent
        try:
            await self._relay(gateway, exchange, sequence, memory)
            if self._failure is not None:
                raise self._failure
        except (Malformed, UpstreamFailure, EventTooLarge) as failure:
            if not self._has_ended(failure):
                raise _stream_broken(self._failure or failure) from failure
        finally:
            exchange.output_bytes = self.relay.output_bytes
            if guard is not None and guarded is not None:
                guard.record_findings(exchange)
        if not self.relay.complete:
            raise StreamBroken("the upstream's stream ended early")
        if _needs_final_check(exchange):
            settle.attempt(gateway, exchange, "ok", 200, self.relay.usage)

    def _has_ended(self, failure: Exception) -> bool:
        """Whether the answer was complete when its upstream fell silent or was cut, so that nothing is missing. For
        audio and transcripts only the end of the stream shows that."""
        is_complete = self.relay.complete and self._deployment.kind == "chat"
        return is_complete and self._failure is None and isinstance(failure, UpstreamFailure)

    async def finish(self, gateway: Gateway, exchange: Exchange) -> None:
        """Run the checks of the whole answer and send its end. Raises `StreamBroken` where a check refuses it."""
        relay, guard, guarded = self.relay, exchange.guard, self.guarded
        if not _needs_final_check(exchange):
            exchange.first_byte = exchange.first_byte or time.perf_counter_ns()
            sequence = settle.attempt_and_call(gateway, exchange, "ok", 200, relay.usage, awaited=False)
            last = relay.closing_events(facts(exchange, settle.remaining_budget(gateway, exchange)))
            await send_end(gateway, exchange, sequence, last, relay)
            return
        if guard is not None and guarded is not None:
            try:
                await guard.finish_stream(exchange, guarded)
                if self._failure is not None:
                    raise self._failure  # a kill ended it during the checks
            except (Malformed, EventTooLarge) as failure:
                raise _stream_broken(failure) from failure
            finally:
                guard.record_findings(exchange)
        if exchange.passages:
            await self.check_citations(gateway, exchange)
        if exchange.interface.can_store_answers and guard is None:
            await stored_answers.keep(gateway, exchange, relay)
        last = relay.closing_events(facts(exchange, settle.remaining_budget(gateway, exchange)))
        await finish_stream(gateway, exchange, "ok", last, "", relay)

    async def check_citations(self, gateway: Gateway, exchange: Exchange) -> None:
        """Check the citations of a grounded answer, before its end is sent; see `CitedStreaming`."""

    async def _relay(self, gateway: Gateway, exchange: Exchange, sequence: int, memory: BodyMemory) -> None:
        relay, connection, idle = self.relay, self._connection, self._deployment.idle_ms / 1000
        response = exchange.response
        output_bytes = relay.output_bytes
        wait = limit = idle if output_bytes else self._idle_seconds(gateway, idle)
        silent_since: float | None = None  # when the last sign of an answer came, once data came that is none
        while not relay.done:
            if response.started and self._reserved_bytes == UNRESERVED_BYTES:
                self._idle_limit = limit
                connection.pump(self._pump, limit, self._try_pass_through)
            data = await connection.read_chunk(wait)
            if data is None or self._failure is not None:
                return
            out = self._feed(data) if 0 < len(data) <= BURST_BYTES else await self._feed_in_parts(data)
            if out and response.started:
                await self._send(gateway, exchange, out, memory)
            if self._failure is not None:
                raise self._failure
            if out and not response.started:
                self._pending_output = out
                await self._send_first(gateway, exchange, sequence, memory)
            has_progressed, output_bytes = relay.output_bytes > output_bytes, relay.output_bytes
            if out or self._has_pumped or has_progressed or (self.guarded is not None and self.guarded.has_output):
                wait = limit = idle if output_bytes else self._idle_seconds(gateway, idle)
                silent_since, self._has_pumped = None, False
                if self.guarded is not None:
                    self.guarded.has_output = False
                if response.is_write_paused:
                    await response.drain()
                continue
            # comments keep a connection open, and are no sign that an answer will come; reasoning is one, also where
            # the client's API does not show it
            silent_since = gateway.loop.time() if silent_since is None else silent_since
            silent_since += await self._reserve(memory, limit)
            wait = remaining_wait(gateway.stalls.remaining(silent_since, limit))

    async def _reserve(self, memory: BodyMemory, seconds: float) -> float:
        """Reserve memory for an unfinished event that has become large; meanwhile nothing is read. Returns the seconds
        for which that had to wait. Raises `UpstreamFailure` if there is no memory within `seconds`."""
        size = self._reader.unfinished_bytes
        if size <= self._reserved_bytes:
            return 0.0
        now = asyncio.get_running_loop().time
        since = now()
        self._reserved_bytes = await memory.grow(size, seconds, self._must_go_on)
        return now() - since

    def _must_go_on(self) -> bool:
        """Whether the stream cannot wait for memory any longer."""
        return self._failure is not None or self._connection.blocks_others()

    def _release_memory(self, memory: BodyMemory) -> None:
        """Release the memory of a large event, which the client has."""
        if self._reserved_bytes > UNRESERVED_BYTES:
            memory.shrink_to(0)
            self._reserved_bytes = UNRESERVED_BYTES

    def _idle_seconds(self, gateway: Gateway, idle: float) -> float:
        """Seconds for which the upstream may be silent before its first token. An early event that only says that it
        has begun, as Responses sends at once, does not shorten the time for the first token."""
        return max(idle, self._first_token_by - gateway.loop.time())

    def _pump(self, data: bytes) -> bool:
        """Relay bytes of the upstream as they arrive; False where the waiting coroutine has to go on instead."""
        exchange = self._exchange
        if exchange is None:
            return False
        try:
            out = self._feed(data)
        except (Malformed, EventTooLarge) as failure:
            self._failure = failure
            return False
        if not out:
            return False
        self._has_pumped = True
        self._write(exchange, out)
        idle = self._deployment.idle_ms / 1000
        if self._idle_limit > idle:  # the first token is awaited
            if not self.relay.output_bytes:
                return False  # it is still to come, and less time is left for it
            self._idle_limit = idle
            self._connection.pump(self._pump, idle, self._try_pass_through)
        self._pass_through = self._pass_through_route(exchange)
        if len(data) > BURST_BYTES and self._openai_relay is None:
            return False  # more data may be there already: give other calls a turn
        return self._failure is None and not self.relay.done and not exchange.response.is_write_paused

    def _pass_through_route(
        self, exchange: Exchange
    ) -> tuple[OpenAIRelay, ChunkTemplate, Callable[[bytes], bool]] | None:
        plain = self._openai_relay
        if plain is None or plain.template is None or not self.can_pass_through or exchange.sent_chunks is not None:
            return None
        pass_on = exchange.response.raw_chunk_writer
        return None if pass_on is None or not self._reader.is_between_events else (plain, plain.template, pass_on)

    def _try_pass_through(self, data: bytes) -> bool:
        """Pass an HTTP/1.1 chunk on as it came, where it is one event of the known form, as nearly all of a stream are.

        A process that is woken for each chunk has cold caches, so what counts is how little code and data it touches.
        """
        if self._pass_through is None:
            return False
        plain, alike, pass_on = self._pass_through
        for secret in self.secrets:
            if data.find(secret) >= 0:
                return False
        size = alike.framed_text_bytes(data)
        if size < 0 or not pass_on(data):
            return False
        plain.output_bytes += size
        self._has_pumped = True
        return True

    def sever(self, error: Denied) -> None:
        """End the stream with `error` now, waking the coroutine that waits for the upstream."""
        if self._failure is None:
            self._failure = DeniedAnswer(error)
        self._connection.abort()

    async def drain(self, seconds: float, memory: BodyMemory) -> None:
        """Read to the end without relaying, to learn the usage. Raises `StreamBroken`."""
        try:
            while not self.relay.done and (data := await self._connection.read_chunk(seconds)) is not None:
                self._feed(data)
                if self._failure is not None:
                    raise self._failure
                await self._reserve(memory, seconds)
                if not self._reader.unfinished_bytes:
                    self._release_memory(memory)
        except (Malformed, UpstreamFailure, EventTooLarge) as failure:
            raise _stream_broken(failure) from failure

    def _feed(self, data: bytes) -> bytes:
        """Feed the events in `data` to the relay and return its output; output before a malformed event is kept."""
        if self.secrets:
            data = mask(data, self.secrets)
        plain = self._openai_relay
        if (
            plain is not None
            and plain.template is not None
            and self._reader.is_between_events
            and plain.try_pass_through(data)
        ):
            return data
        feed, is_continued = self.relay.feed, not self._reader.is_between_events
        events = self._reader.feed(data)
        if is_continued and events and self.secrets:
            events[0] = mask(events[0], self.secrets)  # a secret may be split over two reads
        outputs: list[bytes] = []
        try:
            if len(events) == 1:
                return feed(_check_utf8(events[0]))
            for each in events:
                if (
                    plain is not None
                    and plain.template is not None
                    and plain.try_pass_through(framed := format_event(each))
                ):
                    outputs.append(framed)  # of the same form as one before
                    continue
                outputs.append(feed(_check_utf8(each)))
                if self.relay.done:
                    break  # what follows the end is not part of the answer
        except Malformed as failure:
            self._failure = failure
        except DECODE_ERRORS:  # in a field that is read for some events only
            self._failure = Malformed(STREAM)
        return b"".join(outputs)

    async def _feed_in_parts(self, data: bytes) -> bytes:
        """As `_feed`, in parts of at most `BURST_BYTES`, with other calls in between."""
        outputs: list[bytes] = []
        while len(data) > BURST_BYTES and self._openai_relay is None and self._failure is None and not self.relay.done:
            finish_stream = data.rfind(b"\n", 0, BURST_BYTES) + 1 or BURST_BYTES
            outputs.append(self._feed(data[:finish_stream]))
            data = data[finish_stream:]
            await asyncio.sleep(0)
        if data and self._failure is None and not self.relay.done:
            outputs.append(self._feed(data))
        return b"".join(outputs)

    async def _send_first(self, gateway: Gateway, exchange: Exchange, sequence: int, memory: BodyMemory) -> None:
        """Send the first bytes of this attempt, once its reservation is durable; the response head is made
        meanwhile."""
        response, lines, head = exchange.response, b"", b""
        if not response.started:
            settle.remaining_budget(gateway, exchange)
            lines = self.content_type_lines + headers(exchange, cost=False)
        if (pending := gateway.journal.durable(sequence)) is not None:
            await pending
        if not response.started:
            exchange.first_byte = time.perf_counter_ns()
            head = response.start(200, lines)
        out, self._pending_output = self._pending_output, b""
        await self._send(gateway, exchange, out, memory, head)
        if response.is_write_paused:
            await response.drain()

    async def _send(
        self, gateway: Gateway, exchange: Exchange, out: bytes, memory: BodyMemory, head: bytes = b""
    ) -> None:
        """Write what there is for the client, a large event only as it is taken, and release the event's memory."""
        if len(out) <= UNRESERVED_BYTES:
            self._write(exchange, out, head)
        else:
            if exchange.sent_chunks is not None:
                exchange.sent_chunks.append(out)
            await write_large(gateway, exchange, out, head)
        self._release_memory(memory)

    def _write(self, exchange: Exchange, out: bytes, head: bytes = b"") -> None:
        exchange.response.write(out, head)
        if exchange.sent_chunks is not None:
            exchange.sent_chunks.append(out)


def _check_utf8(event: bytes) -> bytes:
    """The event. Raises `UnicodeDecodeError`, also for bytes of fields that a decoder skips."""
    if not event.isascii():
        event.decode()
    return event


def _needs_final_check(exchange: Exchange) -> bool:
    """Whether the whole answer is checked or stored before its end is sent, so that the attempt is settled before the
    call."""
    return exchange.guard is not None or bool(exchange.passages) or exchange.interface.can_store_answers


def _stream_broken(failure: Exception) -> StreamBroken:
    broken = StreamBroken(str(failure) or "an event is too large")
    broken.kind = failure.kind if isinstance(failure, UpstreamFailure) else "malformed"
    if isinstance(failure, UpstreamFailure):
        broken.hint = failure.hint
    if isinstance(failure, DeniedAnswer):
        broken.refusal = failure.error
    return broken
