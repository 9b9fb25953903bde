"""A request for a response, said in OpenAI's chat: what can be said is, what cannot is refused by its name. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from groundplan.core.errors import Invalid
from groundplan.gateway.surfaces import thought_signatures
from groundplan.gateway.upstream import providers

_decode = msgspec.json.Decoder().decode
_MESSAGE = frozenset({"type", "role", "content", "id", "status", "phase"})
_CALL = frozenset({"type", "id", "call_id", "name", "namespace", "arguments", "status", "parsed_arguments"})
_OUTPUT = frozenset({"type", "id", "call_id", "output", "status", "name"})
_SAYS_NOTHING: tuple[Any, ...] = (None, [], {}, {"type": "direct"})
"""The last one of who calls a function: the model itself."""
_PARTS = {
    "input_text": frozenset({"type", "text"}),
    "output_text": frozenset({"type", "text", "annotations", "logprobs", "parsed"}),
    "refusal": frozenset({"type", "refusal"}),
    "input_image": frozenset({"type", "image_url", "detail"}),
    "input_file": frozenset({"type", "filename", "file_data"}),
}
"""What is said of an item or a part in chat, or is about it and no part of what was said: its id, its status, whether
it was the answer or said on the way to it (`phase`), notes on an earlier answer, and what OpenAI's clients parsed."""
_TOOL = ("name", "description", "parameters", "strict")
_GROUP = frozenset({"type", "name", "description", "tools"})
LONGEST_NAME = 64
"""Of a function in chat."""
ENCRYPTED = "reasoning.encrypted_content"
SUMMARY = "summary"
"""Of what was thought; a field of `reasoning`."""
REASONING = "rs_"
"""How the ids of reasoning begin, which tell what a reference is to."""
_NOTHING: tuple[Any, ...] = (None, False, [], {}, ["direct"])
"""What of a tool says that it has nothing of its own: it is called by the model itself, which knows it at once."""


def cannot(name: str) -> Invalid:
    """The refusal of a field that chat has no word for."""
    return providers.unsupported_field_error(name, requirement="serves responses itself")


def check(given: dict[str, Any], known: frozenset[str], where: str) -> None:
    """Raise `Invalid` for a field that is not among those `known`. What is null or empty says nothing."""
    for name, value in given.items():
        if name not in known and value not in _SAYS_NOTHING:
            raise cannot(f"{where}.{name[:40]}")


def is_here(item: dict[str, Any]) -> bool:
    """Whether an item says itself what it is about: earlier reasoning is often but a name of what a provider keeps."""
    if item.get("type") == "item_reference":
        return False
    return item.get("type") != "reasoning" or bool(item.get("encrypted_content") or item.get("content"))


def within(group: str, name: str) -> str:
    """What a function of a group is called in chat. Raises `Invalid`."""
    if len(told := f"{group}__{name}") > LONGEST_NAME:
        raise cannot(f"tools: a name with its namespace's of more than {LONGEST_NAME} signs")
    return told


def _function(tool: dict[str, Any]) -> dict[str, Any]:
    if tool["type"] != "function":
        raise cannot(f"tools: {str(tool['type'])[:40]}")
    for name, value in tool.items():
        if name not in ("type", *_TOOL) and value not in _NOTHING:
            raise cannot(f"tools: {name[:40]}")
    return {name: tool[name] for name in _TOOL if tool.get(name) is not None}


