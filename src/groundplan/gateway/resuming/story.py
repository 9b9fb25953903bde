"""What a client has of a stream that broke, and how a later attempt's stream becomes the rest of it: what all surfaces
have in common. Pure.

The client sees one stream: one id, one model, no text twice, usage of all attempts together.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from copy import deepcopy
from io import StringIO
from typing import Any

import msgspec
from msgspec.structs import replace

from groundplan.gateway.call.ask import Ask
from groundplan.gateway.surfaces.codec import Malformed, Relay
from groundplan.gateway.surfaces.relay_wrapper import RelayWrapper
from groundplan.ledger.model import Usage

INSTRUCTION = (
    "Your answer above was cut off. Go on with it exactly where it ends. Repeat nothing of it, and say nothing about "
    "the interruption."
)
"""What the next deployment is told after the text so far."""
LONGEST_OVERLAP = 4000
"""Characters at the end of what was sent among which a repetition is looked for."""
LEAST_OVERLAP = 12
"""Shorter repetitions may be meant."""
_NOTHING = Usage()
_ODD = (LookupError, TypeError, AttributeError, ValueError, RecursionError, msgspec.DecodeError)
"""What the reading of an event raises that has not what its API promises."""
_CAPS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
SHAPES = (
    "structured_outputs", "structural_tag", "guided_json", "guided_regex", "guided_choice", "guided_grammar",
    "json_schema", "grammar", "regex", "ebnf",
)  # fmt: skip
"""By which servers of one's own (vLLM, SGLang, llama.cpp) are asked for an answer of a form."""
_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_object = msgspec.json.Decoder(dict[str, Any]).decode


class Sent(msgspec.Struct, frozen=True):
    """What the client has of an answer."""

    head: dict[str, Any]
    """Fields that every chunk of the stream has in common."""
    said: StringIO = msgspec.field(default_factory=StringIO)
    """Its text so far: a piece that is added costs as much as itself, however long the text has become."""
    pieces: int = 0
    """Events with text: the answer has no fewer tokens."""
    usage: Usage = _NOTHING
    """Of the attempts that broke."""
    seam: str = ""
    """Why it cannot be continued, in words; empty where it can."""
    more: Any = None
    """What its surface remembers besides, over all attempts."""

    @property
    def text(self) -> str:
        return self.said.getvalue()


class Continued(RelayWrapper, ABC):
    """Remembers what the client has, and makes a later attempt's stream the rest of the first one.

    A surface says what it reads from events (`_note`) and what becomes of a later attempt's (`_next`).
    """

    __slots__ = ("_earlier", "_held", "_open", "_tail", "sent", "unknown")

    def __init__(self, inner: Relay, sent: Sent | None) -> None:
        super().__init__(inner)
        self._earlier = sent
        """None: this is the first attempt."""
        self.sent = None if sent is None else replace(sent, said=deepcopy(sent.said), more=deepcopy(sent.more))
        """What is remembered besides is each attempt's own: two may run beside each other, and one that fails before
        the client has anything of it leaves no trace."""
        self._held = ""
        """Text that may turn out to be a repetition."""
        self._tail = "" if sent is None else sent.text[-LONGEST_OVERLAP:]
        self._open = bool(self._tail)
        self.unknown = False
        """The client has an event that cannot be remembered: it is not what its API promises."""

    def feed(self, data: bytes) -> bytes:
        """As the inner one. Raises `Malformed`."""
        out = self._inner.feed(data)
        return self._rewritten(out) if out else out

    def closing_events(self, facts: bytes) -> bytes:
        out = self._inner.closing_events(facts)
        try:
            return self._rewritten(out)
        except Malformed as error:
            return self.error_event(str(error), "")

    def _rewritten(self, out: bytes) -> bytes:
        """Raises `Malformed`."""
        if self._earlier is None:
            self._remember(out)
            return out
        try:
            return b"".join([self._next(data) for data in events(out)])
        except _ODD as error:
            raise Malformed("an event of the upstream's stream is not what the API promises") from error

    def _remember(self, out: bytes) -> None:
        """What the client gets from a first attempt is passed on as it is, whatever it is."""
        try:
            for data in events(out):
                self._note(data)
        except _ODD:
            self.unknown = True

    @abstractmethod
    def _note(self, data: bytes) -> None:
        """Remember what one event of the first attempt gives the client."""

    @abstractmethod
    def _next(self, data: bytes) -> bytes:
        """The events for one event of a later attempt. Raises `Malformed`."""

    def _trim(self, text: str) -> str:
        """What of new text the client does not have. Held back while it may still be a repetition."""
        if not self._open:
            return text
        self._held += text
        if self._held in self._tail:
            return ""
        return self._released()

    def _released(self) -> str:
        """What of the held text is new, now that no more comes that could make it a repetition."""
        self._open = False
        held, self._held = self._held, ""
        return held[overlap(self._tail, held) :]


