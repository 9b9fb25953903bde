"""The numbered events of a background response while it is made, and its outcome.

The first two are sent as soon as it is requested and are always the same; all others come from the call. Pure:
`sealed_store` keeps them.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec

from groundplan.gateway.http.collected_response import CollectedResponse
from groundplan.gateway.http.request import Request
from groundplan.gateway.http.sse import DONE, EventReader, EventTooLarge, format_named_event
from groundplan.gateway.http.strict_json import DECODE_ERRORS
from groundplan.gateway.surfaces.responses.shapes import fields_of, with_request_fields

MAX_EVENT_BYTES = 4 << 20
"""Of the buffered events of one response; after them only the last one is sent, which contains the whole response."""
FIRST = 2
"""Number of the first event that comes from the call."""
_ENDS = ("response.completed", "response.incomplete")
_BEGUN = ("response.created", "response.queued")
_encode = msgspec.json.Encoder().encode


class Failure(msgspec.Struct, frozen=True):
    """Why a response failed: `type` is one of OpenAI's few codes, `code` is ours."""

    type: str
    message: str
    code: str
    hint: str
    call_id: str = ""

    def response_fields(self) -> dict[str, Any]:
        """The fields of a response that report the failure."""
        ours = {"code": self.code, "hint": self.hint, "call_id": self.call_id}
        return {"error": {"code": self.type, "message": self.message}, "groundplan": ours}


def failure_of(status: int, data: bytes) -> Failure:
    """The failure that an error answer with this status and body stands for."""
    try:
        error = fields_of(fields_of(data)["error"])
        message, code, hint, call = (_text(error, name) for name in ("message", "code", "hint", "call_id"))
    except (*DECODE_ERRORS, KeyError):
        message = code = hint = call = ""
    kind = "server_error" if status >= 500 else "rate_limit_exceeded" if status == 429 else "invalid_prompt"
    return Failure(kind, message or f"the call was answered with {status}", code or "failed", hint, call)


def _text(fields: dict[str, msgspec.Raw], name: str) -> str:
    value = msgspec.json.decode(fields.get(name, b"null"))
    return value if isinstance(value, str) else ""


class EventLog(CollectedResponse):
    """Collects the streamed answer of a background call: `events` are the (number, SSE bytes) that are not stored
    yet."""

    __slots__ = ("_at", "_on_event", "_reader", "_response_id", "_room", "events", "failed", "last", "whole")

    def __init__(self, id: str, at: datetime, on_event: Callable[[], None]) -> None:
        """`on_event` is called whenever an event was added."""
        super().__init__()
        self._on_event = on_event
        self._reader = EventReader()
        self._room = MAX_EVENT_BYTES
        self._at = b"%d" % int(at.timestamp())
        self._response_id = id
        self.events: list[tuple[int, bytes]] = []
        self.last = FIRST - 1
        """Number of the last event received."""
        self.whole = b""
        """The complete response, once its final event has come."""
        self.failed: Failure | None = None

    def start(self, status: int, headers: bytes) -> bytes:  # noqa: ARG002 -- Response's signature
        self.started, self.status = True, status
        return b""

    def write(self, data: bytes, head: bytes = b"") -> None:  # noqa: ARG002 -- Response's signature
        try:
            for each in self._reader.feed(data):
                if each != DONE:
                    self._add_event(each)
        except EventTooLarge:
            self._set_failed("an event is too large")
        except (*DECODE_ERRORS, KeyError):
            self._set_failed("the stream has an event that cannot be read")

    def end(self, data: bytes = b"", head: bytes = b"") -> None:
        self.write(data, head)
        self.ended = True

    def send(self, status: int, body: bytes, headers: bytes = b"", content_type: bytes = b"") -> None:
        """An answer in one piece: an error, or a complete stream."""
        super().send(status, body, headers, content_type)
        if status >= 400:
            self.failed = failure_of(status, body)
        else:
            self.write(body)

    def _add_event(self, data: bytes) -> None:
        """Number and buffer one event. Raises `DECODE_ERRORS`, `KeyError`."""
        fields = fields_of(data)
        kind = str(msgspec.json.decode(fields["type"]))
        if kind == "error":
            self.failed = self.failed or failure_of(500, _encode({"error": fields}))
        elif kind == "response.failed":
            self.failed = self.failed or failure_of(400, _encode({"error": fields_of(fields["response"])["error"]}))
        elif kind not in _BEGUN:
            self.last += 1
            fields["sequence_number"] = msgspec.Raw(b"%d" % self.last)
            if "response" in fields:
                fields["response"] = msgspec.Raw(self._with_own_id(fields["response"]))
            if kind in _ENDS:
                facts = fields.get("groundplan", msgspec.Raw(b"null"))
                self.whole = with_request_fields(fields_of(fields["response"]), {"groundplan": bytes(facts)})
            else:
                self._append(format_named_event(kind, _encode(fields)))

    def _with_own_id(self, response: msgspec.Raw) -> bytes:
        """The response with our id and creation time, by which clients know it from before the call."""
        fields, ours = (
            fields_of(response),
            {"id": _encode(self._response_id), "created_at": self._at, "background": b"true"},
        )
        return with_request_fields(fields, ours | ({"store": b"true"} if "store" in fields else {}))

    def _append(self, event: bytes) -> None:
        self._room -= len(event) + 64
        if self._room >= 0:
            self.events.append((self.last, event))
            self._on_event()

    @property
    def first(self) -> int:
        """Number of the first buffered event, or of the next event if none is buffered."""
        return self.events[0][0] if self.events else self.last + 1

    def _set_failed(self, message: str) -> None:
        hint = "Ask again."
        self.failed = self.failed or Failure("server_error", message, "stream_broken", hint)

    @property
    def is_write_paused(self) -> bool:
        return False

    @property
    def raw_chunk_writer(self) -> None:
        return None

    def resize_reservation(self, request: Request, size: int) -> bool:  # noqa: ARG002 -- Response's signature
        return True

    def abort(self) -> None:
        self._set_failed("the answer was ended")
