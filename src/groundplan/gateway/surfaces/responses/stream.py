"""Streams of OpenAI's Responses: an upstream's own, passed on with the last event held back, and chat translated."""

from __future__ import annotations

import re
from collections.abc import Mapping
from io import StringIO
from typing import Any, Protocol, runtime_checkable

import msgspec

from groundplan.economics.prices.provider_usage import ResponsesUsage, normalize_tier
from groundplan.gateway.http.errors import message_with_hint
from groundplan.gateway.http.sse import DONE, MAX_EVENT, append_field, format_named_event
from groundplan.gateway.surfaces.chat.annotations import UrlCitation, marked_pages, response_annotation
from groundplan.gateway.surfaces.chat.answer_types import ChoiceDelta, Chunk, ToolCallDelta
from groundplan.gateway.surfaces.codec import Malformed
from groundplan.gateway.surfaces.openai_relay import stream_error
from groundplan.gateway.surfaces.responses import shapes as shape
from groundplan.gateway.surfaces.upstream_json import STREAM, decode_upstream
from groundplan.gateway.surfaces.via_chat_stream import TEXT, ViaChatStream
from groundplan.ledger.model import Usage

_FINAL_TYPES = frozenset({"response.completed", "response.incomplete"})
_PENDING_TYPES = frozenset({"response.created", "response.queued", "response.in_progress", "keepalive"})
"""Types of events sent as soon as a request is accepted, and while it waits for a model."""
_DELTA_TYPES = frozenset(
    {
        "response.output_text.delta", "response.function_call_arguments.delta", "response.reasoning_text.delta",
        "response.reasoning_summary_text.delta",
    }
)  # fmt: skip
"""Types of nearly all events of a stream."""
MAX_ITEMS_BYTES = 1 << 20
"""Of the finished items that are kept of a stream for a last event without them."""
_is_event_name = re.compile(r"[A-Za-z0-9_.:-]+").fullmatch
"""Matches the type of an event; in Open Responses a vendor's own types begin with its name and a colon."""
_encode = msgspec.json.Encoder().encode


class ResponseSummary(msgspec.Struct, frozen=True):
    """A response, as far as the gateway reads it."""

    id: str
    object: str = ""
    status: str = "completed"
    usage: ResponsesUsage | None = None
    service_tier: Any = None
    output: msgspec.Raw = msgspec.Raw(b"null")

    @property
    def is_empty(self) -> bool:
        """Whether it has no output items."""
        return bytes(self.output) in (b"[]", b"null")

    def reported_usage(self) -> Usage | None:
        """The usage, with the service tier that the response names; None where it reports none, or an impossible
        one."""
        return None if self.usage is None else self.usage.usage(normalize_tier(self.service_tier))


class _Event(msgspec.Struct, frozen=True):
    type: str = ""
    sequence_number: int = -1
    delta: str | msgspec.Raw = ""
    response: ResponseSummary | None = None


class _FinishedItem(msgspec.Struct, frozen=True):
    item: msgspec.Raw
    output_index: int = 0


class _FinalEvent(msgspec.Struct, frozen=True):
    response: msgspec.Raw


_UNNAMED_EVENT = "the upstream's stream has an event without a name"
_event = msgspec.json.Decoder(_Event).decode
_finished_item = msgspec.json.Decoder(_FinishedItem).decode
_response = msgspec.json.Decoder(_FinalEvent).decode


def _error_event(number: int, reason: str, call_id: str) -> bytes:
    message, hint = f"the answer broke off: {reason}", "What came so far is all there is; ask again."
    told = message_with_hint(message, hint)
    error = {"code": "stream_broken", "message": told, "param": None, "hint": hint, "call_id": call_id}
    # official clients know an event that ends a stream by its `error`; many ignore the other fields
    event = {"type": "error", "sequence_number": number, **error, "error": {"type": "api_error", **error}}
    return format_named_event("error", _encode(event))


def restore_request_fields(data: bytes, original_fields: Mapping[str, bytes]) -> bytes:
    """An event of an upstream's own stream, with the caller's values of changed request fields in its response."""
    if b'"response"' not in data or data == DONE:
        return data
    fields = shape.fields_of(data)
    return (
        shape.event_with_request_fields(fields, original_fields)
        if bytes(fields.get("response", b"null")) != b"null"
        else data
    )


