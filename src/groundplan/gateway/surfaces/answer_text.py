"""Finds the text in stream events and complete answers of each API surface. Pure.

The texts of an event are slots. Each belongs to a channel, so that a text is checked as a whole however it is split.
Other contents of an event are ignored.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

Channel = tuple[str, ...]
SURFACES = frozenset({"chat.completions", "messages", "responses", "completions"})
"""Names of the surfaces whose answers are text."""
_DELTA_FIELDS = ("content", "reasoning_content", "reasoning", "refusal")
_DETAIL_FIELDS = ("text", "summary")
_BLOCK_FIELDS = ("text", "thinking", "partial_json")
ARGUMENTS = "arguments"
_REQUEST_FIELDS = ("tools", "input", "metadata")
"""Fields of an answer that repeat the request, or are arguments of a function."""
_PLACE_FIELDS = ("index", "type")
"""Fields that say what a piece belongs to: repeated in each piece, and never concatenated by clients."""


@dataclass(frozen=True, slots=True)
class Slot:
    """One piece of text in an event: `holder[name]`."""

    channel: Channel
    holder: dict[str, Any]
    name: str

    @property
    def text(self) -> str:
        return str(self.holder[self.name])


def slots(event: Any) -> list[Slot]:
    """The pieces of text in one event."""
    if not isinstance(event, dict):
        return []
    found: list[Slot] = []
    for choice in _objects_in(event.get("choices")):
        found += _choice_slots(choice)
    kind = event.get("type")
    if kind == "content_block_delta" and isinstance(event.get("delta"), dict):
        place = str(event.get("index", 0))
        found += [Slot((place, name), event["delta"], name) for name in _BLOCK_FIELDS if _is_text(event["delta"], name)]
    elif isinstance(kind, str) and kind.endswith(".delta") and _is_text(event, "delta"):
        place = str(event.get("item_id", event.get("output_index", 0)))
        found.append(Slot((place, kind, str(event.get("content_index", 0))), event, "delta"))
    return found


def _choice_slots(choice: dict[str, Any]) -> Iterator[Slot]:
    place = place_of(choice)
    if _is_text(choice, "text"):
        yield Slot((place, "text"), choice, "text")
    delta = choice.get("delta")
    if not isinstance(delta, dict):
        return
    for name in _DELTA_FIELDS:
        if _is_text(delta, name):
            yield Slot((place, name), delta, name)
    yield from _part_slots(place, delta.get("content"))
    for detail in _objects_in(delta.get("reasoning_details")):
        number = str(detail.get("index", 0))
        yield from (Slot((place, number, name), detail, name) for name in _DETAIL_FIELDS if _is_text(detail, name))
    for step in _objects_in(delta.get("reasoning_steps")):  # Perplexity's
        if _is_text(step, "thought"):
            yield Slot((place, "reasoning_steps"), step, "thought")
    yield from _call_slots(place, delta)


def _part_slots(place: str, content: Any) -> Iterator[Slot]:
    """The slots of a content that is a list of parts: text and reasoning."""
    for part in _objects_in(content):
        if _is_text(part, "text"):
            yield Slot((place, "content"), part, "text")
        reasoning = [*_objects_in(part.get("thinking")), *_objects_in(part.get("summary"))]
        yield from (Slot((place, "thinking"), each, "text") for each in reasoning if _is_text(each, "text"))


def _call_slots(place: str, delta: dict[str, Any]) -> Iterator[Slot]:
    """The slots of arguments of functions and custom tools; OpenAI's first API had one call, without an index."""
    calls = [("", delta.get("function_call"), ARGUMENTS)]
    for call in _objects_in(delta.get("tool_calls")):
        number = str(call.get("index", 0))
        calls += [(number, call.get("function"), ARGUMENTS), (number, call.get("custom"), "input")]
    for number, called, name in calls:
        if isinstance(called, dict) and _is_text(called, name):
            yield Slot((place, ARGUMENTS, number), called, name)


def channels_of_calls(event: Any) -> list[Channel]:
    """The channels of tool calls of which a chat event has a piece."""
    choices = _objects_in(event.get("choices") if isinstance(event, dict) else None)
    return [
        (str(choice.get("index", 0)), ARGUMENTS, str(call.get("index", 0)))
        for choice in choices
        if isinstance(choice.get("delta"), dict)
        for call in _objects_in(choice["delta"].get("tool_calls"))
    ]


def has_other_content(event: dict[str, Any]) -> bool:
    """Whether an event, with its texts removed, still has content: a role, the name of a function, a signature."""
    return any(_has_content(choice.get("delta")) for choice in _objects_in(event.get("choices")))


