"""Streams of OpenAI's Responses: an upstream's own, passed on with its last event held, and those made of chat."""

from __future__ import annotations

import re
from collections.abc import Mapping
from io import StringIO
from typing import Any, Protocol, runtime_checkable

import msgspec

from groundplan.economics.prices.provider_usage import ResponsesUsage, normalize_tier
from groundplan.gateway.http.sse import DONE, MAX_EVENT, append_field, format_named_event
from groundplan.gateway.surfaces.chat.answer_types import ChoiceDelta, Chunk, ToolCallDelta
from groundplan.gateway.surfaces.codec import Malformed
from groundplan.gateway.surfaces.openai_relay import stream_error
from groundplan.gateway.surfaces.responses import shapes as shape
from groundplan.gateway.surfaces.upstream_json import STREAM, decode_upstream
from groundplan.gateway.surfaces.via_chat_stream import TEXT, ViaChatStream
from groundplan.ledger.model import Usage

_LAST = frozenset({"response.completed", "response.incomplete"})
_BEGINS = frozenset({"response.created", "response.queued", "response.in_progress", "keepalive"})
"""What is told as soon as a request is accepted, and while it waits for a model."""
_USUAL = frozenset(
    {
        "response.output_text.delta", "response.function_call_arguments.delta", "response.reasoning_text.delta",
        "response.reasoning_summary_text.delta",
    }
)  # fmt: skip
"""Nearly all of a stream."""
_NAME = re.compile(r"[A-Za-z0-9_.:-]+").fullmatch
"""Of an event; Open Responses has those of one maker begin with its name and a colon."""
_encode = msgspec.json.Encoder().encode


class Whole(msgspec.Struct, frozen=True):
    """A response as far as the gateway needs it."""

    id: str
    object: str = ""
    status: str = "completed"
    usage: ResponsesUsage | None = None
    service_tier: Any = None

    def counted(self) -> Usage | None:
        """What it used, with the service tier that it names; None where it does not say, or what cannot be true."""
        return None if self.usage is None else self.usage.usage(normalize_tier(self.service_tier))


class _Event(msgspec.Struct, frozen=True):
    type: str = ""
    sequence_number: int = -1
    delta: str | msgspec.Raw = ""
    response: Whole | None = None


class _Last(msgspec.Struct, frozen=True):
    response: msgspec.Raw


_NAMELESS = "the upstream's stream has an event without a name"
_event = msgspec.json.Decoder(_Event).decode
_response = msgspec.json.Decoder(_Last).decode


def _broken(number: int, reason: str, call_id: str) -> bytes:
    message, hint = f"the answer broke off: {reason}", "What came so far is all there is; ask again."
    told = {"code": "stream_broken", "message": message, "param": None, "hint": hint, "call_id": call_id}
    # by an `error` in it official clients know an event that ends a stream; of the other fields many make nothing
    event = {"type": "error", "sequence_number": number, **told, "error": {"type": "api_error", **told}}
    return format_named_event("error", _encode(event))


def as_asked(data: bytes, asked: Mapping[str, bytes]) -> bytes:
    """An event of an upstream's own stream, whose response tells back what its caller asked; any other as it is."""
    if b'"response"' not in data or data == DONE:
        return data
    fields = shape.fields_of(data)
    return shape.event_told_back(fields, asked) if bytes(fields.get("response", b"null")) != b"null" else data


@runtime_checkable
class Rendered(Protocol):
    """A relay that has the whole response once it is complete."""

    def response_json(self) -> bytes: ...


