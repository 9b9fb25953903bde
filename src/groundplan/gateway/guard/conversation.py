"""Guardrails of a conversation over WebSocket: its events, both ways, before they are passed on.

Checks texts, transcripts and function arguments; deltas through the same windows as streams. Sound and images cannot be
checked: if the workload demands checks they are refused by name, unless declared as `unchecked`. A workload with checks
that need a whole answer, or with reviewers, cannot have conversations. Long events are checked in a thread, one at a
time for each conversation, as its checks share what they have masked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from groundplan.core.errors import Denied
from groundplan.gateway.guard import media
from groundplan.gateway.guard.relay import refusal_error
from groundplan.gateway.guard.run import NO_GUARDRAILS, CallGuardrails, needs_guard
from groundplan.gateway.http.surrogates import decode_json
from groundplan.gateway.offload import CHECKED_BYTES, READ_BYTES, in_thread
from groundplan.gateway.surfaces import answer_text
from groundplan.gateway.surfaces.answer_text import Channel
from groundplan.gateway.surfaces.realtime.events import TRANSCRIPTION_COMPLETED, TRANSCRIPTION_PREFIX, content_parts
from groundplan.governance.guardrails.guard import checked_body, rewrite_texts
from groundplan.governance.guardrails.model import Hit, Refusal
from groundplan.governance.guardrails.window import Refused, Window

if TYPE_CHECKING:
    from groundplan.gateway.call.context import Gateway
    from groundplan.gateway.call.exchange import Exchange

_encode = msgspec.json.encode
_SOUND_EVENTS = frozenset({"response.output_audio.delta", "response.audio.delta"})
_AUDIO_INPUT_EVENTS = frozenset({"input_audio_buffer.append", "input_audio_buffer.commit"})
_IMAGE_WORDS = ("image", "video")
"""Occur in the names of events that send images besides items (Qwen-Omni, GLM)."""
_INPUT_ROLES = frozenset({"user", "system"})
"""Roles of input that an event of the upstream repeats."""
_CALL = b"function_call"
"""In every event that calls a function."""


def check_session(exchange: Exchange) -> None:
    """Refuse a conversation whose workload demands checks that none can have. Raises `Denied`."""
    call_guard, workload = exchange.guard, exchange.workload
    if call_guard is None or workload is None:
        return
    if workload.review is not None:
        raise media.review_error(exchange)
    checks = [*call_guard.guard.whole_answer_checks, *(["presidio"] if call_guard.guard.presidio_input else [])]
    if checks and not call_guard.guard.shadow:
        raise Denied(
            f"the checks {', '.join(dict.fromkeys(checks))} of this workload need a whole text, "
            "for which a conversation does not wait",
            code="guardrail_unchecked",
            hint="Use chat.completions, or another workload.",
        )


class ConversationGuards:
    """The guardrails of one conversation as they are declared now: a blueprint or a stop may come while it goes on.
    `exchange`: the admitted call, which passed `check_session`."""

    __slots__ = ("_catalog", "_exchange", "_gateway", "_guard", "_lock", "_policy", "_text_only")

    def __init__(self, gateway: Gateway, exchange: Exchange) -> None:
        self._gateway = gateway
        self._exchange = exchange
        self._guard = ConversationGuard(exchange.guard) if isinstance(exchange.guard, CallGuardrails) else None
        self._catalog, self._policy = exchange.catalog, exchange.policy
        self._text_only = False
        """The session was told to answer with text only."""
        self._lock = asyncio.Lock()

    async def check_sent(self, event: dict[str, Any], size: int) -> dict[str, Any]:
        """An event of the client as the model may see it; the same object if nothing was masked. Raises `Denied`."""
        async with self._lock:
            guard, self._text_only = self._current_guard(), _answers_text_only(event, self._text_only)
            if guard is None:
                return event
            check = partial(guard.check_sent, event, size, text_only=self._text_only)
            with self._recorded():
                return await in_thread(check, checks=True) if guard.is_long(event, size) else check()

    async def check_answered(self, data: bytes) -> list[bytes]:
        """Events for the client after one more event of the upstream. Raises `Denied`."""
        async with self._lock:
            guard = self._current_guard()
            if guard is None:
                return [data]
            with self._recorded():
                short = len(data) <= CHECKED_BYTES
                return guard.check_answered(data) if short else await guard.check_long_answered(data)

    def _current_guard(self) -> ConversationGuard | None:
        """The guard for the current blueprint and policy. Raises `Denied` if they demand checks that no conversation
        can have."""
        catalog, policy = self._gateway.live.catalog, self._gateway.live.policy
        if catalog is self._catalog and policy is self._policy:
            return self._guard
        workload = self._exchange.workload
        if catalog is not None and workload is not None and (plan := catalog.plans.get(workload.name)) is not None:
            own = self._exchange.fork()
            own.catalog, own.policy, own.plan, own.workload = catalog, policy, plan, plan.workload
            if self._guard is not None or needs_guard(own, plan, policy):
                own.guard = newer = CallGuardrails(self._gateway, own, plan.guard or NO_GUARDRAILS)
                check_session(own)
                if self._guard is None:
                    self._guard = ConversationGuard(newer)
                self._guard.use_checks_of(newer)
        self._catalog, self._policy = catalog, policy
        return self._guard

    @contextmanager
    def _recorded(self) -> Iterator[None]:
        """Record the findings of a check, unless it is cancelled: its thread may still be adding to them."""
        try:
            yield
        except Exception:
            self._record_findings()
            raise
        self._record_findings()

    def _record_findings(self) -> None:
        if self._guard is not None:
            self._guard.record_findings(self._exchange)


class ConversationGuard:
    """Checks the events of one conversation."""

    __slots__ = ("_call_guard", "_last_events", "_windows")

    def __init__(self, call_guard: CallGuardrails) -> None:
        self._call_guard = call_guard
        self._windows: dict[Channel, Window] = {}
        self._last_events: dict[Channel, dict[str, Any]] = {}

    def use_checks_of(self, newer: CallGuardrails) -> None:
        """Use the checks of `newer` from now on; the masks stay known."""
        self._call_guard.guard, self._call_guard.call_rule = newer.guard, newer.call_rule

    def record_findings(self, exchange: Exchange) -> None:
        """Add findings since the last call to the worker's counts."""
        self._call_guard.record_findings(exchange)

    # input ------------------------------------------------------------------------------------------------------------

    def is_long(self, event: dict[str, Any], size: int) -> bool:
        """Whether the check of a client's event takes long."""
        is_read = not self._call_guard.guard.input.is_empty and event.get("type") not in _AUDIO_INPUT_EVENTS
        return is_read and size > CHECKED_BYTES

    def check_sent(self, event: dict[str, Any], size: int, *, text_only: bool = False) -> dict[str, Any]:
        """See `ConversationGuards`. `text_only`: the session answers with text only."""
        guard, kind = self._call_guard.guard, str(event.get("type", ""))
        if media.demands_input_checks(guard):
            for what in _unchecked_media(event, kind):
                self._refuse_unchecked("input", what)
        if media.demands_output_checks(guard) and "audio" not in guard.unchecked:
            self._refuse_sound_answer(event, kind, text_only=text_only)
        if guard.input.is_empty or kind in _AUDIO_INPUT_EVENTS:
            return event
        try:
            checked: dict[str, Any] = checked_body(
                guard, event, size, self._call_guard.masks, self._call_guard.findings
            )
        except Refused as refused:
            raise refusal_error(refused.refusal) from refused
        return checked

    def _refuse_sound_answer(self, event: dict[str, Any], kind: str, *, text_only: bool) -> None:
        """Refuse an event that would be answered with sound. Raises `Denied`."""
        named = _modalities(event.get("response")) if kind == "response.create" else None
        text_only = text_only if named is None else named == ["text"]
        if (kind == "response.create" or kind in _AUDIO_INPUT_EVENTS) and not text_only:
            self._refuse_unchecked("output", "audio")

    def _refuse_unchecked(self, place: str, what: str) -> None:
        guard = self._call_guard.guard
        if what in guard.unchecked:
            return
        self._call_guard.findings.add(place, Hit("unchecked", "block", kind=what))
        if not guard.shadow:
            error = media.unchecked_error([Refusal(place, "unchecked", what)])
            if place == "output":
                error.hint = 'Ask for text: output_modalities: ["text"]. ' + str(error.hint)
            raise error

    # output -----------------------------------------------------------------------------------------------------------

    def check_answered(self, data: bytes) -> list[bytes]:
        """See `ConversationGuards`."""
        if not self._affects(data):
            return [data]
        event = decode_json(data)
        return self._check_texts(event, data) if self._has_texts(event) else [data]

    async def check_long_answered(self, data: bytes) -> list[bytes]:
        """As `check_answered`, with what takes long in a thread."""
        if not self._affects(data):
            return [data]
        event = await in_thread(partial(decode_json, data)) if len(data) > READ_BYTES else decode_json(data)
        if not self._has_texts(event):
            return [data]
        return await in_thread(partial(self._check_texts, event, data), checks=True)

    def _affects(self, data: bytes) -> bool:
        call_guard = self._call_guard
        return call_guard.guard.affects_answers(call_guard.masks) or _CALL in data

    def _has_texts(self, event: Any) -> bool:
        """Whether the texts of an event are to be checked, once its sound and its calls of functions are. Raises
        `Denied`."""
        call_guard = self._call_guard
        if not isinstance(event, dict):
            return False
        if event.get("type") in _SOUND_EVENTS:
            self._refuse_unchecked("output", "audio")
            return False
        for name in answer_text.called_names(event):
            if call_guard.call_rule.decide_now(name):
                call_guard.refuse("output", "tools", name[:60])
        return True

    def _check_texts(self, event: dict[str, Any], data: bytes) -> list[bytes]:
        """Raises `Denied`."""
        try:
            return self._checked_events(event, data)
        except Refused as refused:
            raise refusal_error(refused.refusal) from refused

    def _checked_events(self, event: dict[str, Any], data: bytes) -> list[bytes]:
        if event.get("logprobs"):  # they repeat the text token by token
            event = {**event, "logprobs": None}
            data = _encode(event)
        slots = answer_text.slots(event)
        if not slots:
            out = self._flush(event)
            checked = rewrite_texts(event, self._call_guard.check_or_restore, _INPUT_ROLES)
            return [*out, data if checked is event else _encode(checked)]
        released_text = ""
        for slot in slots:
            self._last_events[slot.channel] = event
            slot.holder[slot.name] = released = self._window(slot.channel).feed(slot.text)
            released_text += released
        return [_encode(event)] if released_text else []

    def _flush(self, event: dict[str, Any]) -> list[bytes]:
        """Events with the text that windows still hold back and that this event ends; transcripts of the user come
        besides the responses."""
        kind, ended, out = str(event.get("type")), answer_text.ended_channels(event), []
        heard = {str(event.get("item_id"))} if kind == TRANSCRIPTION_COMPLETED else set()
        for channel in list(self._windows):
            if channel[0] not in heard if channel[1].startswith(TRANSCRIPTION_PREFIX) else ended is not None:
                continue
            rest = self._windows.pop(channel).end()
            if rest:
                out.append(_encode(answer_text.event_with_text(self._last_events[channel], channel, rest)))
        return out

    def _window(self, channel: Channel) -> Window:
        window = self._windows.get(channel)
        if window is None:
            call_guard = self._call_guard
            window = self._windows[channel] = Window(
                call_guard.guard.output, call_guard.masks, call_guard.guard.hold,
                lambda hit: call_guard.findings.add("output", hit), shadow=call_guard.guard.shadow,
            )  # fmt: skip
        return window


def _answers_text_only(event: dict[str, Any], before: bool) -> bool:
    """Whether a session answers with text only after an event of the client."""
    named = _modalities(event.get("session")) if event.get("type") == "session.update" else None
    return before if named is None else named == ["text"]


def _modalities(settings: object) -> list[Any] | None:
    if not isinstance(settings, dict):
        return None
    found = settings.get("output_modalities", settings.get("modalities"))
    return found if isinstance(found, list) else None


def _unchecked_media(event: dict[str, Any], kind: str) -> list[str]:
    """The media in an event that no check can read."""
    found = ["audio"] if kind in _AUDIO_INPUT_EVENTS else []
    found += ["image"] if any(what in kind for what in _IMAGE_WORDS) else []
    for piece in content_parts(event):
        names = [str(piece.get("type", "")), *(name for name, value in piece.items() if value is not None)]
        found += [what for what in ("audio", "image") if any(what in name for name in names)]
    return found
