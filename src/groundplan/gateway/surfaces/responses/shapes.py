"""Builds the objects of OpenAI's Responses API from a request and a chat answer. Pure."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from groundplan.core.ids import new_id
from groundplan.gateway.http.sse import format_named_event
from groundplan.gateway.http.strict_json import DECODE_ERRORS
from groundplan.gateway.surfaces.chat.annotations import UrlCitation, response_annotation
from groundplan.gateway.surfaces.chat.answer_types import AnswerMessage
from groundplan.ledger.model import Usage

Fields = dict[str, msgspec.Raw]
Namespaces = Mapping[str, tuple[str, str]]
NO_NAMESPACES: Namespaces = MappingProxyType({})
fields_of = msgspec.json.Decoder(Fields).decode
_encode = msgspec.json.Encoder().encode
_NULL = msgspec.Raw(b"null")
NO_ARGUMENTS = "{}"
"""Arguments of a function call without arguments."""
_TOOL_DEFAULTS = {"description": None, "parameters": {"type": "object", "properties": {}}, "strict": False}
"""Fields of a function with the defaults that chat has. PHP's client fails on null in place of the last two."""
_TIERS = frozenset({"default", "flex", "scale", "priority"})
_ECHOED = ("max_tool_calls", "prompt_cache_key", "prompt_cache_retention", "safety_identifier", "top_logprobs")
"""Settings of a request that its response repeats where they were given."""
_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


def new_object_id(prefix: str) -> str:
    """A new id of an object: `resp_...`, `msg_...`, `fc_...`"""
    return f"{prefix}_{new_id().hex}"


def with_request_fields(response: Fields, request_fields: Mapping[str, bytes]) -> bytes:
    """An upstream's response with the caller's own values of the request fields that were changed for the upstream;
    also where the upstream does not echo them."""
    return _encode({**response, **{name: msgspec.Raw(value) for name, value in request_fields.items()}})


def event_with_request_fields(event: Fields, request_fields: Mapping[str, bytes]) -> bytes:
    """The same for an event that contains a response."""
    response = fields_of(event["response"])
    return _encode({**event, "response": msgspec.Raw(with_request_fields(response, request_fields))})


def reported_error(data: bytes) -> bytes:
    """The error that an event reports, as an error body; empty where there is none. Upstreams put it into the event
    (OpenAI, Azure), into its response, or into the event's own fields."""
    try:
        event = fields_of(data)
        response = event.get("response", _NULL)
        for fields in (event, fields_of(response) if bytes(response) != b"null" else {}):
            if bytes(error := fields.get("error", _NULL)) != b"null":
                return _encode({"error": error})
    except DECODE_ERRORS:
        return b""
    if event.keys().isdisjoint(("code", "message")):
        return b""
    return _encode({"error": {name: event.get(name) for name in ("message", "type", "param", "code")}})


def usage_json(usage: Usage) -> dict[str, Any]:
    """The `usage` object of a response."""
    return {
        "input_tokens": usage.input,
        "input_tokens_details": {"cached_tokens": usage.cache_read, "cache_write_tokens": usage.cache_write},
        "output_tokens": usage.output,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.input + usage.output,
    }


def new_response(request: dict[str, Any], name: str, model: str) -> dict[str, Any]:
    """A response that has begun, with the request's own settings."""
    given = {key: value for key, value in request.items() if value is not None}
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
        "reasoning": {name: given.get("reasoning", {}).get(name) for name in ("effort", "summary")},
        "service_tier": "default",
        "temperature": given.get("temperature", 1.0),
        "text": {**given.get("text", {}), "format": given.get("text", {}).get("format") or {"type": "text"}},
        "tool_choice": given.get("tool_choice", "auto"),
        "tools": [_tool_json(tool) for tool in given.get("tools", [])],
        "top_p": given.get("top_p", 1.0),
        "truncation": "disabled",
        "usage": None,
        "user": given.get("user"),
        **{name: given[name] for name in _ECHOED if name in given},
    }


