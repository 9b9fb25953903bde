"""A request for a message, said in OpenAI's chat: what can be said is, what cannot is refused by its name.

Nothing is dropped but `cache_control`, which is about a price and not about the answer; the caller is told of it. Pure.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import Any

import msgspec

from groundplan.core.errors import Invalid
from groundplan.gateway.surfaces import signatures
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
_NOTHING: tuple[Any, ...] = (None, False, [], {}, ["direct"], {"enabled": False})
"""Values that say nothing of a block or a tool: that the model calls it itself and knows it at once, that nothing of it
is cited."""
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}


def cannot(name: str) -> Invalid:
    """The refusal of a field that the other API has no word for."""
    return providers.cannot(name, unless="speaks Anthropic's API itself")


class Translation:
    """A request in chat: `fields` of it but for model and caps, and the names that were left out."""

    __slots__ = ("fields", "left_out", "messages")

    def __init__(self, body: bytes) -> None:
        """Raises `Invalid` (`field_untranslatable`)."""
        self.fields: dict[str, Any] = {}
        self.messages: list[dict[str, Any]] = []
        self.left_out: set[str] = set()
        asked: dict[str, Any] = _decode(body)
        for name, value in asked.items():
            if value is not None:
                put = _FIELDS.get(name)
                if put is None:
                    raise cannot(name)
                put(self, value)
        if asked["messages"][-1]["role"] == "assistant":
            raise cannot("messages: the beginning of the answer, as its last message,")
        system = asked.get("system")
        if system:
            self.messages.insert(0, {"role": "system", "content": self._system(system)})
        self.fields["messages"] = self.messages

    def check(self, block: dict[str, Any], known: frozenset[str], where: str) -> None:
        """Refuse fields of a block that are not among those `known`."""
        for name, value in block.items():
            if name == "cache_control" and value is not None:
                self.left_out.add(name)
            if name not in known and value not in _NOTHING:
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
                self.messages.append(self._assistant(content))
            else:
                self._user(role, content)

    def _assistant(self, blocks: list[dict[str, Any]]) -> dict[str, Any]:
        texts: list[str] = []
        calls: list[dict[str, Any]] = []
        for block in blocks:
            kind = block["type"]
            if kind == "text":
                self.check(block, _TEXT, "text")
                if calls:
                    raise cannot("messages: text after a tool_use")
                texts.append(block["text"])
            elif kind == "tool_use":
                self.check(block, _USE, "tool_use")
                arguments = _encode(block.get("input") or {}).decode()
                function = {"name": block["name"], "arguments": arguments}
                calls.append(signatures.call(block["id"], function))
            else:
                raise cannot(f"messages: a {kind[:40]} block of the assistant")
        said: dict[str, Any] = {"role": "assistant", "content": "".join(texts) or None}
        return {**said, "tool_calls": calls} if calls else said

    def _user(self, role: str, blocks: list[dict[str, Any]]) -> None:
        parts: list[dict[str, Any]] = []
        for block in blocks:
            kind = block["type"]
            if kind == "tool_result" and role == "user":
                if parts:
                    raise cannot("messages: a tool_result after other content")
                self.messages.append(self._result(block))
            elif kind == "text":
                self.check(block, _TEXT, "text")
                parts.append({"type": "text", "text": block["text"]})
            elif kind == "image" and role == "user":
                self.check(block, _IMAGE, "image")
                source = block["source"]
                url = f"data:{source['media_type']};base64,{source['data']}"
                parts.append({"type": "image_url", "image_url": {"url": url}})
            elif kind == "document" and role == "user" and block["source"].get("type") == "base64":
                self.check(block, _DOCUMENT, "document")
                data = f"data:{block['source']['media_type']};base64,{block['source']['data']}"
                file = {"filename": block.get("title") or "document.pdf", "file_data": data}
                parts.append({"type": "file", "file": file})
            else:
                raise cannot(f"messages: a {kind[:40]} block of the {role}")
        if len(parts) == 1 and parts[0]["type"] == "text":
            self.messages.append({"role": role, "content": parts[0]["text"]})
        elif parts:
            self.messages.append({"role": role, "content": parts})

    def _result(self, block: dict[str, Any]) -> dict[str, Any]:
        self.check(block, _RESULT, "tool_result")
        content = block.get("content") or ""
        if not isinstance(content, str):
            for part in content:
                if part["type"] != "text":
                    raise cannot(f"tool_result: a {part['type'][:40]} block")
                self.check(part, _TEXT, "text")
            content = "\n".join(part["text"] for part in content)
        if block.get("is_error"):
            content = f"Error: {content}"
        return {"role": "tool", "tool_call_id": signatures.plain(block["tool_use_id"]), "content": content}

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
            function = {"name": tool["name"], "parameters": tool["input_schema"]}
            for name in ("description", "strict"):
                if tool.get(name) is not None:
                    function[name] = tool[name]
            made.append({"type": "function", "function": function})
        if made:
            self.fields["tools"] = made

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
        if thinking.get("type") != "disabled":
            raise cannot("thinking")

    def put_output(self, output: dict[str, Any]) -> None:
        for name, value in output.items():
            if value is not None and name != "format":
                raise cannot(f"output_config.{name}")
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
    "output_config": Translation.put_output,
    "output_format": Translation.put_format,
    "cache_control": Translation.leave_out,
    "speed": _elsewhere,
}
