"""A request for a message, said in OpenAI's chat: what can be said is, what cannot is refused by its name.

Left out, and told to the caller, is what nothing depends on there: `cache_control`, which is about a price; what
another model thought earlier, and how much this one may think; that tools are known only once they are searched for.
Pure.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import Any

import msgspec

from groundplan.core.errors import Invalid
from groundplan.gateway.surfaces import thought_signatures
from groundplan.gateway.upstream import providers

MAX_STOPS = 4
"""Of OpenAI's chat."""
LONGEST_USER = 64
"""Of OpenAI's `user`; what is longer, as Claude Code's are, becomes one that is always the same."""
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode
_TEXT = frozenset({"type", "text", "cache_control", "citations"})
_IMAGE = frozenset({"type", "source", "cache_control"})
_DOCUMENT = frozenset({"type", "source", "title", "cache_control"})
_USE = frozenset({"type", "id", "name", "input", "cache_control", "caller"})
_RESULT = frozenset({"type", "tool_use_id", "content", "is_error", "cache_control"})
_TOOL = frozenset({"type", "name", "description", "input_schema", "cache_control", "strict", "eager_input_streaming"})
"""Chat tells what a tool is called with while it is written, whether that is asked for or not."""
_LATER = "defer_loading"
"""Of a tool: the model is told of it once it was searched for. In chat it knows all tools from the beginning."""
_THOUGHT = frozenset({"thinking", "redacted_thinking"})
"""Blocks that only the model reads which wrote them."""
_USUAL_EFFORT = "high"
"""What Anthropic's models do where nothing is said of it."""
_REFERENCE = frozenset({"type", "tool_name", "cache_control"})
_SHOWN = ("image", "document")
_CHANGE = frozenset({"type", "tool", "cache_control"})
_CHANGES = ("tool_addition", "tool_removal")
"""Blocks that offer a tool from there on, or withdraw it."""
_NOTHING: tuple[Any, ...] = (None, False, [], {}, ["direct"], {"enabled": False})
"""Values that say nothing of a block or a tool: that the model calls it itself and knows it at once, that nothing of it
is cited."""
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}


def cannot(name: str) -> Invalid:
    """The refusal of a field that the other API has no word for."""
    return providers.unsupported_field_error(name, requirement="speaks Anthropic's API itself")