class ResponsesRelay:
    """An upstream's own stream."""

    __slots__ = ("_asked", "_early", "_held", "_kind", "_number", "done", "output_bytes", "response", "usage")

    def __init__(self, asked: Mapping[str, bytes]) -> None:
        """`asked`: what its caller asked, where the upstream was asked otherwise."""
        self._asked = asked
        self._early: bytes | None = b""
        """What is told before anything else, and is no answer yet; None: that has come."""
        self._held: bytes | None = None
        self._kind = ""
        self._number = -1
        self.response: Whole | None = None
        self.usage: Usage | None = None
        self.output_bytes = 0
        self.done = False

    def feed(self, data: bytes) -> bytes:
        """Events for the client after one more of the upstream's. Raises `Malformed`."""
        if data == DONE:
            self.done = True
            return b""
        found = decode_upstream(_event, data, STREAM)
        if found.type in ("", "error", "response.failed"):
            return self._failed(found, data)
        if found.type not in _USUAL and _NAME(found.type) is None:
            raise Malformed(_NAMELESS)
        self._number = max(self._number, found.sequence_number)
        if self._asked and found.response is not None:
            data = decode_upstream(self._told_back, data, STREAM)
        if found.type in _LAST:
            return self._ended(found, data)
        self.output_bytes += len(found.delta.encode() if isinstance(found.delta, str) else bytes(found.delta))
        told = format_named_event(found.type, data)
        return told if self._early is None else self._begun(found.type, told)

    def _begun(self, kind: str, told: bytes) -> bytes:
        early = self._early or b""
        if kind in _BEGINS and len(early) < MAX_EVENT:
            self._early = early + told
            return b""
        self._early = None
        return early + told

    def _ended(self, found: _Event, data: bytes) -> bytes:
        """Raises `Malformed`."""
        if found.response is None:
            raise Malformed(STREAM)
        if found.response.status in ("failed", "cancelled"):  # so vLLM ends what its server broke off
            return self._failed(found, data)
        self._held, self._kind, self.response, self.done = data, found.type, found.response, True
        if found.response.usage is not None:
            self.usage = found.response.counted()
        return b""

    def _failed(self, found: _Event, data: bytes) -> bytes:
        """Raises `Malformed` with what went wrong. Nothing yet where the next event may say that, as at Azure."""
        why = shape.told_error(data)
        if found.response is not None and (usage := found.response.counted()) is not None and usage.input:
            self.usage, self.done = usage, True  # it was worked on, whatever else is told
            raise stream_error()
        if not (found.type or why):
            raise Malformed(_NAMELESS)
        if found.type == "response.failed" and self._early is not None and not why:
            return b""
        raise stream_error(why)

    def _told_back(self, data: bytes) -> bytes:
        return shape.event_told_back(shape.fields_of(data), self._asked)

    @property
    def complete(self) -> bool:
        return self._held is not None

    def response_json(self) -> bytes:
        """The whole response, once it is complete."""
        return bytes(_response(self._held or b"{}").response)

    def closing_events(self, facts: bytes) -> bytes:
        """The event that ends it, with the facts, and before it what is still held."""
        return (self._early or b"") + format_named_event(
            self._kind, append_field(self._held or b"{}", b"groundplan", facts)
        )

    def error_event(self, reason: str, call_id: str) -> bytes:
        return _broken(self._number + 1, reason, call_id)


