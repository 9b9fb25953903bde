"""Adapts a chat request of OpenAI's for the library, where the library would lose or reject something that the provider
supports. What no provider supports was refused before, by `providers`. Pure."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from groundplan.gateway.upstream.translation.call_ids import accepted_id
from groundplan.gateway.upstream.translation.provider_support import (
    PART_FIELDS,
    PDF_URL,
    SIGNATURE_OWNERS,
    TAKES_NAMES,
    TAKES_REASONING,
    takes_strict,
)

_SINGLE_SYSTEM_MESSAGE = frozenset({"anthropic", "bedrock", "gemini", "vertexai"})
"""Providers whose system messages are one text besides the conversation."""
_GOOGLES = frozenset({"gemini", "vertexai"})
_TOOL_RESULTS_PARSED = _GOOGLES | {"bedrock"}
"""Providers for which the library parses the results of tools."""
_JSON_TYPES = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}
_JPG = "data:image/jpg;"
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


def adapt_request(api: str, request: dict[str, Any]) -> dict[str, Any]:
    """The request, adapted. What is of an unknown shape stays as it is."""
    adapted = {**request, "messages": _adapt_messages(api, request.get("messages") or [])}
    wanted = request.get("response_format") or {}
    if wanted.get("type") == "text":
        del adapted["response_format"]  # the default of every model
    elif wanted.get("type") == "json_schema" and api in ("anthropic", "azure"):
        adapted["response_format"] = {**wanted, "json_schema": _adapt_format(api, wanted["json_schema"])}
    if isinstance(request.get("stop"), str):
        adapted["stop"] = [request["stop"]]  # all accept a list, and Azure, Bedrock and Ollama nothing else
    tools = request.get("tools")
    if tools and api in _GOOGLES:
        adapted["tools"] = [{"function_declarations": [_function_declaration(tool["function"]) for tool in tools]}]
    elif tools and not takes_strict(api, tools):
        adapted["tools"] = [_without_strict(tool) for tool in tools]
    if not adapted.get("tools"):
        adapted.pop("tools", None)
    return adapted


def _without_strict(tool: dict[str, Any]) -> dict[str, Any]:
    function = {name: value for name, value in tool["function"].items() if name != "strict"}
    return {**tool, "function": function}


def _adapt_format(api: str, wanted: dict[str, Any]) -> dict[str, Any]:
    """The schema of an answer: the library makes every schema strict for Azure, even if the caller did not, and
    Anthropic's client moves a constant into the description."""
    if api == "azure":
        return {**wanted, "strict": wanted.get("strict") is True}
    return {**wanted, "schema": _constants_as_enums(wanted["schema"])}


def _constants_as_enums(schema: Any) -> Any:
    """The same schema, with each constant as an enumeration of one value."""
    if not isinstance(schema, dict):
        return schema
    converted = {name: _adapt_subschemas(name, value) for name, value in schema.items()}
    if "const" in converted and "enum" not in converted:
        value = converted.pop("const")
        converted["enum"] = [value]
        if "type" not in converted and (kind := _JSON_TYPES.get(type(value))) is not None:
            converted["type"] = kind
    return converted


def _adapt_subschemas(name: str, value: Any) -> Any:
    if name in ("properties", "$defs") and isinstance(value, dict):
        return {each: _constants_as_enums(schema) for each, schema in value.items()}
    if name in ("anyOf", "oneOf", "allOf") and isinstance(value, list):
        return [_constants_as_enums(schema) for schema in value]
    return _constants_as_enums(value) if name == "items" else value


def _function_declaration(function: dict[str, Any]) -> dict[str, Any]:
    """A function in Gemini's format, with its complete schema rather than the top level only."""
    declaration = {"name": function["name"]}
    if function.get("description"):
        declaration["description"] = function["description"]
    if function.get("parameters"):
        declaration["parameters_json_schema"] = function["parameters"]
    return declaration


