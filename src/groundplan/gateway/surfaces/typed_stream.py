"""Streams whose events have a `type`, the last one with the usage: transcripts, generated images, speech.

The last event is held back until the call is settled, so that it can carry the facts. Events are passed on as the bytes
that came; the contents of images and sound are not checked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from groundplan.gateway.http.sse import append_field, format_event, format_named_event
from groundplan.gateway.surfaces.codec import Malformed
from groundplan.gateway.surfaces.openai_relay import OpenAIRelay, stream_error
from groundplan.gateway.surfaces.upstream_json import STREAM, decode_upstream
from groundplan.ledger.model import Usage


class TypedEvent(Protocol):
    """One event, as far as the gateway reads it."""

    @property
    def type(self) -> str:
        """Empty where the event has none, as errors of many servers."""
        ...

    @property
    def is_well_formed(self) -> bool:
        """Whether the event has the content that its type promises."""
        ...

    @property
    def text_bytes(self) -> int:
        """UTF-8 bytes of its text, without images and sound, whose bytes say nothing about tokens."""
        ...

    def reported_usage(self) -> Usage | None:
        """The usage that the event reports; None where there is none, or an impossible one."""
        ...


@dataclass(frozen=True, slots=True)
class StreamType:
    """How one API streams: how to read an event, the type of the last one, and the types that are sent as event names
    too."""

    read: Callable[[bytes], TypedEvent]
    last: str
    named: frozenset[str] = frozenset()


class TypedRelay(OpenAIRelay):
    """Passes such a stream on. `usage`: what is known without a report; `used`: makes the usage of a report, or of
    none."""

    __slots__ = ("_held", "_kind", "_used")

    def __init__(self, kind: StreamType, usage: Usage | None, used: Callable[[Usage | None], Usage | None]) -> None:
        super().__init__()
        self._kind = kind
        self._used = used
        self._held = b""
        self.usage = usage

    def _feed(self, data: bytes) -> bytes:
        return self._handle_event(decode_upstream(self._kind.read, data, STREAM), data)

    def _handle_event(self, found: TypedEvent, data: bytes) -> bytes:
        if found.type == "error" or (not found.type and b'"error"' in data):
            raise stream_error(data)
        if not found.type or not found.is_well_formed:
            raise Malformed("an event of the upstream's stream has nothing in it")
        if found.type == self._kind.last:
            self._held, self.done = data, True
            self.usage = self._used(found.reported_usage()) or self.usage
            return b""
        self.output_bytes += found.text_bytes
        return self._event(found.type, data)

    def _event(self, type: str, data: bytes) -> bytes:
        return format_named_event(type, data) if type in self._kind.named else format_event(data)

    @property
    def complete(self) -> bool:
        return bool(self._held)

    def closing_events(self, facts: bytes) -> bytes:
        """The final event with the facts."""
        return self._event(self._kind.last, append_field(self._held, b"groundplan", facts))
