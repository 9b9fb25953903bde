"""Streamed transcripts: OpenAI's events, the last one with text and usage.

Some servers have other events, which are translated, since OpenAI's clients know no others: Mistral's have other names,
vLLM sends chunks like those of a chat, speaches texts alone, which end with the stream.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from groundplan.economics.prices.provider_usage import RealtimeUsage, check_plausible
from groundplan.gateway.http.sse import format_event
from groundplan.gateway.surfaces.typed_stream import StreamType, TypedEvent, TypedRelay
from groundplan.ledger.model import Usage

_MAX_SECONDS = 1 << 32


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
        tokens = None if self.type == "duration" else self.usage() or self._chat_tokens()
        seconds = self.prompt_audio_seconds if self.seconds is None else self.seconds
        duration = None if seconds is None else seconds_used(seconds)
        return tokens if duration is None else msgspec.structs.replace(tokens or duration, seconds=duration.seconds)

    def _chat_tokens(self) -> Usage | None:
        """The tokens of a chat's report, in which those of sound are in the total only."""
        if self.prompt_tokens < 0 or self.completion_tokens < 0:
            return None
        into = max(self.prompt_tokens, self.total_tokens - self.completion_tokens)
        return check_plausible(Usage(input=into, output=self.completion_tokens))


@dataclass(frozen=True, slots=True)
class PricedUnits:
    """The units that have a price. A report in another unit only says nothing of the cost."""

    tokens: bool
    minutes: bool
    shortest: int = 0
    """The least seconds that are charged."""

    def used(self, reported: Usage | None, seconds: Usage | None = None) -> Usage | None:
        """The usage of a report, or of the length given with the answer; None where it lacks a unit that has a
        price."""
        if reported is not None and seconds is not None and not reported.seconds:
            reported = msgspec.structs.replace(reported, seconds=seconds.seconds)
        reported = reported or seconds
        if reported is None:
            return None if self.tokens or self.minutes else Usage()
        lacks = (self.tokens and not (reported.input or reported.output)) or (self.minutes and not reported.seconds)
        if lacks:
            return None
        return (
            msgspec.structs.replace(reported, seconds=self.shortest)
            if 0 < reported.seconds < self.shortest
            else reported
        )


def seconds_used(seconds: float) -> Usage | None:
    return Usage(seconds=-int(-seconds // 1)) if 0 <= seconds < _MAX_SECONDS else None


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

    __slots__ = ("_counted", "_ends", "_has_chunks", "_segments", "_texts")

    def __init__(self, priced: PricedUnits) -> None:
        super().__init__(_KIND, priced.used(None), priced.used)
        self._texts: list[str] = []
        """The text so far, of a server with events of its own."""
        self._counted: Usage | None = None
        self._segments = 0
        self._ends = self._has_chunks = False
        """Whether the stream may end here: the server sends no final event. Whether chunks like those of a chat came,
        which need not have a text: of silence there is none."""

    def _handle_event(self, event: TypedEvent, data: bytes) -> bytes:
        if not isinstance(event, _Event):
            raise AssertionError("read as another kind")
        if event.choices is not None:
            self._has_chunks = True
            return self._text_delta("".join(each.delta.content or "" for each in event.choices if each.delta), event)
        if event.type == _DELTA:
            return self._text_delta(event.text or "", event)
        if not event.type and event.text is not None:
            self._ends = True
            return self._text_delta(self._spaced(event.text), event)
        if event.type == _SEGMENT:
            return self._segment(event)
        if event.type == _END:
            self._report(event)
            self._texts = [event.text] if event.text is not None else self._texts
            self._close()
            return b""
        return b"" if event.type == _LANGUAGE else super()._handle_event(event, data)

    def _text_delta(self, text: str, event: _Event) -> bytes:
        self._report(event)
        if not text:
            return b""
        self._texts.append(text)
        self.output_bytes += len(text.encode())
        return format_event(_encode({"type": "transcript.text.delta", "delta": text}))

    def _spaced(self, text: str) -> str:
        """The text with a space in front where neither it nor the text before it has one."""
        needs_no_space = not text or not self._texts or text[0].isspace() or self._texts[-1][-1].isspace()
        return text if needs_no_space else f" {text}"

    def _segment(self, event: _Event) -> bytes:
        self._segments += 1
        return format_event(
            _encode(
                {
                    "type": "transcript.text.segment", "id": f"seg_{self._segments}", "start": event.start or 0.0,
                    "end": event.end or 0.0, "speaker": str(event.speaker_id or ""), "text": event.text or "",
                }
            )
        )  # fmt: skip

    def _report(self, event: _Event) -> None:
        if event.usage is not None:
            self.usage = self._used(reported := event.reported_usage()) or self.usage
            self._counted = reported

    def _close(self) -> None:
        final: dict[str, object] = {"type": _DONE, "text": "".join(self._texts).strip()}
        if (usage := self._counted) is not None and (usage.input or usage.output):
            final["usage"] = {
                "type": "tokens", "input_tokens": usage.input, "output_tokens": usage.output,
                "total_tokens": usage.input + usage.output,
            }  # fmt: skip
        self._held, self.done = _encode(final), True

    @property
    def complete(self) -> bool:
        return bool(self._held) or self._ends or (self.done and (self._has_chunks or bool(self._texts)))

    def closing_events(self, facts: bytes) -> bytes:
        """The final event with the facts."""
        if not self._held:
            self._close()
        return super().closing_events(facts)


def transcript_relay(priced: PricedUnits) -> TypedRelay:
    return TranscriptRelay(priced)