def _adapt_messages(api: str, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    adapted = [_adapt_message(api, message) for message in messages]
    if api not in _SINGLE_SYSTEM_MESSAGE:
        return adapted
    system = [message["content"] for message in adapted if message["role"] == "system"]
    rest = [message for message in adapted if message["role"] != "system"]
    return [{"role": "system", "content": "\n\n".join(system)}, *rest] if system else rest


def _adapt_message(api: str, message: dict[str, Any]) -> dict[str, Any]:
    role, content = message["role"], message.get("content")
    if role == "user":
        adapted = {
            "role": role,
            "content": [_adapt_part(api, part) for part in content] if isinstance(content, list) else content,
        }
    elif role == "assistant":
        adapted = _adapt_assistant_message(api, message)
    elif role == "tool":
        adapted = {
            "role": role,
            "tool_call_id": accepted_id(api, message["tool_call_id"]),
            "content": _tool_result(api, _text_of(content)),
        }
    else:
        adapted = {"role": "system", "content": _text_of(content)}
    if api in TAKES_NAMES and message.get("name") and role != "tool":
        adapted["name"] = message["name"]
    return adapted


def _adapt_part(api: str, part: dict[str, Any]) -> dict[str, Any]:
    """A part of a user's message. Many clients say `image/jpg`, which is not a media type. The library would lose the
    name of a file, which Anthropic's documents have as their title."""
    if part.get("type") == "file" and api == "anthropic":
        return _document(part["file"])
    known = {name: part[name] for name in PART_FIELDS.get(part.get("type", ""), part) if name in part}
    image = part.get("image_url")
    if not isinstance(image, dict) or not str(image.get("url")).startswith(_JPG):
        return known
    return {**known, "image_url": {**image, "url": f"data:image/jpeg;{image['url'].removeprefix(_JPG)}"}}


def _document(file: dict[str, Any]) -> dict[str, Any]:
    """A PDF as a part of Anthropic's Messages."""
    data = file["file_data"].removeprefix(PDF_URL)
    document = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": data}}
    return {**document, "title": file["filename"]} if file.get("filename") else document


def _adapt_assistant_message(api: str, message: dict[str, Any]) -> dict[str, Any]:
    text = "\n".join(filter(None, (_text_of(message.get("content")), message.get("refusal"))))
    thought = message.get("reasoning_content") or _reasoning_of(message.get("content"))
    calls = [_adapt_call(api, call) for call in message.get("tool_calls") or ()]
    adapted: dict[str, Any] = {"role": "assistant", "content": text or (None if calls else "")}
    if calls:
        adapted["tool_calls"] = calls
    if api in TAKES_REASONING and thought:
        adapted["reasoning"] = thought
    return _with_signature(api, {"extra_content": _reasoning_signature(message.get("content")), **message}, adapted)


def _adapt_call(api: str, call: dict[str, Any]) -> dict[str, Any]:
    function = call["function"]
    arguments = function.get("arguments") or ""
    adapted_function = {"name": function["name"], "arguments": arguments if arguments.strip() else "{}"}
    return _with_signature(
        api, call, {"id": accepted_id(api, call["id"]), "type": "function", "function": adapted_function}
    )


def _with_signature(api: str, original: dict[str, Any], adapted: dict[str, Any]) -> dict[str, Any]:
    owner = SIGNATURE_OWNERS.get(api, "")
    if signature := (original.get("extra_content") or {}).get(owner):
        adapted["extra_content"] = {owner: signature}
    return adapted


def _reasoning_signature(content: Any) -> dict[str, Any] | None:
    """The signature of a reasoning part, in the library's format."""
    parts = content if isinstance(content, list) else []
    signed = [part["signature"] for part in parts if part.get("type") == "thinking" and part.get("signature")]
    return {"mistral": {"signature": signed[-1]}} if signed else None


def _tool_result(api: str, text: str) -> str:
    """The result of a tool, for providers for which the library parses it: as an object, the only JSON that Bedrock
    accepts, and the only one that the library leaves alone. It searches a list for images, which nobody has counted or
    checked; it takes `NaN` for JSON, which no provider does; and some JSON exceeds what it can represent: that stays
    text."""
    if api not in _TOOL_RESULTS_PARSED:
        return text
    try:
        value = _decode(text)
    except (msgspec.DecodeError, RecursionError):
        if not _is_parsed_by_library(text):
            return text
        value = text
    return text if isinstance(value, dict) else _encode({"result": value}).decode()


def _is_parsed_by_library(text: str) -> bool:
    """Whether the library takes the text for JSON, or fails on it."""
    try:
        json.loads(text)
    except json.JSONDecodeError:
        return False
    except (ValueError, RecursionError):
        pass
    return True


def _text_of(content: Any) -> str:
    """The text of a string or of parts."""
    if isinstance(content, list):
        parts = (part for part in content if part.get("type") != "thinking")
        return "\n".join(part.get("text") or part.get("refusal") or "" for part in parts)
    return content or ""


def _reasoning_of(content: Any) -> str:
    """The reasoning in parts."""
    parts = content if isinstance(content, list) else []
    return "".join(each["text"] for part in parts if part.get("type") == "thinking" for each in part["thinking"])