def _has_content(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_has_content(each) for name, each in value.items() if name not in _PLACE_FIELDS)
    return any(map(_has_content, value)) if isinstance(value, list) else value not in (None, "")


def is_visible_text(channel: Channel) -> bool:
    """Whether a channel is text that a person reads: neither reasoning nor arguments."""
    return len(channel) > 1 and channel[1] in ("text", "content", "response.output_text.delta")


def ended_channels(event: Any) -> set[str] | None:
    """First elements of the channels that this event ends; None: all of them."""
    if not isinstance(event, dict):
        return set()
    found = {place_of(choice) for choice in _objects_in(event.get("choices")) if choice.get("finish_reason")}
    kind = event.get("type")
    if kind == "content_block_stop" or _is_signature(event):
        found.add(str(event.get("index", 0)))
    elif isinstance(kind, str) and (kind in ("message_delta", "message_stop") or _closes(kind)):
        return None
    return found


def _is_signature(event: dict[str, Any]) -> bool:
    """Whether an event is the signature of reasoning, which ends with it."""
    delta = event.get("delta")
    return isinstance(delta, dict) and delta.get("type") == "signature_delta"


def _closes(kind: str) -> bool:
    return kind.endswith(".done") or kind in ("response.completed", "response.incomplete", "response.failed")


def split_final(event: Any) -> tuple[Any, Any] | None:
    """Split an event of chat or completions that both has text of a choice and ends it: (the text, the end); None for
    any other event."""
    ending = (
        [each for each in _objects_in(event["choices"]) if each.get("finish_reason")] if _has_choices(event) else []
    )
    if not any(slot.text for each in ending for slot in _choice_slots(each)):
        return None
    first = {**event, "choices": [{**each, "finish_reason": None} for each in event["choices"]]}
    last = {**event, "choices": [_without_text(each) for each in ending]}
    first.pop("usage", None)
    return first, last


def _has_choices(event: Any) -> bool:
    choices = event.get("choices") if isinstance(event, dict) else None
    return isinstance(choices, list) and all(isinstance(each, dict) for each in choices)


def _without_text(choice: dict[str, Any]) -> dict[str, Any]:
    """A choice without its text, only with how it ended."""
    nothing: dict[str, Any] = {"delta": {}, "text": "", "logprobs": None}
    return choice | {name: value for name, value in nothing.items() if name in choice}


def event_with_text(event: dict[str, Any], channel: Channel, text: str) -> dict[str, Any]:
    """An event like the last one of a channel, but with nothing but this text: clients got its other content already,
    and would add it again."""
    copied = copy.deepcopy(event)
    for choice in _objects_in(copied.get("choices")):
        choice.update({name: None for name in ("finish_reason", "logprobs") if name in choice})
    copied.pop("usage", None)
    kept: Slot | None = None
    for slot in slots(copied):
        is_kept = kept is None and slot.channel == channel
        slot.holder[slot.name] = text if is_kept else ""
        kept = slot if is_kept else kept
    if copied.get("choices") and kept is not None:
        copied["choices"] = [choice for choice in _objects_in(copied["choices"]) if place_of(choice) == channel[0]]
        for choice in copied["choices"]:
            if "delta" in choice:
                choice["delta"] = _path_to(choice["delta"], kept) or {}
    return copied


def _path_to(value: Any, slot: Slot) -> Any:
    """The part of a value that leads to a slot, with the fields that say where it belongs; None where nothing does."""
    if isinstance(value, list):
        return [inner for each in value if (inner := _path_to(each, slot)) is not None] or None
    if not isinstance(value, dict):
        return None
    path = {name: inner for name, each in value.items() if (inner := _path_to(each, slot)) is not None}
    if value is slot.holder:
        path[slot.name] = value[slot.name]
    return {name: value[name] for name in _PLACE_FIELDS if name in value} | path if path else None


def called_names(value: Any) -> Iterator[str]:
    """Names of the functions and custom tools that an answer, or an event of a stream, calls."""
    if isinstance(value, list):
        for each in value:
            yield from called_names(each)
    elif isinstance(value, dict):
        name = _called_name(value)
        if name:
            yield name
        for key, each in value.items():
            if key not in _REQUEST_FIELDS:
                yield from called_names(each)


def call_texts(value: Any) -> list[str]:
    """The calls in a whole answer: of each the name followed by its arguments."""
    if isinstance(value, list):
        return [call for each in value for call in call_texts(each)]
    if not isinstance(value, dict):
        return []
    name = _called_name(value)
    found = [f"{name}{_arguments_text(value)}"] if name else []
    return found + [call for key, each in value.items() if key not in _REQUEST_FIELDS for call in call_texts(each)]


