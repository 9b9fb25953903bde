"""`/v1/realtime`: a conversation over WebSocket, passed on both ways; each response is a call with its own ledger row.

Money for the next response is reserved before any event is passed on that may begin one, also by the provider's own
turn detection; each `response.done` is settled by its usage. Without room for another response in a budget or a limit,
and within a second of a stop, the conversation ends with an error event and a close code. What is billed in addition to
responses is refused by name, except transcripts of what is said (`transcripts`).
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from contextlib import suppress
from typing import Any

import msgspec
from websockets.exceptions import ConnectionClosed
from websockets.typing import Data

from groundplan.blueprint.model import Deployment
from groundplan.core.errors import Denied, GroundplanError, Invalid
from groundplan.gateway.call import settle, trace
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.call.estimate import HEADER, refuse_cost_headers
from groundplan.gateway.call.exchange import Exchange
from groundplan.gateway.guard.conversation import ConversationGuards, check_session
from groundplan.gateway.http.server import Request, Response
from groundplan.gateway.http.sse import append_field
from groundplan.gateway.http.strict_json import DECODE_ERRORS
from groundplan.gateway.http.websocket import ServerSocket
from groundplan.gateway.surfaces.answers import facts
from groundplan.gateway.surfaces.realtime import close, events
from groundplan.gateway.surfaces.realtime.begin import Caller, begin_attempt_durably, is_outdated
from groundplan.gateway.surfaces.realtime.connect import Connection, connect, count_failure
from groundplan.gateway.surfaces.realtime.permission import Permission, current_deployment
from groundplan.gateway.surfaces.realtime.read import read_event
from groundplan.gateway.surfaces.realtime.response import REALTIME
from groundplan.gateway.surfaces.realtime.session import SessionSettings
from groundplan.gateway.surfaces.realtime.settle import (
    charge_unreserved,
    settle_broken_off,
    settle_response,
    settle_unused,
)
from groundplan.gateway.surfaces.realtime.transcripts import Transcripts, read_transcriber
from groundplan.gateway.surfaces.realtime.upstream import (
    NO_USAGE,
    FinalExchange,
    UpstreamLink,
    close_socket,
    wait_until_lost,
)
from groundplan.gateway.upstream.key_pool import KEY_STATUSES
from groundplan.ledger.model import Usage

CHECK_SECONDS = 0.2
MAX_QUEUED = 8
"""How many out-of-band responses may wait for the active one."""
ERROR_SECONDS = 1.0
"""How long a client may take to receive the error that ends its conversation."""
ACTIVE_RESPONSE_CODE = "conversation_already_has_active_response"
"""OpenAI's error code, by which clients know that the conversation continues."""
_encode = msgspec.json.encode
_IN_PROGRESS = "a response is in progress"


async def converse(gateway: Gateway, request: Request, response: Response) -> None:
    """Serve one conversation from the handshake to the end. Raises a `GroundplanError` where it cannot begin."""
    events.move_key_to_header(request.headers)
    refuse_cost_headers(request.headers, "conversations", HEADER)
    session = Session(gateway, request, response)
    try:
        await session.admit()
        await session.open()
        await session.run()
    finally:
        # a client may leave meanwhile, as most do at the end: that cancels this task, but not the settling
        await asyncio.shield(gateway.run_in_background(session.close()))


