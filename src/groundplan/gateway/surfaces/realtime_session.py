"""How long an upstream says that an answer may be, and that it is asked to be no longer than is reserved for. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from groundplan.gateway.surfaces.realtime_events import CAPS, ServerEvent
from groundplan.gateway.surfaces.upstream_json import UNREADABLE

_ASKED = "event_groundplan_cap"
"""Id of the event that asks for the cap."""
_encode = msgspec.json.encode
_object = msgspec.json.Decoder(dict[str, Any]).decode


class Told:
    """See the module."""

    __slots__ = ("_asked",)

    def __init__(self) -> None:
        self._asked = False

    def hear(self, event: ServerEvent, most: int) -> str:
        """One event of the upstream. Returns one for it, by which an answer has no more than `most` tokens; empty where
        that need not be asked, or nobody knows how: APIs refuse each other's names."""
        if event.type != "session.created":
            return ""
        try:
            session = _object(event.session)
        except UNREADABLE:
            return ""
        name = next((name for name in CAPS if name in session), None)
        if name is None:
            return ""
        cap = session[name]
        if type(cap) is int and cap <= most:
            return ""
        self._asked = True
        made = {"type": session["type"], name: most} if "type" in session else {name: most}
        return _encode({"type": "session.update", "event_id": _ASKED, "session": made}).decode()

    def is_ours(self, event: ServerEvent, data: bytes) -> bool:
        """Whether an event answers what was asked here, so that it is no matter of the client's. A cap that is refused
        is above what the model makes at all."""
        if not self._asked:
            return False
        ours = event.type == "session.updated" or (event.type == "error" and _ASKED.encode() in data)
        self._asked = not ours
        return ours
