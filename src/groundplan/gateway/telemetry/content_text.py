"""Turns the bytes of a request and an answer of any API surface into a document to keep, redacted where wanted. Pure.

A streamed answer is put together first, so that nothing hides in the cut between two events.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from groundplan.core.detect import Found, find, merge_overlaps, redact_found
from groundplan.gateway.http.sse import DONE, EventReader
from groundplan.gateway.surfaces.answer_text import ARGUMENTS, Channel, is_visible_text, slots
from groundplan.governance.guardrails.json_escapes import LEVELS, UnescapedText

LONGEST_TEXT = 100_000
"""Characters of one text that are kept; base64 of images and audio is longer."""
_LONGEST_MATCH = 4_000
"""Longest match of the detectors, a private key; all others are shorter."""
_TOKEN_FIELDS = frozenset({"logprobs", "prompt_logprobs", "token_ids", "prompt_token_ids"})
"""Fields that repeat a text token by token, in pieces that detectors do not recognise."""
_VECTOR_FIELD = "embedding"
"""Field of a vector, as numbers or base64, from which a text can be guessed."""
_FILE = re.compile(r"data:[^,\s]{0,200};base64,[\w+/=-]*|(?<![\w+/-])[\w+/-]{256,}={0,2}", re.ASCII)
"""An image, audio or document written as text, whose contents cannot be checked here."""
_ESCAPED_FILE = re.compile(
    r"data:[^,\s]{0,200};base64,(?:[\w+=-]|\\?/)*|(?<![\w+/-])(?:[\w+-]|\\?/){256,}={0,2}", re.ASCII
)
"""The same in JSON that escapes each slash, which is slower to search for."""
_PROMPT_FIELDS = ("prompt", "input")
"""Fields of a request in which texts may be sent as their tokens."""
_START_EVENTS = frozenset({"content_block_start", "response.output_item.added"})
_ARGUMENT_EVENTS = frozenset({"partial_json", "function_call_arguments", "custom_tool_call_input"})


@dataclass(frozen=True, slots=True)
class KeptDocument:
    """`document` is JSON: {"prompt": ..., "answer": ...}; `removed` counts by kind what was taken out."""

    document: str
    removed: dict[str, int]
    is_cut: bool


def kept_document(prompt: bytes, answer: bytes, *, redacted: bool) -> KeptDocument:
    """Return the document to keep of one call."""
    cleaner = _Cleaner(redacted)
    try:
        value = {"prompt": cleaner.clean_request(_decode(prompt)), "answer": cleaner.clean(decode_answer(answer))}
    except RecursionError:
        cleaner = _Cleaner(redacted)
        texts = (data.decode("utf-8", "replace") for data in (prompt, answer))
        value = dict(zip(("prompt", "answer"), map(cleaner.clean, texts), strict=True))
    return KeptDocument(json.dumps(value), dict(sorted(cleaner.removed.items())), cleaner.is_cut)


class _Cleaner:
    """Cleans JSON values, and counts what it took out."""

    def __init__(self, redacted: bool) -> None:
        self.removed: Counter[str] = Counter()
        self.is_cut = False
        self._redacted = redacted

    def clean_request(self, value: Any) -> Any:
        """Clean a request. Texts sent as tokens cannot be checked, so they are dropped."""
        if self._redacted and isinstance(value, dict):
            for name in [name for name in _PROMPT_FIELDS if _has_tokens(value.get(name))]:
                self.removed["prompt_of_tokens"] += 1
                value = {**value, name: "(tokens)"}
        return self.clean(value)

    def clean(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {self._text(str(name)): self._field(name, inner) for name, inner in value.items()}
        if isinstance(value, list):
            return [self.clean(inner) for inner in value]
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, int) and not isinstance(value, bool) and self._redacted and abs(value) >= 10**8:
            text = self._text(str(value))
            return value if text == str(value) else text
        return value

    def _field(self, name: str, value: Any) -> Any:
        if self._redacted and ((name in _TOKEN_FIELDS and isinstance(value, dict | list)) or name == _VECTOR_FIELD):
            return None
        return self.clean(value)

    def _text(self, text: str) -> str:
        if self._redacted:
            text, files = (_ESCAPED_FILE if "\\/" in text else _FILE).subn("[encoded_file]", text)
            if files:
                self.removed["encoded_file"] += files
        if len(text) > LONGEST_TEXT:
            self.is_cut = True
            text, rest = (
                text[: _cut_position(text) if self._redacted else LONGEST_TEXT],
                f"... ({len(text)} characters)",
            )
        else:
            rest = ""
        if self._redacted:
            text, found = redact_found(text, _matches(text))
            self.removed.update(found)
        return text + rest


def _matches(text: str, levels: int = LEVELS) -> list[Found]:
    """Return what to take out of a text, including matches inside JSON in it with escapes, as in a tool's arguments and
    results, to a depth of `levels`. No match begins or ends within another."""
    found = find(text)
    if "\\" not in text or not levels or (unescaped := UnescapedText(text)).text == text:
        return found
    hidden = [
        Found(unescaped.raw_position(one.start), unescaped.raw_position(one.end), one.kind)
        for one in _matches(unescaped.text, levels - 1)
    ]
    seen = [
        Found(unescaped.escape_span(one.start)[0], max(one.end, unescaped.escape_span(one.end - 1)[1]), one.kind)
        for one in found
    ]
    return merge_overlaps(sorted(hidden + seen, key=lambda one: (one.start, -one.end)))


def _has_tokens(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(each, int | list) for each in value)


def _cut_position(text: str) -> int:
    """Return where to cut a long text: not inside something to take out, since half of it must not be kept either."""
    found = _matches(text[: LONGEST_TEXT + _LONGEST_MATCH])
    return next((one.start for one in found if one.start < LONGEST_TEXT < one.end), LONGEST_TEXT)


def _decode(data: bytes) -> Any:
    """Decode JSON; return anything else as text, or as a count of bytes."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        pass
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return f"({len(data)} bytes)"


