"""Translates a Responses request to OpenAI's chat; what chat cannot express is refused by name. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from groundplan.core.errors import Invalid
from groundplan.gateway.surfaces import thought_signatures
from groundplan.gateway.surfaces.body import SHAPE_ERRORS, malformed_field
from groundplan.gateway.upstream import providers

API = "OpenAI's Responses API"
_decode = msgspec.json.Decoder().decode
_MESSAGE = frozenset({"type", "role", "content", "id", "status", "phase"})
_CALL = frozenset({"type", "id", "call_id", "name", "namespace", "arguments", "status", "parsed_arguments"})
_CUSTOM_CALL = frozenset({"type", "id", "call_id", "name", "namespace", "input", "status"})
_OUTPUT = frozenset({"type", "id", "call_id", "output", "status", "name", "namespace"})
_EMPTY_VALUES: tuple[Any, ...] = (None, False, [], {}, {"type": "direct"})
"""Values of fields that say nothing. The last one says who calls a function: the model itself."""
_PARTS = {
    "input_text": frozenset({"type", "text"}),
    "output_text": frozenset({"type", "text", "annotations", "logprobs", "parsed"}),
    "refusal": frozenset({"type", "refusal"}),
    "input_image": frozenset({"type", "image_url", "detail"}),
    "input_file": frozenset({"type", "filename", "file_data"}),
}
"""Known fields of items and parts by type: those that chat can express, and those that are only about an item: its id,
its status, whether it was the answer or a step towards it (`phase`), annotations of an earlier answer, and what
OpenAI's clients parsed."""
_OF_EARLIER_ANSWERS = ("annotations", "logprobs")
_TOOL = ("name", "description", "parameters", "strict")
_NAMESPACE = frozenset({"type", "name", "description", "tools"})
_MODES = ("auto", "required")
MAX_NAME_LENGTH = 64
"""The longest name of a function in chat."""
ENCRYPTED_REASONING = "reasoning.encrypted_content"
REASONING_SUMMARY = "summary"
"""The field of `reasoning` that asks for a summary."""
REASONING_PREFIX = "rs_"
"""How ids of reasoning items begin; a reference to reasoning is known by it."""
_TOOL_EMPTY_VALUES: tuple[Any, ...] = (None, False, [], {}, ["direct"])
"""Values of a tool's fields that ask for nothing special: the model itself calls the tool, and knows it at once."""


def cannot(name: str) -> Invalid:
    """The refusal of a field that chat cannot express."""
    return providers.unsupported_field_error(name, requirement="serves responses itself")


def check(given: dict[str, Any], known: frozenset[str], where: str) -> None:
    """Raise `Invalid` for a field that is not in `known`, unless its value says nothing."""
    for name, value in given.items():
        if name not in known and value not in _EMPTY_VALUES:
            raise cannot(f"{where}.{name[:40]}")


def is_reference(item: dict[str, Any]) -> bool:
    """Whether an item only refers to a stored one. Its type may be left out: it has an id and nothing else."""
    kind = item.get("type")
    return kind == "item_reference" or (
        kind is None and bool(item.get("id")) and not item.get("role") and item.get("content") is None
    )


def has_own_content(item: dict[str, Any]) -> bool:
    """Whether an item has content of its own: earlier reasoning is often only an id of what a provider stored."""
    if is_reference(item):
        return False
    return item.get("type") != "reasoning" or bool(item.get("encrypted_content") or item.get("content"))


def namespaced_name(group: str, name: str) -> str:
    """The name in chat of a function in a namespace (`group`). Raises `Invalid`."""
    if len(told := f"{group}__{name}") > MAX_NAME_LENGTH:
        raise cannot(f"tools: a name with its namespace's of more than {MAX_NAME_LENGTH} signs")
    return told


def _function(tool: dict[str, Any]) -> dict[str, Any]:
    if tool["type"] != "function":
        raise cannot(f"tools: {str(tool['type'])[:40]}")
    for name, value in tool.items():
        if name not in ("type", *_TOOL) and value not in _TOOL_EMPTY_VALUES:
            raise cannot(f"tools: {name[:40]}")
    return {name: tool[name] for name in _TOOL if tool.get(name) is not None}


