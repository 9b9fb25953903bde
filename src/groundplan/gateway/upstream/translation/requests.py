"""A request in OpenAI's chat as the library takes it for a provider, where it would lose or refuse something of it that
the provider has a word for. What no provider has a word for was refused before, by `words`. Pure.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from groundplan.gateway.upstream.translation.call_ids import taken

_ONE_SYSTEM = frozenset({"anthropic", "bedrock", "gemini", "vertexai"})
"""Providers whose system messages are one text beside the conversation."""
_GOOGLES = frozenset({"gemini", "vertexai"})
_READ = _GOOGLES | {"bedrock"}
"""Those for whom the library reads what came of a tool."""
_SIGNED = {"gemini": "google", "vertexai": "google", "mistral": "mistral"}
"""By which name in `extra_content` each gets back what it signed its thoughts with."""
_REASONS = frozenset({"groq", "mistral"})
"""Those that are given back what they thought."""
_NAMED = frozenset({"azure", "groq"})
_KINDS = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}
_JPG = "data:image/jpg;"
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


def reworded(api: str, asked: dict[str, Any]) -> dict[str, Any]:
    """The same request. What is not in a shape that is known stays as it is."""
    made = {**asked, "messages": _messages(api, asked.get("messages") or [])}
    wanted = asked.get("response_format") or {}
    if wanted.get("type") == "text":
        del made["response_format"]  # which is what every model does unasked
    elif wanted.get("type") == "json_schema" and api in ("anthropic", "azure"):
        made["response_format"] = {**wanted, "json_schema": _format(api, wanted["json_schema"])}
    if isinstance(asked.get("stop"), str):
        made["stop"] = [asked["stop"]]  # each takes a list, and Azure, Bedrock and Ollama nothing else
    if api in _GOOGLES and asked.get("tools"):
        made["tools"] = [{"function_declarations": [_declaration(tool["function"]) for tool in asked["tools"]]}]
    if not made.get("tools"):
        made.pop("tools", None)
    return made


def _format(api: str, wanted: dict[str, Any]) -> dict[str, Any]:
    """A schema of an answer: the library binds Azure to each, also where the caller did not, and Anthropic's client
    leaves a constant to the description."""
    if api == "azure":
        return {**wanted, "strict": wanted.get("strict") is True}
    return {**wanted, "schema": _enumerated(wanted["schema"])}


def _enumerated(schema: Any) -> Any:
    """The same schema, with each constant as the only value of an enumeration."""
    if not isinstance(schema, dict):
        return schema
    made = {name: _below(name, value) for name, value in schema.items()}
    if "const" in made and "enum" not in made:
        value = made.pop("const")
        made["enum"] = [value]
        if "type" not in made and (kind := _KINDS.get(type(value))) is not None:
            made["type"] = kind
    return made


def _below(name: str, value: Any) -> Any:
    if name in ("properties", "$defs") and isinstance(value, dict):
        return {each: _enumerated(schema) for each, schema in value.items()}
    if name in ("anyOf", "oneOf", "allOf") and isinstance(value, list):
        return [_enumerated(schema) for schema in value]
    return _enumerated(value) if name == "items" else value


def _declaration(function: dict[str, Any]) -> dict[str, Any]:
    """A function in Gemini's words: its schema goes whole, not the top of it."""
    made = {"name": function["name"]}
    if function.get("description"):
        made["description"] = function["description"]
    if function.get("parameters"):
        made["parameters_json_schema"] = function["parameters"]
    return made


def _messages(api: str, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    made = [_message(api, message) for message in messages]
    if api not in _ONE_SYSTEM:
        return made
    system = [message["content"] for message in made if message["role"] == "system"]
    rest = [message for message in made if message["role"] != "system"]
    return [{"role": "system", "content": "\n\n".join(system)}, *rest] if system else rest


def _message(api: str, message: dict[str, Any]) -> dict[str, Any]:
    role, content = message["role"], message.get("content")
    if role == "user":
        made = {"role": role, "content": [_part(part) for part in content] if isinstance(content, list) else content}
    elif role == "assistant":
        made = _assistant(api, message)
    elif role == "tool":
        made = {
            "role": role,
            "tool_call_id": taken(api, message["tool_call_id"]),
            "content": _result(api, _text(content)),
        }
    else:
        made = {"role": "system", "content": _text(content)}
    if api in _NAMED and message.get("name") and role != "tool":
        made["name"] = message["name"]
    return made


def _part(part: dict[str, Any]) -> dict[str, Any]:
    """Of a user's message. `image/jpg` is what many call it, and no media type."""
    image = part.get("image_url")
    if not isinstance(image, dict) or not str(image.get("url")).startswith(_JPG):
        return part
    return {**part, "image_url": {**image, "url": f"data:image/jpeg;{image['url'].removeprefix(_JPG)}"}}


def _assistant(api: str, message: dict[str, Any]) -> dict[str, Any]:
    text = _text(message.get("content")) or message.get("refusal") or ""
    thought = message.get("reasoning_content") or _thought(message.get("content"))
    calls = [_call(api, call) for call in message.get("tool_calls") or ()]
    made: dict[str, Any] = {"role": "assistant", "content": text or (None if calls else "")}
    if calls:
        made["tool_calls"] = calls
    if api in _REASONS and thought:
        made["reasoning"] = thought
    return _signed(api, {"extra_content": _signature(message.get("content")), **message}, made)


def _call(api: str, call: dict[str, Any]) -> dict[str, Any]:
    function = call["function"]
    arguments = function.get("arguments") or ""
    said = {"name": function["name"], "arguments": arguments if arguments.strip() else "{}"}
    return _signed(api, call, {"id": taken(api, call["id"]), "type": "function", "function": said})


def _signed(api: str, given: dict[str, Any], made: dict[str, Any]) -> dict[str, Any]:
    who = _SIGNED.get(api, "")
    if told := (given.get("extra_content") or {}).get(who):
        made["extra_content"] = {who: told}
    return made


def _signature(content: Any) -> dict[str, Any] | None:
    """What a part that was thought is signed with, as the library notes it."""
    parts = content if isinstance(content, list) else []
    signed = [part["signature"] for part in parts if part.get("type") == "thinking" and part.get("signature")]
    return {"mistral": {"signature": signed[-1]}} if signed else None


def _result(api: str, text: str) -> str:
    """What came of a tool, where the library reads it: as an object, which is all that Bedrock takes for JSON, and of
    which the library makes nothing else. A list it looks through for images, which nobody counted or looked at; `NaN`
    is JSON to it, which no provider takes; and some JSON is more than it can hold: that stays text."""
    if api not in _READ:
        return text
    try:
        value = _decode(text)
    except (msgspec.DecodeError, RecursionError):
        if not _is_read(text):
            return text
        value = text
    return text if isinstance(value, dict) else _encode({"result": value}).decode()


def _is_read(text: str) -> bool:
    """Whether the library takes it for JSON, or fails over it."""
    try:
        json.loads(text)
    except json.JSONDecodeError:
        return False
    except (ValueError, RecursionError):
        pass
    return True


def _text(content: Any) -> str:
    """The text of a string or of parts."""
    if isinstance(content, list):
        said = (part for part in content if part.get("type") != "thinking")
        return "\n".join(part.get("text") or part.get("refusal") or "" for part in said)
    return content or ""


def _thought(content: Any) -> str:
    """What was thought, of parts."""
    parts = content if isinstance(content, list) else []
    return "".join(each["text"] for part in parts if part.get("type") == "thinking" for each in part["thinking"])
