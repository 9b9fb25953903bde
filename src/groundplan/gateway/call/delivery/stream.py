"""A streamed answer on its way from the upstream to the client, event by event.

The last event that the client gets anyway is held back until the call is settled, so that it can carry the `groundplan`
object; what an event means is the API surface's. Nothing is buffered beyond that: a slow client slows the upstream.
What holds when a stream fails is written down in docs/streams.md; whether another deployment goes on is `serve`'s.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from groundplan.blueprint.model import Deployment
from groundplan.core.errors import Denied, Unavailable
from groundplan.core.money import format_usd
from groundplan.gateway.call import settle, stored_answers
from groundplan.gateway.call.context import Gateway
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
    UpstreamConnection,
    UpstreamFailure,
    remaining_wait,
)
from groundplan.gateway.upstream.secret_masking import mask

if TYPE_CHECKING:
    from groundplan.gateway.guard.relay import GuardedRelay

EVENT_STREAM = b"content-type: text/event-stream\r\ncache-control: no-cache\r\nx-accel-buffering: no\r\n"
"""Header lines; by the last one nginx, and proxies that read it, pass on each piece at once."""
BURST = 32 << 10
"""Of more bytes that are not only passed on others have a turn between: a proxy may give all of an answer at once, and
each event of it is looked at, or said otherwise."""


class StreamBroken(Exception):
    """The upstream's stream cannot be used any further."""

    refusal: Denied | None = None
    """A guardrail ended it."""
    told: bytes = b""
    """It began with this error, and there is nothing else of it."""
    kind: str = "cut"
    """As of an `UpstreamFailure`."""


