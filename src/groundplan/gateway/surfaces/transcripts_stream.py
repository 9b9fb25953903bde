"""Streamed transcripts: OpenAI's events, the last one with text and usage.

Some servers have other events, which are translated, since OpenAI's clients know no others: Mistral's have other names,
vLLM sends chunks like those of a chat, speaches texts alone, which end with the stream.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from groundplan.economics.prices.provider_usage import RealtimeUsage, plausible
from groundplan.gateway.http.sse import format_event
from groundplan.gateway.surfaces.typed_stream import StreamType, TypedEvent, TypedRelay
from groundplan.ledger.model import Usage

_MOST_SECONDS = 1 << 32


class TranscriptUsage(RealtimeUsage, frozen=True):
    """A usage report: tokens as in a realtime session or in a chat (vLLM), or seconds; Mistral reports both."""

    type: str = ""
    seconds: float | None = None
    prompt_audio_seconds: float | None = None
    prompt_tokens: int = -1
    completion_tokens: int = -1
    total_tokens: int = -1

    def reported_usage(self) -> Usage | None:
        """The reported usage; None where it is impossible."""
        tokens = None if self.type == "duration" else self.usage() or self._of_chat()
        seconds = self.prompt_audio_seconds if self.seconds is None else self.seconds
        heard = None if seconds is None else seconds_used(seconds)
        return tokens if heard is None else msgspec.structs.replace(tokens or heard, seconds=heard.seconds)

    def _of_chat(self) -> Usage | None:
        """The tokens of a chat's report, in which those of sound are in the total only."""
        if self.prompt_tokens < 0 or self.completion_tokens < 0:
            return None
        into = max(self.prompt_tokens, self.total_tokens - self.completion_tokens)
        return plausible(Usage(input=into, output=self.completion_tokens))


@dataclass(frozen=True, slots=True)
class PricedUnits:
    """The units that have a price. A report in another unit only says nothing of the cost."""

    tokens: bool
    minutes: bool
    shortest: int = 0
    """The least seconds that are charged."""

    def used(self, told: Usage | None, seconds: Usage | None = None) -> Usage | None:
        """The usage of a report, or of the length given with the answer; None where it lacks a unit that has a
        price."""
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


class _Delta(msgspec.Struct, frozen=True):
    content: str | None = None


class _Choice(msgspec.Struct, frozen=True):
    delta: _Delta | None = None


class _Event(msgspec.Struct, frozen=True):
    type: str = ""
    delta: str = ""
    text: str | None = None
    usage: TranscriptUsage | None = None
    choices: list[_Choice] | None = None
    start: float | None = None
    end: float | None = None
    speaker_id: Any = None

    @property
    def is_well_formed(self) -> bool:
        return True

    @property
    def text_bytes(self) -> int:
        return len(self.delta.encode())

    def reported_usage(self) -> Usage | None:
        return None if self.usage is None else self.usage.reported_usage()


_DONE = "transcript.text.done"
_KIND = StreamType(msgspec.json.Decoder(_Event).decode, _DONE)
_LANGUAGE, _DELTA, _SEGMENT, _END = (
    f"transcription.{name}" for name in ("language", "text.delta", "segment", "done")
)  # fmt: skip
"""Types of Mistral's events."""
_encode = msgspec.json.encode


class TranscriptRelay(TypedRelay):
    """Passes a transcript stream on, translated to OpenAI's events where necessary."""

    __slots__ = ("_counted", "_ends", "_segments", "_texts")

    def __init__(self, priced: PricedUnits) -> None:
        super().__init__(_KIND, priced.used(None), priced.used)
        self._texts: list[str] = []
        """The text so far, of a server with events of its own."""
        self._counted: Usage | None = None
        self._segments = 0
        self._ends = False
        """Whether the stream may end here: the server sends no final event."""

    def _handle_event(self, found: TypedEvent, data: bytes) -> bytes:
        if not isinstance(found, _Event):
            raise AssertionError("read as another kind")
        if found.choices is not None:
            return self._told("".join(each.delta.content or "" for each in found.choices if each.delta), found)
        if found.type == _DELTA:
            return self._told(found.text or "", found)
        if not found.type and found.text is not None:
            self._ends = True
            return self._told(self._apart(found.text), found)
        if found.type == _SEGMENT:
            return self._segment(found)
        if found.type == _END:
            self._report(found)
            self._texts = [found.text] if found.text is not None else self._texts
            self._close()
            return b""
        return b"" if found.type == _LANGUAGE else super()._handle_event(found, data)

    def _told(self, said: str, found: _Event) -> bytes:
        self._report(found)
        if not said:
            return b""
        self._texts.append(said)
        self.output_bytes += len(said.encode())
        return format_event(_encode({"type": "transcript.text.delta", "delta": said}))

    def _apart(self, said: str) -> str:
        """A text without leading space, with one where it continues the texts before it."""
        beside = not said or not self._texts or said[0].isspace() or self._texts[-1][-1].isspace()
        return said if beside else f" {said}"

    def _segment(self, found: _Event) -> bytes:
        self._segments += 1
        return format_event(
            _encode(
                {
                    "type": "transcript.text.segment", "id": f"seg_{self._segments}", "start": found.start or 0.0,
                    "end": found.end or 0.0, "speaker": str(found.speaker_id or ""), "text": found.text or "",
                }
            )
        )  # fmt: skip

    def _report(self, found: _Event) -> None:
        if found.usage is not None:
            self.usage = self._used(told := found.reported_usage()) or self.usage
            self._counted = told

    def _close(self) -> None:
        told: dict[str, object] = {"type": _DONE, "text": "".join(self._texts).strip()}
        if (used := self._counted) is not None and (used.input or used.output):
            told["usage"] = {
                "type": "tokens", "input_tokens": used.input, "output_tokens": used.output,
                "total_tokens": used.input + used.output,
            }  # fmt: skip
        self._held, self.done = _encode(told), True

    @property
    def complete(self) -> bool:
        return bool(self._held) or self._ends or (self.done and bool(self._texts))

    def closing_events(self, facts: bytes) -> bytes:
        """The final event with the facts."""
        if not self._held:
            self._close()
        return super().closing_events(facts)


def transcript_relay(priced: PricedUnits) -> TypedRelay:
    return TranscriptRelay(priced)