def decode_answer(data: bytes) -> Any:
    """Decode an answer: JSON as it is, or the texts of a stream by their place."""
    events = _events(data)
    if events is not None:
        return _join_texts(events)
    value = _decode(data)
    if isinstance(value, dict):
        value.pop("groundplan", None)
    return value


def _events(data: bytes) -> list[Any] | None:
    """Decode the `data:` of each event of a stream; None for what is not a stream."""
    if not data.startswith((b"data:", b"event:", b":", b"id:")):
        return None
    found = []
    for event in EventReader(len(data) + 2).feed(data + b"\n\n"):
        if event != DONE:
            try:
                found.append(json.loads(event))
            except ValueError:
                found.append(event.decode("utf-8", "replace"))
    return found


def _join_texts(events: list[Any]) -> dict[str, str]:
    """Return the texts of a stream by their place: `0` for the first choice's answer, `0.reasoning` for its reasoning,
    `0.call.1` for its second tool call, name first."""
    texts: dict[str, list[str]] = {}
    for event in events:
        for place, text in _event_texts(event) if isinstance(event, dict) else (("0", event),):
            if isinstance(text, str) and text:
                texts.setdefault(place, []).append(text)
    return {place: "".join(parts) for place, parts in texts.items()}


def _event_texts(event: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield each text of an event with its place."""
    for choice in _dicts(event.get("choices")):
        yield from _tool_names(choice)
    number = str(event.get("index", event.get("output_index", 0)))
    for begun in _dicts([event.get("content_block"), event.get("item")]):
        if str(event.get("type")) in _START_EVENTS:
            yield number, begun.get("text")
            yield f"{number}.call", begun.get("name")
    for slot in slots(event):
        yield _choice_place(slot.channel) if event.get("choices") else _item_place(number, slot.channel), slot.text
    for failed in _dicts([event.get("error")]):
        yield "error", failed.get("message")


def _tool_names(choice: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the names of the tools that a chunk of a chat calls, and its text where that is a list of parts."""
    place, delta = choice.get("index", 0), choice.get("delta")
    if not isinstance(delta, dict):
        return
    content = delta.get("content")
    for part in content if isinstance(content, list) else ():
        yield str(place), part
    for function in _dicts([delta.get("function_call")]):
        yield f"{place}.call", function.get("name")
    for call in _dicts(delta.get("tool_calls")):
        for called in _dicts([call.get("function"), call.get("custom")]):
            yield f"{place}.call.{call.get('index', 0)}", called.get("name")


def _choice_place(channel: Channel) -> str:
    """Return the place of a text in a chat, or in a completion."""
    place, *rest = channel
    if is_visible_text(channel):
        return place
    if rest[0] == ARGUMENTS:
        return ".".join(part for part in (place, "call", rest[1]) if part)
    return f"{place}.{rest[0] if len(rest) == 1 else 'reasoning_details'}"


def _item_place(place: str, channel: Channel) -> str:
    """The same, for events that have a type."""
    name = channel[1].removeprefix("response.").removesuffix(".delta")
    if name in ("text", "output_text", "transcript.text"):
        return place
    return f"{place}.call" if name in _ARGUMENT_EVENTS else f"{place}.{name}"


def _dicts(values: Any) -> list[dict[str, Any]]:
    return [each for each in values if isinstance(each, dict)] if isinstance(values, list) else []
