"""`/v1/realtime`: a conversation over WebSocket, passed on both ways, each response of it a call with its own row.

Money for the next response is reserved before anything is passed on that may begin one, also by the provider's own turn
detection; each `response.done` is settled by its usage. Without room for another response in a budget or a limit, and
within a second of a stop, the conversation ends with an error event and a close code. What is billed beside responses
is refused by name, but for texts of what is said (`transcripts`).
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
from groundplan.gateway.call.estimate import HEADER, refuse_unheeded
from groundplan.gateway.call.exchange import Exchange
from groundplan.gateway.guard.conversation import ConversationGuards, check_session
from groundplan.gateway.http.server import Request, Response
from groundplan.gateway.http.sse import append_field
from groundplan.gateway.http.strict_json import DECODE_ERRORS
from groundplan.gateway.http.websocket import ServerSocket
from groundplan.gateway.surfaces.answers import facts
from groundplan.gateway.surfaces.realtime.begin import Caller, outdated, written
from groundplan.gateway.surfaces.realtime.close import BROKEN, LOST, POLICY, Ended, broken, doubted, event_of, stopping
from groundplan.gateway.surfaces.realtime.connect import Connected, connect
from groundplan.gateway.surfaces.realtime.events import (
    BEGINS,
    CLEAR,
    CLEARED,
    ENDS,
    HINT,
    TURNS,
    ServerEvent,
    as_named,
    bounded,
    check,
    failure_of,
    is_aside,
    read_client,
    read_server,
    take_key,
    untraced,
    usage_of,
    wanted,
)
from groundplan.gateway.surfaces.realtime.permission import Permission, still
from groundplan.gateway.surfaces.realtime.response import REALTIME
from groundplan.gateway.surfaces.realtime.session import SessionSettings
from groundplan.gateway.surfaces.realtime.settle import broken_off, charge_unreserved, release, settled, unused
from groundplan.gateway.surfaces.realtime.transcripts import Transcripts, read_wish
from groundplan.gateway.surfaces.realtime.upstream import NOTHING, Leaving, Link, end, is_lost
from groundplan.gateway.upstream.key_pool import KEY_STATUSES
from groundplan.ledger.model import Usage

LOOK_SECONDS = 0.2
LATER = 8
"""How many responses beside the conversation wait for the one that is being made."""
TELL_SECONDS = 1.0
"""In which a client is to take why its conversation ends."""
ACTIVE = "conversation_already_has_active_response"
"""OpenAI's code, by which clients know that the conversation goes on."""
_encode = msgspec.json.encode
_IN_PROGRESS = "a response is in progress"


async def converse(gateway: Gateway, request: Request, response: Response) -> None:
    """From the handshake to the end. Raises a `GroundplanError` where the conversation cannot begin."""
    take_key(request.headers)
    refuse_unheeded(request.headers, "conversations", HEADER)
    session = Session(gateway, request, response)
    try:
        await session.admit()
        await session.open()
        await session.run()
    finally:
        # a client may leave meanwhile, as most do with their last word: that ends this task, not what is to be settled
        await asyncio.shield(gateway.run_in_background(session.close()))


