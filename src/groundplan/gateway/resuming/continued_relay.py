"""Continuing a broken stream, the part that all surfaces share: what the client has of the answer, and how the stream
of a later attempt becomes its rest. Pure.

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
MAX_OVERLAP = 4000
"""Characters at the end of the sent text in which a repetition is searched."""
MIN_OVERLAP = 12
"""Shorter repetitions may be intended."""
_NO_USAGE = Usage()
_UNREADABLE = (LookupError, TypeError, AttributeError, ValueError, RecursionError, msgspec.DecodeError)
"""Exceptions that reading an unexpected event raises."""
_CAPS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
_LAST_MESSAGE_FIELDS = frozenset({"continue_final_message", "add_generation_prompt"})
"""Fields by which vLLM and SGLang are asked to continue the last message. In the request for the rest it is the
instruction."""
_PREFILL_MARKS = ("prefix", "partial")
"""Marks of a message to continue (Mistral, DeepSeek; Moonshot), which providers take in the last message only."""
_MOST_DIGITS = 19
"""Longer numbers of tokens are passed on as they are: Python refuses to read those of thousands of digits."""
STRUCTURED_FIELDS = (
    "structured_outputs", "structural_tag", "guided_json", "guided_regex", "guided_choice", "guided_grammar",
    "json_schema", "grammar", "regex", "ebnf",
)  # fmt: skip
"""Fields by which self-hosted servers (vLLM, SGLang, llama.cpp) are asked for structured output."""
_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_object = msgspec.json.Decoder(dict[str, Any]).decode


class SentAnswer(msgspec.Struct, frozen=True):
    """What the client has of an answer so far."""

    head: dict[str, Any]
    """Fields that every chunk of the stream has in common."""
    text_buffer: StringIO = msgspec.field(default_factory=StringIO)
    """The text so far, in a buffer to which a piece can be added at the cost of that piece alone."""
    text_events: int = 0
    """Number of events with text: the answer has at least as many tokens."""
    usage: Usage = _NO_USAGE
    """Usage of the attempts that broke."""
    obstacle: str = ""
    """Why the answer cannot be continued; empty where it can."""
    surface_state: Any = None
    """What its surface records besides this, over all attempts."""

    @property
    def text(self) -> str:
        return self.text_buffer.getvalue()


class ContinuedRelay(RelayWrapper, ABC):
    """A relay that records what the client has, and turns a later attempt's stream into the rest of the first one.

    Subclasses read events of the first attempt (`_record_event`) and translate those of later ones (`_continue_event`).
    """

    __slots__ = ("_earlier", "_held_text", "_may_repeat", "_tail", "has_unreadable_event", "sent")

    def __init__(self, inner: Relay, sent: SentAnswer | None) -> None:
        super().__init__(inner)
        self._earlier = sent
        """What earlier attempts sent; None for the first attempt."""
        self.sent = (
            None
            if sent is None
            else replace(sent, text_buffer=deepcopy(sent.text_buffer), surface_state=deepcopy(sent.surface_state))
        )
        """A copy for this attempt: two may run at the same time, and one that fails before the client has anything of
        it must leave no trace."""
        self._held_text = ""
        """Text that is held back while it may still be a repetition."""
        self._tail = "" if sent is None else sent.text[-MAX_OVERLAP:]
        self._may_repeat = bool(self._tail)
        self.has_unreadable_event = False
        """Whether the client got an event that cannot be read, as it is not what its API promises."""

    def feed(self, data: bytes) -> bytes:
        """Feed the inner relay and return its rewritten output. Raises `Malformed`."""
        out = self._inner.feed(data)
        return self._rewrite(out) if out else out

    def closing_events(self, facts: bytes) -> bytes:
        out = self._inner.closing_events(facts)
        try:
            return self._rewrite(out)
        except Malformed as error:
            return self.error_event(str(error), "")

    def _rewrite(self, out: bytes) -> bytes:
        """The output for the client. Raises `Malformed`."""
        if self._earlier is None:
            self._record_output(out)
            return out
        try:
            return b"".join([self._continue_event(data) for data in events(out)])
        except _UNREADABLE as error:
            raise Malformed("an event of the upstream's stream is not what the API promises") from error

    def _record_output(self, out: bytes) -> None:
        """Record the output of a first attempt, which is passed on unchanged even where it cannot be read."""
        try:
            for data in events(out):
                self._record_event(data)
        except _UNREADABLE:
            self.has_unreadable_event = True

    @abstractmethod
    def _record_event(self, data: bytes) -> None:
        """Record what the client gets with one event of the first attempt."""

    @abstractmethod
    def _continue_event(self, data: bytes) -> bytes:
        """Translate one event of a later attempt into those for the client. Raises `Malformed`."""

    def _without_repetition(self, text: str) -> str:
        """The part of new text that the client does not have; empty while the text may still be a repetition."""
        if not self._may_repeat:
            return text
        self._held_text += text
        if self._held_text in self._tail:
            return ""
        return self._release_held_text()

    def _release_held_text(self) -> str:
        """Release the held text without the part that repeats what was sent."""
        self._may_repeat = False
        held, self._held_text = self._held_text, ""
        return held[overlap(self._tail, held) :]


def events(out: bytes) -> Iterator[bytes]:
    """The data of each event in the output of this gateway."""
    for block in out.split(b"\n\n"):
        lines = [line[6:] for line in block.split(b"\n") if line.startswith(b"data: ")]
        if lines:
            yield b"\n".join(lines)


def overlap(tail: str, text: str) -> int:
    """Characters at the beginning of `text` that repeat the end of `tail`."""
    for length in range(min(len(tail), len(text)), 0, -1):
        if tail.endswith(text[:length]):
            return length if length >= min(MIN_OVERLAP, len(tail)) else 0
    return 0


def with_caps(fields: Mapping[str, msgspec.Raw], cap: int, sent: SentAnswer) -> dict[str, msgspec.Raw]:
    """The request fields with every cap on output tokens set to `cap`, and with `min_tokens` (vLLM, SGLang) lowered by
    what was sent: servers refuse a minimum above the cap."""
    limited = {name: msgspec.Raw(b"%d" % cap) if name in _CAPS else raw for name, raw in fields.items()}
    least = bytes(fields.get("min_tokens", b""))
    if least.isdigit() and len(least) < _MOST_DIGITS:
        limited["min_tokens"] = msgspec.Raw(b"%d" % min(cap, max(0, int(least) - sent.text_events)))
    return limited


def continuation_messages(sent: SentAnswer) -> list[dict[str, Any]]:
    """The messages to append: the text so far and the instruction to continue. Empty where no text was sent yet, as
    after reasoning alone: there is nothing to continue, and providers refuse an empty message."""
    if not has_text(sent):
        return []
    return [{"role": "assistant", "content": sent.text}, {"role": "user", "content": INSTRUCTION}]


def continue_messages(ask: Ask, sent: SentAnswer, cap: int) -> Ask:
    """The request with `messages` for the rest of an answer that may have `cap` output tokens as a whole."""
    added, cap_left = continuation_messages(sent), remaining_tokens(cap, sent)
    before = bytes(ask.fields["messages"])
    earlier: list[Any] = list(_list(before))
    fields = with_caps(ask.fields, cap_left, sent)
    if added:
        fields = {name: raw for name, raw in fields.items() if name not in _LAST_MESSAGE_FIELDS}
        prefilled = _continued_prefill(earlier[-1], sent.text) if earlier else None
        if prefilled is not None:
            # two assistant messages in a row are refused where roles have to alternate
            earlier[-1], added = prefilled, added[1:]
    raw = msgspec.Raw(msgspec.json.encode([*earlier, *added]))
    return replace(
        ask, fields={**fields, "messages": raw}, body=b"", messages=ask.messages + len(added),
        size=ask.size + len(raw) - len(before), cap=cap_left,
    )  # fmt: skip


def _continued_prefill(last: msgspec.Raw, text: str) -> dict[str, Any] | None:
    """The last message of a request with `text` after its own; None where it is no text of the assistant."""
    message = msgspec.json.decode(last)
    if not isinstance(message, dict) or message.get("role") != "assistant" or message.get("tool_calls"):
        return None
    content = message.get("content")
    if isinstance(content, str):
        content += text
    elif isinstance(content, list) and content and _is_text_part(content[-1]):
        content = [*content[:-1], {**content[-1], "text": content[-1]["text"] + text}]
    else:
        return None
    return {**{name: value for name, value in message.items() if name not in _PREFILL_MARKS}, "content": content}


def _is_text_part(part: object) -> bool:
    return isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)


def add_usage(usage: Mapping[str, Any], earlier: Mapping[str, int]) -> dict[str, Any]:
    """The usage of all attempts: a usage as its API reports it, with the `earlier` numbers added."""
    return {
        name: value + max(0, earlier[name]) if name in earlier and isinstance(value, int) else value
        for name, value in usage.items()
    }


def has_text(sent: SentAnswer) -> bool:
    """Whether the client has more than white space."""
    return not sent.text.isspace() and bool(sent.text)


def remaining_tokens(cap: int, sent: SentAnswer) -> int:
    """Output tokens that the rest of the answer may have."""
    return max(1, cap - sent.text_events)


def is_set(ask: Ask, name: str) -> bool:
    """Whether a field of the request is set to something other than an empty or off value."""
    return bytes(ask.fields.get(name, msgspec.Raw(b"null"))) not in (b"null", b"false", b"0", b"[]", b'""')


def structured_output_reason(ask: Ask) -> str:
    """Why structured output cannot be continued: the rest would be another complete object. Empty where none is asked
    for."""
    form = ask.fields.get("response_format")
    if form is not None and bytes(form) != b"null" and _type(form) != "text":
        field = "response_format"
    else:
        field = next((name for name in STRUCTURED_FIELDS if is_set(ask, name)), "")
    return f"structured output ({field}) cannot be continued" if field else ""


def _type(form: msgspec.Raw) -> object:
    try:
        return _object(bytes(form)).get("type")
    except msgspec.DecodeError:
        return None