class Streaming:
    """One attempt's stream: `first` until there is something for the client, then `rest`."""

    __slots__ = (
        "_by", "_connection", "_deployment", "_exchange", "_failure", "_fed", "_limit", "_out", "_passing", "_plain",
        "_reader", "guarded", "relay", "secrets",
    )  # fmt: skip

    kind = EVENT_STREAM
    """Header lines of what the client gets."""
    direct = True
    """Nobody here wants to see what only passes."""

    def __init__(self, connection: UpstreamConnection, deployment: Deployment, relay: Relay) -> None:
        self._connection = connection
        self._deployment = deployment
        self._reader = EventReader(BODY_LIMIT if deployment.kind == "images" else MAX_EVENT)
        self._out = b""
        self._failure: Malformed | EventTooLarge | None = None
        """What is wrong with an event, to be raised by whoever waits."""
        self._exchange: Exchange | None = None
        self._by = 0.0
        """Of the loop's clock, until when its first token may come."""
        self._fed = False
        """The pump gave the client something."""
        self._limit = 0.0
        """Seconds for which the upstream may be silent while it is pumped."""
        self.relay = relay
        self._plain = relay if isinstance(relay, OpenAIRelay) else None
        self._passing: tuple[OpenAIRelay, ChunkTemplate, Callable[[bytes], bool]] | None = None
        """While the next chunk may go straight through: where it is counted, what it looks like, and the way to the
        client."""
        self.secrets: tuple[bytes, ...] = ()
        """Ours, which the client does not get where its upstream repeats one in one piece."""
        self.guarded: GuardedRelay | None = None
        """Which may hold back what came: whatever is for the client is progress, though it gets nothing yet."""

    async def first(self, gateway: Gateway, since: float, seconds: float) -> None:
        """Until the upstream says something, or the whole of a stream that has nothing for the client, within `seconds`
        since then.

        Raises `StreamBroken`.
        """
        relay, connection, now = self.relay, self._connection, gateway.loop.time
        self._by = by = since + seconds
        try:
            while not relay.done:
                left = by - now()
                if left <= 0:
                    left = gateway.stalls.left(since, seconds, connection.call_deadline)
                data = await connection.read_chunk(remaining_wait(left))
                if data is None:
                    break
                self._out = await self._taken(data)
                if self._failure is not None:
                    raise self._failure  # the client has nothing yet, so it need not know
                if self._out or relay.output_bytes or (self.guarded is not None and self.guarded.has_output):
                    return  # also where it reasons, and the client's API does not tell that
        except (Malformed, UpstreamFailure, EventTooLarge) as failure:
            broken = _broken(failure)
            if isinstance(failure, ErrorAnswer) and not relay.output_bytes:
                broken.told = failure.data
            raise broken from failure
        if not relay.complete:
            raise StreamBroken("the upstream's stream ended early")

    async def rest(self, gateway: Gateway, exchange: Exchange, sequence: int) -> None:
        """Relay to the end of what the upstream says, and settle what is not settled with its call. Raises
        `StreamBroken`: the client may have a part already."""
        self._exchange = exchange
        guard, guarded = exchange.guard, self.guarded
        self._connection.call_deadline = FOREVER  # what was promised is its beginning
        if guard is not None and guarded is not None:
            guard.adopt(guarded)
        if self._out:
            await self._begin(gateway, exchange, sequence)
        try:
            await self._relay(gateway, exchange, sequence)
            if self._failure is not None:
                raise self._failure
        except (Malformed, UpstreamFailure, EventTooLarge) as failure:
            if not self._has_ended(failure):
                raise _broken(self._failure or failure) from failure
        finally:
            exchange.output_bytes = self.relay.output_bytes
            if guard is not None and guarded is not None:
                guard.record_findings(exchange)
        if not self.relay.complete:
            raise StreamBroken("the upstream's stream ended early")
        if _is_looked_at(exchange):
            settle.attempt(gateway, exchange, "ok", 200, self.relay.usage)

    def _has_ended(self, failure: Exception) -> bool:
        """Whether the answer had its end when its upstream fell silent or was cut: there is nothing to go on with. Of
        sound and transcripts it is the end of the stream alone that tells it."""
        whole = self.relay.complete and self._deployment.kind == "chat"
        return whole and self._failure is None and isinstance(failure, UpstreamFailure)

    async def finish(self, gateway: Gateway, exchange: Exchange) -> None:
        """Look at what is looked at as a whole, and send the end. Raises `StreamBroken` where that refuses it."""
        relay, guard, guarded = self.relay, exchange.guard, self.guarded
        if not _is_looked_at(exchange):
            exchange.first_byte = exchange.first_byte or time.perf_counter_ns()
            sequence = settle.attempt_and_call(gateway, exchange, "ok", 200, relay.usage, awaited=False)
            last = relay.closing_events(facts(exchange, settle.remaining_budget(gateway, exchange)))
            await _send_end(gateway, exchange, sequence, last, relay)
            return
        if guard is not None and guarded is not None:
            try:
                await guard.finish_stream(exchange, guarded)
                if self._failure is not None:
                    raise self._failure  # stopped while somebody looked at it
            except (Malformed, EventTooLarge) as failure:
                raise _broken(failure) from failure
            finally:
                guard.record_findings(exchange)
        if exchange.passages:
            await self.look(gateway, exchange)
        if exchange.interface.can_store_answers and guard is None:
            await stored_answers.keep(gateway, exchange, relay)
        last = relay.closing_events(facts(exchange, settle.remaining_budget(gateway, exchange)))
        await end(gateway, exchange, "ok", last, "", relay)

    async def look(self, gateway: Gateway, exchange: Exchange) -> None:
        """Everything was said and nothing of its end was sent: a stream of a grounded answer is looked at here."""

    async def _relay(self, gateway: Gateway, exchange: Exchange, sequence: int) -> None:
        relay, connection, idle = self.relay, self._connection, self._deployment.idle_ms / 1000
        response = exchange.response
        counted = relay.output_bytes
        wait = limit = idle if counted else self._until_first(gateway, idle)
        since: float | None = None  # when what is a sign of an answer came last, once anything else did
        while not relay.done:
            if response.started:
                self._limit = limit
                connection.pump(self._pump, limit, self._through)
            data = await connection.read_chunk(wait)
            if data is None or self._failure is not None:
                return
            out = self._take(data) if 0 < len(data) <= BURST else await self._taken(data)
            if out and response.started:
                self._write(exchange, out)
            if self._failure is not None:
                raise self._failure
            if out and not response.started:
                self._out = out
                await self._begin(gateway, exchange, sequence)
            said, counted = relay.output_bytes > counted, relay.output_bytes
            if out or self._fed or said or (self.guarded is not None and self.guarded.has_output):
                wait = limit = idle if counted else self._until_first(gateway, idle)
                since, self._fed = None, False
                if self.guarded is not None:
                    self.guarded.has_output = False
                if response.is_write_paused:
                    await response.drain()
                continue
            # comments keep a connection open, and are no sign that an answer will come; what a model reasons is one,
            # also where the client's API does not tell it
            since = gateway.loop.time() if since is None else since
            wait = remaining_wait(gateway.stalls.left(since, limit))

    def _until_first(self, gateway: Gateway, idle: float) -> float:
        """Seconds for which an upstream may be silent that has told only that it has begun, as those of Responses do at
        once: its first token has the time of one, however early that was told."""
        return max(idle, self._by - gateway.loop.time())

    def _pump(self, data: bytes) -> bool:
        """Bytes of the upstream as they arrive; False where there is more to do than to pass them on."""
        exchange = self._exchange
        if exchange is None:
            return False
        try:
            out = self._take(data)
        except (Malformed, EventTooLarge) as failure:
            self._failure = failure
            return False
        if not out:
            return False
        self._fed = True
        self._write(exchange, out)
        idle = self._deployment.idle_ms / 1000
        if self._limit > idle:  # the time of a first token
            if not self.relay.output_bytes:
                return False  # which is still to come: there is less of it now
            self._limit = idle
            self._connection.pump(self._pump, idle, self._through)
        self._passing = self._straight(exchange)
        if len(data) > BURST and self._plain is None:
            return False  # more of it may be there, of which others have to wait
        return self._failure is None and not self.relay.done and not exchange.response.is_write_paused

    def _straight(self, exchange: Exchange) -> tuple[OpenAIRelay, ChunkTemplate, Callable[[bytes], bool]] | None:
        plain = self._plain
        if plain is None or plain.template is None or not self.direct or exchange.sent_chunks is not None:
            return None
        pass_on = exchange.response.raw_chunk_writer
        return None if pass_on is None or not self._reader.is_between_events else (plain, plain.template, pass_on)

    def _through(self, data: bytes) -> bool:
        """Pass a chunk of HTTP/1.1 on as it came, where it is one event that needs no look: nearly all of a stream.

        Where a process is woken for each of them its caches are cold, and what counts is how little is touched.
        """
        if self._passing is None:
            return False
        plain, alike, pass_on = self._passing
        for secret in self.secrets:
            if data.find(secret) >= 0:
                return False
        size = alike.framed_text_bytes(data)
        if size < 0 or not pass_on(data):
            return False
        plain.output_bytes += size
        self._fed = True
        return True

    def sever(self, error: Denied) -> None:
        """End it now: whoever waits for the upstream is woken, and the client told."""
        if self._failure is None:
            self._failure = DeniedAnswer(error)
        self._connection.abort()

    async def drain(self, seconds: float) -> None:
        """Read to the end for nobody, to learn the usage. Raises `StreamBroken`."""
        try:
            while not self.relay.done and (data := await self._connection.read_chunk(seconds)) is not None:
                self._take(data)
                if self._failure is not None:
                    raise self._failure
        except (Malformed, UpstreamFailure, EventTooLarge) as failure:
            raise _broken(failure) from failure

    def _take(self, data: bytes) -> bytes:
        """What the events in `data` give the client; what is good before a bad one is not lost."""
        if self.secrets:
            data = mask(data, self.secrets)
        plain = self._plain
        if (
            plain is not None
            and plain.template is not None
            and self._reader.is_between_events
            and plain.try_pass_through(data)
        ):
            return data
        feed = self.relay.feed
        found = self._reader.feed(data)
        outs: list[bytes] = []
        try:
            if len(found) == 1:
                return feed(found[0])
            for each in found:
                if (
                    plain is not None
                    and plain.template is not None
                    and plain.try_pass_through(told := format_event(each))
                ):
                    outs.append(told)  # like one before it, which may have come with it
                    continue
                outs.append(feed(each))
                if self.relay.done:
                    break  # whatever follows the end is no part of it
        except Malformed as failure:
            self._failure = failure
        except DECODE_ERRORS:  # in a part that only some events are read for
            self._failure = Malformed(STREAM)
        return b"".join(outs)

    async def _taken(self, data: bytes) -> bytes:
        """As `_take`, a part at a time: each event of what came in a burst may be looked at, or be said otherwise."""
        outs: list[bytes] = []
        while len(data) > BURST and self._plain is None and self._failure is None and not self.relay.done:
            end = data.rfind(b"\n", 0, BURST) + 1 or BURST
            outs.append(self._take(data[:end]))
            data = data[end:]
            await asyncio.sleep(0)
        if data and self._failure is None and not self.relay.done:
            outs.append(self._take(data))
        return b"".join(outs)

    async def _begin(self, gateway: Gateway, exchange: Exchange, sequence: int) -> None:
        """The first bytes of this attempt, whose head is made meanwhile: not before its reservation is on the disk."""
        response, lines, head = exchange.response, b"", b""
        if not response.started:
            settle.remaining_budget(gateway, exchange)
            lines = self.kind + headers(exchange, cost=False)
        if (pending := gateway.journal.durable(sequence)) is not None:
            await pending
        if not response.started:
            exchange.first_byte = time.perf_counter_ns()
            head = response.start(200, lines)
        self._write(exchange, self._out, head)
        if response.is_write_paused:
            await response.drain()

    def _write(self, exchange: Exchange, out: bytes, head: bytes = b"") -> None:
        exchange.response.write(out, head)
        if exchange.sent_chunks is not None:
            exchange.sent_chunks.append(out)


