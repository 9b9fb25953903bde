"""Translates a Messages request to OpenAI's chat; what chat cannot express is refused by name.

Left out, and reported to the caller, are fields that do not affect the answer in chat: `cache_control`, which is about
a price, and `diagnostics`, which asks about one; another model's earlier thinking, the thinking budget, and whether to
think and to show it; web pages that an earlier answer of chat cited; that tools are known only once they are searched
for. Pure.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import Any

import msgspec

from groundplan.core.errors import Invalid
from groundplan.gateway.surfaces import thought_signatures
from groundplan.gateway.surfaces.body import SHAPE_ERRORS, malformed_field
from groundplan.gateway.surfaces.messages.web_citations import remove_foreign_citations
from groundplan.gateway.upstream import providers

API = "Anthropic's Messages API"
MAX_STOPS = 4
"""Stop sequences that OpenAI's chat takes."""
MAX_USER_LENGTH = 64
"""Longest `user` of OpenAI's chat; a longer one, as Claude Code's are, is replaced by its hash."""
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode
_TEXT = frozenset({"type", "text", "cache_control", "citations"})
_IMAGE = frozenset({"type", "source", "cache_control"})
_DOCUMENT = frozenset({"type", "source", "title", "cache_control"})
_USE = frozenset({"type", "id", "name", "input", "cache_control", "caller"})
_RESULT = frozenset({"type", "tool_use_id", "content", "is_error", "cache_control"})
_TOOL = frozenset({"type", "name", "description", "input_schema", "cache_control", "strict", "eager_input_streaming"})
"""Known fields of a tool. `eager_input_streaming` has no effect: chat always streams arguments while they are
written."""
_DEFERRED = "defer_loading"
"""A tool with this field is shown to the model once it was searched for. In chat it knows all tools from the start."""
_THINKING_BLOCKS = frozenset({"thinking", "redacted_thinking"})
"""Blocks that only the model that wrote them can read."""
_THINKING = frozenset({"type", "budget_tokens", "display"})
DEFAULT_EFFORT = "high"
"""The effort of Anthropic's models where a request names none. Other models' defaults are lower."""
_REFERENCE = frozenset({"type", "tool_name", "cache_control"})
_MEDIA_BLOCKS = ("image", "document")
_TOOL_CHANGE = frozenset({"type", "tool", "cache_control"})
_TOOL_CHANGES = ("tool_addition", "tool_removal")
"""Blocks that add or remove a tool from there on."""
_EMPTY_VALUES: tuple[Any, ...] = (None, False, [], {}, ["direct"], {"enabled": False})
"""Values that ask for nothing special of a block or a tool: the model itself calls the tool and knows it at once,
nothing is cited."""
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}


def cannot(name: str) -> Invalid:
    """The refusal of a field that chat cannot express."""
    return providers.unsupported_field_error(name, requirement="speaks Anthropic's API itself")


