"""What of a transcript that is told while it is heard is read: OpenAI's events, the last one with text and usage."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from groundplan.economics.prices.reported import RealtimeUsage, plausible
from groundplan.gateway.surfaces.typed_stream import Kind, TypedRelay
from groundplan.ledger.model import Usage

_MOST_SECONDS = 1 << 32


class Reported(RealtimeUsage, frozen=True):
    """Tokens as of a realtime session, or of a chat (vLLM), or seconds; Mistral tells both."""

    type: str = ""
    seconds: float | None = None
    prompt_audio_seconds: float | None = None
    prompt_tokens: int = -1
    completion_tokens: int = -1
    total_tokens: int = -1

    def told(self) -> Usage | None:
        """What is reported, where it can be true."""
        tokens = None if self.type == "duration" else self.usage() or self._of_chat()
        seconds = self.prompt_audio_seconds if self.seconds is None else self.seconds
        heard = None if seconds is None else seconds_used(seconds)
        return tokens if heard is None else msgspec.structs.replace(tokens or heard, seconds=heard.seconds)

    def _of_chat(self) -> Usage | None:
        """Tokens of sound are in the total alone."""
        if self.prompt_tokens < 0 or self.completion_tokens < 0:
            return None
        into = max(self.prompt_tokens, self.total_tokens - self.completion_tokens)
        return plausible(Usage(input=into, output=self.completion_tokens))


@dataclass(frozen=True, slots=True)
class Priced:
    """What has a price. What is reported in the other unit alone says nothing of what it costs."""

    tokens: bool
    minutes: bool
    shortest: int = 0
    """Seconds that are charged of less, too."""

    def used(self, told: Usage | None, seconds: Usage | None = None) -> Usage | None:
        """What was reported, or said of the length beside it; None where that lacks what has a price."""
        if told is not None and seconds is not None and not told.seconds:
            told = msgspec.structs.replace(told, seconds=seconds.seconds)
        told = told or seconds
        if told is None:
            return None if self.tokens or self.minutes else Usage()
        lacks = (self.tokens and not (told.input or told.output)) or (self.minutes and not told.seconds)
        if lacks:
            return None
        return msgspec.structs.replace(told, seconds=self.shortest) if 0 < told.seconds < self.shortest else told


def seconds_used(seconds: float) -> Usage | None:
    return Usage(seconds=-int(-seconds // 1)) if 0 <= seconds < _MOST_SECONDS else None


class _Event(msgspec.Struct, frozen=True):
    type: str = ""
    delta: str = ""
    usage: Reported | None = None

    @property
    def fits(self) -> bool:
        return True

    @property
    def text_bytes(self) -> int:
        return len(self.delta.encode())

    def told(self) -> Usage | None:
        return None if self.usage is None else self.usage.told()


_KIND = Kind(msgspec.json.Decoder(_Event).decode, "transcript.text.done")


def transcript_relay(priced: Priced) -> TypedRelay:
    return TypedRelay(_KIND, priced.used(None), priced.used)