@runtime_checkable
class HasResponse(Protocol):
    """A relay that can return the whole response once it is complete."""

    def response_json(self) -> bytes: ...


class ResponsesRelay:
    """Passes an upstream's own stream on."""

    __slots__ = (
        "_early_events", "_held", "_items", "_items_room", "_kind", "_original_fields", "_sequence_number", "done",
        "output_bytes", "response", "usage",
    )  # fmt: skip

    def __init__(self, original_fields: Mapping[str, bytes]) -> None:
        """`original_fields`: the client's values of the request fields that were changed for the upstream."""
        self._original_fields = original_fields
        self._early_events: bytes | None = b""
        """Events before the answer begins, held back; None: the answer has begun."""
        self._held: bytes | None = None
        self._items: dict[int, bytes] = {}
        """Finished output items by their index, while there is room for all of them."""
        self._items_room = MAX_ITEMS_BYTES
        self._kind = ""
        self._sequence_number = -1
        self.response: ResponseSummary | None = None
        self.usage: Usage | None = None
        self.output_bytes = 0
        self.done = False

    def feed(self, data: bytes) -> bytes:
        """Take in one event of the upstream and return the events to send to the client. Raises `Malformed`."""
        if data == DONE:
            self.done = True
            return b""
        found = decode_upstream(_event, data, STREAM)
        if found.type in ("", "error", "response.failed"):
            return self._raise_failure(found, data)
        if found.type not in _DELTA_TYPES:
            if _is_event_name(found.type) is None:
                raise Malformed(_UNNAMED_EVENT)
            if found.type == "response.output_item.done":
                self._keep_item(data)
        self._sequence_number = max(self._sequence_number, found.sequence_number)
        if self._original_fields and found.response is not None:
            data = decode_upstream(self._restore_fields, data, STREAM)
        if found.type in _FINAL_TYPES:
            return self._hold_final(found, data)
        self.output_bytes += len(found.delta.encode() if isinstance(found.delta, str) else bytes(found.delta))
        event_bytes = format_named_event(found.type, data)
        return event_bytes if self._early_events is None else self._hold_early(found.type, event_bytes)

    def _hold_early(self, kind: str, event_bytes: bytes) -> bytes:
        early = self._early_events or b""
        if kind in _PENDING_TYPES and len(early) < MAX_EVENT:
            self._early_events = early + event_bytes
            return b""
        self._early_events = None
        return early + event_bytes

    def _hold_final(self, found: _Event, data: bytes) -> bytes:
        """Raises `Malformed`."""
        if found.response is None:
            raise Malformed(STREAM)
        if found.response.status in ("failed", "cancelled"):  # so vLLM ends what its server broke off
            return self._raise_failure(found, data)
        if self._items and self._items_room >= 0 and found.response.is_empty:
            data = decode_upstream(self._add_items, data, STREAM)
        self._held, self._kind, self.response, self.done = data, found.type, found.response, True
        if found.response.usage is not None:
            self.usage = found.response.reported_usage()
        return b""

    def _keep_item(self, data: bytes) -> None:
        """Raises `Malformed`."""
        self._items_room -= len(data)
        if self._items_room < 0:
            self._items = {}
            return
        found = decode_upstream(_finished_item, data, STREAM)
        self._items[found.output_index] = bytes(found.item)

    def _add_items(self, data: bytes) -> bytes:
        """A last event whose response leaves out its items, with those that came: it is what is stored, continued and
        checked."""
        items = b",".join(item for _, item in sorted(self._items.items()))
        return shape.event_with_request_fields(shape.fields_of(data), {"output": b"[" + items + b"]"})

    def _raise_failure(self, found: _Event, data: bytes) -> bytes:
        """Raise `Malformed` for a failure. Returns nothing where the next event may give the reason, as at Azure."""
        why = shape.reported_error(data)
        if found.response is not None and (usage := found.response.reported_usage()) is not None and usage.input:
            self.usage, self.done = usage, True  # it is billed for its work, whatever else the event says
            raise stream_error()
        if not (found.type or why):
            raise Malformed(_UNNAMED_EVENT)
        if found.type == "response.failed" and self._early_events is not None and not why:
            return b""
        raise stream_error(why)

    def _restore_fields(self, data: bytes) -> bytes:
        return shape.event_with_request_fields(shape.fields_of(data), self._original_fields)

    @property
    def complete(self) -> bool:
        return self._held is not None

    def response_json(self) -> bytes:
        """The whole response, once it is complete."""
        return bytes(_response(self._held or b"{}").response)

    def closing_events(self, facts: bytes) -> bytes:
        """Events still held back, and the final event with the facts."""
        return (self._early_events or b"") + format_named_event(
            self._kind, append_field(self._held or b"{}", b"groundplan", facts)
        )

    def error_event(self, reason: str, call_id: str) -> bytes:
        return _error_event(self._sequence_number + 1, reason, call_id)