def _tool_json(tool: dict[str, Any]) -> dict[str, Any]:
    if tool["type"] != "function":
        return tool
    return {**_TOOL_DEFAULTS, **{name: value for name, value in tool.items() if value is not None}}


def finished_response(
    response: dict[str, Any], output_items: list[dict[str, Any]], finish: str, usage: Usage
) -> dict[str, Any]:
    """A response with its output and usage."""
    reason = _INCOMPLETE.get(finish)
    return {
        **response,
        "status": "completed" if reason is None else "incomplete",
        "incomplete_details": None if reason is None else {"reason": reason},
        "output": output_items,
        "service_tier": usage.service_tier if usage.service_tier in _TIERS else response["service_tier"],
        "usage": usage_json(usage),
    }


def failed_stream(name: str, model: str, code: str, why: str) -> bytes:
    """The whole stream of a response that failed before it had any output."""
    response = new_response({}, name, model)
    failed = {**response, "status": "failed", "error": {"code": code, "message": why}}
    events = (("response.created", response), ("response.failed", failed))
    return b"".join(
        format_named_event(kind, _encode({"type": kind, "sequence_number": number, "response": each}))
        for number, (kind, each) in enumerate(events)
    )


def text_part(text: str, citations: Iterable[UrlCitation] = ()) -> dict[str, Any]:
    annotations = [response_annotation(citation) for citation in citations]
    return {"type": "output_text", "text": text, "annotations": annotations, "logprobs": []}


def refusal_part(text: str) -> dict[str, Any]:
    return {"type": "refusal", "refusal": text}


def message_item(name: str, status: str, content: list[dict[str, Any]]) -> dict[str, Any]:
    return {"id": name, "type": "message", "role": "assistant", "status": status, "content": content}


def function_call_item(
    name: str, status: str, call_id: str, function: str, arguments: str, groups: Namespaces = NO_NAMESPACES
) -> dict[str, Any]:
    """A function call item. `groups`: (namespace, name) of functions in a namespace, by their names in chat."""
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


def custom_tool_call_item(
    name: str, call_id: str, tool: str, text: str, groups: Namespaces = NO_NAMESPACES
) -> dict[str, Any]:
    """A custom tool's call item, with its input as `text`; it has no status. `groups`: as in `function_call_item`."""
    group, tool = groups.get(tool, ("", tool))
    made = {"id": name, "type": "custom_tool_call", "call_id": call_id, "name": tool, "input": text}
    return {**made, "namespace": group} if group else made


def status_of(finish: str, arguments: str = "") -> str:
    """The status of the last item of an answer, by its `finish` reason. A function call that was cut off is known by
    its arguments: half of a JSON object is no call."""
    return "incomplete" if finish in _INCOMPLETE and not _is_object(arguments) else "completed"


def _is_object(text: str) -> bool:
    try:
        return isinstance(msgspec.json.decode(text), dict)
    except (msgspec.DecodeError, RecursionError):
        return False


def output_items(
    message: AnswerMessage, finish: str, groups: Namespaces = NO_NAMESPACES, cited: Iterable[UrlCitation] = ()
) -> list[dict[str, Any]]:
    """The output items of a whole answer with this `finish` reason; `cited`: the web pages that its text cites."""
    content = [text_part(text, cited)] if (text := message.text) else []
    if message.refusal:
        content.append(refusal_part(message.refusal))
    calls = message.known_calls
    status = "completed" if calls else status_of(finish)
    items = [message_item(new_object_id("msg"), status, content)] if content or not calls else []
    for number, each in enumerate(calls, 1):
        if each.function is None:
            if each.custom is not None:
                called = each.call_id, each.custom.name, each.custom.input
                items.append(custom_tool_call_item(new_object_id("ctc"), *called, groups))
            continue
        arguments = each.arguments or NO_ARGUMENTS
        status = status_of(finish, arguments) if number == len(calls) else "completed"
        items.append(
            function_call_item(new_object_id("fc"), status, each.call_id, each.function.name, arguments, groups)
        )
    return items
