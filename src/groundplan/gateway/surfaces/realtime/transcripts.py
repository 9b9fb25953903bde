"""Transcripts of what is said in a conversation, which its provider makes beside the responses when a session asks for
it.

Who is to make it is a deployment of type `transcription` that the workload may use, at the same address, since the
provider of the conversation does it itself. Each turn that is heard is a call there, at its price: reserved for before
sound is passed on, settled by the event that tells the text. Without such a deployment it is refused by name.
"""

from __future__ import annotations

import asyncio
import copy
import time
from contextlib import suppress
from typing import Any

import msgspec
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from groundplan.blueprint.model import Deployment
from groundplan.core.errors import GroundplanError, Invalid
from groundplan.gateway.call import admit, settle
from groundplan.gateway.call.ask import Ask
from groundplan.gateway.call.exchange import Exchange
from groundplan.gateway.http.sse import append_field
from groundplan.gateway.http.strict_json import DECODE_ERRORS, check_name_spelling
from groundplan.gateway.policy.catalog import Plan
from groundplan.gateway.policy.snapshot import KeyEntry
from groundplan.gateway.stalls import patient
from groundplan.gateway.surfaces.answers import facts
from groundplan.gateway.surfaces.realtime.begin import Caller, outdated, written
from groundplan.gateway.surfaces.realtime.close import POLICY, Ended
from groundplan.gateway.surfaces.realtime.events import HEARD_WHOLE, UNHEARD, ServerEvent, read_server
from groundplan.gateway.surfaces.realtime.permission import still
from groundplan.gateway.surfaces.realtime.session import SessionSettings
from groundplan.gateway.surfaces.realtime.settle import broken_off, charge_unreserved, release, settled, unused
from groundplan.gateway.surfaces.transcriptions import Transcriptions
from groundplan.gateway.surfaces.transcripts_stream import Priced, Reported
from groundplan.ledger.model import Usage

LAST_SECONDS = 1.0
"""How long the text of what was said last may take, once nobody listens any more."""
_NOT = "transcription is not supported"
_HINT = (
    "Leave transcription out (of OpenAI's agents set input_audio_transcription to None), or declare a deployment of "
    "type transcription with this model, at the address of this one."
)


class _Item(msgspec.Struct, frozen=True):
    item_id: str = ""
    usage: Reported | None = None


class Transcription(Transcriptions):
    """The text of one turn: in the ledger as any other transcription."""

    streams = False

    def eligible_deployments(self, ask: Ask, deployments: tuple[Deployment, ...]) -> tuple[Deployment, ...]:
        """The one that is asked, which is named as it was declared."""
        found = tuple(d for d in deployments if d.name == ask.model and (d.audio_seconds or not d.rates.minute))
        if not found:
            raise Invalid(_NOT, code="field_unsupported", hint=_HINT)
        return found


HEARD = Transcription()
_read = msgspec.json.Decoder(_Item).decode
Wish = Deployment | bool
"""Who is to make texts; False: nobody any more, True: it says nothing of it."""


def read_wish(
    event: dict[str, Any], plan: Plan, talker: Deployment, key: KeyEntry | None = None
) -> tuple[dict[str, Any], Wish]:
    """An event of the client under the upstream's name of the model that is to hear, and who that is. Raises `Invalid`
    where it may not be asked for, with this `key`."""
    session = event.get("session")
    if not isinstance(session, dict):
        return event, True
    wish: Wish = True
    for path in (("input_audio_transcription",), ("audio", "input", "transcription")):
        holder: Any = session
        for name in path[:-1]:
            check_name_spelling(holder, path)
            holder = holder.get(name)
            if not isinstance(holder, dict):
                break
        else:
            check_name_spelling(holder, path)
            if path[-1] in holder:
                wish = _wish(holder[path[-1]], plan, talker, key)
                if isinstance(wish, Deployment):
                    event = _named(event, ("session", *path, "model"), wish.upstream_model)
    return event, wish


def _wish(told: Any, plan: Plan, talker: Deployment, key: KeyEntry | None) -> Wish:
    if told is None or told is False:
        return False
    model = told.get("model") if isinstance(told, dict) else None  # an empty object may stand for all defaults
    allowed = plan.allowed(model, HEARD.deployment_kind) if isinstance(model, str) else ()
    for each in allowed if key is None or not key.models else admit.allowed_by_key(key, allowed):
        if (each.site, each.url) == (talker.site, talker.url) and (each.audio_seconds or not each.rates.minute):
            return each
    raise Invalid(_NOT, code="field_unsupported", hint=_HINT)


def _named(value: dict[str, Any], path: tuple[str, ...], name: str) -> dict[str, Any]:
    first, *rest = path
    return {**value, first: _named(value[first], tuple(rest), name) if rest else name}


