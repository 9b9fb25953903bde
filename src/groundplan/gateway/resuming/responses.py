"""Going on with a broken stream of OpenAI's Responses.

The message that was open goes on, later items follow under their next numbers, and the response at the end has all of
it. A function call or reasoning that has begun, refusals, annotations, log probabilities and structured output are not
continued. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from io import StringIO
from typing import Any

import msgspec
from msgspec.structs import replace

from groundplan.gateway.call.ask import Ask
from groundplan.gateway.http.sse import format_named_event
from groundplan.gateway.resuming.story import (
    INSTRUCTION,
    Continued,
    Sent,
    add_usage,
    has_text,
    is_set,
    overlap,
    remaining_tokens,
    structured_output_reason,
    with_caps,
)
from groundplan.gateway.surfaces.body import decode_value
from groundplan.gateway.surfaces.codec import Malformed, Relay
from groundplan.gateway.surfaces.responses.stream import ResponsesChatRelay, ResponsesRelay
from groundplan.gateway.surfaces.responses.surface import continued
from groundplan.ledger.model import Usage

ENDPOINT = "responses"
_HEAD = ("id", "created_at", "model", "previous_response_id", "metadata", "instructions", "max_output_tokens")
_ENDS = ("response.completed", "response.incomplete")
_BEGINS = ("response.created", "response.queued", "response.in_progress")
_REASONS = "it had begun to reason"
_decode = msgspec.json.Decoder(dict[str, Any]).decode
_encode = msgspec.json.encode


def forbidden(ask: Ask) -> str:
    """Why a stream that is asked so cannot be continued; empty where it can. Raises `Invalid`."""
    if is_set(ask, "top_logprobs") or b"logprobs" in bytes(ask.fields.get("include", b"")):
        return "log probabilities cannot be continued"
    told = decode_value(ask.fields.get("text", b"null"))  # of another shape: whoever is asked says so
    form = told.get("format") if isinstance(told, dict) else None
    if form is not None and not (isinstance(form, dict) and form.get("type", "text") == "text"):
        return "structured output (text.format) cannot be continued"
    return structured_output_reason(ask)


def rest(ask: Ask, sent: Sent, cap: int) -> Ask:
    """The caller's ask, for the rest of the answer. `cap`: output tokens that the whole of it may have."""
    left = remaining_tokens(cap, sent)
    said = {"type": "output_text", "text": sent.text, "annotations": []}
    more: list[dict[str, Any]] = (
        []
        if not has_text(sent)
        else [
            {"type": "message", "role": "assistant", "content": [said]},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": INSTRUCTION}]},
        ]
    )
    made = continued(replace(ask, fields=with_caps(ask.fields, left)), more)
    return replace(made, cap=left)


@dataclass(slots=True)
class Items:
    """What the client has of a response, over all attempts."""

    response: dict[str, Any]
    number: int = 0
    """Of the next event."""
    done: list[dict[str, Any]] = field(default_factory=list)
    open: str = ""
    """Id of the message that has begun and not ended."""
    part: str = ""
    """Of its text: `open` once it has begun, `said` once all of it was, `ended`; empty: not yet begun."""
    said: StringIO = field(default_factory=StringIO)
    """Text of that part, over all attempts."""
    index: int = 0
    """Of that part in its message: vLLM counts the parts of all items."""
    numbers: dict[int, int] = field(default_factory=dict)
    """Of items of the attempt that runs: the client's by its own. What is not in it is left out."""

    @property
    def text(self) -> str:
        return self.said.getvalue()