def _is_looked_at(exchange: Exchange) -> bool:
    """Whether somebody looks at all of a stream before its end is sent, so that its attempt is settled before its
    call."""
    return exchange.guard is not None or bool(exchange.passages) or exchange.interface.can_store_answers


def _broken(failure: Exception) -> StreamBroken:
    broken = StreamBroken(str(failure) or "an event is too large")
    broken.kind = failure.kind if isinstance(failure, UpstreamFailure) else "malformed"
    if isinstance(failure, DeniedAnswer):
        broken.refusal = failure.error
    return broken


async def break_off(
    gateway: Gateway, exchange: Exchange, relay: Relay, reason: str, code: str = "stream_broken"
) -> None:
    """The client has a part already: tell it with a well-formed error event that the rest will not come.

    Bytes of sound have no place for an error: there the connection is cut, so that they do not look complete.
    """
    told = _told(exchange, relay, reason, code)
    if not told:
        settle.finish(gateway, exchange, "failed", 200, code)
        return
    await end(gateway, exchange, "failed", told, code, relay)


def _told(exchange: Exchange, relay: Relay, reason: str, code: str) -> bytes:
    """The error event, which says what it cost all the same; nothing where there is no place for one."""
    told = relay.error_event(reason, str(exchange.call))
    id = b'"%b"' % exchange.id
    told = told.replace(id, b'%b,"cost_usd":"%b"' % (id, format_usd(exchange.cost).encode()))
    return told if code == "stream_broken" else told.replace(b'"stream_broken"', b'"%b"' % code.encode())


