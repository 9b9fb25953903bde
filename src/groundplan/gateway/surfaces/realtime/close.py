"""How a conversation ends: the close code, and the error for the client. Ends nothing itself (`conversation` does)."""

from __future__ import annotations

import msgspec

from groundplan.core.errors import Denied, GroundplanError, Unavailable
from groundplan.core.ids import new_id
from groundplan.gateway.http.errors import error_type, message_with_hint

POLICY, BROKEN, STOPPING = 1008, 1011, 1001
"""Close codes: no longer allowed; the upstream or this gateway failed; this gateway is being stopped."""
LOST = "stream_broken"


class ConversationEnded(Exception):
    """The conversation ends with a close `code`; `error` is sent to the client, if there is one."""

    def __init__(self, code: int, error: GroundplanError | None = None) -> None:
        super().__init__(str(error or "closed"))
        self.code = code
        self.error = error


def upstream_ended() -> ConversationEnded:
    """The end of a conversation whose upstream closed."""
    hint = "What came so far is all there is; connect again."
    return ConversationEnded(BROKEN, Unavailable("the upstream ended the conversation", code=LOST, hint=hint))


def gateway_stopping() -> ConversationEnded:
    """The end of a conversation because this gateway is being stopped."""
    return ConversationEnded(
        STOPPING, Unavailable("this gateway is being stopped", code="stopping", hint="Connect again.")
    )


def certificates_changed() -> ConversationEnded:
    """The end of a conversation because the accepted certificates changed: the client's may be no longer among them."""
    hint = "Connect again, with a certificate that is taken."
    message = "whose certificates are taken has changed since this was connected"
    return ConversationEnded(POLICY, Denied(message, code="certificates_changed", hint=hint))


def error_event(error: GroundplanError, event_id: object = None) -> bytes:
    """An error event. `event_id`: the id of the client's event that is refused, if it has one."""
    fields = {
        "type": error_type(error), "code": error.code, "message": message_with_hint(error.message, error.hint),
        "hint": error.hint, "param": None, "event_id": event_id if isinstance(event_id, str) else None,
    }  # fmt: skip
    return msgspec.json.encode({"type": "error", "event_id": f"event_{new_id().hex}", "error": fields})
