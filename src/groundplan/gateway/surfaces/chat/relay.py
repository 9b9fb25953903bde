"""Streams of chat as callers get them: an upstream's own chunks, the last of which is held for the facts of its call.

Does not know who asked, or what the chunks cost.
"""

from __future__ import annotations

import msgspec

from groundplan.economics.prices.provider_usage import normalize_tier
from groundplan.gateway.http.chunk_template import ChunkTemplate
from groundplan.gateway.http.sse import DONE, END, append_field, format_event
from groundplan.gateway.http.strict_json import DECODE_ERRORS
from groundplan.gateway.surfaces.chat.chunk import Chunk, only_usage, read_chunk, without_usage
from groundplan.gateway.surfaces.openai_relay import OpenAIRelay, refuse_unfinished, stream_error
from groundplan.gateway.surfaces.upstream_json import STREAM, understood, with_choices

_MOST_EARLY = 64 << 10
"""Bytes that are held back of what is told before the first choice."""
LOOKS = 20
"""Chunks of one stream that are looked at for what the others have in common."""


class _Copy(msgspec.Struct, frozen=True):
    index: int = 0
    finish_reason: str | None = None


class _Copies(msgspec.Struct, frozen=True):
    choices: list[_Copy] = []


_copies = msgspec.json.Decoder(_Copies).decode


class ChatRelay(OpenAIRelay):
    """A stream of chat chunks: what to hold back, what the usage is, whether it ended well."""

    __slots__ = ("_early", "_looks", "_told", "apart", "finished", "held", "include_usage", "tier")

    def __init__(self, include_usage: bool, looks: int = LOOKS) -> None:
        """`looks`: at so many chunks for what the others have in common."""
        super().__init__()
        self.include_usage = include_usage
        self._looks = looks
        self._early: bytes | None = b""
        """What is told before the first choice; None: that has come."""
        self.held: bytes | None = None
        self.finished = False
        self.tier: object = None
        """As it was last named."""
        self.apart = True
        """Usage is told in a chunk of its own, as OpenAI does; else in each in which the upstream tells it."""
        self._told: bytes | None = None
        """The newest chunk of an answer that had usage in it, too, where nothing came since that has it alone."""

    def feed(self, data: bytes) -> bytes:
        """As `OpenAIRelay`'s, in one step, since nothing is streamed as often. Raises `Malformed`."""
        if data == DONE:
            self.done = True
            return b""
        try:
            chunk = read_chunk(data)
        except DECODE_ERRORS:
            data = with_choices(data)
            chunk = understood(read_chunk, data, STREAM)
        if chunk.service_tier is not None and chunk.service_tier != self.tier:
            self.tier, self.template = chunk.service_tier, None
        if not self.finished and (text := chunk.only_text()) is not None:
            self.output_bytes += len(text) if text.isascii() else len(text.encode())
            if text and self._looks:
                self._look(data)
            return format_event(data) if self._early is None else self._begin() + format_event(data)
        if chunk.failed():
            raise stream_error(data)
        if chunk.usage is not None:
            self.usage = chunk.usage.usage(normalize_tier(self.tier)) or self.usage
        self.output_bytes += chunk.output_bytes()
        return self._pass(data, chunk)

    def _look(self, data: bytes) -> None:
        """Know what chunks like this one look like. A stream whose chunks are never alike is given up."""
        self._looks -= 1
        if (found := ChunkTemplate.of(data)) is not None:
            self.template = found

    def _begin(self) -> bytes:
        """What was told before the first choice."""
        early, self._early = self._early or b"", None
        return early

    def _pass(self, data: bytes, chunk: Chunk) -> bytes:
        if not chunk.choices and chunk.usage is None and b'"choices"' not in data:
            return b""  # no chunk: an error that some servers tell in words of their own, or what no client reads
        if not chunk.choices and chunk.usage is not None and not self.include_usage:
            return b""
        if not chunk.choices and self._early is not None and len(self._early) < _MOST_EARLY:
            self._early += format_event(data)  # what Azure found in the prompt says nothing of an answer
            return b""
        if chunk.usage is not None:
            data = self._without(data, chunk)
        earlier = format_event(self.held) if self.held is not None else b""
        if self._early is not None:
            earlier = self._begin()
        self.held = None
        ends = chunk.finishes()
        if ends:
            for choice in chunk.choices:
                refuse_unfinished(choice.finish_reason)
        if ends or self._even or (not chunk.choices and self.finished):
            self.finished, self.template = True, None
            self.held = data
            return earlier
        return earlier + format_event(data)

    def _without(self, data: bytes, chunk: Chunk) -> bytes:
        """A chunk with usage as the client gets it: OpenAI's client for Java takes the first for the end."""
        if not self.include_usage:
            return without_usage(data)
        if not chunk.choices:
            self._told = None
        elif self.apart:
            self._told, data = data, without_usage(data)
        return data

    @property
    def _even(self) -> bool:
        """Whether nothing that was begun has still to end."""
        return self.finished

    @property
    def complete(self) -> bool:
        return self.finished

    def closing_events(self, facts: bytes) -> bytes:
        """The held chunk, or the usage behind it, with the facts in it, and the end."""
        last, earlier = self.held, b""
        if last is not None and self._told is not None:
            last, earlier = only_usage(self._told), format_event(last)
        return earlier + (format_event(append_field(last, b"groundplan", facts)) if last is not None else b"") + END


class CopiesRelay(ChatRelay):
    """As its base, of several copies: it has ended well when each has that was begun. Unless the upstream says that
    nothing follows, as many have to be there as were asked for."""

    __slots__ = ("_begun", "_copies", "_ended")

    def __init__(self, include_usage: bool, copies: int) -> None:
        super().__init__(include_usage, looks=0)
        self._copies = copies
        self._begun: set[int] = set()
        self._ended: set[int] = set()

    def feed(self, data: bytes) -> bytes:
        out = super().feed(data)
        if data != DONE:
            for copy in understood(_copies, data, STREAM).choices:
                self._begun.add(copy.index)
                if copy.finish_reason:
                    self._ended.add(copy.index)
        return out

    @property
    def _even(self) -> bool:
        return self.finished and self._begun == self._ended

    @property
    def complete(self) -> bool:
        return self._even and (self.done or len(self._ended) >= self._copies)
