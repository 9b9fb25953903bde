"""Passes streams of chat on to clients: the upstream's own chunks, the last one held back for the facts of the call.

Does not know who asked, or what the chunks cost.
"""

from __future__ import annotations

import msgspec

from groundplan.economics.prices.provider_usage import normalize_tier
from groundplan.gateway.call.ask import Ask, note_left_out
from groundplan.gateway.http.chunk_template import ChunkTemplate
from groundplan.gateway.http.sse import DONE, END, append_field, format_event
from groundplan.gateway.http.strict_json import DECODE_ERRORS
from groundplan.gateway.surfaces.chat.call_ids import with_text_ids
from groundplan.gateway.surfaces.chat.chunk import Chunk, read_chunk, remove_usage, usage_chunk
from groundplan.gateway.surfaces.chat.whole_messages import WholeMessages
from groundplan.gateway.surfaces.openai_relay import OpenAIRelay, refuse_failure
from groundplan.gateway.surfaces.upstream_json import STREAM, decode_upstream, with_empty_choices
from groundplan.gateway.upstream.provider_refusals import is_error_chunk

_MAX_EARLY_BYTES = 64 << 10
"""At most this many bytes of events before the first choice are held back."""
TEMPLATE_SAMPLES = 20
"""Chunks of one stream from which a template for the others is learned, at most."""


class _CopyChoice(msgspec.Struct, frozen=True):
    index: int = 0
    finish_reason: str | None = None


class _CopyChunk(msgspec.Struct, frozen=True):
    choices: list[_CopyChoice] = []


_copies = msgspec.json.Decoder(_CopyChunk).decode
_LEFT_OUT = b'"left_out"'
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_names = msgspec.json.Decoder(list[str]).decode


class ChatRelay(OpenAIRelay):
    """One stream of chat chunks: what to hold back, what the usage is, and whether the stream ended well."""

    __slots__ = (
        "_early_events", "_samples_left", "_usage_source", "_whole_messages", "copies", "finished", "held",
        "include_usage", "separate_usage", "tier",
    )  # fmt: skip

    def __init__(self, include_usage: bool, samples: int = TEMPLATE_SAMPLES) -> None:
        """`samples`: from how many chunks a template for the others is learned, at most."""
        super().__init__()
        self.include_usage = include_usage
        self.copies = 1
        """How many choices were requested."""
        self._samples_left = samples
        self._early_events: bytes | None = b""
        """Events before the first choice, held back; None: the first choice has come."""
        self.held: bytes | None = None
        """The chunk that is held back until the call is settled."""
        self.finished = False
        self.tier: object = None
        """The service tier that the upstream named last."""
        self.separate_usage = True
        """Send the usage in a chunk of its own, as OpenAI does; else in each chunk in which the upstream sent it."""
        self._usage_source: bytes | None = None
        """The newest chunk with both choices and usage, unless a chunk with usage alone came since."""
        self._whole_messages: WholeMessages | None = None

    def feed(self, data: bytes) -> bytes:
        """As `OpenAIRelay.feed`, but in one step, since this is the most frequent stream. Raises `Malformed`."""
        if data == DONE:
            self.done = True
            return b""
        try:
            chunk = read_chunk(data)
        except DECODE_ERRORS:
            data = with_empty_choices(data)
            chunk = decode_upstream(read_chunk, data, STREAM)
        if chunk.service_tier is not None and chunk.service_tier != self.tier:
            self.tier, self.template = chunk.service_tier, None
        if not self.finished and (text := chunk.plain_text()) is not None:
            self.output_bytes += len(text) if text.isascii() else len(text.encode())
            if text and self._samples_left:
                self._learn_template(data)
            return format_event(data) if self._early_events is None else self._take_early_events() + format_event(data)
        if chunk.is_error():
            refuse_failure(self, chunk, data, self.tier)
        if chunk.has_whole_message():
            return self._relay_messages(data)
        data = with_text_ids(data, STREAM)
        if chunk.usage is not None:
            self.usage = chunk.usage.usage(normalize_tier(self.tier)) or self.usage
        self.output_bytes += chunk.output_bytes()
        return self._relay_chunk(data, chunk)

    def _relay_messages(self, data: bytes) -> bytes:
        """As `feed`, for a chunk in which a choice has a `message`."""
        if self._whole_messages is None:
            self._whole_messages = WholeMessages()
        chunks = self._whole_messages.as_deltas(data, self.output_bytes > 0) or ()
        return b"".join(map(self.feed, chunks))

    def _learn_template(self, data: bytes) -> None:
        """Learn a template from a chunk with nothing but text, until the samples are used up."""
        self._samples_left -= 1
        if (template := ChunkTemplate.of(data)) is not None:
            self.template = template

    def _take_early_events(self) -> bytes:
        """Return the events before the first choice, and hold none back from now on."""
        early, self._early_events = self._early_events or b"", None
        return early

    def _relay_chunk(self, data: bytes, chunk: Chunk) -> bytes:
        if not chunk.choices and is_error_chunk(data):
            refuse_failure(self, chunk, data, self.tier)
        if not chunk.choices and chunk.usage is None and b'"choices"' not in data:
            return b""  # not a chunk: an error in some server's own format, or something that no client reads
        if not chunk.choices and chunk.usage is not None and not self.include_usage:
            return b""
        if not chunk.choices and self._early_events is not None and len(self._early_events) < _MAX_EARLY_BYTES:
            self._early_events += format_event(data)  # such as Azure's filter results for the prompt
            return b""
        if chunk.usage is not None:
            data = self._place_usage(data, chunk)
        earlier = format_event(self.held) if self.held is not None else b""
        if self._early_events is not None:
            earlier = self._take_early_events()
        self.held = None
        ends = chunk.has_finish_reason()
        if ends:
            refuse_failure(self, chunk, data, self.tier, copies=self.copies)
        if ends or self._all_ended or (not chunk.choices and self.finished):
            self.finished, self.template = True, None
            self.held = data
            return earlier
        return earlier + format_event(data)

    def _place_usage(self, data: bytes, chunk: Chunk) -> bytes:
        """A chunk with usage as the client gets it. Usage is sent last only, since OpenAI's client for Java takes the
        first chunk with usage for the end."""
        if not self.include_usage:
            return remove_usage(data)
        if not chunk.choices:
            self._usage_source = None
        elif self.separate_usage:
            self._usage_source, data = data, remove_usage(data)
        return data

    @property
    def _all_ended(self) -> bool:
        """Whether every choice that began has ended."""
        return self.finished

    @property
    def complete(self) -> bool:
        return self.finished

    def closing_events(self, facts: bytes) -> bytes:
        """The held chunk and the usage chunk, the last of them with the facts, then `[DONE]`."""
        last, earlier = self.held, b""
        if last is not None and self._usage_source is not None:
            last, earlier = usage_chunk(self._usage_source), format_event(last)
        return earlier + (format_event(append_field(last, b"groundplan", facts)) if last is not None else b"") + END