async def end(
    gateway: Gateway, exchange: Exchange, outcome: str, last: bytes, code: str, relay: Relay | None = None
) -> None:
    """The call is settled: make that durable, and only then send the last bytes. Nobody sees when a stream ends to the
    fraction of a millisecond.

    Where it does not get durable, whose client has a part already is told by `relay`. Raises `Unavailable`.
    """
    now = time.perf_counter_ns()
    exchange.first_byte = exchange.first_byte or now
    sequence = settle.finish(gateway, exchange, outcome, 200, code)
    await _send_end(gateway, exchange, sequence, last, relay)


async def _send_end(
    gateway: Gateway, exchange: Exchange, sequence: int | None, last: bytes, relay: Relay | None
) -> None:
    """The last bytes of a call whose end has that `sequence` in the journal. Raises as `end`."""
    response = exchange.response
    if sequence is not None and (pending := gateway.journal.durable(sequence, patient=True)) is not None:
        try:
            await pending
        except Unavailable as error:
            told = b"" if relay is None else _told(exchange, relay, error.message, error.code)
            if not told or not response.started:
                raise
            last = told
    head = b"" if response.started else response.start(200, EVENT_STREAM + headers(exchange, cost=True))
    if exchange.sent_chunks is not None and last:
        exchange.sent_chunks.append(last)
    response.end(last, head)
