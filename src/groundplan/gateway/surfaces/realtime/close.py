"""How a conversation ends: the close code, and what its client is told. It ends nothing (`conversation` does)."""

from __future__ import annotations

import msgspec

from groundplan.core.errors import Denied, GroundplanError, Unavailable
from groundplan.core.ids import new_id
from groundplan.gateway.http.errors import error_type

POLICY, BROKEN, STOPPING = 1008, 1011, 1001
"""Close codes: not allowed any more; the upstream failed, or this gateway; this gateway is being stopped."""
LOST = "stream_broken"


class Ended(Exception):
    """The conversation is over: `error` is told to the client, where there is one."""

    def __init__(self, code: int, error: GroundplanError | None = None) -> None:
        super().__init__(str(error or "closed"))
        self.code = code
        self.error = error


def broken() -> Ended:
    """By the upstream."""
    hint = "What came so far is all there is; connect again."
    return Ended(BROKEN, Unavailable("the upstream ended the conversation", code=LOST, hint=hint))


def stopping() -> Ended:
    """By this gateway."""
    return Ended(STOPPING, Unavailable("this gateway is being stopped", code="stopping", hint="Connect again."))


def doubted() -> Ended:
    """By whoever told anew whose certificates are taken: the one that was shown may be among those that are not."""
    hint = "Connect again, with a certificate that is taken."
    told = "whose certificates are taken has changed since this was connected"
    return Ended(POLICY, Denied(told, code="certificates_changed", hint=hint))


def event_of(error: GroundplanError, asked: object = None) -> bytes:
    """An error event. `asked`: the id of the client's event that is refused, where it has one."""
    told = {
        "type": error_type(error), "code": error.code, "message": error.message, "hint": error.hint,
        "param": None, "event_id": asked if isinstance(asked, str) else None,
    }  # fmt: skip
    return msgspec.json.encode({"type": "error", "event_id": f"event_{new_id().hex}", "error": told})
