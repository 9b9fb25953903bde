"""One attempt at a deployment: journalled, sent, read to the first byte that the client can get, and then delivered.

`open` and `deliver` are separate, so that a hedge can run beside the first attempt until one of them has something for
the client. However an attempt ends, also by cancellation, its settlement is written and its reservation released. Does
not decide which deployment is asked next: that is `sequence`. What is sent, and where, is in `upstream_request`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from msgspec.structs import replace

from groundplan.blueprint.model import Deployment
from groundplan.blueprint.places import FIRST_TOKEN_MS
from groundplan.core.errors import Denied, GroundplanError, Invalid
from groundplan.gateway.call import limits, settle, stored_answers
from groundplan.gateway.call.attempts.failure import AttemptFailed, hint_for_timeout
from groundplan.gateway.call.attempts.prepare import RequestPreparation
from groundplan.gateway.call.attempts.refusal import RefusalHandling
from groundplan.gateway.call.attempts.send_form import send_upload, settle_unsent
from groundplan.gateway.call.attempts.upstream_request import choose_target, encode_request, is_translated
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.call.delivery.binary_stream import UNKNOWN_TYPE, BinaryStreaming, is_audio
from groundplan.gateway.call.delivery.recorder import Recorder
from groundplan.gateway.call.delivery.stream import StreamBroken, Streaming
from groundplan.gateway.call.delivery.whole_answer import send, send_large, send_refusal
from groundplan.gateway.call.exchange import Exchange
from groundplan.gateway.call.grounding.citation_check import CitedStreaming, check_whole_answer
from groundplan.gateway.call.model_versions import VersionReader
from groundplan.gateway.guard.kills import check_not_stopped, stop_error
from groundplan.gateway.guard.run import needs_review
from groundplan.gateway.http.sse import BOM
from groundplan.gateway.http.strict_json import check_complexity
from groundplan.gateway.offload import READ_BYTES
from groundplan.gateway.stalls import patient
from groundplan.gateway.surfaces.answers import answer_constants, facts, headers
from groundplan.gateway.surfaces.codec import Malformed, Relay, UpstreamAnswer, final_usage
from groundplan.gateway.surfaces.speech import EVENTS
from groundplan.gateway.surfaces.upstream_json import parse_answer
from groundplan.gateway.upstream import provider_refusals
from groundplan.gateway.upstream.answer_memory import CROWDED, MemoryShare
from groundplan.gateway.upstream.connection import MIN_WAIT_SECONDS, UpstreamConnection, UpstreamFailure
from groundplan.gateway.upstream.pressure import RANKS, DeploymentLoad
from groundplan.gateway.upstream.providers import target_header
from groundplan.gateway.upstream.targets import Target
from groundplan.ledger.model import Usage

_DRAIN_SECONDS = 30.0
_LONG_US = 100_000
"""Times above this are learned only if this worker did not stall meanwhile."""


class Attempt(RequestPreparation):
    """See the module. Begun already: `sequence` is its reservation in the journal."""

    __slots__ = (
        "_answered", "_is_last", "_load", "_share", "first_us", "sequence", "streaming",
    )  # fmt: skip

    def __init__(
        self,
        gateway: Gateway,
        exchange: Exchange,
        deployment: Deployment,
        sequence: int,
        deadline: float,
        is_last: bool = False,
    ) -> None:
        """`is_last`: no other attempt can follow, so nothing is gained by giving up a slow model."""
        self.gateway = gateway
        self.exchange = exchange
        self.deployment = deployment
        self.sequence = sequence
        self.deadline = deadline
        self.started_at = gateway.loop.time()
        self.status = 0
        self.streaming: Streaming | None = None
        self.first_us = 0
        """From its begin until there was an answer for the client; 0: not yet, or this worker stalled meanwhile."""
        self.is_refused = False
        self._is_last = is_last
        self._codec = exchange.interface.codec(deployment)
        self._answered: UpstreamAnswer | None = None
        self._connection: UpstreamConnection | None = None
        self._overload = False
        self._target: Target | None = None
        self._share: MemoryShare | None = None
        """Its share of the memory for large answers, where it has one."""
        load = gateway.loads.of(deployment)
        load.running += 1
        self._load: DeploymentLoad | None = load

    # to the first byte ------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Send the request and read until there is something for the client. Raises `AttemptFailed`; cancelled, it
        settles itself."""
        was_pooled, exchange = False, self.exchange
        started_ns = exchange.attempt_started
        try:
            target = self._target = choose_target(self.gateway.targets, exchange, self.deployment, self._codec)
            ask = exchange.ask
            upload = None if ask is None else ask.upload
            connection = target.pool.take_idle() if upload is None else None
            was_pooled = connection is not None
            if connection is None:
                connection = await self._connect(target)
            self._connection = connection
            if upload is None:
                connection.call_deadline = self.deadline
                self._send(  # the encoded body is kept nowhere: it may be large, and the answer may take long
                    connection,
                    await self._encode_in_thread()
                    if ask is not None and ask.size > READ_BYTES
                    else encode_request(exchange, self.deployment, self._codec),
                )
            else:
                uploading = await send_upload(upload, exchange, target, connection)
                started_ns += int(uploading * 1e9)  # the time of the client, not of the deployment
                self.deadline += uploading
                connection.call_deadline = self.deadline
            await self._read_response(connection)
            now = time.perf_counter_ns()
            self.first_us = first_us = (now - started_ns) // 1000
            if self.streaming is not None:
                exchange.attempt_first_us = (now - exchange.attempt_started) // 1000
            if self.is_refused or (
                first_us > _LONG_US and (self.gateway.stalls.stalled_seconds(self.started_at) or self.was_delayed)
            ):
                self.first_us = 0  # says nothing of how fast the deployment answers
        except UpstreamFailure as failure:
            raise self._attempt_failure(failure, was_pooled=was_pooled) from failure
        except asyncio.CancelledError:
            self.cancel()
            raise
        except GroundplanError:
            settle_unsent(self.gateway, exchange)
            self._close()
            raise
        except BaseException:
            self._close()
            raise

    def _attempt_failure(self, failure: UpstreamFailure, *, was_pooled: bool) -> AttemptFailed:
        """What a failure of the upstream means for the attempt, which is closed. `was_pooled`: its connection was idle
        before, and may have been closed by the upstream meanwhile."""
        connection, kind = self._connection, failure.kind
        is_stale = was_pooled and kind == "cut" and connection is not None and connection.status == 0
        self._note_unsent()
        self._close()
        billed = failure.sent and self.exchange.attempt_sent
        failed = AttemptFailed(str(failure), billed=billed, stale_connection=is_stale, kind=kind)
        failed.hint = failure.hint or hint_for_timeout(kind, self.deployment.name)
        failed.retry_after = failure.retry_after
        failed.lacked_room = self._is_our_fault(kind)
        failed.service_unavailable = kind == "refused" and not billed and is_translated(self.deployment, self._codec)
        return failed

    @property
    def was_delayed(self) -> bool:
        """Whether its answer waited for memory here, so that its time says nothing of the upstream."""
        return self._share is not None and self._share.had_to_wait

    def _is_our_fault(self, kind: str) -> bool:
        """Whether a failure of that kind is due to this worker, which had no memory for the answer, or not in time."""
        late = self.gateway.loop.time() >= self.deadline
        return kind == CROWDED or (self._share is not None and self._share.explains_failure(kind, is_late=late))

    def _send(self, connection: UpstreamConnection, data: bytes) -> None:
        exchange, deployment = self.exchange, self.deployment
        ask, codec, target = exchange.ask, self._codec, self._target
        if ask is None or target is None:
            raise AssertionError("not connected")
        name = b"%b-%d" % (exchange.id, exchange.attempt_number)
        accept = b"text/event-stream" if ask.stream and not ask.binary else b"application/json"
        lines = b"" if exchange.trace is None else exchange.trace.upstream(exchange.call, exchange.attempt_number)
        if deployment.api != "openai":
            lines += target_header(deployment, target.key_index) if codec.translated else ask.header_lines
        head_and_body = target.request(codec.path(deployment), data, name, accept, lines)
        exchange.attempt_sent = True
        connection.send(head_and_body)
        if ask.stream:
            self.gateway.journal.sync_soon()

    async def _read_response(self, connection: UpstreamConnection) -> None:
        deployment, ask = self.deployment, self.exchange.ask
        stream = ask is not None and ask.stream
        first_ms = deployment.first_token_ms
        since = self.gateway.loop.time()
        left = self.deadline - since
        upload = None if ask is None else ask.upload
        alone = self._is_last or (upload is not None and upload.passed_on)
        if alone and first_ms == FIRST_TOKEN_MS and not deployment.first_token_declared:
            seconds = max(MIN_WAIT_SECONDS, left)  # giving up a slow model would gain nothing
        else:
            seconds = max(MIN_WAIT_SECONDS, min((first_ms if stream else first_ms + deployment.idle_ms) / 1000, left))
        self.status = await connection.read_head(seconds)
        self.exchange.attempt_answered = time.perf_counter_ns()
        if self.status != 200:
            self._refuse(connection, self.status, (await self._read_body(connection)).removeprefix(BOM))
        elif stream:
            await self._open_stream(connection, since, seconds)
        else:
            data = connection.take_buffered_body()
            self._parse_answer(connection, await self._read_body(connection) if data is None else data)

    async def _read_body(self, connection: UpstreamConnection) -> bytes:
        """Read the whole of an answer that is not streamed, before the call's deadline."""
        left = max(MIN_WAIT_SECONDS, self.deadline - self.gateway.loop.time())
        data = await connection.read_body(self.deployment.idle_ms / 1000, left, self)
        self.shrink_to(len(data))
        return data

    async def grow(self, size: int, seconds: float, unless: Callable[[], bool] | None = None) -> int:
        """See `BodyMemory`."""
        if self._share is None:
            workload = self.exchange.workload
            rank = RANKS["normal" if workload is None else workload.reliability.priority]
            self._share = MemoryShare(self.gateway.answer_memory, rank, "" if workload is None else workload.name)
        return await self._share.grow(size, seconds, unless)

    def shrink_to(self, size: int) -> None:
        """See `BodyMemory`."""
        if self._share is not None:
            self._share.shrink_to(size)

    def _parse_answer(self, connection: UpstreamConnection, data: bytes) -> None:
        exchange = self.exchange
        if exchange.ask is None:
            raise AssertionError("not admitted")
        if self._target is not None:
            data = self._target.mask_answer(data)
        try:
            if exchange.guard is not None:
                check_complexity(data)  # guardrails walk every level
            self._answered = parse_answer(self._codec, data, exchange.ask)
        except (Malformed, Invalid) as error:
            bare = data.removeprefix(BOM)  # which programs in .NET write, and clients in most languages pass over
            if len(bare) < len(data) and not bare.startswith(BOM):
                self._parse_answer(connection, bare)
                return
            if status := provider_refusals.embedded_status(data):
                self._refuse(connection, status, data)
                return
            raise AttemptFailed(str(error), billed=True, status=self.status, kind="malformed") from error
        if self.gateway.model_versions is not None and self.gateway.model_versions.is_due(
            self.deployment.name, self.started_at
        ):
            self.gateway.model_versions.record_answer(self.deployment, data)

    async def _open_stream(self, connection: UpstreamConnection, since: float, seconds: float) -> None:
        exchange, kind = self.exchange, connection.headers.get(b"content-type", b"")
        if exchange.ask is None:
            raise AssertionError("not admitted")
        streams = kind.lower().startswith(b"text/event-stream")
        if exchange.ask.parsed is EVENTS:
            exchange.ask = replace(exchange.ask, binary=not streams and is_audio(kind))
        binary, kind = exchange.ask.binary, kind or UNKNOWN_TYPE
        if not (is_audio(kind) if binary else streams):
            await self._read_unstreamed(connection, kind)
            return
        relay: Relay = self._codec.new_relay(exchange.ask)
        versions = self.gateway.model_versions
        if versions is not None and versions.is_due(self.deployment.name, self.started_at):
            relay = VersionReader(relay, versions, self.deployment)
        guarded = None if exchange.guard is None else exchange.guard.guarded_relay(relay, exchange)
        if guarded is not None:
            relay = guarded
        if exchange.flight is not None and (exchange.continuation is None or exchange.continuation.sent is None):
            relay = Recorder(relay, exchange.flight)
        if exchange.continuation is not None:
            relay = exchange.continuation.relay(relay)
        streaming = (CitedStreaming if exchange.passages else Streaming)(connection, self.deployment, relay)
        streaming.guarded = guarded
        streaming.secrets = () if self._target is None else self._target.secrets
        self.streaming = streaming if not binary else BinaryStreaming(connection, self.deployment, relay, kind)
        try:
            await self.streaming.open(self.gateway, since, seconds, self)
        except StreamBroken as broken:
            exchange.output_bytes = relay.output_bytes
            if status := provider_refusals.embedded_status(broken.error_body):
                self.streaming = None
                self._refuse(connection, status, broken.error_body)
                return
            failed = AttemptFailed(str(broken), billed=True, status=self.status, kind=broken.kind)
            failed.guardrail_refusal, failed.guarded_relay = broken.refusal, guarded
            failed.hint, failed.lacked_room = broken.hint, self._is_our_fault(broken.kind)
            raise failed from broken

    async def _read_unstreamed(self, connection: UpstreamConnection, kind: bytes) -> None:
        """Read an answer that is no stream although one was asked for. Raises `AttemptFailed` where it is no answer."""
        if self.exchange.interface.may_answer_unstreamed:
            self._parse_answer(connection, await self._read_body(connection))
            return
        if kind.startswith(b"application/json"):
            data = await self._read_body(connection)
            if status := provider_refusals.embedded_status(data):
                self._refuse(connection, status, data)
                return
        raise AttemptFailed("the upstream did not stream", billed=True, status=self.status, kind="malformed")

    # to the last byte -------------------------------------------------------------------------------------------------

    async def deliver(self) -> None:
        """Deliver the opened answer to the client and settle it. Raises `AttemptFailed` for an answer that cannot be
        used, and for a stream that breaks after its first byte."""
        streaming = self.streaming
        try:
            if streaming is None:
                await self._deliver_whole()
                return
            gateway, exchange = self.gateway, self.exchange
            if gateway.live.policy.severed and (error := stop_error(gateway.live.policy, exchange)) is not None:
                failed = AttemptFailed(error.message, billed=True, status=self.status)
                failed.guardrail_refusal = error
                raise failed
            gateway.call_counters.open_streams += 1
            gateway.streams.add(self)
            try:
                await streaming.relay_rest(gateway, exchange, self.sequence, self)
                self._release_load()  # the final checks take no place at the deployment
                await streaming.finish(gateway, exchange)
            except StreamBroken as broken:
                failed = AttemptFailed(str(broken), billed=True, status=self.status, kind=broken.kind)
                failed.guardrail_refusal, failed.lacked_room = broken.refusal, self._is_our_fault(broken.kind)
                if exchange.response.started:
                    failed.relay = streaming.relay
                raise failed from broken
            finally:
                gateway.call_counters.open_streams -= 1
                gateway.streams.discard(self)
        except asyncio.CancelledError:
            self.cancel()
            raise
        finally:
            self._close()

    async def _deliver_whole(self) -> None:
        """Deliver a JSON answer: priced, settled and durable before the client gets any of it."""
        gateway, exchange = self.gateway, self.exchange
        await gateway.step_batching
        interface, answered = exchange.interface, self._answered
        if answered is None:
            settle.refused_attempt(gateway, exchange, self.status, self._refusal)
            refusal = self._refusal if self._target is None else self._target.mask_refusal(self._refusal)
            data = interface.upstream_refusal_body(self.status, refusal, exchange.id.decode())
            self._release_connection()
            await send_refusal(gateway, exchange, self.status, data)
            return
        outcome, policy = "ok" if interface.is_billed else "not_billed", gateway.live.policy
        if exchange.guard is None and not (policy.severed or interface.can_store_answers or exchange.passages):
            exchange.first_byte = time.perf_counter_ns()
            sequence = settle.attempt_and_call(gateway, exchange, outcome, self.status, answered.usage)
        else:
            settle.attempt(gateway, exchange, outcome, self.status, answered.usage)
            self._release_connection()  # the checks take no place at the deployment
            answered = await self._check_answer(answered)
            exchange.first_byte = time.perf_counter_ns()
            sequence = settle.finish(gateway, exchange, "ok", 200, awaited=True)
        if exchange.flight is not None:
            exchange.flight.whole = answered.data
        call_facts = facts(exchange, settle.remaining_budget(gateway, exchange), known := answer_constants(exchange))
        data = answered.data if answered.kind else interface.with_facts(answered.data, call_facts)
        lines = headers(exchange, cost=True, known=known)
        if sequence is not None and (pending := gateway.journal.durable(sequence)) is not None:
            await pending
        if self._share is None:
            send(exchange, 200, data, lines, answered.kind)
            return
        kind, self._answered = answered.kind, None
        del answered  # the memory share covers one copy of the answer
        self._release_connection()
        await send_large(gateway, exchange, 200, data, lines, kind)

    async def _check_answer(self, answered: UpstreamAnswer) -> UpstreamAnswer:
        """Return a settled answer as the client may get it. Raises the refusal of a guardrail, or of a kill since."""
        gateway, exchange, interface = self.gateway, self.exchange, self.exchange.interface
        check_not_stopped(gateway.live.policy, exchange)
        if exchange.guard is not None:
            if self._share is not None and needs_review(exchange):
                self._share.release()  # a person may take hours
            answered = await exchange.guard.check_answer(exchange, answered)
        elif interface.can_store_answers:
            await stored_answers.keep(gateway, exchange, answered.data)
        check_not_stopped(gateway.live.policy, exchange)
        if exchange.passages and not answered.kind:
            check_whole_answer(gateway, exchange, answered.data)
        return answered

    def take_answer(self) -> UpstreamAnswer | None:
        """Settle the opened answer and return it undelivered, for a cascade to check; None: the upstream refused the
        request, and its reservation is kept for the next attempt."""
        gateway, exchange, answered = self.gateway, self.exchange, self._answered
        try:
            if answered is None:
                settle.refused_attempt(gateway, exchange, self.status, self._refusal, keep_reservation=True)
            else:
                settle.attempt(gateway, exchange, "ok", self.status, answered.usage)
        finally:
            self._close()
        return answered

    # the end of the attempt -------------------------------------------------------------------------------------------

    def sever(self, error: Denied) -> None:
        """End the stream with `error`, after a kill."""
        if self.streaming is not None:
            self.streaming.sever(error)

    def cancel(self) -> None:
        """Cancel the attempt: settle it by its provider's rule and release the connection."""
        exchange = self.exchange
        if not exchange.attempt_started or self._load is None:
            self._close()
            return
        if self.is_refused:
            settle.refused_attempt(self.gateway, exchange, self.status, self._refusal)
            self._close()
            return
        self._note_unsent()
        usage = self._reported_usage()
        if usage is None and exchange.attempt_sent and self.deployment.billing_on_cancel == "drain":
            # a copy of the attempt takes over all it holds, and is drained in the background
            draining = Attempt.__new__(Attempt)
            for name in (*RefusalHandling.__slots__, *RequestPreparation.__slots__, *Attempt.__slots__):
                if hasattr(self, name):
                    setattr(draining, name, getattr(self, name))
            draining.exchange = exchange.fork()
            exchange.draining_bound += exchange.bounds[self.deployment.name]
            if exchange.limit_use is not None:
                limits.mark_draining(exchange.limit_use, exchange.attempt_number)
            self._connection = self._load = self._share = None
            exchange.reservation, exchange.attempt_started = None, 0
            self.gateway.run_in_background(draining._drain())
            return
        settle.cancelled_attempt(self.gateway, exchange, usage)
        self._close()

    def _reported_usage(self) -> Usage | None:
        """The usage that the upstream reported before the attempt was cancelled."""
        exchange = self.exchange
        if self.streaming is not None:
            exchange.output_bytes = self.streaming.relay.output_bytes
            return final_usage(self.streaming.relay)
        return self._answered.usage if self._answered is not None else None

    async def _drain(self) -> None:
        """Read the rest of the answer only to learn its cost."""
        connection, billed = self._connection, True
        usage: Usage | None = None
        try:
            if connection is None:
                raise AssertionError("nothing was sent")
            self.deadline = self.gateway.loop.time() + _DRAIN_SECONDS
            async with patient(_DRAIN_SECONDS):
                if self.streaming is None:
                    await self._read_response(connection)
                if self.streaming is not None:
                    await self.streaming.drain(self.deployment.idle_ms / 1000, self)
            usage, billed = self._reported_usage(), not self.is_refused
        except AttemptFailed as failed:
            billed = failed.billed
        except GroundplanError:
            billed = False  # it was stopped while it connected
        except (StreamBroken, UpstreamFailure, TimeoutError):
            usage = self._reported_usage()  # reported already, where the answer was complete
        finally:
            if billed:
                settle.cancelled_attempt(self.gateway, self.exchange, usage)
            else:
                settle.refused_attempt(self.gateway, self.exchange, self.status, self._refusal if self.status else b"")
            self._close()

    def _close(self) -> None:
        """Release everything that the attempt holds."""
        self._release_connection()
        if self._share is not None:
            self._share.release()
        target, self._target = self._target, None  # a use of a key is undone once
        if target is not None and self.deployment.keys and not self.exchange.attempt_sent:
            self.gateway.targets.undo_key_use(self.deployment, target.key_index)

    def _release_connection(self) -> None:
        """Release the connection and the place at the deployment; memory for the answer is kept."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.release()
        self._release_load()

    def _release_load(self) -> None:
        """Release the place at the deployment."""
        load, self._load = self._load, None
        if load is not None:
            # the time of a whole chat answer depends on the length asked for
            is_telling = self.streaming is not None or self.deployment.kind != "chat"
            self.gateway.loads.record_end(load, self.first_us, self._overload, is_telling)
