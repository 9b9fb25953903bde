"""Which messages, tools and answer formats each other provider supports, below the level of request fields: what its
client would drop silently, or reject only when called, is reported here. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

_decode = msgspec.json.Decoder().decode
SIGNATURE_OWNERS = {"gemini": "google", "vertexai": "google", "mistral": "mistral"}
"""The name in `extra_content` under which each provider gets back its signature of its reasoning."""
TAKES_REASONING = frozenset({"groq", "mistral"})
"""Providers that get back their reasoning."""
_ROLES = frozenset({"system", "developer", "user", "assistant", "tool"})
_MESSAGE_FIELDS: dict[str, frozenset[str]] = {
    "system": frozenset({"role", "content"}),
    "developer": frozenset({"role", "content"}),
    "user": frozenset({"role", "content"}),
    "assistant": frozenset(
        {"role", "content", "refusal", "tool_calls", "reasoning_content", "extra_content", "parsed"}
    ),
    "tool": frozenset({"role", "content", "tool_call_id", "name"}),
}
"""Supported fields of a message, besides the `name` of its speaker. The name of a tool's result is that of the call it
answers, and earlier reasoning is sent to no provider except in `extra_content`. OpenAI's clients send back what they
parsed of an answer (`parsed`, `parsed_arguments`): it repeats the content, and is sent to nobody."""
PART_FIELDS: dict[str, frozenset[str]] = {
    "text": frozenset({"type", "text"}),
    "image_url": frozenset({"type", "image_url"}),
    "file": frozenset({"type", "file"}),
    "refusal": frozenset({"type", "refusal"}),
}
_TAKES_REASONING_PARTS = frozenset({"mistral"})
"""Providers that return their reasoning as a part of an answer, and accept it back."""
_TAKES_PDFS = frozenset({"anthropic", "gemini", "vertexai"})
"""Providers that accept a file: a PDF, which all of them read page by page."""
_TAKES_FILE_NAMES = frozenset({"anthropic"})
PDF_URL = "data:application/pdf;base64,"
TAKES_NAMES = frozenset({"azure", "groq"})
"""Providers that accept the name of a speaker."""
_TAKES_IMAGE_DETAIL = frozenset({"azure", "groq"})
"""Providers that accept a level of detail for images."""
_EXTRA_CONTENT_FIELDS = {
    "google": frozenset({"thought_signature"}),
    "anthropic": frozenset({"signature", "stop_details"}),
    "mistral": frozenset({"signature"}),
}
"""What the library adds to answers as `extra_content`, and clients send back: it is for the provider that wrote it, and
is sent to no other."""
_PARSES_ARGUMENTS = frozenset({"anthropic", "bedrock", "gemini", "ollama", "vertexai"})
"""Providers that get the arguments of earlier calls as parsed values."""
_CALL_FIELDS = frozenset({"name", "arguments", "parsed_arguments"})
_FUNCTION_FIELDS = frozenset({"name", "description", "parameters", "strict"})
_TAKES_STRICT = frozenset({"azure", "cohere", "groq", "mistral"})
"""Providers that can be bound to a tool's schema: Cohere only to those of all tools."""
STRICT_LEFT_OUT = "tools.strict"
_TAKES_ALLOWED_TOOLS = frozenset({"gemini", "vertexai"})
"""Providers that accept a choice among some tools."""
_OLLAMA_PROPERTY_FIELDS = frozenset({"type", "description", "enum", "items"})
_OLLAMA_SCHEMA_FIELDS = frozenset({"type", "properties", "required", "$defs", "items"})
"""All that Ollama's client sends of a schema; `title` and `$schema` restrict nothing."""
_ANNOTATION_FIELDS = frozenset({"title", "$schema"})
_FORMATS: dict[str, frozenset[str]] = {
    "anthropic": frozenset({"text", "json_schema"}),
    "azure": frozenset({"text", "json_schema"}),
}
_COMMON_FORMATS = frozenset({"text", "json_object", "json_schema"})
_MAY_BE_LEFT_OUT = (b'"reasoning_content"', b'"extra_content"', b'"name"', b'"filename"')
"""Fields of a message that are left out at some providers: of an earlier answer those that only the provider that wrote
it can read, and the names of a speaker and of a file."""
_COMBINATORS = ("anyOf", "oneOf", "allOf")
_TAKES_SCHEMA_DESCRIPTION = frozenset({"azure", "groq", "mistral"})
"""Providers that accept a schema's description."""


