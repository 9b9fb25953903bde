"""The objects of OpenAI's Responses, made of a request and of what a chat answered. Pure."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from groundplan.core.ids import new_id
from groundplan.gateway.http.sse import format_named_event
from groundplan.gateway.http.strict_json import DECODE_ERRORS
from groundplan.gateway.surfaces.chat.answer_types import AnswerMessage
from groundplan.ledger.model import Usage

Fields = dict[str, msgspec.Raw]
Groups = Mapping[str, tuple[str, str]]
NO_GROUPS: Groups = MappingProxyType({})
fields_of = msgspec.json.Decoder(Fields).decode
_encode = msgspec.json.Encoder().encode
_NOTHING = msgspec.Raw(b"null")
NONE = "{}"
"""Arguments of a function that is called with nothing."""
_UNSAID = {"description": None, "parameters": {"type": "object", "properties": {}}, "strict": False}
"""Of a function, as chat takes what is not said of it. PHP's client ends at null in the place of the last two."""
_TIERS = frozenset({"default", "flex", "scale", "priority"})
_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


def new_name(prefix: str) -> str:
    """`resp_...`, `msg_...`, `fc_...`"""
    return f"{prefix}_{new_id().hex}"


def told_back(response: Fields, asked: Mapping[str, bytes]) -> bytes:
    """An upstream's response that tells back what its caller asked, where the upstream was asked otherwise; also where
    it tells nothing of that itself."""
    return _encode({**response, **{name: msgspec.Raw(value) for name, value in asked.items()}})


def event_told_back(event: Fields, asked: Mapping[str, bytes]) -> bytes:
    """The same of an event with a response in it."""
    response = fields_of(event["response"])
    return _encode({**event, "response": msgspec.Raw(told_back(response, asked))})


def told_error(data: bytes) -> bytes:
    """What an event says that went wrong, as the body of an error; empty where it does not say. It is told within the
    event (OpenAI, Azure), within its response, or as the event's own fields."""
    try:
        event = fields_of(data)
        response = event.get("response", _NOTHING)
        for fields in (event, fields_of(response) if bytes(response) != b"null" else {}):
            if bytes(error := fields.get("error", _NOTHING)) != b"null":
                return _encode({"error": error})
    except DECODE_ERRORS:
        return b""
    if event.keys().isdisjoint(("code", "message")):
        return b""
    return _encode({"error": {name: event.get(name) for name in ("message", "type", "param", "code")}})


def counts(usage: Usage) -> dict[str, Any]:
    """`usage` of a response."""
    return {
        "input_tokens": usage.input,
        "input_tokens_details": {"cached_tokens": usage.cache_read, "cache_write_tokens": usage.cache_write},
        "output_tokens": usage.output,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.input + usage.output,
    }


def begun(asked: dict[str, Any], name: str, model: str) -> dict[str, Any]:
    """A response that has begun; the request's own settings are told back."""
    given = {key: value for key, value in asked.items() if value is not None}
    return {
        "id": name,
        "object": "response",
        "created_at": int(time.time()),
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": given.get("instructions"),
        "max_output_tokens": given.get("max_output_tokens"),
        "metadata": given.get("metadata", {}),
        "model": model,
        "output": [],
        "parallel_tool_calls": given.get("parallel_tool_calls", True),
        "previous_response_id": given.get("previous_response_id"),
        "reasoning": {"effort": given.get("reasoning", {}).get("effort"), "summary": None},
        "service_tier": "default",
        "temperature": given.get("temperature", 1.0),
        "text": {**given.get("text", {}), "format": given.get("text", {}).get("format") or {"type": "text"}},
        "tool_choice": given.get("tool_choice", "auto"),
        "tools": [_told(tool) for tool in given.get("tools", [])],
        "top_p": given.get("top_p", 1.0),
        "truncation": "disabled",
        "usage": None,
        "user": given.get("user"),
    }


def _told(tool: dict[str, Any]) -> dict[str, Any]:
    if tool["type"] != "function":
        return tool
    return {**_UNSAID, **{name: value for name, value in tool.items() if value is not None}}


def ended(response: dict[str, Any], output: list[dict[str, Any]], finish: str, usage: Usage) -> dict[str, Any]:
    """The same response with its answer."""
    reason = _INCOMPLETE.get(finish)
    return {
        **response,
        "status": "completed" if reason is None else "incomplete",
        "incomplete_details": None if reason is None else {"reason": reason},
        "output": output,
        "service_tier": usage.service_tier if usage.service_tier in _TIERS else response["service_tier"],
        "usage": counts(usage),
    }


def refused(name: str, model: str, code: str, why: str) -> bytes:
    """The stream of a response that was begun, and failed before anything of it was made."""
    response = begun({}, name, model)
    failed = {**response, "status": "failed", "error": {"code": code, "message": why}}
    events = (("response.created", response), ("response.failed", failed))
    return b"".join(
        format_named_event(kind, _encode({"type": kind, "sequence_number": number, "response": each}))
        for number, (kind, each) in enumerate(events)
    )


def text_part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def refusal_part(text: str) -> dict[str, Any]:
    return {"type": "refusal", "refusal": text}


def message(name: str, status: str, content: list[dict[str, Any]]) -> dict[str, Any]:
    return {"id": name, "type": "message", "role": "assistant", "status": status, "content": content}


def call(
    name: str, status: str, call_id: str, function: str, arguments: str, groups: Groups = NO_GROUPS
) -> dict[str, Any]:
    """`groups`: (group, name) of functions that are in one, by the names that they have in chat."""
    group, function = groups.get(function, ("", function))
    made = {
        "id": name,
        "type": "function_call",
        "status": status,
        "call_id": call_id,
        "name": function,
        "arguments": arguments,
    }
    return {**made, "namespace": group} if group else made


def status_of(finish: str, arguments: str = "") -> str:
    """Of the last item of an answer that ended so. A call that was cut is told by what it is made with: half of a JSON
    object is no call."""
    return "incomplete" if finish in _INCOMPLETE and not _is_object(arguments) else "completed"


def _is_object(text: str) -> bool:
    try:
        return isinstance(msgspec.json.decode(text), dict)
    except (msgspec.DecodeError, RecursionError):
        return False


def output(said: AnswerMessage, finish: str, groups: Groups = NO_GROUPS) -> list[dict[str, Any]]:
    """The items of a whole answer that ended so."""
    content = [text_part(text)] if (text := said.text) else []
    if said.refusal:
        content.append(refusal_part(said.refusal))
    calls = said.tool_calls or ()
    status = "completed" if calls else status_of(finish)
    items = [message(new_name("msg"), status, content)] if content or not calls else []
    for number, each in enumerate(calls, 1):
        told = each.function.arguments or NONE
        status = status_of(finish, told) if number == len(calls) else "completed"
        items.append(call(new_name("fc"), status, each.name, each.function.name, told, groups))
    return items
