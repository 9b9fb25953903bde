"""Transcripts of what is said in a conversation, which its provider makes in addition to responses if a session asks
for them.

The transcriber is a deployment of type `transcription` that the workload may use, at the same URL, since the provider
of the conversation makes the transcripts itself. Each turn is a call there, at its price: reserved before audio is
passed on, settled by the event with the text. Without such a deployment transcription is refused by name.
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
from groundplan.gateway.surfaces.realtime.begin import Caller, begin_attempt_durably, is_outdated
from groundplan.gateway.surfaces.realtime.close import POLICY, ConversationEnded
from groundplan.gateway.surfaces.realtime.events import (
    TRANSCRIPTION_COMPLETED,
    TRANSCRIPTION_FAILED,
    ServerEvent,
    read_server,
)
from groundplan.gateway.surfaces.realtime.permission import current_deployment
from groundplan.gateway.surfaces.realtime.session import SessionSettings
from groundplan.gateway.surfaces.realtime.settle import (
    charge_unreserved,
    settle_broken_off,
    settle_response,
    settle_unused,
)
from groundplan.gateway.surfaces.transcriptions import Transcriptions
from groundplan.gateway.surfaces.transcripts_stream import PricedUnits, TranscriptUsage
from groundplan.ledger.model import Usage

LAST_SECONDS = 1.0
"""How long to wait for open transcripts after the client left."""
_UNSUPPORTED = "transcription is not supported"
_HINT = (
    "Leave transcription out (of OpenAI's agents set input_audio_transcription to None), or declare a deployment of "
    "type transcription with this model, at the address of this one."
)


class _Item(msgspec.Struct, frozen=True):
    item_id: str = ""
    usage: TranscriptUsage | None = None


class Transcription(Transcriptions):
    """The surface of one transcribed turn: in the ledger as any other transcription."""

    streams = False

    def eligible_deployments(self, ask: Ask, deployments: tuple[Deployment, ...]) -> tuple[Deployment, ...]:
        """The transcriber, which the request names by its deployment name."""
        found = tuple(d for d in deployments if d.name == ask.model and (d.audio_seconds or not d.rates.minute))
        if not found:
            raise Invalid(_UNSUPPORTED, code="field_unsupported", hint=_HINT)
        return found


TRANSCRIPTION = Transcription()
_read = msgspec.json.Decoder(_Item).decode
TranscriberChange = Deployment | bool
"""The new transcriber; False: transcription is switched off; True: no change."""


def read_transcriber(
    event: dict[str, Any], plan: Plan, realtime: Deployment, key: KeyEntry | None = None
) -> tuple[dict[str, Any], TranscriberChange]:
    """(the event with the upstream's name of the transcription model, the change of the transcriber). Raises `Invalid`
    where this `key` may not use the model."""
    session = event.get("session")
    if not isinstance(session, dict):
        return event, True
    change: TranscriberChange = True
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
                change = _find_transcriber(holder[path[-1]], plan, realtime, key)
                if isinstance(change, Deployment):
                    event = _set_path(event, ("session", *path, "model"), change.upstream_model)
    return event, change


def _find_transcriber(setting: Any, plan: Plan, realtime: Deployment, key: KeyEntry | None) -> TranscriberChange:
    if setting is None or setting is False:
        return False
    model = setting.get("model") if isinstance(setting, dict) else None  # an empty object may stand for all defaults
    allowed = plan.allowed(model, TRANSCRIPTION.deployment_kind) if isinstance(model, str) else ()
    for each in allowed if key is None or not key.models else admit.allowed_by_key(key, allowed):
        if (each.site, each.url) == (realtime.site, realtime.url) and (each.audio_seconds or not each.rates.minute):
            return each
    raise Invalid(_UNSUPPORTED, code="field_unsupported", hint=_HINT)


def _set_path(value: dict[str, Any], path: tuple[str, ...], name: str) -> dict[str, Any]:
    first, *rest = path
    return {**value, first: _set_path(value[first], tuple(rest), name) if rest else name}


class Transcripts:
    """The transcripts of one conversation. `_reserved` is the reservation for the next turn."""

    def __init__(self, caller: Caller, settings: SessionSettings) -> None:
        self._caller = caller
        self._gateway = caller.gateway
        self._session = settings
        self.deployment: Deployment | None = None
        """The transcriber, once the client asked for transcripts."""
        self._key = ""
        self._wanted = False
        """Whether the client wants transcripts, by its last setting."""
        self._admitted: Exchange | None = None
        """A copy of the last admitted call, for turns without a reservation."""
        self._reserved: Exchange | None = None
        self._open_turns: dict[str, Exchange] = {}
        """Turns whose transcript is still to come, by item id."""
        self._turn_bytes = 0
        """Bytes of audio that may belong to the next turn."""
        self._is_speaking = False
        self._reserve_lock = asyncio.Lock()

    def set_transcriber(self, change: TranscriberChange, key: str) -> None:
        """Apply a change of the transcriber, over a connection with this provider `key`."""
        if isinstance(change, Deployment):
            self.deployment, self._wanted, self._key = change, True, key
        elif not change:
            self._wanted = False

    # money ------------------------------------------------------------------------------------------------------------

    async def reserve_turn(self) -> None:
        """Reserve the transcript of the next turn, before its audio is passed on. Raises `ConversationEnded`."""
        if self.deployment is None or not (self._wanted or self._session.makes_transcripts):
            return
        async with self._reserve_lock:
            if (old := self._reserved) is not None:
                if not (old.attempt_started and is_outdated(self._gateway, old)):
                    return
                self._reserved = None
                await settle_unused(self._gateway, old)
            try:
                exchange = await self._caller.admit(TRANSCRIPTION, self.deployment.name, self._check_admitted)
            except GroundplanError as error:
                raise ConversationEnded(POLICY, error) from error
            self._admitted, self._reserved = copy.copy(exchange), exchange
            try:
                await begin_attempt_durably(self._gateway, exchange, self.deployment, self._key)
            except ConversationEnded:
                if not exchange.attempt_started:
                    self._reserved = None
                raise

    def _check_admitted(self, exchange: Exchange) -> None:
        if self.deployment is not None:
            self.deployment = current_deployment(exchange, self.deployment)

    def count_audio(self, event: dict[str, Any]) -> None:
        """Count audio of the client: a turn may be no longer than what is reserved for. Raises `ConversationEnded`."""
        deployment, audio = self.deployment, event.get("audio")
        if deployment is None or not deployment.rates.minute or not isinstance(audio, str):
            return
        self._turn_bytes += len(audio) * 3 // 4
        if (
            self._is_speaking or self._session.detects_no_turns
        ) and self._turn_bytes > deployment.audio_seconds * self._session.audio_rate:
            message = f"a turn is longer than {deployment.audio_seconds} s, the longest that is transcribed"
            raise ConversationEnded(
                POLICY, Invalid(message, code="audio_too_long", hint="Commit or clear what was said before.")
            )

    # events of the upstream -------------------------------------------------------------------------------------------

    async def handle(self, event: ServerEvent, data: bytes) -> bytes:
        """Handle one event of the upstream; returns it for the client, a transcript with the facts of its call."""
        if self.deployment is None:
            return data
        if event.type in ("input_audio_buffer.speech_started", "input_audio_buffer.cleared"):
            self._turn_bytes, self._is_speaking = 0, event.type != "input_audio_buffer.cleared"
        elif event.type == "input_audio_buffer.committed":
            self._turn_bytes, self._is_speaking = 0, False
            self._open_turn(_read_item(data).item_id)
        elif event.type in (TRANSCRIPTION_COMPLETED, TRANSCRIPTION_FAILED):
            exchange = await self._settle_turn(_read_item(data), failed=event.type == TRANSCRIPTION_FAILED)
            if exchange is not None:
                return append_field(
                    data, b"groundplan", facts(exchange, settle.remaining_budget(self._gateway, exchange))
                )
        return data

    def _open_turn(self, item: str) -> None:
        """Open the committed turn `item`; its duration counts from here. A second turn under the name of an open one,
        as of upstreams without names, leaves the reservation to the next: replaced, the first would never be
        settled."""
        exchange = self._reserved
        if exchange is None or not exchange.attempt_started or self._session.makes_transcripts is False:
            return
        if item in self._open_turns:
            return
        self._reserved = None
        exchange.started = exchange.attempt_started = time.perf_counter_ns()
        self._open_turns[item] = exchange

    async def _settle_turn(self, item: _Item, *, failed: bool) -> Exchange | None:
        exchange = self._open_turns.pop(item.item_id, None)
        if exchange is None:
            if failed or self._admitted is None or self.deployment is None:
                return None
            # nothing was reserved for this turn
            exchange = charge_unreserved(self._gateway, self._admitted, self.deployment)
        used = _usage_of(exchange.deployment, item)
        if failed:
            await settle_response(self._gateway, exchange, "failed" if used else "not_billed", used, "upstream_failed")
        else:
            await settle_response(self._gateway, exchange, "ok", used)
        return exchange

    # the end ----------------------------------------------------------------------------------------------------------

    async def finish(self, socket: ClientConnection, *, certain: bool) -> None:
        """After the client left: wait for open transcripts, a second at most, and settle them. `certain`: the upstream
        has detected no further turn."""
        with suppress(TimeoutError, ConnectionClosed, *DECODE_ERRORS):
            async with patient(LAST_SECONDS):
                while self._open_turns:
                    data = await socket.recv()
                    data = data.encode() if isinstance(data, str) else data
                    await self.handle(read_server(data), data)
        for exchange in self._open_turns.values():
            await settle_broken_off(self._gateway, exchange, None)
        self._open_turns.clear()
        ready, self._reserved = self._reserved, None
        if ready is None:
            return
        if not ready.attempt_started:
            settle.release(self._gateway, ready)
        elif certain:
            await settle_unused(self._gateway, ready)
        else:
            await settle_broken_off(self._gateway, ready, None)


def _read_item(data: bytes) -> _Item:
    try:
        return _read(data)
    except DECODE_ERRORS:
        return _Item()


def _usage_of(deployment: Deployment | None, item: _Item) -> Usage | None:
    if deployment is None:
        return None
    rates = deployment.rates
    priced = PricedUnits(bool(rates.input or rates.output or rates.input_audio), bool(rates.minute), rates.shortest)
    return None if item.usage is None else priced.used(item.usage.reported_usage())