class Translation:
    """A request translated to chat. `fields` of the chat request, without model and caps; `asked` is the original
    request; `earlier` are messages before its input; `groups` are (namespace, name) of functions in a namespace, by
    their names in chat; `left_out` names fields of earlier answers that chat has no field for."""

    __slots__ = ("_allowed_tools", "_shown_media", "asked", "fields", "groups", "left_out", "messages")

    def __init__(self, body: bytes, earlier: list[dict[str, Any]] | None = None) -> None:
        """Raises `Invalid` (`field_untranslatable`, `body_invalid`)."""
        self.asked: dict[str, Any] = _decode(body)
        self.fields: dict[str, Any] = {}
        self.groups: dict[str, tuple[str, str]] = {}
        self.left_out: set[str] = set()
        self.messages: list[dict[str, Any]] = list(earlier or ())
        self._shown_media: list[dict[str, Any]] = []
        self._allowed_tools: set[str] | None = None
        """Names of the functions that may be called, where the request names only some of its own."""
        for name, value in self.asked.items():
            if (put := _FIELDS.get(name)) is None:
                if value not in providers.EMPTY_VALUES:
                    raise cannot(name)
            elif value is not None:
                try:
                    put(self, value)
                except SHAPE_ERRORS as error:
                    raise malformed_field(name, error, API) from error
        if self._allowed_tools is not None:
            self._offer_only(self._allowed_tools)
        if self.asked.get("instructions"):
            self.messages.insert(0, {"role": "system", "content": self.asked["instructions"]})
        self.fields["messages"] = self.messages

    # input -----------------------------------------------------------------------------------------------------------

    def put_input(self, given: str | list[dict[str, Any]]) -> None:
        if isinstance(given, str):
            self.messages.append({"role": "user", "content": given})
            return
        for item in given:
            kind = item.get("type") or "message"
            if kind in ("function_call_output", "custom_tool_call_output"):
                self._output(item)
            elif kind == "reasoning" or not has_own_content(item):
                continue  # another model's reasoning, or only its id
            else:
                self._add_shown_media()
                if kind == "message":
                    self._message(item)
                elif kind == "function_call":
                    self._call(item)
                elif kind == "custom_tool_call":
                    self._custom_call(item)
                else:
                    raise cannot(f"input: an item of type {str(kind)[:40]}")
        self._add_shown_media()
        self.messages = _results_after_calls(self.messages)

    def _add_shown_media(self) -> None:
        """Add media that functions returned as a user message, behind all results of one answer, which belong
        together."""
        if self._shown_media:
            self.messages.append({"role": "user", "content": self._shown_media})
            self._shown_media = []

    def _message(self, item: dict[str, Any]) -> None:
        check(item, _MESSAGE, "input")
        if item.get("phase"):
            self.left_out.add("phase")
        role, content = item["role"], item["content"]
        if role not in ("user", "assistant", "system", "developer"):
            raise cannot(f"input: the role {str(role)[:20]!r}")
        role = "system" if role == "developer" else role
        if not isinstance(content, str):
            parts = [self._part(part, role) for part in content]
            texts = [part["text"] for part in parts if part["type"] == "text"]
            plain = len(texts) == len(parts) and (len(parts) == 1 or role != "user")
            content = "".join(texts) if plain else parts
        self.messages.append({"role": role, "content": content})

    def _part(self, part: dict[str, Any], role: str) -> dict[str, Any]:
        kind = part["type"]
        check(part, _PARTS.get(kind, frozenset(part)), f"input: {str(kind)[:40]}")
        if kind in ("input_text", "output_text"):
            self.left_out.update(name for name in _OF_EARLIER_ANSWERS if part.get(name))
            return {"type": "text", "text": part["text"]}
        if kind == "refusal" and role == "assistant":
            return {"type": "text", "text": part["refusal"]}
        if kind == "input_image" and role == "user" and part.get("image_url"):
            image = {"url": part["image_url"]}
            if part.get("detail"):
                image["detail"] = part["detail"]
            return {"type": "image_url", "image_url": image}
        if kind == "input_file" and role == "user" and part.get("file_data"):
            return {"type": "file", "file": {name: part[name] for name in ("filename", "file_data") if part.get(name)}}
        raise cannot(f"input: content of type {str(kind)[:40]}")

    def _call(self, item: dict[str, Any]) -> None:
        check(item, _CALL, "input: function_call")
        function = {"name": _called_name(item), "arguments": item["arguments"]}
        self._add_call(thought_signatures.tool_call(item["call_id"], function))

    def _custom_call(self, item: dict[str, Any]) -> None:
        """Translate a custom tool's call that an earlier chat answer had; the tools themselves are refused."""
        check(item, _CUSTOM_CALL, "input: custom_tool_call")
        custom = {"name": _called_name(item), "input": item["input"]}
        self._add_call(thought_signatures.tool_call(item["call_id"], custom, kind="custom"))

    def _add_call(self, call: dict[str, Any]) -> None:
        """Add a call to the assistant's message, or as one of its own."""
        last = self.messages[-1] if self.messages else {}
        if last.get("role") == "assistant":
            last.setdefault("tool_calls", []).append(call)
        else:
            self.messages.append({"role": "assistant", "content": None, "tool_calls": [call]})

    def _output(self, item: dict[str, Any]) -> None:
        check(item, _OUTPUT, f"input: {item['type']}")
        output = item["output"]
        if not isinstance(output, str):
            output = "\n".join(map(self._result_text, output))
        self.messages.append(
            {"role": "tool", "tool_call_id": thought_signatures.plain_id(item["call_id"]), "content": output}
        )

    def _result_text(self, part: dict[str, Any]) -> str:
        """A part of a result as text: in chat results are text only, and media follow in a user message."""
        translated = self._part(part, "user")
        if translated["type"] == "text":
            text: str = translated["text"]
            return text
        self._shown_media.append(translated)
        return f"The {'image' if translated['type'] == 'image_url' else 'file'} is below."

    # the other fields ------------------------------------------------------------------------------------------------

    def put_tools(self, tools: list[dict[str, Any]]) -> None:
        made: list[dict[str, Any]] = []
        for tool in tools:
            made += self._namespace_functions(tool) if tool["type"] == "namespace" else [_function(tool)]
        names = {each["name"] for each in made}
        if self.groups and len(names) < len(made):
            raise cannot("tools: two functions of one name")
        if made:
            self.fields["tools"] = [{"type": "function", "function": each} for each in made]

    def _namespace_functions(self, group: dict[str, Any]) -> list[dict[str, Any]]:
        """The functions of a namespace. Chat has no namespaces: the name becomes a prefix of theirs, and the
        description goes to the first function."""
        check(group, _NAMESPACE, "tools: namespace")
        made = [_function(each) for each in group["tools"]]
        for each in made:
            name, each["name"] = each["name"], namespaced_name(group["name"], each["name"])
            self.groups[each["name"]] = group["name"], name
        if made and group.get("description"):
            made[0]["description"] = "\n\n".join(filter(None, (group["description"], made[0].get("description"))))
        return made

    def put_choice(self, choice: str | dict[str, Any]) -> None:
        if isinstance(choice, str):
            self.fields["tool_choice"] = choice
        elif choice.get("type") == "function":
            self.fields["tool_choice"] = {"type": "function", "function": {"name": choice["name"]}}
        elif choice.get("type") == "allowed_tools" and choice.get("mode") in _MODES:
            if any(tool["type"] != "function" for tool in choice["tools"]):
                raise cannot("tool_choice: a tool that is no function")
            self._allowed_tools = {tool["name"] for tool in choice["tools"]}
            self.fields["tool_choice"] = choice["mode"]
        else:
            raise cannot(f"tool_choice {str(choice.get('type'))[:40]!r}")

    def _offer_only(self, names: set[str]) -> None:
        """Leave out the other tools, which says the same: few upstreams know a choice among some in chat."""
        kept = [tool for tool in self.fields.pop("tools", ()) if tool["function"]["name"] in names]
        if len(kept) < len(names):
            raise cannot("tool_choice: a tool that is not in tools")
        if kept:
            self.fields["tools"] = kept

    def put_text(self, text: dict[str, Any]) -> None:
        for name, value in text.items():
            if value is None:
                continue
            if name == "verbosity":
                self.fields["verbosity"] = value
            elif name != "format":
                raise cannot(f"text.{name}")
            elif value["type"] == "json_schema":
                schema = {key: each for key, each in value.items() if key != "type" and each is not None}
                self.fields["response_format"] = {"type": "json_schema", "json_schema": schema}
            elif value["type"] == "json_object":
                self.fields["response_format"] = value
            elif value["type"] != "text":
                raise cannot(f"text.format {str(value['type'])[:40]}")

    def put_reasoning(self, reasoning: dict[str, Any]) -> None:
        for name, value in reasoning.items():
            if value is not None and name not in ("effort", REASONING_SUMMARY):  # they ask for reasoning items
                raise cannot(f"reasoning.{name}")
        if reasoning.get("effort"):
            self.fields["reasoning_effort"] = reasoning["effort"]

    def put_stream_options(self, options: dict[str, Any]) -> None:
        if options.get("include_obfuscation"):
            raise cannot("stream_options.include_obfuscation")

    def put_include(self, include: list[str]) -> None:
        for name in include:
            if name != ENCRYPTED_REASONING:  # a chat answer has no reasoning items
                raise cannot(f"include: {str(name)[:60]}")

    def put_truncation(self, truncation: str) -> None:
        if truncation != "disabled":
            raise cannot(f"truncation {truncation[:20]!r}")

    def put_top_logprobs(self, top: int) -> None:
        if top:
            raise cannot("top_logprobs")