class Translation:
    """`fields` of the chat but for model and caps; `asked` is the request; `earlier` are messages before its input;
    `groups` are (group, name) of functions that are in one, by the names that they have in chat."""

    __slots__ = ("_shown", "asked", "fields", "groups", "messages")

    def __init__(self, body: bytes, earlier: list[dict[str, Any]] | None = None) -> None:
        """Raises `Invalid` (`field_untranslatable`)."""
        self.asked: dict[str, Any] = _decode(body)
        self.fields: dict[str, Any] = {}
        self.groups: dict[str, tuple[str, str]] = {}
        self.messages: list[dict[str, Any]] = list(earlier or ())
        self._shown: list[dict[str, Any]] = []
        for name, value in self.asked.items():
            if (put := _FIELDS.get(name)) is None:
                if value not in providers.EMPTY_VALUES:
                    raise cannot(name)
            elif value is not None:
                put(self, value)
        if self.asked.get("instructions"):
            self.messages.insert(0, {"role": "system", "content": self.asked["instructions"]})
        self.fields["messages"] = self.messages

    # input -----------------------------------------------------------------------------------------------------------

    def put_input(self, given: str | list[dict[str, Any]]) -> None:
        if isinstance(given, str):
            self.messages.append({"role": "user", "content": given})
            return
        for item in given:
            kind = item.get("type", "message")
            if kind == "function_call_output":
                self._output(item)
            elif kind == "reasoning" or not is_here(item):
                continue  # what another model thought, or but a name of it
            else:
                self._show()
                if kind == "message":
                    self._message(item)
                elif kind == "function_call":
                    self._call(item)
                else:
                    raise cannot(f"input: an item of type {str(kind)[:40]}")
        self._show()
        self.messages = _together(self.messages)

    def _show(self) -> None:
        """What functions gave that is no text: behind all results of an answer's calls, which belong together."""
        if self._shown:
            self.messages.append({"role": "user", "content": self._shown})
            self._shown = []

    def _message(self, item: dict[str, Any]) -> None:
        check(item, _MESSAGE, "input")
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
        group = item.get("namespace")
        name = within(group, item["name"]) if group else item["name"]
        function = {"name": name, "arguments": item["arguments"]}
        call = thought_signatures.call(item["call_id"], function)
        last = self.messages[-1] if self.messages else {}
        if last.get("role") == "assistant":
            last.setdefault("tool_calls", []).append(call)
        else:
            self.messages.append({"role": "assistant", "content": None, "tool_calls": [call]})

    def _output(self, item: dict[str, Any]) -> None:
        check(item, _OUTPUT, "input: function_call_output")
        output = item["output"]
        if not isinstance(output, str):
            output = "\n".join(map(self._told, output))
        self.messages.append(
            {"role": "tool", "tool_call_id": thought_signatures.plain(item["call_id"]), "content": output}
        )

    def _told(self, part: dict[str, Any]) -> str:
        """A part of a result in words: in chat results are text, and what else is in one is shown by the user."""
        said = self._part(part, "user")
        if said["type"] == "text":
            text: str = said["text"]
            return text
        self._shown.append(said)
        return f"The {'image' if said['type'] == 'image_url' else 'file'} is below."

    # the other fields ------------------------------------------------------------------------------------------------

    def put_tools(self, tools: list[dict[str, Any]]) -> None:
        made: list[dict[str, Any]] = []
        for tool in tools:
            made += self._group(tool) if tool["type"] == "namespace" else [_function(tool)]
        names = {each["name"] for each in made}
        if self.groups and len(names) < len(made):
            raise cannot("tools: two functions of one name")
        if made:
            self.fields["tools"] = [{"type": "function", "function": each} for each in made]

    def _group(self, group: dict[str, Any]) -> list[dict[str, Any]]:
        """The functions of a group, of which there are none in chat: its name is a part of theirs, and what it is for
        is told of the first."""
        check(group, _GROUP, "tools: namespace")
        made = [_function(each) for each in group["tools"]]
        for each in made:
            name, each["name"] = each["name"], within(group["name"], each["name"])
            self.groups[each["name"]] = group["name"], name
        if made and group.get("description"):
            made[0]["description"] = "\n\n".join(filter(None, (group["description"], made[0].get("description"))))
        return made

    def put_choice(self, choice: str | dict[str, Any]) -> None:
        if isinstance(choice, str):
            self.fields["tool_choice"] = choice
        elif choice.get("type") == "function":
            self.fields["tool_choice"] = {"type": "function", "function": {"name": choice["name"]}}
        else:
            raise cannot(f"tool_choice {str(choice.get('type'))[:40]!r}")

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
            if value is not None and name not in ("effort", SUMMARY):  # which would be of items of reasoning
                raise cannot(f"reasoning.{name}")
        if reasoning.get("effort"):
            self.fields["reasoning_effort"] = reasoning["effort"]

    def put_stream_options(self, options: dict[str, Any]) -> None:
        if options.get("include_obfuscation"):
            raise cannot("stream_options.include_obfuscation")

    def put_include(self, include: list[str]) -> None:
        for name in include:
            if name != ENCRYPTED:  # of items of reasoning, of which what a chat says has none
                raise cannot(f"include: {str(name)[:60]}")

    def put_truncation(self, truncation: str) -> None:
        if truncation != "disabled":
            raise cannot(f"truncation {truncation[:20]!r}")

    def put_top_logprobs(self, top: int) -> None:
        if top:
            raise cannot("top_logprobs")


def _together(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each result right behind the message that called for it, as chat has it; among items others may be between."""
    groups: list[list[dict[str, Any]]] = []
    of: dict[str, list[dict[str, Any]]] = {}
    for message in messages:
        if message["role"] == "tool" and (group := of.get(message["tool_call_id"])) is not None:
            group.append(message)
            continue
        groups.append(group := [message])
        for call in message.get("tool_calls") or ():
            of[call["id"]] = group
    return [message for group in groups for message in group]


def _same(name: str) -> Callable[[Translation, Any], None]:
    def put(translation: Translation, value: Any) -> None:
        translation.fields[name] = value

    return put


def _ours(translation: Translation, value: Any) -> None:
    """Done by the gateway itself, or said by other means."""


_FIELDS: dict[str, Callable[[Translation, Any], None]] = {
    "model": _ours,
    "instructions": _ours,
    "metadata": _ours,
    "client_metadata": _ours,  # of Codex, about itself
    "store": _ours,
    "background": _ours,
    "previous_response_id": _ours,
    "max_output_tokens": _ours,
    "max_tool_calls": _ours,  # of tools that run at the provider, of which there are none
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
        name: _same(name)
        for name in (
            "stream", "temperature", "top_p", "parallel_tool_calls", "service_tier", "user", "safety_identifier",
            "prompt_cache_key", "prompt_cache_retention",
        )
    },
}  # fmt: skip
