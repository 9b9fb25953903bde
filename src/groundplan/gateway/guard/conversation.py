"""Guardrails of a conversation over WebSocket: its events, both ways, before they are passed on.

Texts, transcripts and what functions are called with are checked; deltas through the same windows as streams. Sound and
images cannot be looked at: where the workload demands it they are refused by name, or declared as `unchecked`. Checks
that need a whole answer, and people who look at answers, have no place in a conversation and refuse it as a whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from groundplan.core.errors import Denied
from groundplan.gateway.guard import media, pieces
from groundplan.gateway.guard.pieces import Channel
from groundplan.gateway.guard.relay import refusal_error
from groundplan.gateway.http.halves import value_of
from groundplan.gateway.surfaces.realtime_events import pieces_of
from groundplan.governance.guardrails.guard import checked_answer, checked_body, rewritten
from groundplan.governance.guardrails.model import Hit, Refusal
from groundplan.governance.guardrails.window import Refused, Window

if TYPE_CHECKING:
    from groundplan.gateway.call.exchange import Exchange
    from groundplan.gateway.guard.run import Guarding

_encode = msgspec.json.encode
_SOUND = frozenset({"response.output_audio.delta", "response.audio.delta"})
_HEARD = frozenset({"input_audio_buffer.append", "input_audio_buffer.commit"})
_USER = frozenset({"user", "system"})
"""Roles of what was sent in, when an event of the upstream says it again."""


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


class ConversationGuard:
    """Of one conversation."""

    __slots__ = ("_guarding", "_last", "_silent", "_windows")

    def __init__(self, guarding: Guarding) -> None:
        self._guarding = guarding
        self._windows: dict[Channel, Window] = {}
        self._last: dict[Channel, dict[str, Any]] = {}
        self._silent = False
        """The session was told to answer with text only."""

    # what is sent in -------------------------------------------------------------------------------------------------

    def sent(self, event: dict[str, Any], size: int) -> dict[str, Any]:
        """An event of the client as the model may see it; the same object where nothing was masked. Raises `Denied`."""
        guard, kind = self._guarding.guard, str(event.get("type", ""))
        if media.demanded_in(guard):
            for what in _media(event, kind):
                self._unchecked("input", what)
        if media.demanded_out(guard) and "audio" not in guard.unchecked:
            self._only_text(event, kind)
        if guard.input.empty or kind in _HEARD:
            return event
        try:
            made: dict[str, Any] = checked_body(guard, event, size, self._guarding.masks, self._guarding.findings)
        except Refused as refused:
            raise refusal_error(refused.refusal) from refused
        return made

    def _only_text(self, event: dict[str, Any], kind: str) -> None:
        """Refuse what would be answered with sound. Raises `Denied`."""
        told = event.get("session" if kind == "session.update" else "response")
        named = _modalities(told) if isinstance(told, dict) else None
        if kind == "session.update" and named is not None:
            self._silent = named == ["text"]
        silent = named == ["text"] if kind == "response.create" and named is not None else self._silent
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
        """Events for the client after one more event of the upstream. Raises `Denied`."""
        guarding = self._guarding
        if not guarding.guard.answers_matter(guarding.masks):
            return [data]
        event = value_of(data)
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
        for name in pieces.called(event):
            if guarding.may_call(name):
                guarding.findings.add("output", Hit("tools", "block", kind=name[:60]))
                if not guarding.guard.shadow:
                    raise Refused(Refusal("output", "tools", name[:60]))
        slots = pieces.slots(event)
        if not slots:
            out = self._flush() if pieces.ended(event) is None else []
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

    def _flush(self) -> list[bytes]:
        """What windows still hold back."""
        out = []
        for channel in list(self._windows):
            rest = self._windows.pop(channel).end()
            if rest:
                out.append(_encode(pieces.rest_of(self._last[channel], channel, rest)))
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


def _modalities(told: dict[str, Any]) -> list[Any] | None:
    found = told.get("output_modalities", told.get("modalities"))
    return found if isinstance(found, list) else None


def _media(event: dict[str, Any], kind: str) -> list[str]:
    """What of an event no check can look at."""
    found = ["audio"] if kind in _HEARD else []
    for piece in pieces_of(event):
        names = [str(piece.get("type", "")), *(name for name, value in piece.items() if value is not None)]
        found += [what for what in ("audio", "image") if any(what in name for name in names)]
    return found