class Translation:
    """A request translated to chat: its `fields`, without model and caps, and the names of fields `left_out`."""

    __slots__ = ("_removed_tools", "asks_default_effort", "fields", "left_out", "messages")

    def __init__(self, body: bytes) -> None:
        """Raises `Invalid` (`field_untranslatable`, `body_invalid`)."""
        self.fields: dict[str, Any] = {}
        self.messages: list[dict[str, Any]] = []
        self.left_out: set[str] = set()
        self.asks_default_effort = False
        """Whether `DEFAULT_EFFORT` is named. It is not in `fields`: agents name it in every request, and models that do
        not reason would refuse it."""
        self._removed_tools: set[str] = set()
        """Names of tools that were removed by the end of the conversation."""
        request: dict[str, Any] = _decode(body)
        for name, value in request.items():
            if (put := _FIELDS.get(name)) is None:
                if value not in providers.EMPTY_VALUES:
                    raise cannot(name)
            elif value is not None:
                try:
                    put(self, value)
                except SHAPE_ERRORS as error:
                    raise malformed_field(name, error, API) from error
        if request["messages"][-1]["role"] == "assistant":
            raise cannot("messages: the beginning of the answer, as its last message,")
        if self._removed_tools:
            self._drop_removed_tools()
        system = request.get("system")
        if system:
            self.messages.insert(0, {"role": "system", "content": self._system(system)})
        self.fields["messages"] = self.messages

    def check(self, block: dict[str, Any], known: frozenset[str], where: str) -> None:
        """Raise `Invalid` for fields of a block that are not in `known`."""
        for name, value in block.items():
            if name == "cache_control" and value is not None:
                self.left_out.add(name)
            if name == _DEFERRED and value is True and known is _TOOL:
                self.left_out.add(name)
            elif name not in known and value not in _EMPTY_VALUES:
                raise cannot(f"{where}.{name}")
        if block.get("citations") not in _EMPTY_VALUES:
            raise cannot(f"{where}.citations")
        if (block.get("caller") or {"type": "direct"}).get("type") != "direct":
            raise cannot(f"{where}.caller")

    def _system(self, system: str | list[dict[str, Any]]) -> str:
        if isinstance(system, str):
            return system
        try:
            for block in system:
                self.check(block, _TEXT, "system")
            return "\n\n".join(block["text"] for block in system)
        except SHAPE_ERRORS as error:
            raise malformed_field("system", error, API) from error

    # messages --------------------------------------------------------------------------------------------------------

    def put_messages(self, messages: list[dict[str, Any]]) -> None:
        for message in messages:
            role, content = message["role"], message["content"]
            for name in message:
                if name not in ("role", "content"):
                    raise cannot(f"messages.{name}")
            if role not in ("user", "assistant", "system"):
                raise cannot(f"messages.role {role[:20]!r}")
            if isinstance(content, str):
                self.messages.append({"role": role, "content": content})
            elif role == "assistant":
                self._assistant(content)
            else:
                self._user(role, content)

    def _assistant(self, blocks: list[dict[str, Any]]) -> None:
        """Add an assistant message, unless it has neither text nor calls: chat has no such messages."""
        texts: list[str] = []
        calls: list[dict[str, Any]] = []
        for block in blocks:
            kind = block["type"]
            if kind in _THINKING_BLOCKS:
                self.left_out.add("thinking")
            elif kind == "text":
                if remove_foreign_citations(block):
                    self.left_out.add("citations")
                self.check(block, _TEXT, "text")
                if calls:
                    raise cannot("messages: text after a tool_use")
                texts.append(block["text"])
            elif kind == "tool_use":
                self.check(block, _USE, "tool_use")
                arguments = _encode(block.get("input") or {}).decode()
                function = {"name": block["name"], "arguments": arguments}
                calls.append(thought_signatures.tool_call(block["id"], function))
            else:
                raise cannot(f"messages: a {kind[:40]} block of the assistant")
        message: dict[str, Any] = {"role": "assistant", "content": "".join(texts) or None}
        if calls:
            message["tool_calls"] = calls
        if calls or message["content"] is not None:
            self.messages.append(message)

    def _user(self, role: str, blocks: list[dict[str, Any]]) -> None:
        parts: list[dict[str, Any]] = []
        shown: list[dict[str, Any]] = []
        for block in blocks:
            kind = block["type"]
            if kind == "tool_result" and role == "user":
                if parts:
                    raise cannot("messages: a tool_result after other content")
                self.messages.append(self._result(block, shown))
            elif kind in _TOOL_CHANGES and role == "system":
                self._change(block)
            else:
                parts.append(self._part(role, block))
        parts = shown + parts
        if len(parts) == 1 and parts[0]["type"] == "text":
            self.messages.append({"role": role, "content": parts[0]["text"]})
        elif parts:
            self.messages.append({"role": role, "content": parts})

    def _part(self, role: str, block: dict[str, Any]) -> dict[str, Any]:
        kind = block["type"]
        if kind == "text":
            self.check(block, _TEXT, "text")
            return {"type": "text", "text": block["text"]}
        if kind == "image" and role == "user":
            self.check(block, _IMAGE, "image")
            source = block["source"]
            url = f"data:{source['media_type']};base64,{source['data']}"
            return {"type": "image_url", "image_url": {"url": url}}
        if kind == "document" and role == "user" and block["source"].get("type") == "base64":
            self.check(block, _DOCUMENT, "document")
            data = f"data:{block['source']['media_type']};base64,{block['source']['data']}"
            return {"type": "file", "file": {"filename": block.get("title") or "document.pdf", "file_data": data}}
        raise cannot(f"messages: a {kind[:40]} block of the {role}")

    def _change(self, block: dict[str, Any]) -> None:
        """Note a change of tools. Chat cannot change them within a conversation: those offered at its end are
        offered."""
        self.check(block, _TOOL_CHANGE, block["type"])
        name = block["tool"]["name"]
        if block["type"] == "tool_removal":
            self._removed_tools.add(name)
        else:
            self._removed_tools.discard(name)

    def _result(self, block: dict[str, Any], shown: list[dict[str, Any]]) -> dict[str, Any]:
        """A tool result. In chat results are text only: media are added to `shown`, a user message behind them."""
        self.check(block, _RESULT, "tool_result")
        content = block.get("content") or ""
        if not isinstance(content, str):
            content = "\n".join(self._result_text(part, shown) for part in content)
        if block.get("is_error"):
            content = f"Error: {content}"
        return {"role": "tool", "tool_call_id": thought_signatures.plain_id(block["tool_use_id"]), "content": content}

    def _result_text(self, part: dict[str, Any], shown: list[dict[str, Any]]) -> str:
        """A part of a tool result as text."""
        kind = part["type"]
        if kind in _MEDIA_BLOCKS:
            shown.append(self._part("user", part))
            return f"The {kind} is below."
        if kind == "tool_reference":  # result of a search among tools; in chat all are known
            self.check(part, _REFERENCE, kind)
            return f"There is the tool {part['tool_name']}."
        if kind != "text":
            raise cannot(f"tool_result: a {kind[:40]} block")
        self.check(part, _TEXT, "text")
        text: str = part["text"]
        return text

    # the other fields ------------------------------------------------------------------------------------------------

    def put_stops(self, stops: list[str]) -> None:
        if len(stops) > MAX_STOPS:
            raise cannot(f"stop_sequences: more than {MAX_STOPS}")
        if stops:
            self.fields["stop"] = stops

    def put_tools(self, tools: list[dict[str, Any]]) -> None:
        made = []
        for tool in tools:
            if tool.get("type") not in (None, "custom"):
                raise cannot(f"tools: {str(tool['type'])[:40]}")
            self.check(tool, _TOOL, "tools")
            schema = tool["input_schema"]
            if isinstance(schema, dict) and schema.get("type") == "object":
                schema = {"properties": {}, **schema}  # without them OpenAI refuses one, as tools without arguments are
            function = {"name": tool["name"], "parameters": schema}
            for name in ("description", "strict"):
                if tool.get(name) is not None:
                    function[name] = tool[name]
            made.append({"type": "function", "function": function})
        if made:
            self.fields["tools"] = made

    def _drop_removed_tools(self) -> None:
        try:
            tools = self.fields.pop("tools", ())
            kept = [each for each in tools if each["function"]["name"] not in self._removed_tools]
        except SHAPE_ERRORS as error:  # a name that is no text
            raise malformed_field("tools", error, API) from error
        if kept:
            self.fields["tools"] = kept

    def put_choice(self, choice: dict[str, Any]) -> None:
        kind = choice.get("type")
        if kind == "tool":
            self.fields["tool_choice"] = {"type": "function", "function": {"name": choice["name"]}}
        elif kind in _CHOICES:
            self.fields["tool_choice"] = _CHOICES[kind]
        else:
            raise cannot(f"tool_choice {str(kind)[:20]!r}")
        if choice.get("disable_parallel_tool_use"):
            self.fields["parallel_tool_calls"] = False

    def put_metadata(self, metadata: dict[str, Any]) -> None:
        for name, value in metadata.items():
            if name != "user_id":
                raise cannot(f"metadata.{name}")
            if value is not None:
                self.fields["user"] = value if len(value) <= MAX_USER_LENGTH else sha256(value.encode()).hexdigest()

    def put_tier(self, tier: str) -> None:
        if tier not in ("auto", "standard_only"):
            raise cannot(f"service_tier {tier[:20]!r}")
        if tier == "standard_only":
            self.fields["service_tier"] = "default"

    def put_thinking(self, thinking: dict[str, Any]) -> None:
        """Adaptive thinking is the default in chat, so it needs no field. The thinking budget is part of `max_tokens`,
        which is kept. Chat cannot tell a model that thinks by itself when not to, nor show what it thought."""
        kind, budget = thinking.get("type"), thinking.get("budget_tokens")
        if kind == "enabled" and type(budget) is int:
            self.left_out.add("thinking.budget_tokens")
        elif kind in ("disabled", "between_tools"):
            self.left_out.add("thinking.type")
        elif kind != "adaptive":
            raise cannot("thinking")
        for name, value in thinking.items():
            if name == "display" and value not in (None, "omitted"):
                self.left_out.add("thinking.display")
            elif name not in _THINKING and value is not None:
                raise cannot(f"thinking.{name[:40]}")

    def put_context(self, management: dict[str, Any]) -> None:
        """Accept edits that clear thinking, since none is sent on anyway; refuse others."""
        for edit in management.get("edits") or ():
            if not str(edit.get("type")).startswith("clear_thinking_"):
                raise cannot(f"context_management.edits {str(edit.get('type'))[:40]!r}")

    def put_output(self, output: dict[str, Any]) -> None:
        for name, value in output.items():
            if value is not None and name not in ("format", "effort"):
                raise cannot(f"output_config.{name}")
        effort = output.get("effort")
        if effort == DEFAULT_EFFORT:
            self.asks_default_effort = True
        elif effort is not None:
            self.fields["reasoning_effort"] = effort
        form = output.get("format")
        if form is not None:
            schema = {"name": "answer", "schema": form["schema"], "strict": True}
            self.fields["response_format"] = {"type": "json_schema", "json_schema": schema}

    def put_format(self, form: dict[str, Any]) -> None:
        self.put_output({"format": form})

    def put_max_tokens(self, most: int) -> None:
        if not most:
            raise cannot("max_tokens 0")


