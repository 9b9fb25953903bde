"""Guardrails of a conversation over WebSocket: its events, both ways, before they are passed on.

Texts, transcripts and what functions are called with are checked; deltas through the same windows as streams. Sound and
images cannot be looked at: where the workload demands it they are refused by name, or declared as `unchecked`. Checks
that need a whole answer, and people who look at answers, have no place in a conversation and refuse it as a whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from groundplan.core.errors import Denied
from groundplan.gateway.guard import media
from groundplan.gateway.guard.relay import refusal_error
from groundplan.gateway.guard.run import NOTHING, Guarding, guards
from groundplan.gateway.http.surrogates import decode_json
from groundplan.gateway.surfaces import answer_text
from groundplan.gateway.surfaces.answer_text import Channel
from groundplan.gateway.surfaces.realtime.events import TRANSCRIPTION_COMPLETED, TRANSCRIPTION_PREFIX, content_parts
from groundplan.governance.guardrails.guard import checked_answer, checked_body, rewritten
from groundplan.governance.guardrails.model import Hit, Refusal
from groundplan.governance.guardrails.window import Refused, Window

if TYPE_CHECKING:
    from groundplan.gateway.call.context import Gateway
    from groundplan.gateway.call.exchange import Exchange

_encode = msgspec.json.encode
_SOUND = frozenset({"response.output_audio.delta", "response.audio.delta"})
_HEARD = frozenset({"input_audio_buffer.append", "input_audio_buffer.commit"})
_SEEN = ("image", "video")
"""In the names of events by which pictures are sent in beside items (Qwen-Omni, GLM)."""
_USER = frozenset({"user", "system"})
"""Roles of what was sent in, when an event of the upstream says it again."""
_CALL = b"function_call"
"""In every event that calls a function."""


def check_session(exchange: Exchange) -> None:
    """Refuse a conversation whose workload demands what none can have. Raises `Denied`."""
    guarding, workload = exchange.guard, exchange.workload
    if guarding is None or workload is None:
        return
    if workload.review is not None:
        raise media.no_review(exchange)
    checks = [*guarding.guard.whole, *(["presidio"] if guarding.guard.presidio_input else [])]
    if checks and not guarding.guard.shadow:
        raise Denied(
            f"the checks {', '.join(dict.fromkeys(checks))} of this workload need a whole text, "
            "for which a conversation does not wait",
            code="guardrail_unchecked",
            hint="Use chat.completions, or another workload.",
        )


class ConversationGuards:
    """Those of one conversation, as they are declared by now: a blueprint or a stop may come while it goes on.
    `exchange`: as whom it was admitted, and `check_session` let it begin."""

    __slots__ = ("_catalog", "_exchange", "_gateway", "_guard", "_policy", "_silent")

    def __init__(self, gateway: Gateway, exchange: Exchange) -> None:
        self._gateway = gateway
        self._exchange = exchange
        self._guard = ConversationGuard(exchange.guard) if isinstance(exchange.guard, Guarding) else None
        self._catalog, self._policy = exchange.catalog, exchange.policy
        self._silent = False
        """The session was told to answer with text only."""

    def sent(self, event: dict[str, Any], size: int) -> dict[str, Any]:
        """An event of the client as the model may see it; the same object where nothing was masked. Raises `Denied`."""
        guard, self._silent = self._newest(), _is_silent(event, self._silent)
        try:
            return event if guard is None else guard.sent(event, size, silent=self._silent)
        finally:
            self._count()

    def answered(self, data: bytes) -> list[bytes]:
        """Events for the client after one more event of the upstream. Raises `Denied`."""
        guard = self._newest()
        try:
            return [data] if guard is None else guard.answered(data)
        finally:
            self._count()

    def _newest(self) -> ConversationGuard | None:
        """Raises `Denied` where what is demanded now no conversation can have."""
        catalog, policy = self._gateway.live.catalog, self._gateway.live.policy
        if catalog is self._catalog and policy is self._policy:
            return self._guard
        workload = self._exchange.workload
        if catalog is not None and workload is not None and (plan := catalog.plans.get(workload.name)) is not None:
            own = self._exchange.fork()
            own.catalog, own.policy, own.plan, own.workload = catalog, policy, plan, plan.workload
            if self._guard is not None or guards(own, plan, policy):
                own.guard = newer = Guarding(self._gateway, own, plan.guard or NOTHING)
                check_session(own)
                if self._guard is None:
                    self._guard = ConversationGuard(newer)
                self._guard.go_on(newer)
        self._catalog, self._policy = catalog, policy
        return self._guard

    def _count(self) -> None:
        if self._guard is not None:
            self._guard.count(self._exchange)


class ConversationGuard:
    """See the module."""

    __slots__ = ("_guarding", "_last", "_windows")

    def __init__(self, guarding: Guarding) -> None:
        self._guarding = guarding
        self._windows: dict[Channel, Window] = {}
        self._last: dict[Channel, dict[str, Any]] = {}

    def go_on(self, newer: Guarding) -> None:
        """By these checks from here on. What was masked is known as before."""
        self._guarding.guard, self._guarding.may_call = newer.guard, newer.may_call

    def count(self, exchange: Exchange) -> None:
        """Add what was found since to the worker's counts."""
        self._guarding.count(exchange)

    # what is sent in -------------------------------------------------------------------------------------------------

    def sent(self, event: dict[str, Any], size: int, *, silent: bool = False) -> dict[str, Any]:
        """See `ConversationGuards`. `silent`: the session answers with text only."""
        guard, kind = self._guarding.guard, str(event.get("type", ""))
        if media.demanded_in(guard):
            for what in _media(event, kind):
                self._unchecked("input", what)
        if media.demanded_out(guard) and "audio" not in guard.unchecked:
            self._only_text(event, kind, silent=silent)
        if guard.input.empty or kind in _HEARD:
            return event
        try:
            made: dict[str, Any] = checked_body(guard, event, size, self._guarding.masks, self._guarding.findings)
        except Refused as refused:
            raise refusal_error(refused.refusal) from refused
        return made

    def _only_text(self, event: dict[str, Any], kind: str, *, silent: bool) -> None:
        """Refuse what would be answered with sound. Raises `Denied`."""
        named = _modalities(event.get("response")) if kind == "response.create" else None
        silent = silent if named is None else named == ["text"]
        if (kind == "response.create" or kind in _HEARD) and not silent:
            self._unchecked("output", "audio")

    def _unchecked(self, place: str, what: str) -> None:
        guard = self._guarding.guard
        if what in guard.unchecked:
            return
        self._guarding.findings.add(place, Hit("unchecked", "block", kind=what))
        if not guard.shadow:
            error = media.refuse([Refusal(place, "unchecked", what)])
            if place == "output":
                error.hint = 'Ask for text: output_modalities: ["text"]. ' + str(error.hint)
            raise error

    # what is answered ------------------------------------------------------------------------------------------------

    def answered(self, data: bytes) -> list[bytes]:
        """See `ConversationGuards`."""
        guarding = self._guarding
        if not guarding.guard.answers_matter(guarding.masks) and _CALL not in data:
            return [data]
        event = decode_json(data)
        if not isinstance(event, dict):
            return [data]
        if event.get("type") in _SOUND:
            self._unchecked("output", "audio")
            return [data]
        try:
            return self._checked(event, data)
        except Refused as refused:
            raise refusal_error(refused.refusal) from refused

    def _checked(self, event: dict[str, Any], data: bytes) -> list[bytes]:
        guarding = self._guarding
        for name in answer_text.called(event):
            if guarding.may_call.now(name):
                guarding.findings.add("output", Hit("tools", "block", kind=name[:60]))
                if not guarding.guard.shadow:
                    raise Refused(Refusal("output", "tools", name[:60]))
        if event.get("logprobs"):  # of what is said: they say it again, word by word
            event = {**event, "logprobs": None}
            data = _encode(event)
        slots = answer_text.slots(event)
        if not slots:
            out = self._flush(event)
            made = rewritten(event, self._text, _USER)
            return [*out, data if made is event else _encode(made)]
        left = ""
        for slot in slots:
            self._last[slot.channel] = event
            slot.holder[slot.name] = released = self._window(slot.channel).feed(slot.text)
            left += released
        return [_encode(event)] if left else []

    def _text(self, text: str, own: bool) -> str:
        """A whole text; `own`: it repeats what was sent in."""
        guarding = self._guarding
        if own:
            return guarding.masks.restore(text)
        return checked_answer(guarding.guard, text, guarding.masks, guarding.findings)

    def _flush(self, event: dict[str, Any]) -> list[bytes]:
        """What windows still hold back that an event ends: texts of what is said come beside the responses."""
        kind, ended, out = str(event.get("type")), answer_text.ended(event), []
        heard = {str(event.get("item_id"))} if kind == TRANSCRIPTION_COMPLETED else set()
        for channel in list(self._windows):
            if channel[0] not in heard if channel[1].startswith(TRANSCRIPTION_PREFIX) else ended is not None:
                continue
            rest = self._windows.pop(channel).end()
            if rest:
                out.append(_encode(answer_text.rest_of(self._last[channel], channel, rest)))
        return out

    def _window(self, channel: Channel) -> Window:
        window = self._windows.get(channel)
        if window is None:
            guarding = self._guarding
            window = self._windows[channel] = Window(
                guarding.guard.output, guarding.masks, guarding.guard.hold,
                lambda hit: guarding.findings.add("output", hit), shadow=guarding.guard.shadow,
            )  # fmt: skip
        return window


def _is_silent(event: dict[str, Any], before: bool) -> bool:
    """Whether a session answers with text only after an event of the client's."""
    named = _modalities(event.get("session")) if event.get("type") == "session.update" else None
    return before if named is None else named == ["text"]


def _modalities(told: object) -> list[Any] | None:
    if not isinstance(told, dict):
        return None
    found = told.get("output_modalities", told.get("modalities"))
    return found if isinstance(found, list) else None


def _media(event: dict[str, Any], kind: str) -> list[str]:
    """What of an event no check can look at."""
    found = ["audio"] if kind in _HEARD else []
    found += ["image"] if any(what in kind for what in _SEEN) else []
    for piece in content_parts(event):
        names = [str(piece.get("type", "")), *(name for name, value in piece.items() if value is not None)]
        found += [what for what in ("audio", "image") if any(what in name for name in names)]
    return found
