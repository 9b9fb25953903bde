"""A stream on its way through the guardrails: events are let go when their text is known to be good. Pure.

It stands around the relay of an API surface and reads what that gives the client. Nothing is passed on before a window
lets it go; where the whole answer is needed, nothing leaves before the end. What is refused ends the stream.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import Any

import msgspec

from groundplan.core.errors import Denied, Invalid
from groundplan.gateway.http.strict_json import DECODE_ERRORS, check_complexity
from groundplan.gateway.http.surrogates import decode_json
from groundplan.gateway.surfaces import answer_text
from groundplan.gateway.surfaces.answer_text import Channel, Slot
from groundplan.gateway.surfaces.codec import DeniedAnswer, Malformed, Relay
from groundplan.gateway.surfaces.relay_wrapper import RelayWrapper
from groundplan.governance.guardrails.checks import Checks
from groundplan.governance.guardrails.guard import NO_ROLES, Findings, Guard, checked_answer, rewritten
from groundplan.governance.guardrails.masks import Masks
from groundplan.governance.guardrails.model import Hit, Refusal
from groundplan.governance.guardrails.window import Refused, Window

_encode = msgspec.json.encode
_ENDS = re.compile(rb'"finish_reason"\s*:\s*"')
MayCall = Callable[[str], str]
"""Why a function may not be called; empty where it may."""


def refusal_error(refusal: Refusal) -> Denied:
    """What the caller is told; what was found is not repeated."""
    return Denied(refusal.message, code=refusal.code, hint=refusal.hint)


class GuardedRelay(RelayWrapper):
    """See the module."""

    __slots__ = (
        "_begun", "_calling", "_checks", "_findings", "_guard", "_held", "_last", "_lead", "_masks", "_may_call",
        "_places", "_respells", "_says", "_texts", "_whole", "_windows", "heard", "refusal",
    )  # fmt: skip

    def __init__(self, inner: Relay, guard: Guard, masks: Masks, may_call: MayCall, *, whole: bool) -> None:
        super().__init__(inner)
        self._guard = guard
        self._checks: Checks = guard.output
        self._masks = masks
        self._findings = Findings()
        self._may_call = may_call
        self._begun: set[Channel] = set()
        """Of the answer itself and of calls, those that have begun."""
        self._windows: dict[Channel, Window] = {}
        self._last: dict[Channel, tuple[bytes, dict[str, Any]]] = {}
        """Of each channel the last event, with the line of its name."""
        self._whole = whole
        self._respells = not guard.shadow and not guard.output.empty
        """What is said may have to be said otherwise, or later."""
        self._held: list[bytes] = []
        self._texts: dict[Channel, list[str]] = {}
        self._places: dict[str, None] = {}
        """Its choices, where its surface has any."""
        self._calling: set[str] = set()
        """Those that call a function."""
        self._lead: list[bytes] = []
        self._says = False
        """Something was let go that is more than a beginning."""
        self.heard = False
        """Something for the client came, though perhaps nothing of it is let go yet; for whoever waits to reset."""
        self.refusal: Denied | None = None

    @property
    def texts(self) -> list[str]:
        """As `answer_text.answers` of all of it so far: what a person would read, as the model wrote it."""
        said = {channel: "".join(parts) for channel, parts in self._texts.items() if answer_text.is_said(channel)}
        found: dict[str, list[str]] = {place: [] for place in self._places or ("",)}
        for channel, text in said.items():
            found[channel[0] if self._places else ""].append(text)
        told = {place: "\n".join(filter(None, texts)) for place, texts in found.items()}
        return [text for place, text in told.items() if text.strip() or place not in self._calling]

    @property
    def held(self) -> bytes:
        """What is for the client and waits for the whole of it."""
        return b"".join((*self._held, *self._lead))

    def feed(self, data: bytes) -> bytes:
        """Raises `Malformed`, and `DeniedAnswer` where a check refuses."""
        out = b"".join([self._inner.feed(each) for each in _parted(data)])
        if not out:
            return b""
        self.heard = True
        out = self._guarded(out)
        if not self._whole:
            return out
        self._held.append(out)
        return b""

    def finish(self) -> None:
        """The upstream has said everything: what windows hold back is judged. Raises `DeniedAnswer`."""
        try:
            rest = self._flush(self._windows)
            if rest:
                self._held += [*self._lead, rest]
                self._lead, self._says = [], True
        except Refused as refused:
            raise self.stop(refusal_error(refused.refusal)) from refused

    def closing_events(self, facts: bytes) -> bytes:
        try:
            out = self._guarded(self._inner.closing_events(facts))
        except Malformed as wrong:  # it was settled already; only an event that ends the stream may have text here
            out = self.error_event(str(wrong), "")
        return b"".join((*self._held, out, *self._lead))

    def error_event(self, reason: str, call_id: str) -> bytes:
        told = self._inner.error_event(reason, call_id)
        if self.refusal is None:
            return told
        return told.replace(b'"stream_broken"', b'"%b"' % self.refusal.code.encode())

    def adopt(self, findings: Findings) -> None:
        """Of the attempts of its call this one is what the caller gets: what it found and will find is added to
        `findings`. Of one that lost nobody is told."""
        if self._findings is not findings:
            findings.take(self._findings)
            self._findings = findings

    def stop(self, error: Denied) -> DeniedAnswer:
        """Ends the stream; to be raised."""
        self.refusal = error
        return DeniedAnswer(error)

    def _guarded(self, out: bytes) -> bytes:
        try:
            for block in out.split(b"\n\n"):
                if block:
                    self._lead.append(self._event(block))
        except Refused as refused:
            raise self.stop(refusal_error(refused.refusal)) from refused
        if not self._says:
            return b""  # who speaks is told together with the first words, so that a refusal may still be an error
        told = b"".join(self._lead)
        self._lead = []
        return told

    def _event(self, block: bytes) -> bytes:
        head, _, data = block.partition(b"data: ")
        if data == b"[DONE]":
            self._says = True
            return block + b"\n\n"
        if data.find(b"\n") >= 0:
            data = data.replace(b"\ndata: ", b"\n")
        try:
            check_complexity(data)
            event = decode_json(data)
        except (*DECODE_ERRORS, Invalid) as error:
            raise Malformed("an event of the stream is no JSON that can be looked at") from error
        if self._respells and (bare := answer_text.without_logprobs(event)) is not event:
            event, block = bare, _block(head, _encode(bare))
        self._places.update(dict.fromkeys(answer_text.places(event)))
        self._check_calls(event)
        ends, slots = answer_text.ended(event), answer_text.slots(event)
        self._says |= bool(ends) or (ends is None)
        final = {slot.channel: slot for slot in slots}
        over = self._over(event, ends, slots)
        before = self._flush(over - final.keys())
        if not slots:
            self._forget(ends)
            whole = rewritten(event, self._full, NO_ROLES)
            return before + (block + b"\n\n" if whole is event else _block(head, _encode(whole)))
        left = ""
        for slot in slots:
            self._last[slot.channel] = (head, event)
            self._texts.setdefault(slot.channel, []).append(slot.text)
            window = self._window(slot.channel)
            released = window.feed(slot.text)
            if slot.channel in over and final[slot.channel] is slot:
                released += window.end()
            slot.holder[slot.name] = released
            left += released
        self._forget(ends)
        self._says |= bool(left)
        if not left and not ends and not answer_text.begins(event):
            return before
        return before + _block(head, _encode(event))

    def _over(self, event: Any, ends: set[str] | None, slots: list[Slot]) -> set[Channel]:
        """Channels that have ended once this event is told: with what they are of, or because the answer or a call
        begins, before which clients take all that was thought, said and called for told."""
        begun: dict[str, Channel] = {}
        said = [slot.channel for slot in slots if answer_text.is_said(slot.channel) and slot.text]
        for channel in (*said, *answer_text.channels_of_calls(event)):
            if channel not in self._begun:
                self._begun.add(channel)
                begun[channel[0]] = channel
        channels = {*self._windows, *(slot.channel for slot in slots)}
        return {each for each in channels if ends is None or each[0] in ends or each != begun.get(each[0], each)}

    def _forget(self, ends: set[str] | None) -> None:
        """What is over is not looked at together with what comes."""
        if ends is None:
            self._windows.clear()
        for channel in [each for each in self._windows if ends and each[0] in ends]:
            del self._windows[channel]

    def _full(self, text: str, own: bool) -> str:
        """A whole text that an event says again."""
        return self._masks.restore(text) if own else checked_answer(self._guard, text, self._masks, Findings())

    def _window(self, channel: Channel) -> Window:
        window = self._windows.get(channel)
        if window is None:
            window = self._windows[channel] = Window(
                self._checks, self._masks, self._guard.hold, self._tell, shadow=self._guard.shadow
            )
        return window

    def _tell(self, hit: Hit) -> None:
        self._findings.add("output", hit)

    def _flush(self, channels: Collection[Channel]) -> bytes:
        """What windows of channels that are over still hold back."""
        out = []
        for channel in [each for each in self._windows if each in channels]:
            rest = self._windows[channel].end()
            if rest:
                head, event = self._last[channel]
                out.append(_block(head, _encode(answer_text.rest_of(event, channel, rest))))
        self._says |= bool(out)
        return b"".join(out)

    def _check_calls(self, event: Any) -> None:
        for name in answer_text.called(event):
            self._says = True
            self._calling |= answer_text.callers(event)
            why = self._may_call(name)
            if why:
                self._findings.add("output", Hit("tools", "block", kind=name[:60]))
                if not self._guard.shadow:
                    raise Refused(Refusal("output", "tools", name[:60]))


def _parted(data: bytes) -> tuple[bytes, ...]:
    """An event of the upstream's, in two where it says its last piece of text and how it ended at once, as Gemini and
    Mistral do: how it ended is held back until all of the text was looked at."""
    if _ENDS.search(data) is None:
        return (data,)
    try:
        parts = answer_text.parted(decode_json(data))
    except DECODE_ERRORS:
        return (data,)  # whoever reads it says what is wrong with it
    return (data,) if parts is None else (_encode(parts[0]), _encode(parts[1]))


def _block(head: bytes, data: bytes) -> bytes:
    return b"%bdata: %b\n\n" % (head, data)
