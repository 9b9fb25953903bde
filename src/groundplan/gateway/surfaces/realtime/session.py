"""Tracks the session settings that an upstream reports, since those are in force: whether it responds by itself,
whether it makes transcripts, and the cap of an answer, which is lowered to what is reserved for a response. Pure.
"""

from __future__ import annotations

from typing import Any

import msgspec

from groundplan.gateway.http.strict_json import DECODE_ERRORS
from groundplan.gateway.surfaces.realtime.events import CAP_FIELDS, ServerEvent

_CAP_EVENT_ID = "event_groundplan_cap"
"""Id of the event that requests the cap."""
_MAX_CAP_REQUESTS = 3
"""How often the cap is requested of an upstream that reports another one each time."""
_encode = msgspec.json.encode
_object = msgspec.json.Decoder(dict[str, Any]).decode
_MISSING = object()
_PCM_RATE, _G711_RATE = 48_000, 8_000
"""Bytes of audio in a second: of PCM at 24 kHz, which is usual, and of G.711."""


class SessionSettings:
    """The settings in force. `responds_on_request`: the upstream makes no response by itself; `detects_no_turns`: it
    has no turn detection; `makes_transcripts`: None where it did not say; `audio_rate`: bytes of audio in a second."""

    __slots__ = (
        "_awaits_reply",
        "_exceeds_cap",
        "_requests_left",
        "audio_rate",
        "detects_no_turns",
        "makes_transcripts",
        "responds_on_request",
    )

    def __init__(self) -> None:
        self.responds_on_request = self.detects_no_turns = False
        self.makes_transcripts: bool | None = None
        self.audio_rate = _PCM_RATE
        self._awaits_reply = self._exceeds_cap = False
        """Whether a requested cap is unanswered; whether the session last reported a cap above the reserved one."""
        self._requests_left = _MAX_CAP_REQUESTS

    def handle(self, event: ServerEvent, most: int) -> str:
        """Read one event of the upstream. Returns an event to send to it that caps answers at `most` tokens; empty
        where none is needed, or the field is unknown, since APIs refuse each other's names."""
        if event.type not in ("session.created", "session.updated"):
            return ""
        try:
            session = _object(event.session)
        except DECODE_ERRORS:
            return ""
        turns = _input_setting(session, "turn_detection", "turn_detection")
        if turns is not _MISSING:
            self.detects_no_turns = turns is None
            self.responds_on_request = turns is None or (
                isinstance(turns, dict) and turns.get("create_response") is False
            )
        texts = _input_setting(session, "transcription", "input_audio_transcription")
        if texts is not _MISSING:
            self.makes_transcripts = texts is not None
        sound = _input_setting(session, "format", "input_audio_format")
        if sound is not _MISSING:
            self.audio_rate = _bytes_per_second(sound)
        name = next((name for name in CAP_FIELDS if name in session), None)
        self._exceeds_cap = name is not None and not (type(session[name]) is int and session[name] <= most)
        if not self._exceeds_cap or self._awaits_reply or not self._requests_left:
            return ""
        self._awaits_reply, self._requests_left = True, self._requests_left - 1
        made = {"type": session["type"], name: most} if "type" in session else {name: most}
        return _encode({"type": "session.update", "event_id": _CAP_EVENT_ID, "session": made}).decode()

    def is_cap_reply(self, event: ServerEvent, data: bytes) -> bool:
        """Whether an event, already handled, is the reply to the requested cap, so that the client must not get it.
        Some upstreams (Qwen-Omni) refuse the cap without saying what they refuse; a refused cap is above what the model
        makes at all."""
        if not self._awaits_reply:
            return False
        updated = event.type == "session.updated" and not self._exceeds_cap
        ours = updated or (event.type == "error" and _CAP_EVENT_ID.encode() in data)
        self._awaits_reply = not ours
        return ours


def _input_setting(session: dict[str, Any], name: str, before: str) -> object:
    """A setting of the audio input: at `audio.input` in the current API, under another name (`before`) in the beta."""
    audio = session.get("audio")
    heard = audio.get("input") if isinstance(audio, dict) else None
    if isinstance(heard, dict) and name in heard:
        return heard[name]
    return session.get(before, _MISSING)


def _bytes_per_second(sound: object) -> int:
    """Bytes per second of an audio format; for an unknown one the lowest rate, with which audio is longest."""
    kind, rate = (sound.get("type"), sound.get("rate")) if isinstance(sound, dict) else (sound, None)
    if kind in ("audio/pcm", "pcm16", "pcm"):
        return 2 * rate if type(rate) is int and rate > 0 else _PCM_RATE
    return _G711_RATE
