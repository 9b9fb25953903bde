"""Continuing a broken stream, as far as all surfaces have it in common: what the client has of it, and how the stream
of a later attempt becomes the rest. Pure.

The client sees one stream: one id, one model, no repeated text, the usage of all attempts together.
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
"""The message to the next deployment after the text so far."""
LONGEST_OVERLAP = 4000
"""A repetition is looked for among this many characters at the end of what was sent."""
LEAST_OVERLAP = 12
"""Shorter repetitions may be intended."""
_NO_USAGE = Usage()
_UNREADABLE = (LookupError, TypeError, AttributeError, ValueError, RecursionError, msgspec.DecodeError)
"""What reading an event raises that is not as its API promises."""
_CAPS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
STRUCTURED_FIELDS = (
    "structured_outputs", "structural_tag", "guided_json", "guided_regex", "guided_choice", "guided_grammar",
    "json_schema", "grammar", "regex", "ebnf",
)  # fmt: skip
"""Fields by which self-hosted servers (vLLM, SGLang, llama.cpp) are asked for structured output."""
_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_object = msgspec.json.Decoder(dict[str, Any]).decode


class Sent(msgspec.Struct, frozen=True):
    """What the client has of an answer so far."""

    head: dict[str, Any]
    """Fields that every chunk of the stream has in common."""
    said: StringIO = msgspec.field(default_factory=StringIO)
    """The text so far, in a buffer to which a piece can be added at the cost of that piece alone."""
    pieces: int = 0
    """Number of events with text: the answer has at least as many tokens."""
    usage: Usage = _NO_USAGE
    """Usage of the attempts that broke."""
    seam: str = ""
    """Why the answer cannot be continued; empty where it can."""
    more: Any = None
    """What its surface remembers besides this, over all attempts."""

    @property
    def text(self) -> str:
        return self.said.getvalue()


class Continued(RelayWrapper, ABC):
    """A relay that remembers what the client has, and turns a later attempt's stream into the rest of the first one.

    Subclasses read events of the first attempt (`_note`) and translate those of later ones (`_next`).
    """

    __slots__ = ("_earlier", "_held", "_open", "_tail", "sent", "unknown")

    def __init__(self, inner: Relay, sent: Sent | None) -> None:
        super().__init__(inner)
        self._earlier = sent
        """What earlier attempts sent; None for the first attempt."""
        self.sent = None if sent is None else replace(sent, said=deepcopy(sent.said), more=deepcopy(sent.more))
        """A copy for this attempt: two may run at the same time, and one that fails before the client has anything of
        it must leave no trace."""
        self._held = ""
        """Text held back, as it may turn out to be a repetition."""
        self._tail = "" if sent is None else sent.text[-LONGEST_OVERLAP:]
        self._open = bool(self._tail)
        self.unknown = False
        """Whether the client got an event that cannot be read, as it is not what its API promises."""

    def feed(self, data: bytes) -> bytes:
        """Feed the inner relay and return its rewritten output. Raises `Malformed`."""
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
        except _UNREADABLE as error:
            raise Malformed("an event of the upstream's stream is not what the API promises") from error

    def _remember(self, out: bytes) -> None:
        """Remember the output of a first attempt, which is passed on unchanged even where it cannot be read."""
        try:
            for data in events(out):
                self._note(data)
        except _UNREADABLE:
            self.unknown = True

    @abstractmethod
    def _note(self, data: bytes) -> None:
        """Remember what the client gets by one event of the first attempt."""

    @abstractmethod
    def _next(self, data: bytes) -> bytes:
        """Translate one event of a later attempt into those for the client. Raises `Malformed`."""

    def _trim(self, text: str) -> str:
        """The part of new text that the client does not have; empty while the text may still be a repetition."""
        if not self._open:
            return text
        self._held += text
        if self._held in self._tail:
            return ""
        return self._released()

    def _released(self) -> str:
        """Release the held text without the part that repeats what was sent."""
        self._open = False
        held, self._held = self._held, ""
        return held[overlap(self._tail, held) :]


def events(out: bytes) -> Iterator[bytes]:
    """The data of each event in the output of this gateway."""
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


def with_caps(fields: Mapping[str, msgspec.Raw], cap: int) -> dict[str, msgspec.Raw]:
    """The request fields with every cap on output tokens set to `cap`."""
    return {name: msgspec.Raw(b"%d" % cap) if name in _CAPS else raw for name, raw in fields.items()}


def continuation_messages(sent: Sent) -> list[dict[str, Any]]:
    """The messages to append: the text so far and the instruction to continue. Empty where no text was sent yet, as
    after reasoning alone: there is nothing to continue, and providers refuse an empty message."""
    if not has_text(sent):
        return []
    return [{"role": "assistant", "content": sent.text}, {"role": "user", "content": INSTRUCTION}]


def continue_messages(ask: Ask, sent: Sent, cap: int) -> Ask:
    """The request with `messages` for the rest of an answer that may have `cap` output tokens as a whole."""
    more, left = continuation_messages(sent), remaining_tokens(cap, sent)
    before = bytes(ask.fields["messages"])
    raw = msgspec.Raw(msgspec.json.encode([*_list(before), *more]))
    return replace(
        ask, fields={**with_caps(ask.fields, left), "messages": raw}, body=b"", messages=ask.messages + len(more),
        size=ask.size + len(raw) - len(before), cap=left,
    )  # fmt: skip


def add_usage(usage: Mapping[str, Any], earlier: Mapping[str, int]) -> dict[str, Any]:
    """The usage of all attempts: a usage as its API reports it, with the `earlier` numbers added."""
    return {
        name: value + max(0, earlier[name]) if name in earlier and isinstance(value, int) else value
        for name, value in usage.items()
    }


def has_text(sent: Sent) -> bool:
    """Whether the client has more than white space."""
    return not sent.text.isspace() and bool(sent.text)


def remaining_tokens(cap: int, sent: Sent) -> int:
    """Output tokens that the rest of the answer may have."""
    return max(1, cap - sent.pieces)


def is_set(ask: Ask, name: str) -> bool:
    """Whether a field of the request is set to something other than an empty or off value."""
    return bytes(ask.fields.get(name, msgspec.Raw(b"null"))) not in (b"null", b"false", b"0", b"[]", b'""')


def structured_output_reason(ask: Ask) -> str:
    """Why structured output cannot be continued: the rest would be another complete object. Empty where none is asked
    for."""
    form = ask.fields.get("response_format")
    if form is not None and bytes(form) != b"null" and _type(form) != "text":
        found = "response_format"
    else:
        found = next((name for name in STRUCTURED_FIELDS if is_set(ask, name)), "")
    return f"structured output ({found}) cannot be continued" if found else ""


def _type(form: msgspec.Raw) -> object:
    try:
        return _object(bytes(form)).get("type")
    except msgspec.DecodeError:
        return None