def _arguments_text(call: dict[str, Any]) -> str:
    for holder in (call.get("function"), call.get("custom"), call.get("function_call"), call):
        arguments = (
            [holder[field] for field in (ARGUMENTS, "input") if field in holder] if isinstance(holder, dict) else []
        )
        if arguments:
            return arguments[0] if isinstance(arguments[0], str) else json.dumps(arguments[0], ensure_ascii=False)
    return ""


def canonical_call(call: str) -> str:
    """One of `call_texts` in a canonical form, so that equal calls are equal however their JSON is written."""
    name, brace, arguments = call.partition("{")
    try:
        return f"{name}{json.dumps(json.loads(brace + arguments), ensure_ascii=False, sort_keys=True)}"
    except (ValueError, RecursionError):
        return call


def calling_choices(value: Any) -> set[str]:
    """The choices of an answer or event that call a function; `` (empty) for an answer without choices that does."""
    choices = _objects_in(value.get("choices")) if isinstance(value, dict) else []
    if not choices:
        return {""} if any(called_names(value)) else set()
    return {place_of(choice) for choice in choices if any(called_names(choice))}


def choices_of(event: Any) -> list[str]:
    """The choices in an event."""
    return [place_of(choice) for choice in _objects_in(event.get("choices"))] if isinstance(event, dict) else []


def place_of(choice: dict[str, Any]) -> str:
    return str(choice.get("index", 0))


def _called_name(value: dict[str, Any]) -> str:
    kind = value.get("type")
    if kind in ("tool_use", "function_call", "custom_tool_call", "server_tool_use", "mcp_call"):
        return str(value.get("name") or "")
    legacy = value.get("function_call")
    if isinstance(legacy, dict):
        return str(legacy.get("name") or "")
    function, custom = value.get("function"), value.get("custom")
    if isinstance(function, dict) and "parameters" not in function and kind in (None, "function"):
        return str(function.get("name") or "")
    if isinstance(custom, dict) and kind in (None, "custom"):
        return str(custom.get("name") or "")
    return ""


def tool_inputs(value: Any, change: Callable[[str], str]) -> Any:
    """The answer with `change` applied to every string in tool inputs (objects, in Messages)."""
    if isinstance(value, list):
        return [tool_inputs(each, change) for each in value]
    if not isinstance(value, dict):
        return value
    if value.get("type") == "tool_use" and isinstance(value.get("input"), dict):
        return {**value, "input": _strings(value["input"], change)}
    return {key: tool_inputs(each, change) for key, each in value.items()}


def _strings(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_strings(each, change) for each in value]
    if isinstance(value, dict):
        return {key: _strings(each, change) for key, each in value.items()}
    return value


def without_logprobs(value: Any) -> Any:
    """The event or answer without log probabilities, which repeat each word; the same object where there are none."""
    if isinstance(value, list):
        items = [without_logprobs(each) for each in value]
        return value if all(a is b for a, b in zip(items, value, strict=True)) else items
    if not isinstance(value, dict):
        return value
    changed = {key: without_logprobs(each) for key, each in value.items()}
    if logprobs := value.get("logprobs"):
        changed["logprobs"] = [] if isinstance(logprobs, list) else None
    return value if all(changed[key] is each for key, each in value.items()) else changed


def answer_texts(value: Any) -> list[str]:
    """The text of each choice of a whole answer, without those that have no text but call a function."""
    calling = calling_choices(value)
    choices = _objects_in(value.get("choices") if isinstance(value, dict) else None)
    found = [(place_of(choice), _choice_text(choice)) for choice in choices] or [("", visible_text(value))]
    return [text for place, text in found if text.strip() or place not in calling]


def _choice_text(choice: dict[str, Any]) -> str:
    message = choice.get("message")
    content = message.get("content") if isinstance(message, dict) else choice.get("text")
    return content if isinstance(content, str) else "".join(_texts(content))


def visible_text(value: Any) -> str:
    """The text of a whole answer as a person reads it: without reasoning and calls."""
    parts = [_choice_text(choice) for choice in _objects_in(value.get("choices") if isinstance(value, dict) else None)]
    if isinstance(value, dict):
        blocks = [
            *_objects_in(value.get("content")),
            *(
                b
                for o in _objects_in(value.get("output"))
                if o.get("type") != "reasoning"
                for b in _objects_in(o.get("content"))
            ),
        ]
        parts += [block["text"] for block in blocks if isinstance(block.get("text"), str)]
    return "\n".join(part for part in parts if part)


def _objects_in(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _texts(content: Any) -> list[str]:
    return [part["text"] for part in _objects_in(content) if _is_text(part, "text")]


def _is_text(holder: dict[str, Any], name: str) -> bool:
    return isinstance(holder.get(name), str)
