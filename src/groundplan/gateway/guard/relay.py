"""A stream on its way through the guardrails: events are released when their text is known to be good. Pure.

It wraps the relay of an API surface and reads what that gives the client. Nothing is passed on before a window releases
it; if the whole answer is needed, nothing leaves before the end. A refusal ends the stream.
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
from groundplan.governance.guardrails.guard import NO_ROLES, Findings, Guard, checked_answer, rewrite_texts
from groundplan.governance.guardrails.masks import Masks
from groundplan.governance.guardrails.model import Hit, Refusal
from groundplan.governance.guardrails.window import Refused, Window

_encode = msgspec.json.encode
_ENDS = re.compile(rb'"finish_reason"\s*:\s*"')
MayCall = Callable[[str], str]
"""Returns why a function may not be called; empty if it may."""


def refusal_error(refusal: Refusal) -> Denied:
    """The error for the caller; it does not repeat what was found."""
    return Denied(refusal.message, code=refusal.code, hint=refusal.hint)


class GuardedRelay(RelayWrapper):
    """The guarded relay of one attempt's stream."""

    __slots__ = (
        "_calling_choices",
        "_checks",
        "_choices",
        "_earlier_text",
        "_findings",
        "_guard",
        "_has_content",
        "_held",
        "_holds_all",
        "_last_events",
        "_masks",
        "_may_call",
        "_may_rewrite",
        "_preamble",
        "_started_channels",
        "_texts",
        "_windows",
        "has_output",
        "refusal",
    )  # fmt: skip

    def __init__(
        self, inner: Relay, guard: Guard, masks: Masks, may_call: MayCall, *, whole: bool, earlier_text: str = ""
    ) -> None:
        """`earlier_text`: what the client has of this answer from a stream that broke, as models see it."""
        super().__init__(inner)
        self._earlier_text = earlier_text
        self._guard = guard
        self._checks: Checks = guard.output
        self._masks = masks
        self._findings = Findings()
        self._may_call = may_call
        self._started_channels: set[Channel] = set()
        """Channels of the answer itself and of function calls that have begun."""
        self._windows: dict[Channel, Window] = {}
        self._last_events: dict[Channel, tuple[bytes, dict[str, Any]]] = {}
        """The last event of each channel, with its `event:` line."""
        self._holds_all = whole
        self._may_rewrite = not guard.shadow and not guard.output.is_empty
        """Texts may have to be changed, or delayed."""
        self._held: list[bytes] = []
        self._texts: dict[Channel, list[str]] = {}
        self._choices: dict[str, None] = {}
        """The choices of the answer, if its surface has any."""
        self._calling_choices: set[str] = set()
        """Choices that call a function."""
        self._preamble: list[bytes] = []
        self._has_content = False
        """Something was released that is more than a beginning."""
        self.has_output = False
        """Output for the client has come, though perhaps none of it is released yet; ends the wait for a first
        token."""
        self.refusal: Denied | None = None

    @property
    def texts(self) -> list[str]:
        """As `answer_text.answer_texts` for the answer so far: what a person would read, as the model wrote it."""
        texts_by_channel = {
            channel: "".join(parts) for channel, parts in self._texts.items() if answer_text.is_visible_text(channel)
        }
        found: dict[str, list[str]] = {place: [] for place in self._choices or ("",)}
        for channel, text in texts_by_channel.items():
            found[channel[0] if self._choices else ""].append(text)
        texts_by_place = {place: "\n".join(filter(None, texts)) for place, texts in found.items()}
        return [text for place, text in texts_by_place.items() if text.strip() or place not in self._calling_choices]

    @property
    def held(self) -> bytes:
        """Events for the client that are held until the answer is complete."""
        return b"".join((*self._held, *self._preamble))

    def feed(self, data: bytes) -> bytes:
        """Raises `Malformed`, and `DeniedAnswer` where a check refuses."""
        out = b"".join([self._inner.feed(each) for each in _split_last_text(data)])
        if not out:
            return b""
        self.has_output = True
        out = self._check_output(out)
        if not self._holds_all:
            return out
        self._held.append(out)
        return b""

    def finish(self) -> None:
        """Check what windows hold back, once the upstream has ended. Raises `Stopped`."""
        try:
            rest = self._flush(self._windows)
            if rest:
                self._held += [*self._preamble, rest]
                self._preamble, self._has_content = [], True
        except Refused as refused:
            raise self.stop_with(refusal_error(refused.refusal)) from refused

    def closing_events(self, facts: bytes) -> bytes:
        try:
            out = self._check_output(self._inner.closing_events(facts))
        except Malformed as wrong:  # it was settled already; only an event that ends the stream may have text here
            out = self.error_event(str(wrong), "")
        return b"".join((*self._held, out, *self._preamble))

    def error_event(self, reason: str, call_id: str) -> bytes:
        event = self._inner.error_event(reason, call_id)
        if self.refusal is None:
            return event
        return event.replace(b'"stream_broken"', b'"%b"' % self.refusal.code.encode())

    def adopt(self, findings: Findings) -> None:
        """The caller gets this attempt: add its findings, now and later, to `findings`. Attempts that lost report
        none."""
        if self._findings is not findings:
            findings.merge(self._findings)
            self._findings = findings

    def stop_with(self, error: Denied) -> DeniedAnswer:
        """End the stream: the exception to raise."""
        self.refusal = error
        return DeniedAnswer(error)

    def _check_output(self, out: bytes) -> bytes:
        try:
            for block in out.split(b"\n\n"):
                if block:
                    self._preamble.append(self._check_event(block))
        except Refused as refused:
            raise self.stop_with(refusal_error(refused.refusal)) from refused
        if not self._has_content:
            return b""  # the role is sent together with the first words, so that a refusal may still be an error
        released = b"".join(self._preamble)
        self._preamble = []
        return released

    def _check_event(self, block: bytes) -> bytes:
        head, _, data = block.partition(b"data: ")
        if data == b"[DONE]":
            self._has_content = True
            return block + b"\n\n"
        if data.find(b"\n") >= 0:
            data = data.replace(b"\ndata: ", b"\n")
        try:
            check_complexity(data)
            event = decode_json(data)
        except (*DECODE_ERRORS, Invalid) as error:
            raise Malformed("an event of the stream is no JSON that can be looked at") from error
        if self._may_rewrite and (bare := answer_text.without_logprobs(event)) is not event:
            event, block = bare, _format_block(head, _encode(bare))
        self._choices.update(dict.fromkeys(answer_text.choices_of(event)))
        self._check_calls(event)
        ends, slots = answer_text.ended_channels(event), answer_text.slots(event)
        self._has_content |= bool(ends) or (ends is None)
        final = {slot.channel: slot for slot in slots}
        ended = self._ended_channels(event, ends, slots)
        before = self._flush(ended - final.keys())
        if not slots:
            self._drop_windows(ends)
            checked = rewrite_texts(event, self._check_full_text, NO_ROLES)
            return before + (block + b"\n\n" if checked is event else _format_block(head, _encode(checked)))
        released_text = ""
        for slot in slots:
            self._last_events[slot.channel] = (head, event)
            self._texts.setdefault(slot.channel, []).append(slot.text)
            window = self._window(slot.channel)
            released = window.feed(slot.text)
            if slot.channel in ended and final[slot.channel] is slot:
                released += window.end()
            slot.holder[slot.name] = released
            released_text += released
        self._drop_windows(ends)
        self._has_content |= bool(released_text)
        if not released_text and not ends and not answer_text.has_other_content(event):
            return before
        return before + _format_block(head, _encode(event))

    def _ended_channels(self, event: Any, ends: set[str] | None, slots: list[Slot]) -> set[Channel]:
        """Channels that have ended after this event: with the choices that it ends, or because the answer or a call
        begins, before which clients take all reasoning, text and calls as complete."""
        started: dict[str, Channel] = {}
        speaking = [slot.channel for slot in slots if answer_text.is_visible_text(slot.channel) and slot.text]
        for channel in (*speaking, *answer_text.channels_of_calls(event)):
            if channel not in self._started_channels:
                self._started_channels.add(channel)
                started[channel[0]] = channel
        channels = {*self._windows, *(slot.channel for slot in slots)}
        return {each for each in channels if ends is None or each[0] in ends or each != started.get(each[0], each)}

    def _drop_windows(self, ends: set[str] | None) -> None:
        """Drop the windows of what has ended: it is not checked together with what comes."""
        if ends is None:
            self._windows.clear()
        for channel in [each for each in self._windows if ends and each[0] in ends]:
            del self._windows[channel]

    def _check_full_text(self, text: str, own: bool) -> str:
        """A complete text that an event repeats, after its check."""
        return self._masks.restore(text) if own else checked_answer(self._guard, text, self._masks, Findings())

    def _window(self, channel: Channel) -> Window:
        window = self._windows.get(channel)
        if window is None:
            window = self._windows[channel] = Window(
                self._checks, self._masks, self._guard.hold, self._record_hit, shadow=self._guard.shadow
            )
            if self._earlier_text and answer_text.is_visible_text(channel):
                window.continue_after(self._earlier_text)
                self._earlier_text = ""
        return window

    def _record_hit(self, hit: Hit) -> None:
        self._findings.add("output", hit)

    def _flush(self, channels: Collection[Channel]) -> bytes:
        """The text that windows of ended channels still hold back."""
        out = []
        for channel in [each for each in self._windows if each in channels]:
            rest = self._windows[channel].end()
            if rest:
                head, event = self._last_events[channel]
                out.append(_format_block(head, _encode(answer_text.event_with_text(event, channel, rest))))
        self._has_content |= bool(out)
        return b"".join(out)

    def _check_calls(self, event: Any) -> None:
        for name in answer_text.called_names(event):
            self._has_content = True
            self._calling_choices |= answer_text.calling_choices(event)
            reason = self._may_call(name)
            if reason:
                self._findings.add("output", Hit("tools", "block", kind=name[:60]))
                if not self._guard.shadow:
                    raise Refused(Refusal("output", "tools", name[:60]))


def _split_last_text(data: bytes) -> tuple[bytes, ...]:
    """An event of the upstream, split in two if it contains both the last piece of text and the finish reason, as
    Gemini's and Mistral's do: the finish reason is held back until all of the text was checked."""
    if _ENDS.search(data) is None:
        return (data,)
    try:
        parts = answer_text.split_final(decode_json(data))
    except DECODE_ERRORS:
        return (data,)  # the reader reports what is wrong with it
    return (data,) if parts is None else (_encode(parts[0]), _encode(parts[1]))


def _format_block(head: bytes, data: bytes) -> bytes:
    return b"%bdata: %b\n\n" % (head, data)
