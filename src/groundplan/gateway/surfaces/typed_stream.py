"""Streams whose events say their type, the last one with the usage: transcripts, images that are made, speech.

The last event is held until the call is settled, so that it can carry the facts. Events are passed on as the bytes that
came; whether their pictures and sounds are any good, nobody looks.
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
    """One event as far as the gateway needs it."""

    @property
    def type(self) -> str:
        """Empty: it does not say, as errors of many servers do not."""
        ...

    @property
    def fits(self) -> bool:
        """Whether it has what its type promises."""
        ...

    @property
    def text_bytes(self) -> int:
        """UTF-8 bytes of text in it; images and sound are none, and their bytes say nothing about tokens."""
        ...

    def told(self) -> Usage | None:
        """What it reports, where that can be true."""
        ...


@dataclass(frozen=True, slots=True)
class Kind:
    """One API's streams: how an event is read, the last one's type, and the types that name their events, too."""

    read: Callable[[bytes], TypedEvent]
    last: str
    named: frozenset[str] = frozenset()


class TypedRelay(OpenAIRelay):
    """See the module. `usage`: what is known without a report; `used` makes one of what is reported, or of nothing."""

    __slots__ = ("_held", "_kind", "_used")

    def __init__(self, kind: Kind, usage: Usage | None, used: Callable[[Usage | None], Usage | None]) -> None:
        super().__init__()
        self._kind = kind
        self._used = used
        self._held = b""
        self.usage = usage

    def _feed(self, data: bytes) -> bytes:
        return self._taken(decode_upstream(self._kind.read, data, STREAM), data)

    def _taken(self, found: TypedEvent, data: bytes) -> bytes:
        if found.type == "error" or (not found.type and b'"error"' in data):
            raise stream_error(data)
        if not found.type or not found.fits:
            raise Malformed("an event of the upstream's stream has nothing in it")
        if found.type == self._kind.last:
            self._held, self.done = data, True
            self.usage = self._used(found.told()) or self.usage
            return b""
        self.output_bytes += found.text_bytes
        return self._event(found.type, data)

    def _event(self, type: str, data: bytes) -> bytes:
        return format_named_event(type, data) if type in self._kind.named else format_event(data)

    @property
    def complete(self) -> bool:
        return bool(self._held)

    def closing_events(self, facts: bytes) -> bytes:
        """The event that ends it, with the facts."""
        return self._event(self._kind.last, append_field(self._held, b"groundplan", facts))