class Translation:
    """A request in chat: `fields` of it but for model and caps, and the names that were left out."""

    __slots__ = ("_withdrawn", "fields", "left_out", "messages")

    def __init__(self, body: bytes) -> None:
        """Raises `Invalid` (`field_untranslatable`)."""
        self.fields: dict[str, Any] = {}
        self.messages: list[dict[str, Any]] = []
        self.left_out: set[str] = set()
        self._withdrawn: set[str] = set()
        """Names of tools that are not offered at the end of the conversation."""
        asked: dict[str, Any] = _decode(body)
        for name, value in asked.items():
            if (put := _FIELDS.get(name)) is None:
                if value not in providers.EMPTY_VALUES:
                    raise cannot(name)
            elif value is not None:
                put(self, value)
        if asked["messages"][-1]["role"] == "assistant":
            raise cannot("messages: the beginning of the answer, as its last message,")
        if self._withdrawn:
            self._withdraw()
        system = asked.get("system")
        if system:
            self.messages.insert(0, {"role": "system", "content": self._system(system)})
        self.fields["messages"] = self.messages

    def check(self, block: dict[str, Any], known: frozenset[str], where: str) -> None:
        """Refuse fields of a block that are not among those `known`."""
        for name, value in block.items():
            if name == "cache_control" and value is not None:
                self.left_out.add(name)
            if name == _LATER and value is True and known is _TOOL:
                self.left_out.add(name)
            elif name not in known and value not in _NOTHING:
                raise cannot(f"{where}.{name}")
        if block.get("citations") not in _NOTHING:
            raise cannot(f"{where}.citations")
        if (block.get("caller") or {"type": "direct"}).get("type") != "direct":
            raise cannot(f"{where}.caller")

    def _system(self, system: str | list[dict[str, Any]]) -> str:
        if isinstance(system, str):
            return system
        for block in system:
            self.check(block, _TEXT, "system")
        return "\n\n".join(block["text"] for block in system)

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
        """Of a turn in which nothing was said or called there is nothing in chat, which has no message without both."""
        texts: list[str] = []
        calls: list[dict[str, Any]] = []
        for block in blocks:
            kind = block["type"]
            if kind in _THOUGHT:
                self.left_out.add("thinking")
            elif kind == "text":
                self.check(block, _TEXT, "text")
                if calls:
                    raise cannot("messages: text after a tool_use")
                texts.append(block["text"])
            elif kind == "tool_use":
                self.check(block, _USE, "tool_use")
                arguments = _encode(block.get("input") or {}).decode()
                function = {"name": block["name"], "arguments": arguments}
                calls.append(thought_signatures.call(block["id"], function))
            else:
                raise cannot(f"messages: a {kind[:40]} block of the assistant")
        said: dict[str, Any] = {"role": "assistant", "content": "".join(texts) or None}
        if calls:
            said["tool_calls"] = calls
        if calls or said["content"] is not None:
            self.messages.append(said)

    def _user(self, role: str, blocks: list[dict[str, Any]]) -> None:
        parts: list[dict[str, Any]] = []
        shown: list[dict[str, Any]] = []
        for block in blocks:
            kind = block["type"]
            if kind == "tool_result" and role == "user":
                if parts:
                    raise cannot("messages: a tool_result after other content")
                self.messages.append(self._result(block, shown))
            elif kind in _CHANGES and role == "system":
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
        """Of tools, which chat has none in the middle of: what is offered at the end is offered."""
        self.check(block, _CHANGE, block["type"])
        name = block["tool"]["name"]
        if block["type"] == "tool_removal":
            self._withdrawn.add(name)
        else:
            self._withdrawn.discard(name)

    def _result(self, block: dict[str, Any], shown: list[dict[str, Any]]) -> dict[str, Any]:
        """In chat results are text: what else is in one is `shown` by the user behind them."""
        self.check(block, _RESULT, "tool_result")
        content = block.get("content") or ""
        if not isinstance(content, str):
            content = "\n".join(self._told(part, shown) for part in content)
        if block.get("is_error"):
            content = f"Error: {content}"
        return {"role": "tool", "tool_call_id": thought_signatures.plain(block["tool_use_id"]), "content": content}

    def _told(self, part: dict[str, Any], shown: list[dict[str, Any]]) -> str:
        """A part of a result in words."""
        kind = part["type"]
        if kind in _SHOWN:
            shown.append(self._part("user", part))
            return f"The {kind} is below."
        if kind == "tool_reference":  # of a search among tools, which are all known here
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

    def _withdraw(self) -> None:
        kept = [each for each in self.fields.pop("tools", ()) if each["function"]["name"] not in self._withdrawn]
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
                self.fields["user"] = value if len(value) <= LONGEST_USER else sha256(value.encode()).hexdigest()

    def put_tier(self, tier: str) -> None:
        if tier not in ("auto", "standard_only"):
            raise cannot(f"service_tier {tier[:20]!r}")
        if tier == "standard_only":
            self.fields["service_tier"] = "default"

    def put_thinking(self, thinking: dict[str, Any]) -> None:
        """That a model decides itself how much it thinks is what models do in chat where nothing is said. What it may
        think at most is a part of `max_tokens`, which is kept."""
        kind, budget = thinking.get("type"), thinking.get("budget_tokens")
        if kind == "enabled" and type(budget) is int:
            self.left_out.add("thinking.budget_tokens")
        elif kind not in ("disabled", "adaptive"):
            raise cannot("thinking")

    def put_context(self, management: dict[str, Any]) -> None:
        """Thoughts are cleared there, since none are told; nothing else is."""
        for edit in management.get("edits") or ():
            if not str(edit.get("type")).startswith("clear_thinking_"):
                raise cannot(f"context_management.edits {str(edit.get('type'))[:40]!r}")

    def put_output(self, output: dict[str, Any]) -> None:
        for name, value in output.items():
            if value is not None and name not in ("format", "effort"):
                raise cannot(f"output_config.{name}")
        effort = output.get("effort")
        if effort not in (None, _USUAL_EFFORT):
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

    def leave_out(self, value: object) -> None:  # noqa: ARG002 -- one of many
        self.left_out.add("cache_control")


def _same(name: str) -> Callable[[Translation, Any], None]:
    def put(translation: Translation, value: Any) -> None:
        translation.fields[name] = value

    return put


def _elsewhere(translation: Translation, value: Any) -> None:
    """Said by other means."""


_FIELDS: dict[str, Callable[[Translation, Any], None]] = {
    "model": _elsewhere,
    "system": _elsewhere,
    "messages": Translation.put_messages,
    "max_tokens": Translation.put_max_tokens,
    "stream": _same("stream"),
    "temperature": _same("temperature"),
    "top_p": _same("top_p"),
    "stop_sequences": Translation.put_stops,
    "tools": Translation.put_tools,
    "tool_choice": Translation.put_choice,
    "metadata": Translation.put_metadata,
    "service_tier": Translation.put_tier,
    "thinking": Translation.put_thinking,
    "context_management": Translation.put_context,
    "output_config": Translation.put_output,
    "output_format": Translation.put_format,
    "cache_control": Translation.leave_out,
    "speed": _elsewhere,
}