class Session:
    """See the module. At most one response is `active`; `ready` is what one that may begin has reserved."""

    def __init__(self, gateway: Gateway, request: Request, response: Response) -> None:
        self._gateway = gateway
        self._request = request
        self._response = response
        self._model = wanted(request.target)
        self._trace = trace.of(request.headers)
        self._caller = Caller(gateway, request, response, self._trace)
        self._socket = ServerSocket(request, response)
        self._reached: Connected | None = None
        self._deployment: Deployment | None = None
        self._told = SessionSettings()
        self._texts = Transcripts(self._caller, self._told)
        self._ready: Exchange | None = None
        self._active: Exchange | None = None
        self._first: Exchange | None = None
        """As whom the conversation was admitted."""
        self._busy = asyncio.Lock()
        self._heeded = False
        """The upstream took what it heard for a turn, and has not said yet that it responds to it."""
        self._begins = False
        """The upstream said that it makes the response which is active."""
        self._sound = False
        """Sound was passed on, in which it may hear several turns."""
        self._turned = 0
        """When the turn ended to which it responds, where it says so."""
        self._later: deque[str] = deque()
        """Responses that are asked for beside the conversation while one is being made."""
        self._guards: ConversationGuards | None = None
        self._last: Ended | None = None
        """There is no room for one more response: the one that is being made is heard to its end, and is the last."""

    # money ------------------------------------------------------------------------------------------------------------

    async def admit(self) -> None:
        """Every check, and the money for one response. Raises as admission does."""
        self._ready = await self._caller.admitted(REALTIME, self._model, self._fits, first=self._deployment is None)

    def _fits(self, exchange: Exchange) -> None:
        check_session(exchange)
        if self._deployment is not None:
            self._deployment = still(exchange, self._deployment)

    async def _begun(self, *, asked: bool = False) -> Exchange:
        """What the next response has reserved, journalled and on the disk; where the client has `asked`, at the prices
        of now, and of budgets' periods that are not over. Raises `Ended`."""
        async with self._busy:
            if asked and (old := self._ready) is not None and outdated(self._gateway, old):
                self._ready = None
                await unused(self._gateway, old)
            if self._ready is None:
                if self._stops:
                    raise stopping()
                try:
                    await self.admit()
                except GroundplanError as error:
                    raise Ended(POLICY, error) from error
            exchange, deployment = self._ready, self._deployment
            if exchange is None or deployment is None:
                raise AssertionError("not admitted")
            if not exchange.attempt_started:
                try:
                    await written(self._gateway, exchange, deployment, self._connected().key)
                except Ended:
                    if not exchange.attempt_started:
                        self._ready = None
                    raise
            return exchange

    # the way there ----------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Connect to the first deployment that answers, then take the client up. Raises a `GroundplanError`."""
        exchange = self._ready
        if exchange is None:
            raise AssertionError("not admitted")
        try:
            self._reached = await connect(self._gateway, exchange, self._trace)
        except GroundplanError as error:
            self._ready = None
            settle.finish_with_error(self._gateway, exchange, error)
            self._caller.name(exchange)
            raise
        self._deployment = self._reached.deployment
        self._socket.accept()
        self._first, self._ready = exchange, None
        self._guards = ConversationGuards(self._gateway, exchange)
        release(self._gateway, exchange)  # a conversation in which nothing is asked for holds no money

    # the conversation -------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until one side closes, money is out, or somebody stops it."""
        ways = (
            self._from_upstream(), self._from_client(), self._until_lost(), self._socket.wait_until_lost(),
            self._watch(),
        )  # fmt: skip
        loops = [asyncio.create_task(way) for way in ways]
        try:
            await asyncio.wait(loops, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for loop in loops:
                loop.cancel()
            results = await asyncio.gather(*loops, return_exceptions=True)
        for result in results:
            ended = Ended(BROKEN, result) if isinstance(result, GroundplanError) else result
            if isinstance(ended, Ended):
                await self._failed(ended)
                await self._tell(ended)
            elif isinstance(ended, Exception):
                raise ended

    async def _failed(self, ended: Ended) -> None:
        active = self._active
        if ended.code == BROKEN and active is not None:
            self._active, self._begins = None, False
            code = LOST if ended.error is None else ended.error.code
            if code == LOST:
                self._blame(active)
            await settled(self._gateway, active, "failed", None, code)

    def _blame(self, exchange: Exchange, status: int = 0) -> None:
        """A response failed, and not by what its client sent: its deployment is asked last for a while if others do; a
        key that was refused (`status`) rests, while there is another one."""
        gateway, deployment, used = self._gateway, exchange.deployment, self._connected().key
        if deployment is None:
            return
        now, index = gateway.loop.time(), next((n for n, key in enumerate(deployment.keys) if key.key == used), None)
        keys = gateway.targets.key_pool(deployment) if index is not None and status in KEY_STATUSES else None
        if keys is None or index is None or not keys.record_refusal(index, status, now, None):
            gateway.health.record_failure(deployment.name, now, None)

    async def _tell(self, ended: Ended) -> None:
        if ended.error is not None:
            with suppress(TimeoutError):  # a client that takes nothing keeps nobody at work for it
                async with asyncio.timeout(TELL_SECONDS):
                    await self._error(ended.error)
        self._socket.close(ended.code, ended.error.code if ended.error is not None else "")

    async def _error(self, error: GroundplanError, asked: object = None) -> None:
        await self._socket.send(event_of(error, asked))

    def _connected(self) -> Link:
        if self._reached is None:
            raise AssertionError("not connected")
        return self._reached.link

    async def _from_client(self) -> None:
        upstream = self._connected().socket
        while (text := await self._socket.receive()) is not None:
            event: dict[str, Any] = {}
            try:
                event = read_client(text)
                kind = str(event.get("type", ""))
                check(event)
                waits = kind == "response.create" and self._active is not None
                if waits and not (is_aside(event) and len(self._later) < LATER):
                    raise Invalid(_IN_PROGRESS, code=ACTIVE, hint="Wait for response.done.")
                if (made := self._passing(event, len(text))) is not event:
                    text = _encode(made).decode()
            except (msgspec.DecodeError, RecursionError) as error:
                await self._error(Invalid(f"this is not an event: {error}", code="body_not_json", hint=HINT))
                continue
            except (Invalid, Denied) as error:
                await self._error(error, event.get("event_id"))
                continue
            if waits:
                self._later.append(text)
                continue
            if kind in BEGINS and not await self._let_begin(kind):
                continue
            if kind == "input_audio_buffer.append":
                self._texts.hold(event)
            try:
                await upstream.send(text)
            except ConnectionClosed as error:
                raise broken() from error

    def _passing(self, event: dict[str, Any], size: int) -> dict[str, Any]:
        """An event of the client for the upstream; the same object if nothing changed. Raises `Invalid`, `Denied`."""
        first, talker = self._first, self._deployment
        if first is None or first.plan is None or talker is None or self._guards is None:
            raise AssertionError("not admitted")
        named, wish = read_wish(as_named(event, first.plan, talker), first.plan, talker, first.key)
        made = self._guards.sent(untraced(bounded(named, self._most)), size)
        self._texts.wants(wish, self._connected().key)
        return made

    async def _let_begin(self, kind: str) -> bool:
        """Whether an event goes on that may begin a response: with money for it, and after no last one. Raises
        `Ended`."""
        if self._last is not None:
            return False
        asked = time.perf_counter_ns()
        try:
            exchange = await self._begun(asked=True)
            if kind != "response.create":
                await self._texts.listen()
        except Ended as ended:
            await self._is_last(ended)
            return False
        if kind == "response.create":
            self._take_up(exchange, asked)
        else:
            self._sound = True
        return True

    async def _is_last(self, ended: Ended) -> None:
        """No further response is begun, nor of sound that lies there. Raises `Ended` where none is being made."""
        self._last = ended
        with suppress(ConnectionClosed):
            await self._connected().socket.send(CLEAR)
        if self._active is None:
            raise ended

    def _take_up(self, exchange: Exchange, since: int) -> Exchange:
        """What is reserved is for the response that begins, unless the other side has begun one meanwhile. It takes its
        time `since` it was asked for, not since somebody began to listen."""
        if self._active is None:
            self._active, self._ready, self._turned = exchange, None, 0
            exchange.started = max(exchange.started, since)
            exchange.attempt_started = max(exchange.attempt_started, since)
        return self._active

    async def _from_upstream(self) -> None:
        upstream, first = self._connected(), self._reached.first if self._reached is not None else None
        try:
            if first is not None:
                await self._pass_on(first)
            async for message in upstream.socket:
                await self._pass_on(message)
        except ConnectionClosed as error:
            raise broken() from error
        raise broken()

    async def _pass_on(self, message: Data) -> None:
        data = message.encode() if isinstance(message, str) else message
        if heard := await self._heard(self._connected().target.mask_answer(data)):
            for out in self._guarded(heard):
                await self._socket.send(out)
        if self._last is not None and self._active is None:
            raise self._last
        if self._later and self._active is None and await self._let_begin("response.create"):
            await self._connected().socket.send(self._later.popleft())

    async def _until_lost(self) -> None:
        if self._deployment is None:
            raise AssertionError("not connected")
        try:
            await is_lost(self._connected().socket, self._deployment)
        except ConnectionClosed as error:
            raise broken() from error
        raise broken()

    def _guarded(self, data: bytes) -> list[bytes]:
        """What of an event the client gets. Raises `Ended` where a check refuses it, or cannot look at it."""
        if self._guards is None:
            raise AssertionError("not admitted")
        try:
            return self._guards.answered(data)
        except Denied as error:
            raise Ended(POLICY, error) from error
        except DECODE_ERRORS as error:
            raise broken() from error

    async def _heard(self, data: bytes) -> bytes:
        """One event of the upstream, for the client; empty: it is none of his. Raises `Ended`."""
        try:
            event = read_server(data)
        except DECODE_ERRORS as error:
            raise broken() from error
        if asked := self._told.hear(event, self._most):
            await self._connected().socket.send(asked)
        elif self._told.is_ours(event, data) or (event.type == CLEARED and self._last is not None):
            return b""
        data, exchange = await self._texts.hear(event, data), self._active
        if event.type in TURNS:
            await self._hears_turn(taken=event.type == "input_audio_buffer.committed")
        if event.of_response:
            self._heeded, self._begins = False, event.type not in ENDS
        if event.of_response and exchange is None:  # the model's own turn detection began it
            exchange = self._take_up(await self._begun(), self._turned or time.perf_counter_ns())
        if exchange is not None and not exchange.first_byte:
            exchange.first_byte = time.perf_counter_ns()
        if event.type == "error":
            await self._unmade()
            return self._connected().target.mask_refusal(data)
        if event.type not in ENDS or exchange is None:
            return data
        self._active = None
        await self._made(exchange, event)
        return append_field(data, b"groundplan", facts(exchange, settle.remaining_budget(self._gateway, exchange)))

    async def _hears_turn(self, *, taken: bool) -> None:
        """One more, perhaps, in sound that was passed on before: its response, too, is reserved for. Raises `Ended`."""
        if taken:
            self._heeded, self._turned = not self._told.waits, time.perf_counter_ns()
        if self._last is not None:
            return
        try:
            if self._ready is None and not self._told.waits:
                await self._begun()
            if not taken:
                await self._texts.listen()
        except Ended as ended:
            await self._is_last(ended)

    async def _made(self, exchange: Exchange, event: ServerEvent) -> None:
        """A response is over, as its last event tells."""
        failure, usage, deployment = failure_of(event), usage_of(event), exchange.deployment
        if failure is None:
            if deployment is not None:  # what began before it was in trouble does not say that this is over
                took = (time.perf_counter_ns() - exchange.attempt_started) / 1e9
                self._gateway.health.record_success(deployment.name, self._gateway.loop.time() - took)
            await settled(self._gateway, exchange, "ok", usage)
            return
        if failure:
            self._blame(exchange, failure)
        outcome = (
            "not_billed" if usage is None and failure in KEY_STATUSES else "failed"
        )  # it was refused, not worked on
        await settled(self._gateway, exchange, outcome, usage, "upstream_failed" if failure else "upstream_refused")

    @property
    def _most(self) -> int:
        """Tokens of an answer that are reserved for."""
        if self._deployment is None:
            raise AssertionError("not connected")
        return self._deployment.max_output_tokens

    @property
    def _stops(self) -> bool:
        """Whether this worker begins no response any more; one that another took over from still does for a while."""
        return not self._gateway.ready and self._gateway.loop.time() >= self._gateway.conversations_until

    async def _unmade(self) -> None:
        """The upstream did not do something: perhaps it makes no response. What was reserved for that is for the next
        one; should it make this one all the same, it is as one that it begins by itself."""
        async with self._busy:
            active = self._active
            if active is None or self._begins:
                return
            self._active, active.first_byte = None, 0
            if self._ready is None:
                self._ready = active
            else:
                await settled(self._gateway, active, "not_billed", Usage(), "upstream_refused")

    async def _watch(self) -> None:
        """Live policy holds for what goes on, too."""
        gateway = self._gateway
        if self._first is None or self._deployment is None:
            raise AssertionError("not admitted")
        permission = Permission(gateway, self._first)
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if self._stops and (self._active is None or gateway.targets.is_stopped):
                raise stopping()  # a response that is being made is heard to its end, while there is time
            if self._response.client_ca_changed and self._last is None:
                await self._is_last(doubted())
            try:
                await permission.renewed()
                permission.check(self._deployment)
                if self._texts.deployment is not None:
                    permission.check(self._texts.deployment)
            except GroundplanError as error:
                raise Ended(POLICY, error) from error

    async def close(self) -> None:
        """Whatever is open is settled: what was begun by its provider's rule, what was not costs nothing."""
        if self._socket.accepted:
            self._socket.close(1000, "")
            self._response.finish()
        active, ready, reached = self._active, self._ready, self._reached
        self._active = self._ready = None
        if reached is None:
            if ready is not None:
                release(self._gateway, ready)
            return
        self._gateway.loads.release_place(reached.load)
        leaving = Leaving(reached.link.socket, self._texts.hear, heeded=self._heeded, waits=self._told.waits)
        try:
            for exchange in (active, ready):
                if exchange is not None:
                    await self._break_off(exchange, leaving, making=exchange is active)
            if ready is None and self._first is not None:
                await self._look_after(self._first, leaving, making=self._begins and active is None)
            await self._texts.leave(reached.link.socket, certain=leaving.over or self._told.silent)
        finally:
            await end(reached.link.socket)

    async def _break_off(self, exchange: Exchange, leaving: Leaving, *, making: bool) -> None:
        """Settle a response that nobody waits for, or what is reserved for one."""
        if exchange.attempt_started:
            await broken_off(self._gateway, exchange, await leaving.used(making=making))
        else:
            release(self._gateway, exchange)

    async def _look_after(self, first: Exchange, leaving: Leaving, *, making: bool) -> None:
        """What the upstream responds to though nothing is reserved for it is broken off, and is a call, too."""
        if self._deployment is None or not (making or (self._sound and not self._told.waits)):
            return
        used = await leaving.used(making=making)
        if used is NOTHING or (used is None and not (making or leaving.certain)):
            return
        with suppress(GroundplanError):  # it cannot be written down
            await broken_off(self._gateway, charge_unreserved(self._gateway, first, self._deployment), used)