EFFORTS: dict[str, frozenset[str]] = {
    "anthropic": frozenset({"none", "low", "medium", "high", "xhigh", "max"}),
    "azure": frozenset({"none", "minimal", "low", "medium", "high", "xhigh", "max"}),
    "gemini": frozenset({"none", "minimal", "low", "medium", "high"}),
    "groq": frozenset({"low", "medium", "high"}),
    "mistral": frozenset({"high"}),
    "ollama": frozenset({"none", "low", "medium", "high"}),
    "vertexai": frozenset({"none", "minimal", "low", "medium", "high"}),
    "vertexai/mistral": frozenset({"high"}),
    "vertexai/openai": frozenset({"low", "medium", "high"}),
}
"""Efforts of reasoning that each provider, or Google's own table for OpenAI's clients, has under the same name. The
library would replace others by the nearest one, or send nothing, as for `none` to Groq and Mistral."""
BUDGET_MODELS = (
    "claude-3", "claude-opus-4-0", "claude-opus-4-1", "claude-opus-4-5", "claude-opus-4-2025", "claude-opus-4@",
    "claude-sonnet-4-0", "claude-sonnet-4-5", "claude-sonnet-4-2025", "claude-sonnet-4@", "claude-haiku-4-5",
)  # fmt: skip
"""Beginnings of the names of Anthropic's models that have a budget of thinking and no effort. They also want their
thoughts back with the results of tools, which chat cannot carry."""


def first_unsupported(api: str, fields: Mapping[str, msgspec.Raw], model: str = "") -> str | None:
    """The first unsupported part of the messages, tools, tool choice, answer format, effort or stream options, by name;
    None if the provider supports all of them. `model`: the provider's own name of the one that is called."""
    try:
        return (
            _unsupported_in_messages(api, _value(fields, "messages"))
            or _unsupported_in_tools(api, _value(fields, "tools"))
            or _unsupported_tool_choice(api, _value(fields, "tool_choice"))
            or _unsupported_format(api, _value(fields, "response_format"), stream=_value(fields, "stream") is True)
            or _unsupported_effort(api, _value(fields, "reasoning_effort"), model)
            or _unsupported_stream_option(_value(fields, "stream_options"))
        )
    except msgspec.DecodeError:
        return None  # the reader of the request reports what is wrong with it


def _value(fields: Mapping[str, msgspec.Raw], name: str) -> Any:
    raw = fields.get(name)
    return None if raw is None else _decode(raw)


def left_out_of_request(api: str, fields: Mapping[str, msgspec.Raw]) -> set[str]:
    """Names of what the provider is not sent of a supported request."""
    found = _left_out_of_messages(api, fields["messages"])
    if b'"strict"' in bytes(fields.get("tools", b"")):
        tools = _value(fields, "tools") or []
        if any(tool["function"].get("strict") for tool in tools) and not takes_strict(api, tools):
            found.add(STRICT_LEFT_OUT)
    return found


def takes_strict(api: str, tools: list[dict[str, Any]]) -> bool:
    """Whether the provider can be bound to the schemas of those tools that are `strict`, and of no others."""
    if api != "cohere":
        return api in _TAKES_STRICT
    return len({tool["function"].get("strict") is True for tool in tools}) < 2