def _left_out(name: str) -> Callable[[Translation, Any], None]:
    def put(translation: Translation, value: Any) -> None:  # noqa: ARG001 -- one of many
        translation.left_out.add(name)

    return put


def _copied(name: str) -> Callable[[Translation, Any], None]:
    def put(translation: Translation, value: Any) -> None:
        translation.fields[name] = value

    return put


def _handled_elsewhere(translation: Translation, value: Any) -> None:
    """Expressed by other fields."""


_FIELDS: dict[str, Callable[[Translation, Any], None]] = {
    "model": _handled_elsewhere,
    "system": _handled_elsewhere,
    "messages": Translation.put_messages,
    "max_tokens": Translation.put_max_tokens,
    "stream": _copied("stream"),
    "temperature": _copied("temperature"),
    "top_p": _copied("top_p"),
    "stop_sequences": Translation.put_stops,
    "tools": Translation.put_tools,
    "tool_choice": Translation.put_choice,
    "metadata": Translation.put_metadata,
    "service_tier": Translation.put_tier,
    "thinking": Translation.put_thinking,
    "context_management": Translation.put_context,
    "output_config": Translation.put_output,
    "output_format": Translation.put_format,
    "cache_control": _left_out("cache_control"),
    "diagnostics": _left_out("diagnostics"),
    "speed": _handled_elsewhere,
}