def events(out: bytes) -> Iterator[bytes]:
    """The data of events as this gateway writes them."""
    for found in out.split(b"\n\n"):
        lines = [line[6:] for line in found.split(b"\n") if line.startswith(b"data: ")]
        if lines:
            yield b"\n".join(lines)


def overlap(tail: str, text: str) -> int:
    """Characters at the beginning of `text` that repeat the end of `tail`."""
    for length in range(min(len(tail), len(text)), 0, -1):
        if tail.endswith(text[:length]):
            return length if length >= min(LEAST_OVERLAP, len(tail)) else 0
    return 0


def capped(fields: Mapping[str, msgspec.Raw], cap: int) -> dict[str, msgspec.Raw]:
    """The fields with every cap of the answer as it is now: what was sent already counts."""
    return {name: msgspec.Raw(b"%d" % cap) if name in _CAPS else raw for name, raw in fields.items()}


def turns(sent: Sent) -> list[dict[str, Any]]:
    """What follows the caller's messages: the text so far, and that it is to go on. Nothing where no text was sent yet,
    as after reasoning alone: there is nothing to go on with, and providers refuse a message that is empty."""
    if not has_text(sent):
        return []
    return [{"role": "assistant", "content": sent.text}, {"role": "user", "content": INSTRUCTION}]


def with_turns(ask: Ask, sent: Sent, cap: int) -> Ask:
    """The ask of a conversation (`messages`) for the rest of the answer, of which the whole may have `cap` tokens."""
    more, left = turns(sent), left_of(cap, sent)
    before = bytes(ask.fields["messages"])
    raw = msgspec.Raw(msgspec.json.encode([*_list(before), *more]))
    return replace(
        ask, fields={**capped(ask.fields, left), "messages": raw}, body=b"", messages=ask.messages + len(more),
        size=ask.size + len(raw) - len(before), cap=left,
    )  # fmt: skip


def summed(usage: Mapping[str, Any], earlier: Mapping[str, int]) -> dict[str, Any]:
    """What all attempts used: a usage as its API reports it, each number with what the `earlier` ones have of it."""
    return {
        name: value + max(0, earlier[name]) if name in earlier and isinstance(value, int) else value
        for name, value in usage.items()
    }


def has_text(sent: Sent) -> bool:
    """Whether the client has more than white space."""
    return not sent.text.isspace() and bool(sent.text)


def left_of(cap: int, sent: Sent) -> int:
    """Tokens that the rest may have."""
    return max(1, cap - sent.pieces)


def asks(ask: Ask, name: str) -> bool:
    """Whether a field of the request asks for anything."""
    return bytes(ask.fields.get(name, msgspec.Raw(b"null"))) not in (b"null", b"false", b"0", b"[]", b'""')


def shaped(ask: Ask) -> str:
    """Why an answer that is to have a form cannot be continued: the rest of it would be another whole one. Empty where
    it is to have none."""
    form = ask.fields.get("response_format")
    if form is not None and bytes(form) != b"null" and _type(form) != "text":
        found = "response_format"
    else:
        found = next((name for name in SHAPES if asks(ask, name)), "")
    return f"structured output ({found}) cannot be continued" if found else ""


def _type(form: msgspec.Raw) -> object:
    try:
        return _object(bytes(form)).get("type")
    except msgspec.DecodeError:
        return None