class Transcripts:
    """Of one conversation. At most one turn is `ready`: what the next one that is heard has reserved."""

    def __init__(self, caller: Caller, told: SessionSettings) -> None:
        self._caller = caller
        self._gateway = caller.gateway
        self._session = told
        self.deployment: Deployment | None = None
        """Who makes them, since it was first asked."""
        self._key = ""
        self._wanted = False
        """What the client asked last."""
        self._first: Exchange | None = None
        """As whom they were admitted."""
        self._ready: Exchange | None = None
        self._open: dict[str, Exchange] = {}
        """Turns whose text is not told yet, by the id of what was said."""
        self._sound = 0
        """Bytes that may be of the next turn."""
        self._speaks = False
        self._busy = asyncio.Lock()

    def wants(self, wish: Wish, key: str) -> None:
        """The client asks for it, or for no more of it, over a connection by this `key`."""
        if isinstance(wish, Deployment):
            self.deployment, self._wanted, self._key = wish, True, key
        elif not wish:
            self._wanted = False

    # money ------------------------------------------------------------------------------------------------------------

    async def listen(self) -> None:
        """Money for the text of the next turn, before it is heard. Raises `Ended`."""
        if self.deployment is None or not (self._wanted or self._session.texts):
            return
        async with self._busy:
            if (old := self._ready) is not None:
                if not (old.attempt_started and outdated(self._gateway, old)):
                    return
                self._ready = None
                await unused(self._gateway, old)
            try:
                exchange = await self._caller.admitted(HEARD, self.deployment.name, self._fits)
            except GroundplanError as error:
                raise Ended(POLICY, error) from error
            self._first, self._ready = copy.copy(exchange), exchange
            try:
                await written(self._gateway, exchange, self.deployment, self._key)
            except Ended:
                if not exchange.attempt_started:
                    self._ready = None
                raise

    def _fits(self, exchange: Exchange) -> None:
        if self.deployment is not None:
            self.deployment = still(exchange, self.deployment)

    def hold(self, event: dict[str, Any]) -> None:
        """Sound of the client: a turn is no longer than what is reserved for. Raises `Ended`."""
        deployment, sound = self.deployment, event.get("audio")
        if deployment is None or not deployment.rates.minute or not isinstance(sound, str):
            return
        self._sound += len(sound) * 3 // 4
        if (self._speaks or self._session.silent) and self._sound > deployment.audio_seconds * self._session.rate:
            told = f"a turn is longer than {deployment.audio_seconds} s, the longest that is transcribed"
            raise Ended(POLICY, Invalid(told, code="audio_too_long", hint="Commit or clear what was said before."))

    # what the upstream says -------------------------------------------------------------------------------------------

    async def hear(self, event: ServerEvent, data: bytes) -> bytes:
        """One event of the upstream, for the client: with what it cost, where it tells a text."""
        if self.deployment is None:
            return data
        if event.type in ("input_audio_buffer.speech_started", "input_audio_buffer.cleared"):
            self._sound, self._speaks = 0, event.type != "input_audio_buffer.cleared"
        elif event.type == "input_audio_buffer.committed":
            self._sound, self._speaks = 0, False
            self._take(_item(data).item_id)
        elif event.type in (HEARD_WHOLE, UNHEARD):
            exchange = await self._settle(_item(data), failed=event.type == UNHEARD)
            if exchange is not None:
                return append_field(
                    data, b"groundplan", facts(exchange, settle.remaining_budget(self._gateway, exchange))
                )
        return data

    def _take(self, item: str) -> None:
        """A turn was heard; its text takes its time from here on."""
        exchange = self._ready
        if exchange is None or not exchange.attempt_started or self._session.texts is False:
            return
        self._ready = None
        exchange.started = exchange.attempt_started = time.perf_counter_ns()
        self._open[item] = exchange

    async def _settle(self, told: _Item, *, failed: bool) -> Exchange | None:
        exchange = self._open.pop(told.item_id, None)
        if exchange is None:
            if failed or self._first is None or self.deployment is None:
                return None
            exchange = charge_unreserved(self._gateway, self._first, self.deployment)  # nothing was reserved for it
        used = _used(exchange.deployment, told)
        if failed:
            await settled(self._gateway, exchange, "failed" if used else "not_billed", used, "upstream_failed")
        else:
            await settled(self._gateway, exchange, "ok", used)
        return exchange

    # the end ----------------------------------------------------------------------------------------------------------

    async def leave(self, socket: ClientConnection, *, certain: bool) -> None:
        """Nobody listens any more. Texts that are being made are waited for, a second at most; `certain`: no further
        turn was heard."""
        with suppress(TimeoutError, ConnectionClosed, *DECODE_ERRORS):
            async with patient(LAST_SECONDS):
                while self._open:
                    data = await socket.recv()
                    data = data.encode() if isinstance(data, str) else data
                    await self.hear(read_server(data), data)
        for exchange in self._open.values():
            await broken_off(self._gateway, exchange, None)
        self._open.clear()
        ready, self._ready = self._ready, None
        if ready is None:
            return
        if not ready.attempt_started:
            release(self._gateway, ready)
        elif certain:
            await unused(self._gateway, ready)
        else:
            await broken_off(self._gateway, ready, None)


def _item(data: bytes) -> _Item:
    try:
        return _read(data)
    except DECODE_ERRORS:
        return _Item()


def _used(deployment: Deployment | None, told: _Item) -> Usage | None:
    if deployment is None:
        return None
    rates = deployment.rates
    priced = Priced(bool(rates.input or rates.output or rates.input_audio), bool(rates.minute), rates.shortest)
    return None if told.usage is None else priced.used(told.usage.told())