def take_left_out(data: bytes, ask: Ask) -> bytes:
    """A whole answer or a chunk of the local translating service without the service's own field `left_out`, whose
    names are noted. Raises `Malformed`."""
    if _LEFT_OUT not in data:
        return data
    fields = decode_upstream(_fields, data)
    if (names := fields.pop("left_out", None)) is None:
        return data
    note_left_out(ask, decode_upstream(_names, bytes(names)))
    return msgspec.json.encode(fields)


class ServiceRelay(ChatRelay):
    """A stream of the local translating service, which names what of the provider's answer it left out."""

    __slots__ = ("_ask",)

    def __init__(self, ask: Ask) -> None:
        super().__init__(ask.include_usage)
        self._ask = ask

    def feed(self, data: bytes) -> bytes:
        return super().feed(take_left_out(data, self._ask))


class CopiesRelay(ChatRelay):
    """A stream with several choices: complete when every choice that began has ended and, unless the upstream said that
    nothing follows, as many ended as were requested."""

    __slots__ = ("_begun", "_ended")

    def __init__(self, include_usage: bool, copies: int) -> None:
        super().__init__(include_usage, samples=0)
        self.copies = copies
        self._begun: set[int] = set()
        self._ended: set[int] = set()

    def feed(self, data: bytes) -> bytes:
        out = super().feed(data)
        if data != DONE:
            for copy in decode_upstream(_copies, data, STREAM).choices:
                self._begun.add(copy.index)
                if copy.finish_reason:
                    self._ended.add(copy.index)
        return out

    @property
    def _all_ended(self) -> bool:
        return self.finished and self._begun == self._ended

    @property
    def complete(self) -> bool:
        return self._all_ended and (self.done or len(self._ended) >= self.copies)
