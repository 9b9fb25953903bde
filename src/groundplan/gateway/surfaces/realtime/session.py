"""What an upstream says of a session, for that is what holds there: whether it responds by itself, whether it makes
texts of what it hears, and how long an answer may be, which is asked to be no longer than what is reserved for one.
Pure.
"""

from __future__ import annotations

from typing import Any

import msgspec

from groundplan.gateway.http.strict_json import DECODE_ERRORS
from groundplan.gateway.surfaces.realtime.events import CAPS, ServerEvent

_ASKED = "event_groundplan_cap"
"""Id of the event that asks for the cap."""
_TRIES = 3
"""How often it is asked, of an upstream that has another one each time."""
_encode = msgspec.json.encode
_object = msgspec.json.Decoder(dict[str, Any]).decode
_UNTOLD = object()
_RATE, _SHORT = 48_000, 8_000
"""Of PCM at 24 kHz, which is usual, and of G.711."""


class SessionSettings:
    """See the module. `waits`: the upstream says that it makes no response of its own accord; `silent`: that it finds
    no turns. `texts`: it makes texts of what it hears; None: it did not say. `rate`: bytes of sound in a second."""

    __slots__ = ("_above", "_asked", "_left", "rate", "silent", "texts", "waits")

    def __init__(self) -> None:
        self.waits = self.silent = False
        self.texts: bool | None = None
        self.rate = _RATE
        self._asked = self._above = False
        """What was asked is not answered; the session said last that answers may be longer."""
        self._left = _TRIES

    def hear(self, event: ServerEvent, most: int) -> str:
        """One event of the upstream. Returns one for it, by which an answer has no more than `most` tokens; empty where
        that need not be asked, or nobody knows how: APIs refuse each other's names."""
        if event.type not in ("session.created", "session.updated"):
            return ""
        try:
            session = _object(event.session)
        except DECODE_ERRORS:
            return ""
        turns = _of_input(session, "turn_detection", "turn_detection")
        if turns is not _UNTOLD:
            self.silent = turns is None
            self.waits = turns is None or (isinstance(turns, dict) and turns.get("create_response") is False)
        texts = _of_input(session, "transcription", "input_audio_transcription")
        if texts is not _UNTOLD:
            self.texts = texts is not None
        sound = _of_input(session, "format", "input_audio_format")
        if sound is not _UNTOLD:
            self.rate = _rate(sound)
        name = next((name for name in CAPS if name in session), None)
        self._above = name is not None and not (type(session[name]) is int and session[name] <= most)
        if not self._above or self._asked or not self._left:
            return ""
        self._asked, self._left = True, self._left - 1
        made = {"type": session["type"], name: most} if "type" in session else {name: most}
        return _encode({"type": "session.update", "event_id": _ASKED, "session": made}).decode()

    def is_ours(self, event: ServerEvent, data: bytes) -> bool:
        """Whether an event, which was heard, answers what was asked here, so that it is no matter of the client's: some
        (Qwen-Omni) refuse it and do not say what they refuse. A cap that is refused is above what the model makes at
        all."""
        if not self._asked:
            return False
        updated = event.type == "session.updated" and not self._above
        ours = updated or (event.type == "error" and _ASKED.encode() in data)
        self._asked = not ours
        return ours


def _of_input(session: dict[str, Any], name: str, before: str) -> object:
    """What it says of sound that comes in, where it does: at one place now, by another name in the API as it was."""
    audio = session.get("audio")
    heard = audio.get("input") if isinstance(audio, dict) else None
    if isinstance(heard, dict) and name in heard:
        return heard[name]
    return session.get(before, _UNTOLD)


def _rate(sound: object) -> int:
    """Of a format; of one that nobody knows, that in which sound is longest."""
    kind, rate = (sound.get("type"), sound.get("rate")) if isinstance(sound, dict) else (sound, None)
    if kind in ("audio/pcm", "pcm16", "pcm"):
        return 2 * rate if type(rate) is int and rate > 0 else _RATE
    return _SHORT