def _left_out_of_messages(api: str, messages: msgspec.Raw) -> set[str]:
    """Names of what is left out of messages: of earlier answers, what only the provider that wrote it can read
    (reasoning, and what it added as `extra_content`), and the names of speakers and files."""
    data, found = bytes(messages), set[str]()
    if not any(name in data for name in _MAY_BE_LEFT_OUT):
        return found
    for message in _decode(data):
        parts = message["content"] if isinstance(message.get("content"), list) else ()
        if message.get("name") and message["role"] != "tool" and api not in TAKES_NAMES:
            found.add("messages.name")
        if api not in _TAKES_FILE_NAMES and any((part.get("file") or {}).get("filename") for part in parts):
            found.add("messages.filename")
        own = message.get("reasoning_content") and api not in TAKES_REASONING
        if own or any(part.get("reasoning_content") for part in parts):
            found.add("reasoning")
        for each in (message, *(message.get("tool_calls") or ())):
            if each.get("extra_content") and SIGNATURE_OWNERS.get(api) not in each["extra_content"]:
                found.add("extra_content")
    return found


def _unsupported_in_messages(api: str, messages: Any) -> str | None:
    calls: set[str] = set()
    for message in messages if isinstance(messages, list) else ():
        if not isinstance(message, dict):
            return "messages"
        found = _unsupported_in_message(api, message, calls)
        if found is not None:
            return f"messages: {found}"
    return "messages: name" if messages and api not in TAKES_NAMES and _tells_speakers_apart(messages) else None


def _tells_speakers_apart(messages: list[dict[str, Any]]) -> bool:
    """Whether names say who of several users spoke, or whose words an example in a system message has. The name of an
    agent stands before the model's own words, and one that all messages of a role have tells nothing."""
    asked = (message for message in messages if message["role"] not in ("assistant", "tool"))
    speakers = {(message["role"], message.get("name") or "") for message in asked}
    return len(speakers) > len({role for role, _ in speakers})


def _unsupported_in_message(api: str, message: dict[str, Any], calls: set[str]) -> str | None:
    role = message.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        return f"role {str(role)[:20]}"
    known = _MESSAGE_FIELDS[role]
    for name, value in message.items():
        if value in (None, [], {}) or name in known or (name == "name" and isinstance(value, str)):
            continue
        return name[:40]
    found = _unsupported_in_content(api, role, message.get("content"))
    if found is None and not isinstance(message.get("refusal") or "", str):
        found = "refusal"
    if found is None and not _is_known_extra_content(message.get("extra_content")):
        found = "extra_content"
    if found is None and role == "tool":
        called = message.get("tool_call_id")
        found = None if isinstance(called, str) and called in calls else "tool_call_id"
    return found if found is not None else _unsupported_in_calls(api, message.get("tool_calls"), calls)


def _unsupported_in_content(api: str, role: str, content: Any) -> str | None:
    if content is None or isinstance(content, str):
        return None if content is not None or role == "assistant" else "content"
    if not isinstance(content, list):
        return "content"
    for part in content:
        if (found := _unsupported_in_part(api, role, part)) is not None:
            return found
    return None


def _unsupported_in_part(api: str, role: str, part: Any) -> str | None:
    kinds = {"user": ("text", "image_url", "file"), "assistant": ("text", "refusal")}.get(role, ("text",))
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "thinking" and role == "assistant" and api in _TAKES_REASONING_PARTS and is_reasoning_part(part):
        return None
    if not isinstance(kind, str) or kind not in kinds or (kind == "file" and api not in _TAKES_PDFS):
        return f"content of type {str(kind)[:40]}"
    for name, value in part.items():
        if value not in (None, [], {}) and name not in PART_FIELDS[kind] and not _repeats_message(role, name, value):
            return f"{kind}.{name[:40]}"
    if kind == "image_url":
        return _unsupported_in_image(api, part.get("image_url"))
    if kind == "file":
        return _unsupported_in_file(part.get("file"))
    return None if isinstance(part.get(kind), str) else f"content of type {kind}"


def _repeats_message(role: str, name: str, value: Any) -> bool:
    """Whether a field of a part is one of its message: OpenAI's agents for Node write what else an answer had into the
    part with its text."""
    return (name == "role" and value == role) or (name == "reasoning_content" and role == "assistant")