def _called_name(item: dict[str, Any]) -> str:
    """The name in chat of the tool that an item calls. Raises `Invalid`."""
    name: str = item["name"]
    return namespaced_name(item["namespace"], name) if item.get("namespace") else name


def _results_after_calls(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages with each tool result right behind the message that called for it, and once, as chat requires.
    Between items there may be others, and clients that continue an earlier response send its results again."""
    groups: list[list[dict[str, Any]]] = []
    group_of_call: dict[str, list[dict[str, Any]]] = {}
    for message in messages:
        if message["role"] == "tool" and (group := group_of_call.get(message["tool_call_id"])) is not None:
            if message not in group:
                group.append(message)
            continue
        groups.append(group := [message])
        for call in message.get("tool_calls") or ():
            group_of_call[call["id"]] = group
    return [message for group in groups for message in group]


def _copied(name: str) -> Callable[[Translation, Any], None]:
    def put(translation: Translation, value: Any) -> None:
        translation.fields[name] = value

    return put


def _handled_elsewhere(translation: Translation, value: Any) -> None:
    """Handled by the gateway itself, or expressed by other fields."""


_FIELDS: dict[str, Callable[[Translation, Any], None]] = {
    "model": _handled_elsewhere,
    "instructions": _handled_elsewhere,
    "metadata": _handled_elsewhere,
    "client_metadata": _handled_elsewhere,  # of Codex, about itself
    "store": _handled_elsewhere,
    "background": _handled_elsewhere,
    "previous_response_id": _handled_elsewhere,
    "max_output_tokens": _handled_elsewhere,
    "max_tool_calls": _handled_elsewhere,  # of tools that run at the provider, of which there are none
    "stream_options": Translation.put_stream_options,
    "input": Translation.put_input,
    "tools": Translation.put_tools,
    "tool_choice": Translation.put_choice,
    "text": Translation.put_text,
    "reasoning": Translation.put_reasoning,
    "include": Translation.put_include,
    "truncation": Translation.put_truncation,
    "top_logprobs": Translation.put_top_logprobs,
    **{
        name: _copied(name)
        for name in (
            "stream", "temperature", "top_p", "parallel_tool_calls", "service_tier", "user", "safety_identifier",
            "prompt_cache_key", "prompt_cache_retention",
        )
    },
}  # fmt: skip