class ResponsesChatRelay(ViaChatStream):
    """A chat stream as the events of a response."""

    __slots__ = (
        "_asked", "_call", "_ending", "_finish", "_groups", "_index", "_items", "_kind", "_model", "_number", "_open",
        "_response", "_text",
    )  # fmt: skip

    def __init__(self, asked: dict[str, Any], name: str, model: str, size: int, groups: shape.Groups) -> None:
        super().__init__(size)
        self._asked = asked
        self._groups = groups
        self._model = model
        self._response: dict[str, Any] = {"id": name}
        self._number = 0
        """Of the next event."""
        self._items: list[dict[str, Any]] = []
        """Those that are done."""
        self._open = ""
        """Id of the item that is open."""
        self._kind = ""
        """Of it: `TEXT`, `REFUSAL`, call."""
        self._text = StringIO()
        """Of it, or what its call is made with."""
        self._call: ToolCallDelta | None = None
        self._index = -1
        """Number of the call that is open."""
        self._finish = ""
        self._ending: list[bytes] = []
        """Events of the open item's end, once that is known."""

    def _event(self, kind: str, **fields: Any) -> bytes:
        data = {"type": kind, "sequence_number": self._number, **fields}
        self._number += 1
        return format_named_event(kind, _encode(data))

    def _begin(self, found: Chunk) -> list[bytes]:
        self._response = shape.begun(self._asked, str(self._response["id"]), found.model or self._model)
        return [
            self._event("response.created", response=self._response),
            self._event("response.in_progress", response=self._response),
        ]

    def _said(self, kind: str, text: str | None) -> list[bytes]:
        if not text:
            return []
        out: list[bytes] = []
        if self._kind != kind:
            out = self._close()
            self._kind, self._open, self._text = kind, shape.new_name("msg"), StringIO()
            item = shape.message(self._open, "in_progress", [])
            out.append(self._event("response.output_item.added", output_index=len(self._items), item=item))
            out.append(self._event("response.content_part.added", **self._where(), part=self._part()))
        self._text.write(text)
        self.output_bytes += len(text.encode())
        more: dict[str, Any] = {"logprobs": []} if kind == TEXT else {}
        out.append(self._event(f"response.{kind}.delta", **self._where(), delta=text, **more))
        return out

    def _where(self) -> dict[str, Any]:
        return {"item_id": self._open, "output_index": len(self._items), "content_index": 0}

    def _part(self) -> dict[str, Any]:
        text = self._text.getvalue()
        return shape.text_part(text) if self._kind == TEXT else shape.refusal_part(text)

    def _called(self, call: ToolCallDelta) -> list[bytes]:
        arguments = call.function.arguments or ""
        out: list[bytes] = []
        if self._kind != "call" or call.index != self._index:
            if not call.id or not call.function.name:
                raise Malformed("the upstream's stream has a tool call without a name, or goes back to an earlier one")
            out = self._close()
            self._kind, self._open, self._call, self._index = "call", shape.new_name("fc"), call, call.index
            self._text = StringIO()
            item = self._item("in_progress")
            out.append(self._event("response.output_item.added", output_index=len(self._items), item=item))
        if arguments:
            self._text.write(arguments)
            where = {"item_id": self._open, "output_index": len(self._items)}
            out.append(self._event("response.function_call_arguments.delta", **where, delta=arguments))
        return out

    def _finished(self, choice: ChoiceDelta) -> None:
        self._finish = choice.finish_reason or ""

    def _item(self, status: str) -> dict[str, Any]:
        """The open item."""
        if self._kind != "call" or self._call is None:
            return shape.message(self._open, status, [self._part()])
        told = self._text.getvalue()
        called = self._call.id or "", self._call.function.name or ""
        return shape.call(self._open, status, *called, told, self._groups)

    def _close(self) -> list[bytes]:
        if not self._open:
            return []
        out: list[bytes] = []
        if self._kind == "call":
            told = self._text.getvalue() or shape.NONE
            self._text = StringIO(told)
            where = {"item_id": self._open, "output_index": len(self._items)}
            out.append(self._event("response.function_call_arguments.done", **where, arguments=told))
        else:
            told = self._text.getvalue()
            text: dict[str, Any] = {"refusal": told}
            if self._kind == TEXT:
                text = {"text": told, "logprobs": []}
            out.append(self._event(f"response.{self._kind}.done", **self._where(), **text))
            out.append(self._event("response.content_part.done", **self._where(), part=self._part()))
        item = self._item(shape.status_of(self._finish, told if self._kind == "call" else ""))
        out.append(self._event("response.output_item.done", output_index=len(self._items), item=item))
        self._items.append(item)
        self._open = self._kind = ""
        return out

    @property
    def complete(self) -> bool:
        return bool(self._finish)

    def _whole(self) -> dict[str, Any]:
        self._ending += self._close()
        return shape.ended(self._response, self._items, self._finish, self.counted)

    def response_json(self) -> bytes:
        """The whole response, once it is complete."""
        return _encode(self._whole())

    def closing_events(self, facts: bytes) -> bytes:
        """The open item's end, and the whole response with the facts."""
        whole, out = self._whole(), self._ending
        kind = f"response.{whole['status']}"
        data = {"type": kind, "sequence_number": self._number, "response": whole}
        out.append(format_named_event(kind, append_field(_encode(data), b"groundplan", facts)))
        return b"".join(out)

    def error_event(self, reason: str, call_id: str) -> bytes:
        return _broken(self._number, reason, call_id)