def is_reasoning_part(part: dict[str, Any]) -> bool:
    """Whether a part contains reasoning as texts, perhaps signed, and nothing else."""
    texts = part.get("thinking")
    known = part.keys() <= {"type", "thinking", "closed", "signature"} and isinstance(part.get("signature") or "", str)
    return (
        known
        and isinstance(texts, list)
        and all(
            isinstance(each, dict) and each.get("type") == "text" and isinstance(each.get("text"), str)
            for each in texts
        )
    )


def _unsupported_in_image(api: str, image: Any) -> str | None:
    if not isinstance(image, dict) or not isinstance(image.get("url"), str):
        return "image_url"
    for name, value in image.items():
        if name == "detail" and (value in (None, "auto") or api in _TAKES_IMAGE_DETAIL):
            continue
        if name != "url" and value is not None:
            return f"image_url.{name[:40]}"
    return None


def _unsupported_in_file(file: Any) -> str | None:
    if not isinstance(file, dict) or not isinstance(file.get("file_data"), str):
        return "content of type file"
    if not file["file_data"].startswith(PDF_URL):
        return f"file of {file['file_data'].removeprefix('data:').partition(';')[0][:40]}"
    return next((f"file.{each[:40]}" for each in file if each not in ("file_data", "filename") and file[each]), None)


def _is_known_extra_content(extra: Any) -> bool:
    if not isinstance(extra, dict):
        return not extra
    return all(
        isinstance(extra_fields, dict)
        and bool(extra_fields)
        and extra_fields.keys() <= _EXTRA_CONTENT_FIELDS.get(provider, frozenset())
        for provider, extra_fields in extra.items()
    )


def _unsupported_in_calls(api: str, tool_calls: Any, calls: set[str]) -> str | None:
    if tool_calls and not isinstance(tool_calls, list):
        return "tool_calls"
    for call in tool_calls or ():
        kind = call.get("type", "function") if isinstance(call, dict) else None
        if kind != "function":
            return f"tool_calls of type {str(kind)[:40]}"
        for name, value in call.items():
            if name == "extra_content" and not _is_known_extra_content(value):
                return "tool_calls.extra_content"
            if value is not None and name not in ("id", "type", "function", "index", "extra_content"):
                return f"tool_calls.{name[:40]}"
        function, called = call.get("function"), call.get("id")
        if not isinstance(called, str) or not called:
            return "tool_calls.id"
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            return "tool_calls.function"
        if not _are_arguments_supported(api, function.get("arguments")) or function.keys() - _CALL_FIELDS:
            return "tool_calls.function.arguments"
        calls.add(called)
    return None


def _are_arguments_supported(api: str, arguments: Any) -> bool:
    if not isinstance(arguments, str):
        return arguments is None
    if api not in _PARSES_ARGUMENTS or not arguments.strip():
        return True
    try:
        return isinstance(_decode(arguments), dict)
    except (msgspec.DecodeError, RecursionError):
        return False


def _unsupported_in_tools(api: str, tools: Any) -> str | None:
    if tools and not isinstance(tools, list):
        return "tools"
    for tool in tools or ():
        if (found := _unsupported_in_tool(api, tool)) is not None:
            return f"tools: {found}"
    return None


def _unsupported_in_tool(api: str, tool: Any) -> str | None:
    kind = tool.get("type") if isinstance(tool, dict) else None
    if kind != "function":
        return f"type {str(kind)[:40]}"
    for name, value in tool.items():
        if value is not None and name not in ("type", "function"):
            return str(name[:40])
    function = tool.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        return "function"
    for name, value in function.items():
        if value is not None and name not in _FUNCTION_FIELDS:
            return f"function.{name[:40]}"
    found = _unsupported_in_schema(api, function.get("parameters"))
    return None if found is None else f"function.parameters{found}"


