"""Continues a broken stream of OpenAI's Responses.

The message that was open goes on, later items follow under their next numbers, and the response at the end has all of
it. A function call or reasoning that has begun, refusals, text that was annotated, log probabilities and structured
output are not continued; annotations of the rest are moved to where it stands in the whole text. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from io import StringIO
from typing import Any

import msgspec
from msgspec.structs import replace

from groundplan.gateway.call.ask import Ask
from groundplan.gateway.http.sse import format_named_event
from groundplan.gateway.resuming.continued_relay import (
    INSTRUCTION,
    ContinuedRelay,
    SentAnswer,
    add_usage,
    events,
    has_text,
    is_set,
    overlap,
    remaining_tokens,
    structured_output_reason,
    with_caps,
)
from groundplan.gateway.surfaces.body import decode_value
from groundplan.gateway.surfaces.chat.annotations import shift_annotation
from groundplan.gateway.surfaces.codec import Malformed, Relay
from groundplan.gateway.surfaces.responses.stream import ResponsesChatRelay, ResponsesRelay
from groundplan.gateway.surfaces.responses.surface import continued
from groundplan.ledger.model import Usage

ENDPOINT = "responses"
_HEAD = ("id", "created_at", "model", "previous_response_id", "metadata", "instructions", "max_output_tokens")
_ENDS = ("response.completed", "response.incomplete")
_BEGINS = ("response.created", "response.queued", "response.in_progress")
_REASONING_BEGUN = "it had begun to reason"
_decode = msgspec.json.Decoder(dict[str, Any]).decode
_encode = msgspec.json.encode


def obstacle(ask: Ask) -> str:
    """Why the stream of this request cannot be continued; empty where it can. Raises `Invalid`."""
    if is_set(ask, "top_logprobs") or b"logprobs" in bytes(ask.fields.get("include", b"")):
        return "log probabilities cannot be continued"
    text = decode_value(ask.fields.get("text", b"null"))  # another shape is refused by the upstream
    form = text.get("format") if isinstance(text, dict) else None
    if form is not None and not (isinstance(form, dict) and form.get("type", "text") == "text"):
        return "structured output (text.format) cannot be continued"
    return structured_output_reason(ask)


def rest_request(ask: Ask, sent: SentAnswer, cap: int) -> Ask:
    """The request for the rest of the answer. `cap`: the most output tokens of the whole answer."""
    left = remaining_tokens(cap, sent)
    text = {"type": "output_text", "text": sent.text, "annotations": []}
    added: list[dict[str, Any]] = (
        []
        if not has_text(sent)
        else [
            {"type": "message", "role": "assistant", "content": [text]},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": INSTRUCTION}]},
        ]
    )
    request = continued(replace(ask, fields=with_caps(ask.fields, left, sent)), added)
    return replace(request, cap=left)


@dataclass(slots=True)
class Items:
    """What the client has of a response, over all attempts."""

    response: dict[str, Any]
    number: int = 0
    """Sequence number of the next event."""
    done: list[dict[str, Any]] = field(default_factory=list)
    open: str = ""
    """Id of the message that has begun and not ended."""
    part: str = ""
    """State of its text part: `open`, `done` once its whole text was sent, `ended`; empty: not begun."""
    text_buffer: StringIO = field(default_factory=StringIO)
    """Text of the part, over all attempts."""
    index: int = 0
    """Index of the part in its message: vLLM counts the parts of all items."""
    annotations: list[dict[str, Any]] = field(default_factory=list)
    """Annotations of the part."""
    numbers: dict[int, int] = field(default_factory=dict)
    """The upstream's number of an item in the running attempt -> the client's; other items are left out."""

    @property
    def text(self) -> str:
        return self.text_buffer.getvalue()


class ContinuedResponse(ContinuedRelay):
    """Continues streams of this surface."""

    __slots__ = ("_continued_index", "_item_names", "_own_length", "_part", "_text_before")

    def __init__(self, inner: Relay, sent: SentAnswer | None) -> None:
        super().__init__(inner, sent)
        self._continued_index: int | None = None
        """This attempt's number of the message that continues the client's open one."""
        self._part: int | None = None
        """This attempt's number of the part in that message; the continued text must have no other part."""
        self._item_names: list[str] = []
        """Names of the items begun at an upstream that does not number them, such as llama.cpp."""
        self._own_length = 0
        """Characters of this attempt's text in that message so far."""
        self._text_before = ""
        """Text of that message when this attempt began."""
        if self.sent is not None:
            items: Items = self.sent.surface_state
            items.numbers.clear()
            self._text_before = items.text

    def response_json(self) -> bytes:
        """The whole response, once it is complete."""
        inner = self.innermost
        if not isinstance(inner, ResponsesRelay | ResponsesChatRelay):
            raise AssertionError("not a relay of responses")
        whole = _decode(inner.response_json())
        return _encode(
            whole if self._earlier is None or self.sent is None else self._complete_response(self.sent, whole)
        )

    def error_event(self, reason: str, call_id: str) -> bytes:
        """The event of the inner relay, numbered after the last one that the client has: a later attempt counts from
        its own beginning."""
        event = super().error_event(reason, call_id)
        if self._earlier is None or self.sent is None:
            return event
        number = self.sent.surface_state.number
        return b"".join(
            format_named_event("error", _encode({**_decode(data), "sequence_number": number})) for data in events(event)
        )

    # the first attempt ------------------------------------------------------------------------------------------------

    def _record_event(self, data: bytes) -> None:
        event = _decode(data)
        if event["type"] == "response.created":
            self.sent = SentAnswer({}, surface_state=Items(event["response"]))
        if self.sent is not None:
            self.sent = self._updated(self.sent, event)
        elif event["type"] not in (*_BEGINS, "keepalive"):
            raise LookupError("a response that has not begun")

    def _updated(self, sent: SentAnswer, event: dict[str, Any]) -> SentAnswer:
        """What the client has after one more event, which has the client's numbers."""
        items: Items = sent.surface_state
        items.number = max(items.number, event.get("sequence_number", -1) + 1)
        kind = event["type"]
        if kind == "response.output_item.added":
            return self._record_begin(sent, event["item"])
        if kind == "response.content_part.added":
            has_part, kind = bool(items.part), str(event["part"]["type"])
            items.part, items.text_buffer, items.index = "open", StringIO(), event.get("content_index", 0)
            items.annotations = []
            if has_part or kind != "output_text":
                return replace(
                    sent, obstacle="it had begun another part" if has_part else f"it had begun a {kind[:40]}"
                )
            return sent
        if kind == "response.output_text.delta":
            items.text_buffer.write(event["delta"])
            sent.text_buffer.write(event["delta"])
            return replace(sent, text_events=sent.text_events + 1)
        if kind == "response.output_text.done":
            items.part = "done"
        elif kind == "response.content_part.done":
            items.part = "ended"
        elif kind == "response.output_item.done":
            items.done.append(event["item"])
            thought = event["item"]["type"] == "reasoning"
            items.open = items.part = ""
            return replace(sent, obstacle="") if thought and sent.obstacle == _REASONING_BEGUN else sent
        elif kind == "response.output_text.annotation.added":
            return replace(sent, obstacle="it had begun to cite")
        return sent

    @staticmethod
    def _record_begin(sent: SentAnswer, item: dict[str, Any]) -> SentAnswer:
        items: Items = sent.surface_state
        kind = item["type"]
        if kind == "message":
            items.open, items.part, items.text_buffer = item["id"], "", StringIO()
            return sent
        if kind == "reasoning":
            return replace(sent, obstacle=sent.obstacle or _REASONING_BEGUN)
        return replace(sent, obstacle="a tool call had begun")

    # later ones -------------------------------------------------------------------------------------------------------

    def _continue_event(self, data: bytes) -> bytes:
        event = _decode(data)
        kind, sent = event["type"], self.sent
        if sent is None or self._earlier is None or kind in _BEGINS:
            return b""
        if kind in _ENDS:
            before = self._close_open_item(sent, "completed" if kind == _ENDS[0] else "incomplete")
            return before + self._emit({**event, "response": self._complete_response(sent, event["response"])})
        event = self._numbered(event)
        if "output_index" not in event:
            return self._emit(event)
        if kind == "response.output_item.added":
            return self._begin_item(sent, event)
        number = sent.surface_state.numbers.get(event["output_index"])
        if number is None:
            return b""
        if event["output_index"] == self._continued_index:
            return self._continue_item(sent, event)
        return self._emit({**event, "output_index": number})

    def _numbered(self, event: dict[str, Any]) -> dict[str, Any]:
        """An event of an item with the item's number, also where the upstream sends none."""
        item = event.get("item", {})
        name = item.get("id") or item.get("call_id") or event.get("item_id")
        if name is None or "output_index" in event:
            return event
        if name not in self._item_names:
            self._item_names.append(name)
        return {**event, "output_index": self._item_names.index(name)}

    def _begin_item(self, sent: SentAnswer, event: dict[str, Any]) -> bytes:
        """Begin an item: the continuation of the open message, a new one, or reasoning, which comes too late."""
        items: Items = sent.surface_state
        number, kind = event["output_index"], event["item"]["type"]
        if kind == "reasoning":
            return b""
        if kind == "message" and items.open and items.part in ("", "open"):
            self._continued_index = number
            items.numbers[number] = len(items.done)
            return b""
        before = self._close_open_item(sent, "completed")
        items.numbers[number] = len(items.done)
        return before + self._emit({**event, "output_index": len(items.done)})

    def _continue_item(self, sent: SentAnswer, event: dict[str, Any]) -> bytes:
        """Translate an event of the message that continues the open one."""
        items: Items = sent.surface_state
        kind = event["type"]
        if kind == "response.output_text.delta":
            self._own_length += len(event["delta"])
            text = self._without_repetition(event["delta"])
            return self._text_delta(sent, text, event) if text else b""
        if kind == "response.output_text.annotation.added":
            return self._annotate(sent, event)
        if kind == "response.content_part.added":
            if event["part"]["type"] != "output_text" or self._part is not None:
                raise Malformed("the answer does not go on as text")
            self._part = event.get("content_index", 0)
            return b"" if items.part == "open" else self._emit({**event, **self._position(items)})
        if kind == "response.output_item.done":
            return self._close_open_item(sent, str(event["item"].get("status", "completed")))
        return b""  # the ends of text and part are sent with the whole text, once the item ends

    def _text_delta(self, sent: SentAnswer, text: str, event: dict[str, Any] | None = None) -> bytes:
        defaults = {"logprobs": []} if event is None else event
        event = {**defaults, "type": "response.output_text.delta", **self._position(sent.surface_state), "delta": text}
        return self._emit(event)

    def _annotate(self, sent: SentAnswer, event: dict[str, Any]) -> bytes:
        """Translate an annotation of the continued text, after the new part of the held text."""
        items: Items = sent.surface_state
        new_text = self._release_held_text() if self._may_repeat else ""
        out = self._text_delta(sent, new_text) if new_text else b""
        annotation = shift_annotation(event["annotation"], len(items.text) - self._own_length)
        items.annotations.append(annotation)
        where = {**self._position(items), "annotation_index": len(items.annotations) - 1}
        return out + self._emit({**event, **where, "annotation": annotation})

    @staticmethod
    def _position(items: Items) -> dict[str, Any]:
        return {"item_id": items.open, "output_index": len(items.done), "content_index": items.index}

    def _close_open_item(self, sent: SentAnswer, status: str) -> bytes:
        """Close the open message, after the new part of the held text."""
        items: Items = sent.surface_state
        if not items.open:
            return b""
        out = b""
        if self._may_repeat and (new_text := self._release_held_text()):
            out = self._text_delta(sent, new_text)
        where, part = self._position(items), _part(items.text, items.annotations)
        if items.part == "open":
            out += self._emit({"type": "response.output_text.done", **where, "text": items.text, "logprobs": []})
        if items.part == "done":
            out += self._emit({"type": "response.content_part.done", **where, "part": part})
        item = _message(items.open, status, part)
        return out + self._emit({"type": "response.output_item.done", "output_index": len(items.done), "item": item})

    def _complete_response(self, sent: SentAnswer, response: dict[str, Any]) -> dict[str, Any]:
        """The response in the last event: the items of earlier attempts, and those that this one adds."""
        items: Items = sent.surface_state
        output = list(items.done)
        if items.open:  # its end is not sent yet: the text as it will be
            text = (
                items.text
                if self._continued_index is None
                else self._text_before + self._new_text(response["output"][self._continued_index])
            )
            output.append(_message(items.open, "completed", _part(text, items.annotations)))
        known = {item.get("id") for item in output}
        output += [
            item
            for number, item in enumerate(response["output"])
            if item["type"] != "reasoning" and number != self._continued_index
            # compared by their numbers, too: vLLM has other ids in the response than in the events
            and items.numbers.get(number, len(items.done)) >= len(items.done) and item.get("id", number) not in known
        ]  # fmt: skip
        head = {name: items.response[name] for name in _HEAD if name in items.response}
        usage = response.get("usage")
        if isinstance(usage, dict) and self._earlier is not None:
            usage = _total_usage(usage, self._earlier.usage)
        return {**response, **head, "output": output, "usage": usage}

    def _new_text(self, item: dict[str, Any]) -> str:
        """The text that a later attempt's message adds to the open one."""
        text = "".join(part.get("text", "") for part in item["content"])
        return text[overlap(self._tail, text) :]

    def _emit(self, event: dict[str, Any]) -> bytes:
        """Format an event with the next number, and record it like those of the first attempt."""
        if self.sent is None:
            return b""
        event = {**event, "sequence_number": self.sent.surface_state.number}
        self.sent = self._updated(self.sent, event)
        return format_named_event(event["type"], _encode(event))


def _part(text: str, annotations: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": annotations, "logprobs": []}


def _message(name: str, status: str, part: dict[str, Any]) -> dict[str, Any]:
    return {"id": name, "type": "message", "role": "assistant", "status": status, "content": [part]}


def _total_usage(usage: dict[str, Any], earlier: Usage) -> dict[str, Any]:
    """The usage of all attempts, as Responses report it."""
    total = earlier.input + earlier.output
    return add_usage(usage, {"input_tokens": earlier.input, "output_tokens": earlier.output, "total_tokens": total})
