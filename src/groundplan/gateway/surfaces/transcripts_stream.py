"""A transcript on its way while it is heard: OpenAI's events, the last one with the whole text and the usage."""

from __future__ import annotations

import msgspec

from groundplan.economics.prices.reported import RealtimeUsage
from groundplan.gateway.http.sse import DONE, event, splice
from groundplan.gateway.surfaces.answers import error_body
from groundplan.gateway.surfaces.interface import Malformed
from groundplan.ledger.model import Usage

_LAST = "transcript.text.done"
_MOST_SECONDS = 1 << 32


class Reported(RealtimeUsage, frozen=True):
    """Tokens as of a realtime session, or seconds."""

    type: str = ""
    seconds: float = -1

    def told(self) -> Usage | None:
        """What is reported, where it can be true."""
        return self.usage() if self.type != "duration" else seconds_used(self.seconds)


def seconds_used(seconds: float) -> Usage | None:
    return Usage(seconds=-int(-seconds // 1)) if 0 <= seconds < _MOST_SECONDS else None


class _Event(msgspec.Struct, frozen=True):
    type: str
    delta: str = ""
    usage: Reported | None = None


_event = msgspec.json.Decoder(_Event).decode


class TranscriptRelay:
    """See the module. `usage` is what it costs where nothing has a price, and nothing is reported."""

    __slots__ = ("_held", "done", "output_bytes", "usage")

    def __init__(self, usage: Usage | None) -> None:
        self._held = b""
        self.usage = usage
        self.output_bytes = 0
        self.done = False

    def take(self, data: bytes) -> bytes:
        """Events for the client after one more of the upstream's. Raises `Malformed`."""
        if data == DONE:
            self.done = True
            return b""
        try:
            found = _event(data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Malformed("the upstream's stream is not what the API promises") from error
        if found.type == "error":
            raise Malformed("the upstream reported an error in its stream")
        if found.type == _LAST:
            self._held, self.done = data, True
            if found.usage is not None:
                self.usage = found.usage.told() or self.usage
            return b""
        self.output_bytes += len(found.delta.encode())
        return event(data)

    @property
    def complete(self) -> bool:
        return bool(self._held)

    def last(self, facts: bytes) -> bytes:
        """The event that ends it, with the facts."""
        return event(splice(self._held, b"groundplan", facts))

    def broken(self, reason: str, call_id: str) -> bytes:
        hint = "What came so far is all there is; ask again."
        return event(error_body(f"the answer broke off: {reason}", "stream_broken", hint, "api_error", call_id=call_id))