def _unsupported_in_schema(api: str, schema: Any) -> str | None:
    """The unsupported part of a tool's schema; only Ollama has any."""
    if schema is not None and not isinstance(schema, dict):
        return ""
    if api != "ollama" or not schema:
        return None
    for name, value in schema.items():
        if name not in _OLLAMA_SCHEMA_FIELDS | _ANNOTATION_FIELDS:
            return f".{name[:40]}"
        if name == "type" and value != "object":
            return ".type"
    properties = schema.get("properties")
    for each in properties.values() if isinstance(properties, dict) else ():
        for name in each if isinstance(each, dict) else ("properties",):
            if name not in _OLLAMA_PROPERTY_FIELDS | _ANNOTATION_FIELDS:
                return f".{name[:40]}"
    return None


def _unsupported_tool_choice(api: str, choice: Any) -> str | None:
    if choice is None:
        return None
    if isinstance(choice, str):
        # Bedrock's client only has "required"; "auto" is the default of its models
        known = ("auto", "required") if api == "bedrock" else ("none", "auto", "required")
        return None if choice in known else f"tool_choice {choice[:20]}"
    kind = choice.get("type") if isinstance(choice, dict) else None
    if kind == "function" and api != "bedrock":
        function = choice.get("function")
        named = isinstance(function, dict) and isinstance(function.get("name"), str)
        return None if named and choice.keys() == {"type", "function"} else "tool_choice"
    if kind == "allowed_tools" and api in _TAKES_ALLOWED_TOOLS:
        allowed = choice.get("allowed_tools")
        return None if isinstance(allowed, dict) and allowed.get("mode") == "required" else "tool_choice allowed_tools"
    return f"tool_choice {str(kind)[:20]}"


def _unsupported_format(api: str, wanted: Any, *, stream: bool) -> str | None:
    if wanted is None:
        return None
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if not isinstance(kind, str) or kind not in _FORMATS.get(api, _COMMON_FORMATS):
        return f"response_format {str(kind)[:20]}"
    if kind == "text":
        return None
    if api == "groq" and stream:
        return "response_format in a stream"
    schema = wanted.get("json_schema")
    if kind == "json_schema" and not (isinstance(schema, dict) and isinstance(schema.get("schema"), dict)):
        return "response_format: json_schema.schema"
    if isinstance(schema, dict) and schema.get("description") and api not in _TAKES_SCHEMA_DESCRIPTION:
        return "response_format: json_schema.description"
    lost = _unsupported_in_anthropic_schema(schema["schema"]) if kind == "json_schema" and api == "anthropic" else None
    return None if lost is None else f"response_format: json_schema.schema.{lost}"


def _unsupported_in_anthropic_schema(schema: Any) -> str | None:
    """What of an answer's schema Anthropic does not support, and its client would drop or change: it closes every
    object, so one with free names could only be empty."""
    if not isinstance(schema, dict):
        return None
    if len(ways := [name for name in _COMBINATORS if name in schema]) > 1:
        return ways[1]
    more, kind = schema.get("additionalProperties"), schema.get("type")
    closed = more is False or "properties" in schema
    if isinstance(more, dict) or (not closed and (kind == "object" or (isinstance(kind, list) and "object" in kind))):
        return "additionalProperties"
    if "patternProperties" in schema:
        return "patternProperties"
    below = [
        each for name in ("properties", "$defs") if isinstance(schema.get(name), dict) for each in schema[name].values()
    ]
    below += [each for name in _COMBINATORS if isinstance(schema.get(name), list) for each in schema[name]]
    return next(
        (
            lost
            for each in [*below, schema.get("items")]
            if (lost := _unsupported_in_anthropic_schema(each)) is not None
        ),
        None,
    )


def _unsupported_effort(api: str, effort: Any, model: str) -> str | None:
    if effort is None:
        return None
    known = EFFORTS.get(api, frozenset())
    if api == "anthropic" and model.lower().startswith(BUDGET_MODELS):
        known = frozenset({"none"})
    return None if isinstance(effort, str) and effort in known else f"reasoning_effort {str(effort)[:20]}"


def _unsupported_stream_option(options: Any) -> str | None:
    for name, value in options.items() if isinstance(options, dict) else ():
        if name != "include_usage" and value not in (None, False):
            return f"stream_options.{name[:40]}"
    return None