class ContinuedResponse(Continued):
    """See the module."""

    __slots__ = ("_before", "_merged", "_names", "_part")

    def __init__(self, inner: Relay, sent: Sent | None) -> None:
        super().__init__(inner, sent)
        self._merged: int | None = None
        """This attempt's number of the message that goes on."""
        self._part: int | None = None
        """Its number of the part of that message; the text that goes on has no other one."""
        self._names: list[str] = []
        """Names of items that have begun at an upstream that does not number them, as llama.cpp."""
        self._before = ""
        """Text of that message when this attempt began."""
        if self.sent is not None:
            items: Items = self.sent.more
            items.numbers.clear()
            self._before = items.text

    def response_json(self) -> bytes:
        """The whole response, once it is complete."""
        inner = self.innermost
        if not isinstance(inner, ResponsesRelay | ResponsesChatRelay):
            raise AssertionError("not a relay of responses")
        whole = _decode(inner.response_json())
        return _encode(whole if self._earlier is None or self.sent is None else self._whole(self.sent, whole))

    # the first attempt ------------------------------------------------------------------------------------------------

    def _note(self, data: bytes) -> None:
        found = _decode(data)
        if found["type"] == "response.created":
            self.sent = Sent({}, more=Items(found["response"]))
        if self.sent is not None:
            self.sent = self._noted(self.sent, found)
        elif found["type"] not in (*_BEGINS, "keepalive"):
            raise LookupError("a response that has not begun")

    def _noted(self, sent: Sent, found: dict[str, Any]) -> Sent:
        """What the client has after one more event, which bears the client's own numbers."""
        items: Items = sent.more
        items.number = max(items.number, found.get("sequence_number", -1) + 1)
        kind = found["type"]
        if kind == "response.output_item.added":
            return self._begun(sent, found["item"])
        if kind == "response.content_part.added":
            more, kind = bool(items.part), str(found["part"]["type"])
            items.part, items.said, items.index = "open", StringIO(), found.get("content_index", 0)
            if more or kind != "output_text":
                return replace(sent, seam="it had begun another part" if more else f"it had begun a {kind[:40]}")
            return sent
        if kind == "response.output_text.delta":
            items.said.write(found["delta"])
            sent.said.write(found["delta"])
            return replace(sent, pieces=sent.pieces + 1)
        if kind == "response.output_text.done":
            items.part = "said"
        elif kind == "response.content_part.done":
            items.part = "ended"
        elif kind == "response.output_item.done":
            items.done.append(found["item"])
            thought = found["item"]["type"] == "reasoning"
            items.open = items.part = ""
            return replace(sent, seam="") if thought and sent.seam == _REASONS else sent
        elif kind == "response.output_text.annotation.added":
            return replace(sent, seam="it had begun to cite")
        return sent

    @staticmethod
    def _begun(sent: Sent, item: dict[str, Any]) -> Sent:
        items: Items = sent.more
        kind = item["type"]
        if kind == "message":
            items.open, items.part, items.said = item["id"], "", StringIO()
            return sent
        if kind == "reasoning":
            return replace(sent, seam=sent.seam or _REASONS)
        return replace(sent, seam="a tool call had begun")

    # later ones -------------------------------------------------------------------------------------------------------

    def _next(self, data: bytes) -> bytes:
        found = _decode(data)
        kind, sent = found["type"], self.sent
        if sent is None or self._earlier is None or kind in _BEGINS:
            return b""
        if kind in _ENDS:
            before = self._ended(sent, "completed" if kind == _ENDS[0] else "incomplete")
            return before + self._tell({**found, "response": self._whole(sent, found["response"])})
        found = self._numbered(found)
        if "output_index" not in found:
            return self._tell(found)
        if kind == "response.output_item.added":
            return self._item(sent, found)
        number = sent.more.numbers.get(found["output_index"])
        if number is None:
            return b""
        if found["output_index"] == self._merged:
            return self._piece(sent, found)
        return self._tell({**found, "output_index": number})

    def _numbered(self, found: dict[str, Any]) -> dict[str, Any]:
        """An event of an item with the number of that, also where the upstream has none."""
        item = found.get("item", {})
        name = item.get("id") or item.get("call_id") or found.get("item_id")
        if name is None or "output_index" in found:
            return found
        if name not in self._names:
            self._names.append(name)
        return {**found, "output_index": self._names.index(name)}

    def _item(self, sent: Sent, found: dict[str, Any]) -> bytes:
        """An item begins: it is the message that goes on, or one more, or reasoning that comes too late to be told."""
        items: Items = sent.more
        number, kind = found["output_index"], found["item"]["type"]
        if kind == "reasoning":
            return b""
        if kind == "message" and items.open and items.part in ("", "open"):
            self._merged = number
            items.numbers[number] = len(items.done)
            return b""
        before = self._ended(sent, "completed")
        items.numbers[number] = len(items.done)
        return before + self._tell({**found, "output_index": len(items.done)})

    def _piece(self, sent: Sent, found: dict[str, Any]) -> bytes:
        """An event of the message that goes on."""
        items: Items = sent.more
        kind = found["type"]
        if kind == "response.output_text.delta":
            text = self._trim(found["delta"])
            return self._text(sent, text, found) if text else b""
        if kind == "response.content_part.added":
            if found["part"]["type"] != "output_text" or self._part is not None:
                raise Malformed("the answer does not go on as text")
            self._part = found.get("content_index", 0)
            return b"" if items.part == "open" else self._tell({**found, **self._where(items)})
        if kind == "response.output_item.done":
            return self._ended(sent, str(found["item"].get("status", "completed")))
        return b""  # its ends are told with the whole text, once the item ends

    def _text(self, sent: Sent, text: str, found: dict[str, Any] | None = None) -> bytes:
        more = {"logprobs": []} if found is None else found
        told = {**more, "type": "response.output_text.delta", **self._where(sent.more), "delta": text}
        return self._tell(told)

    @staticmethod
    def _where(items: Items) -> dict[str, Any]:
        return {"item_id": items.open, "output_index": len(items.done), "content_index": items.index}

    def _ended(self, sent: Sent, status: str) -> bytes:
        """The end of the message that is open, and before it what of its text was held and is new."""
        items: Items = sent.more
        if not items.open:
            return b""
        out = b""
        if self._open and (left := self._released()):
            out = self._text(sent, left)
        where, part = self._where(items), _part(items.text)
        if items.part == "open":
            out += self._tell({"type": "response.output_text.done", **where, "text": items.text, "logprobs": []})
        if items.part == "said":
            out += self._tell({"type": "response.content_part.done", **where, "part": part})
        item = _message(items.open, items.text, status)
        return out + self._tell({"type": "response.output_item.done", "output_index": len(items.done), "item": item})

    def _whole(self, sent: Sent, response: dict[str, Any]) -> dict[str, Any]:
        """The response at the end: what earlier attempts had said, and what this one adds."""
        items: Items = sent.more
        output = list(items.done)
        if items.open:  # its end is not told yet: the text as it will be
            text = (
                items.text if self._merged is None else self._before + self._new_text(response["output"][self._merged])
            )
            output.append(_message(items.open, text, "completed"))
        known = {item.get("id") for item in output}
        output += [
            item
            for number, item in enumerate(response["output"])
            if item["type"] != "reasoning" and number != self._merged
            # told by their numbers, too: vLLM has other ids in the whole than in the events
            and items.numbers.get(number, len(items.done)) >= len(items.done) and item.get("id", number) not in known
        ]  # fmt: skip
        head = {name: items.response[name] for name in _HEAD if name in items.response}
        usage = response.get("usage")
        if isinstance(usage, dict) and self._earlier is not None:
            usage = _added(usage, self._earlier.usage)
        return {**response, **head, "output": output, "usage": usage}

    def _new_text(self, item: dict[str, Any]) -> str:
        """What a later attempt's message adds to the one that goes on."""
        text = "".join(part.get("text", "") for part in item["content"])
        return text[overlap(self._tail, text) :]

    def _tell(self, told: dict[str, Any]) -> bytes:
        """One event under its next number, remembered like those of the first attempt."""
        if self.sent is None:
            return b""
        told = {**told, "sequence_number": self.sent.more.number}
        self.sent = self._noted(self.sent, told)
        return format_named_event(told["type"], _encode(told))


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _message(name: str, text: str, status: str) -> dict[str, Any]:
    return {"id": name, "type": "message", "role": "assistant", "status": status, "content": [_part(text)]}


def _added(usage: dict[str, Any], earlier: Usage) -> dict[str, Any]:
    """What was used by all attempts, as Responses report it."""
    total = earlier.input + earlier.output
    return add_usage(usage, {"input_tokens": earlier.input, "output_tokens": earlier.output, "total_tokens": total})