class ResponsesChatRelay(ViaChatStream):
    """Translates a chat stream into the events of a response."""

    __slots__ = (
        "_citations", "_closing_item_events", "_finish", "_groups", "_index", "_items", "_kind", "_model", "_open_call",
        "_open_id", "_request", "_response", "_sequence_number", "_text",
    )  # fmt: skip

    def __init__(
        self,
        request: dict[str, Any],
        name: str,
        model: str,
        size: int,
        groups: shape.Namespaces,
        left_out: set[str] | None = None,
    ) -> None:
        super().__init__(size, left_out)
        self._request = request
        self._groups = groups
        self._model = model
        self._response: dict[str, Any] = {"id": name}
        self._sequence_number = 0
        """Sequence number of the next event."""
        self._items: list[dict[str, Any]] = []
        """Finished output items."""
        self._open_id = ""
        """Id of the item that is open."""
        self._kind = ""
        """Kind of the open item: `TEXT`, `REFUSAL`, `call`; empty: none is open."""
        self._text = StringIO()
        """Text of the open item, or the arguments of its call."""
        self._citations: list[UrlCitation] = []
        """What the open text cites."""
        self._open_call: ToolCallDelta | None = None
        self._index: int | None = -1
        """Index of the open call."""
        self._finish = ""
        self._closing_item_events: list[bytes] = []
        """Events that end the open item, once the answer is complete."""

    def _event(self, kind: str, **fields: Any) -> bytes:
        data = {"type": kind, "sequence_number": self._sequence_number, **fields}
        self._sequence_number += 1
        return format_named_event(kind, _encode(data))

    def _opening_events(self, found: Chunk) -> list[bytes]:
        self._response = shape.new_response(self._request, str(self._response["id"]), found.model or self._model)
        return [
            self._event("response.created", response=self._response),
            self._event("response.in_progress", response=self._response),
        ]

    def _text_events(self, kind: str, text: str | None) -> list[bytes]:
        if not text:
            return []
        out: list[bytes] = []
        if self._kind != kind:
            out = self._close_item()
            self._kind, self._open_id, self._text = kind, shape.new_object_id("msg"), StringIO()
            self._citations = []
            item = shape.message_item(self._open_id, "in_progress", [])
            out.append(self._event("response.output_item.added", output_index=len(self._items), item=item))
            out.append(self._event("response.content_part.added", **self._location(), part=self._open_part()))
        self._text.write(text)
        self.output_bytes += len(text.encode())
        more: dict[str, Any] = {"logprobs": []} if kind == TEXT else {}
        out.append(self._event(f"response.{kind}.delta", **self._location(), delta=text, **more))
        return out

    def _citation_events(self, citations: list[UrlCitation]) -> list[bytes]:
        if self._kind != TEXT:
            return []
        out: list[bytes] = []
        for citation in citations:
            annotation, number = response_annotation(citation), len(self._citations)
            where = {**self._location(), "annotation_index": number}
            out.append(self._event("response.output_text.annotation.added", **where, annotation=annotation))
            self._citations.append(citation)
        return out

    def _place_pages(self, pages: list[UrlCitation]) -> list[UrlCitation]:
        return marked_pages(self._text.getvalue(), pages) if self._kind == TEXT else []

    def _location(self) -> dict[str, Any]:
        return {"item_id": self._open_id, "output_index": len(self._items), "content_index": 0}

    def _open_part(self) -> dict[str, Any]:
        text = self._text.getvalue()
        return shape.text_part(text, self._citations) if self._kind == TEXT else shape.refusal_part(text)

    def _call_events(self, call: ToolCallDelta) -> list[bytes]:
        out: list[bytes] = []
        if self._kind != "call" or call.index != self._index:
            if not call.id or not call.name:
                raise Malformed("the upstream's stream has a tool call without a name, or goes back to an earlier one")
            out = self._close_item()
            self._kind, self._open_id = "call", shape.new_object_id("fc" if call.custom is None else "ctc")
            self._open_call, self._index = call, call.index
            self._text = StringIO()
            item = self._open_item("in_progress")
            out.append(self._event("response.output_item.added", output_index=len(self._items), item=item))
        if text := call.text:
            self._text.write(text)
            where = {"item_id": self._open_id, "output_index": len(self._items)}
            out.append(self._event(f"{self._call_event}.delta", **where, delta=text))
        return out

    @property
    def _has_custom_call(self) -> bool:
        """Whether the open item is the call of a custom tool."""
        return self._open_call is not None and self._open_call.custom is not None

    @property
    def _call_event(self) -> str:
        """How the types of the events of the open call begin."""
        return f"response.{'custom_tool_call_input' if self._has_custom_call else 'function_call_arguments'}"

    def _note_finish(self, choice: ChoiceDelta) -> None:
        self._finish = choice.finish_reason or ""

    def _open_item(self, status: str) -> dict[str, Any]:
        """The open item."""
        if self._kind != "call" or self._open_call is None:
            return shape.message_item(self._open_id, status, [self._open_part()])
        text_so_far = self._text.getvalue()
        called = self._open_call.id or "", self._open_call.name
        if self._has_custom_call:
            return shape.custom_tool_call_item(self._open_id, *called, text_so_far, self._groups)
        return shape.function_call_item(self._open_id, status, *called, text_so_far, self._groups)

    def _close_item(self) -> list[bytes]:
        if not self._open_id:
            return []
        out: list[bytes] = []
        if self._kind == "call":
            name, default = ("input", "") if self._has_custom_call else ("arguments", shape.NO_ARGUMENTS)
            text_so_far = self._text.getvalue() or default
            self._text = StringIO(text_so_far)
            where = {"item_id": self._open_id, "output_index": len(self._items)}
            out.append(self._event(f"{self._call_event}.done", **where, **{name: text_so_far}))
        else:
            text_so_far = self._text.getvalue()
            text: dict[str, Any] = {"refusal": text_so_far}
            if self._kind == TEXT:
                text = {"text": text_so_far, "logprobs": []}
            out.append(self._event(f"response.{self._kind}.done", **self._location(), **text))
            out.append(self._event("response.content_part.done", **self._location(), part=self._open_part()))
        item = self._open_item(shape.status_of(self._finish, text_so_far if self._kind == "call" else ""))
        out.append(self._event("response.output_item.done", output_index=len(self._items), item=item))
        self._items.append(item)
        self._open_id = self._kind = ""
        return out

    @property
    def complete(self) -> bool:
        return bool(self._finish)

    def _final_response(self) -> dict[str, Any]:
        self._closing_item_events += self._close_item()
        return shape.finished_response(self._response, self._items, self._finish, self.usage_or_estimate)

    def response_json(self) -> bytes:
        """The whole response, once it is complete."""
        return _encode(self._final_response())

    def closing_events(self, facts: bytes) -> bytes:
        """The events that end the open item, and the final event with the whole response and the facts."""
        whole, out = self._final_response(), self._closing_item_events
        kind = f"response.{whole['status']}"
        data = {"type": kind, "sequence_number": self._sequence_number, "response": whole}
        out.append(format_named_event(kind, append_field(_encode(data), b"groundplan", facts)))
        return b"".join(out)

    def error_event(self, reason: str, call_id: str) -> bytes:
        return _error_event(self._sequence_number, reason, call_id)