class Session:
    """One conversation. At most one response is `_active`; `_reserved` is the reservation for the next one."""

    def __init__(self, gateway: Gateway, request: Request, response: Response) -> None:
        self._gateway = gateway
        self._request = request
        self._response = response
        self._model = events.requested_model(request.target)
        self._trace = trace.trace_of(request.headers)
        self._caller = Caller(gateway, request, response, self._trace)
        self._socket = ServerSocket(request, response)
        self._connection: Connection | None = None
        self._deployment: Deployment | None = None
        self._settings = SessionSettings()
        self._transcripts = Transcripts(self._caller, self._settings)
        self._reserved: Exchange | None = None
        self._active: Exchange | None = None
        self._admitted: Exchange | None = None
        """The admitted call that opened the conversation: its key, workload and person."""
        self._begin_lock = asyncio.Lock()
        self._turn_taken = False
        """Whether the upstream committed a turn and has not announced a response to it yet."""
        self._is_confirmed = False
        """Whether the upstream confirmed that it is making the active response."""
        self._has_sent_audio = False
        """Whether audio was passed on, in which the upstream may detect several turns."""
        self._turn_ended = 0
        """When the turn was committed to which the upstream responds (`perf_counter_ns`); 0: unknown."""
        self._queued: deque[str] = deque()
        """Requests for out-of-band responses that wait for the active one."""
        self._guards: ConversationGuards | None = None
        self._ending: close.ConversationEnded | None = None
        """Why no further response may begin; the active one is passed on to its end and is the last."""

    # money ------------------------------------------------------------------------------------------------------------

    async def admit(self) -> None:
        """Run every check, and reserve the money for one response. Raises as admission does."""
        self._reserved = await self._caller.admit(
            REALTIME, self._model, self._check_admitted, first=self._deployment is None
        )

    def _check_admitted(self, exchange: Exchange) -> None:
        check_session(exchange)
        if self._deployment is not None:
            self._deployment = current_deployment(exchange, self._deployment)

    async def _reserve_next(self, *, on_request: bool = False) -> Exchange:
        """The reservation for the next response, durable in the journal. `on_request`: the client asked for the
        response, so an outdated reservation (prices, budget periods) is replaced. Raises `ConversationEnded`."""
        async with self._begin_lock:
            if on_request and (old := self._reserved) is not None and is_outdated(self._gateway, old):
                self._reserved = None
                await settle_unused(self._gateway, old)
            if self._reserved is None:
                if self._is_stopping:
                    raise close.gateway_stopping()
                try:
                    await self.admit()
                except GroundplanError as error:
                    raise close.ConversationEnded(close.POLICY, error) from error
            exchange, deployment = self._reserved, self._deployment
            if exchange is None or deployment is None:
                raise AssertionError("not admitted")
            if not exchange.attempt_started:
                try:
                    await begin_attempt_durably(self._gateway, exchange, deployment, self._link().key)
                except close.ConversationEnded:
                    if not exchange.attempt_started:
                        self._reserved = None
                    raise
            return exchange

    # connecting -------------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Connect to the first deployment that answers, then accept the client. Raises a `GroundplanError`."""
        exchange = self._reserved
        if exchange is None:
            raise AssertionError("not admitted")
        try:
            self._connection = await connect(self._gateway, exchange, self._trace)
        except GroundplanError as error:
            self._reserved = None
            settle.finish_with_error(self._gateway, exchange, error)
            self._caller.set_call_headers(exchange)
            raise
        self._deployment = self._connection.deployment
        self._socket.accept()
        self._admitted, self._reserved = exchange, None
        self._guards = ConversationGuards(self._gateway, exchange)
        settle.release(self._gateway, exchange)  # an idle conversation holds no money

    # the conversation -------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Pass events on until one side closes, the money is used up, or the conversation is stopped."""
        ways = (
            self._forward_upstream(), self._forward_client(), self._watch_upstream(), self._socket.wait_until_lost(),
            self._watch_policy(),
        )  # fmt: skip
        loops = [asyncio.create_task(way) for way in ways]
        try:
            await asyncio.wait(loops, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for loop in loops:
                loop.cancel()
            results = await asyncio.gather(*loops, return_exceptions=True)
        for result in results:
            ended = close.ConversationEnded(close.BROKEN, result) if isinstance(result, GroundplanError) else result
            if isinstance(ended, close.ConversationEnded):
                await self._settle_failure(ended)
                await self._send_end(ended)
            elif isinstance(ended, Exception):
                raise ended

    async def _settle_failure(self, ended: close.ConversationEnded) -> None:
        active = self._active
        if ended.code == close.BROKEN and active is not None:
            self._active, self._is_confirmed = None, False
            code = close.LOST if ended.error is None else ended.error.code
            if code == close.LOST:
                count_failure(self._gateway, active, self._link().key)
            await settle_response(self._gateway, active, "failed", None, code)

    async def _send_end(self, ended: close.ConversationEnded) -> None:
        if ended.error is not None:
            with suppress(TimeoutError):  # a client that receives nothing must not hold this up
                async with asyncio.timeout(ERROR_SECONDS):
                    await self._send_error(ended.error)
        self._socket.close(ended.code, ended.error.code if ended.error is not None else "")

    async def _send_error(self, error: GroundplanError, event_id: object = None) -> None:
        await self._socket.send(close.error_event(error, event_id))

    def _link(self) -> UpstreamLink:
        if self._connection is None:
            raise AssertionError("not connected")
        return self._connection.link

    async def _forward_client(self) -> None:
        upstream = self._link().socket
        while (text := await self._socket.receive()) is not None:
            event: dict[str, Any] = {}
            try:
                event = await read_event(text)
                kind = str(event.get("type", ""))
                events.check(event)
                waits = kind == "response.create" and self._active is not None
                if waits and not (events.may_wait(event, len(text)) and len(self._queued) < MAX_QUEUED):
                    raise Invalid(_IN_PROGRESS, code=ACTIVE_RESPONSE_CODE, hint="Wait for response.done.")
                if (made := await self._prepare_event(event, len(text))) is not event:
                    text = _encode(made).decode()
            except (msgspec.DecodeError, RecursionError) as error:
                refusal = Invalid(f"this is not an event: {error}", code="body_not_json", hint=events.HINT)
                await self._send_error(refusal)
                continue
            except (Invalid, Denied) as error:
                await self._send_error(error, event.get("event_id"))
                continue
            if waits:
                self._queued.append(text)
                continue
            if kind in events.RESPONSE_TRIGGERS and not await self._may_begin(kind):
                continue
            if kind == "input_audio_buffer.append":
                self._transcripts.count_audio(event)
            try:
                await upstream.send(text)
            except ConnectionClosed as error:
                raise close.upstream_ended() from error

    async def _prepare_event(self, event: dict[str, Any], size: int) -> dict[str, Any]:
        """A client's event as the upstream gets it; the same object if unchanged. Raises `Invalid`, `Denied`."""
        first, talker = self._admitted, self._deployment
        if first is None or first.plan is None or talker is None or self._guards is None:
            raise AssertionError("not admitted")
        event = events.with_upstream_model(event, first.plan, talker)
        event, change = read_transcriber(event, first.plan, talker, first.key)
        event = events.without_tracing(events.with_capped_output(event, self._max_output_tokens))
        made = await self._guards.check_sent(event, size)
        self._transcripts.set_transcriber(change, self._link().key)
        return made

    async def _may_begin(self, kind: str) -> bool:
        """Whether an event that may begin a response is passed on: money is reserved for it, and the conversation is
        not ending. Raises `ConversationEnded`."""
        if self._ending is not None:
            return False
        requested_at = time.perf_counter_ns()
        try:
            exchange = await self._reserve_next(on_request=True)
            if kind != "response.create":
                await self._transcripts.reserve_turn()
        except close.ConversationEnded as ended:
            await self._end_after_response(ended)
            return False
        if kind == "response.create":
            self._activate(exchange, requested_at)
        else:
            self._has_sent_audio = True
        return True

    async def _end_after_response(self, ended: close.ConversationEnded) -> None:
        """Let no further response begin, and clear buffered audio. Raises `ended` if no response is active."""
        self._ending = ended
        with suppress(ConnectionClosed):
            await self._link().socket.send(events.CLEAR)
        if self._active is None:
            raise ended

    def _activate(self, exchange: Exchange, since: int) -> Exchange:
        """Make the reservation that of the active response, unless the other side has begun one meanwhile. Its time is
        counted `since` the response was requested, not since the reservation was made."""
        if self._active is None:
            self._active, self._reserved, self._turn_ended = exchange, None, 0
            exchange.started = max(exchange.started, since)
            exchange.attempt_started = max(exchange.attempt_started, since)
        return self._active

    async def _forward_upstream(self) -> None:
        upstream, first = self._link(), self._connection.first if self._connection is not None else None
        try:
            if first is not None:
                await self._forward_message(first)
            async for message in upstream.socket:
                await self._forward_message(message)
        except ConnectionClosed as error:
            raise close.upstream_ended() from error
        raise close.upstream_ended()

    async def _forward_message(self, message: Data) -> None:
        data = message.encode() if isinstance(message, str) else message
        if handled := await self._handle_event(self._link().target.mask_answer(data)):
            for out in await self._apply_guards(handled):
                await self._socket.send(out)
        if self._ending is not None and self._active is None:
            raise self._ending
        if self._queued and self._active is None and await self._may_begin("response.create"):
            await self._link().socket.send(self._queued.popleft())

    async def _watch_upstream(self) -> None:
        if self._deployment is None:
            raise AssertionError("not connected")
        try:
            await wait_until_lost(self._link().socket, self._deployment)
        except ConnectionClosed as error:
            raise close.upstream_ended() from error
        raise close.upstream_ended()

    async def _apply_guards(self, data: bytes) -> list[bytes]:
        """What the guardrails leave of one event. Raises `ConversationEnded` where they refuse or cannot read it."""
        if self._guards is None:
            raise AssertionError("not admitted")
        try:
            return await self._guards.check_answered(data)
        except Denied as error:
            raise close.ConversationEnded(close.POLICY, error) from error
        except DECODE_ERRORS as error:
            raise close.upstream_ended() from error

    async def _handle_event(self, data: bytes) -> bytes:
        """Handle an event of the upstream; returns it for the client, or nothing. Raises `ConversationEnded`."""
        try:
            event = events.read_server(data)
        except DECODE_ERRORS as error:
            raise close.upstream_ended() from error
        if reply := self._settings.handle(event, self._max_output_tokens):
            await self._link().socket.send(reply)
        elif self._settings.is_cap_reply(event, data) or (event.type == events.CLEARED and self._ending is not None):
            return b""
        data, exchange = await self._transcripts.handle(event, data), self._active
        if event.type in events.TURN_EVENTS:
            await self._handle_turn(taken=event.type == "input_audio_buffer.committed")
        if event.concerns_response:
            self._turn_taken, self._is_confirmed = False, event.type not in events.RESPONSE_ENDS
        if event.concerns_response and exchange is None:  # begun by the upstream's own turn detection
            exchange = self._activate(await self._reserve_begun(event), self._turn_ended or time.perf_counter_ns())
        if exchange is not None and not exchange.first_byte:
            exchange.first_byte = time.perf_counter_ns()
        if event.type == "error":
            await self._return_reservation()
            return self._link().target.mask_refusal(data)
        if event.type not in events.RESPONSE_ENDS or exchange is None:
            return data
        self._active = None
        await self._finish_response(exchange, event)
        return append_field(data, b"groundplan", facts(exchange, settle.remaining_budget(self._gateway, exchange)))

    async def _reserve_begun(self, event: events.ServerEvent) -> Exchange:
        """As `_reserve_next`, for a response that the upstream began by itself. Without room its end is charged as
        reported: nothing more is heard of it."""
        try:
            return await self._reserve_next()
        except close.ConversationEnded:
            if event.type in events.RESPONSE_ENDS and self._admitted is not None and self._deployment is not None:
                await self._finish_response(charge_unreserved(self._gateway, self._admitted, self._deployment), event)
            raise

    async def _handle_turn(self, *, taken: bool) -> None:
        """Reserve for the response to a turn that the upstream detected in audio that was passed on before. `taken`:
        the turn was committed. Raises `ConversationEnded`."""
        if taken:
            self._turn_taken, self._turn_ended = not self._settings.responds_on_request, time.perf_counter_ns()
        if self._ending is not None:
            return
        try:
            if self._reserved is None and not self._settings.responds_on_request:
                await self._reserve_next()
            if not taken:
                await self._transcripts.reserve_turn()
        except close.ConversationEnded as ended:
            await self._end_after_response(ended)

    async def _finish_response(self, exchange: Exchange, event: events.ServerEvent) -> None:
        """Settle a response by its last event."""
        failure, usage, deployment = events.failure_status(event), events.usage_of(event), exchange.deployment
        if failure is None:
            if deployment is not None:  # a success that began before a failure does not end the trouble
                took = (time.perf_counter_ns() - exchange.attempt_started) / 1e9
                self._gateway.health.record_success(deployment.name, self._gateway.loop.time() - took)
            await settle_response(self._gateway, exchange, "ok", usage)
            return
        if failure:
            count_failure(self._gateway, exchange, self._link().key, failure)
        refused = usage is None and failure in KEY_STATUSES  # so it was not processed
        code = "upstream_failed" if failure else "upstream_refused"
        await settle_response(self._gateway, exchange, "not_billed" if refused else "failed", usage, code)

    @property
    def _max_output_tokens(self) -> int:
        """The output tokens that are reserved for one response."""
        if self._deployment is None:
            raise AssertionError("not connected")
        return self._deployment.max_output_tokens

    @property
    def _is_stopping(self) -> bool:
        """Whether this worker lets no further response begin; a replaced worker still does for a while."""
        return not self._gateway.ready and self._gateway.loop.time() >= self._gateway.conversations_until

    async def _return_reservation(self) -> None:
        """After an error event: if the upstream did not confirm the active response, keep its reservation for the next
        one. Should the upstream make the response all the same, it counts as one that it began by itself."""
        async with self._begin_lock:
            active = self._active
            if active is None or self._is_confirmed:
                return
            self._active, active.first_byte = None, 0
            if self._reserved is None:
                self._reserved = active
            else:
                await settle_response(self._gateway, active, "not_billed", Usage(), "upstream_refused")

    async def _watch_policy(self) -> None:
        """Check live policy again and again; raises `ConversationEnded` where the conversation may not continue."""
        gateway = self._gateway
        if self._admitted is None or self._deployment is None:
            raise AssertionError("not admitted")
        permission = Permission(gateway, self._admitted)
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            if self._is_stopping and (self._active is None or gateway.targets.is_stopped):
                raise close.gateway_stopping()  # the active response is passed on to its end while there is time
            if self._response.client_ca_changed and self._ending is None:
                await self._end_after_response(close.certificates_changed())
            try:
                await permission.wait_until_current()
                permission.check(self._deployment)
                if self._transcripts.deployment is not None:
                    permission.check(self._transcripts.deployment)
            except GroundplanError as error:
                raise close.ConversationEnded(close.POLICY, error) from error

    async def close(self) -> None:
        """Settle whatever is open: begun responses by their provider's rule, unused reservations at no cost."""
        if self._socket.accepted:
            self._socket.close(1000, "")
            self._response.finish()
        active, ready, reached = self._active, self._reserved, self._connection
        self._active = self._reserved = None
        if reached is None:
            if ready is not None:
                settle.release(self._gateway, ready)
            return
        self._gateway.loads.release_place(reached.load)
        settings, hear = self._settings, self._transcripts.handle
        final = FinalExchange(
            reached.link.socket, hear, turn_taken=self._turn_taken, responds_on_request=settings.responds_on_request
        )
        try:
            for exchange in (active, ready):
                if exchange is not None:
                    await self._break_off(exchange, final, making=exchange is active)
            if ready is None and self._admitted is not None:
                await self._settle_unreserved(self._admitted, final, making=self._is_confirmed and active is None)
            certain = final.has_ended or settings.detects_no_turns
            await self._transcripts.finish(reached.link.socket, certain=certain)
        finally:
            await close_socket(reached.link.socket)

    async def _break_off(self, exchange: Exchange, final: FinalExchange, *, making: bool) -> None:
        """Settle a response that the client abandoned, or release its reservation."""
        if exchange.attempt_started:
            await settle_broken_off(self._gateway, exchange, await final.end_response(making=making))
        else:
            settle.release(self._gateway, exchange)

    async def _settle_unreserved(self, first: Exchange, final: FinalExchange, *, making: bool) -> None:
        """Break off and settle a response that the upstream makes although nothing is reserved for it."""
        may_respond = self._has_sent_audio and not self._settings.responds_on_request
        if self._deployment is None or not (making or may_respond):
            return
        used = await final.end_response(making=making)
        if used is NO_USAGE or (used is None and not (making or final.has_response)):
            return
        with suppress(GroundplanError):  # it cannot be written down
            await settle_broken_off(self._gateway, charge_unreserved(self._gateway, first, self._deployment), used)
