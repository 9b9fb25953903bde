"""What was asked and answered, as a document to keep: from the bytes of any API surface, redacted where wanted. Pure.

A streamed answer is put together again first, so that nothing hides in the cut between two events.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from groundplan.core.detect import Found, find, take_out, without_overlaps
from groundplan.gateway.http.sse import DONE, EventReader
from groundplan.gateway.surfaces.answer_text import ARGUMENTS, Channel, is_said, slots
from groundplan.governance.guardrails.json_escapes import LEVELS, Said

LONGEST_TEXT = 100_000
"""Characters of one text that are kept; an image or a sound in base64 is longer."""
_LONGEST_FIND = 4_000
"""Characters of a private key; all else that is taken out is shorter."""
_SPELLED = frozenset({"logprobs", "prompt_logprobs", "token_ids", "prompt_token_ids"})
"""Fields that tell a text again token by token, which in pieces has no shape that is known."""
_VECTOR = "embedding"
"""A field that a text can be guessed from, as numbers or as base64."""
_FILE = re.compile(r"data:[^,\s]{0,200};base64,[\w+/=-]*|(?<![\w+/-])[\w+/-]{256,}={0,2}", re.ASCII)
"""A picture, a sound or a document that is written as text, of which nobody can tell here what it says."""
_ESCAPED_FILE = re.compile(
    r"data:[^,\s]{0,200};base64,(?:[\w+=-]|\\?/)*|(?<![\w+/-])(?:[\w+-]|\\?/){256,}={0,2}", re.ASCII
)
"""The same in JSON that writes each slash with an escape, which is slower to look for."""
_TOKENS = ("prompt", "input")
"""Fields of a request in which texts may be sent as their tokens."""
_BEGINS = frozenset({"content_block_start", "response.output_item.added"})
_INPUTS = frozenset({"partial_json", "function_call_arguments", "custom_tool_call_input"})


@dataclass(frozen=True, slots=True)
class Kept:
    """`document` is JSON: {"prompt": ..., "answer": ...}; `found` says what was taken out, by kind."""

    document: str
    found: dict[str, int]
    cut: bool


def document(prompt: bytes, answer: bytes, *, redacted: bool) -> Kept:
    """What is kept of one call."""
    cleaner = _Cleaner(redacted)
    try:
        value = {"prompt": cleaner.asked(_decoded(prompt)), "answer": cleaner.clean(answered(answer))}
    except RecursionError:
        cleaner = _Cleaner(redacted)
        texts = (data.decode("utf-8", "replace") for data in (prompt, answer))
        value = dict(zip(("prompt", "answer"), map(cleaner.clean, texts), strict=True))
    return Kept(json.dumps(value), dict(sorted(cleaner.found.items())), cleaner.cut)


class _Cleaner:
    """Goes through a JSON value; keeps count of what it took out."""

    def __init__(self, redacted: bool) -> None:
        self.found: Counter[str] = Counter()
        self.cut = False
        self._redacted = redacted

    def asked(self, value: Any) -> Any:
        """A request: of texts that were sent as their tokens, which nobody can look at, none is kept."""
        if self._redacted and isinstance(value, dict):
            for name in [name for name in _TOKENS if _has_tokens(value.get(name))]:
                self.found["prompt_of_tokens"] += 1
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
        if self._redacted and ((name in _SPELLED and isinstance(value, dict | list)) or name == _VECTOR):
            return None
        return self.clean(value)

    def _text(self, text: str) -> str:
        if self._redacted:
            text, files = (_ESCAPED_FILE if "\\/" in text else _FILE).subn("[encoded_file]", text)
            if files:
                self.found["encoded_file"] += files
        if len(text) > LONGEST_TEXT:
            self.cut = True
            text, rest = text[: _end(text) if self._redacted else LONGEST_TEXT], f"... ({len(text)} characters)"
        else:
            rest = ""
        if self._redacted:
            text, found = take_out(text, _found(text))
            self.found.update(found)
        return text + rest


def _found(text: str, levels: int = LEVELS) -> list[Found]:
    """What is taken out of a text: also what JSON in it, as of a tool's arguments and results, writes with escapes, and
    JSON that is a text of that. None begins or ends within one."""
    found = find(text)
    if "\\" not in text or not levels or (said := Said(text)).text == text:
        return found
    hidden = [Found(said.place(one.start), said.place(one.end), one.kind) for one in _found(said.text, levels - 1)]
    seen = [Found(said.escape(one.start)[0], max(one.end, said.escape(one.end - 1)[1]), one.kind) for one in found]
    return without_overlaps(sorted(hidden + seen, key=lambda one: (one.start, -one.end)))


def _has_tokens(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(each, int | list) for each in value)


def _end(text: str) -> int:
    """Where a long text is cut: half of what would be taken out is not kept either."""
    found = _found(text[: LONGEST_TEXT + _LONGEST_FIND])
    return next((one.start for one in found if one.start < LONGEST_TEXT < one.end), LONGEST_TEXT)


def _decoded(data: bytes) -> Any:
    """JSON as it is; anything else as text, or as a count of bytes."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        pass
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return f"({len(data)} bytes)"


def answered(data: bytes) -> Any:
    """What an answer says, as JSON: as it is, or of a stream its texts by where they belong."""
    events = _events(data)
    if events is not None:
        return _joined(events)
    value = _decoded(data)
    if isinstance(value, dict):
        value.pop("groundplan", None)
    return value


def _events(data: bytes) -> list[Any] | None:
    """The decoded `data:` of each event of a stream; None for what is no stream."""
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


def _joined(events: list[Any]) -> dict[str, str]:
    """The texts of a stream by where they belong: `0` for what the first choice says, `0.reasoning` for what it thought
    before, `0.call.1` for its second call of a tool, name first."""
    texts: dict[str, list[str]] = {}
    for event in events:
        for place, text in _told(event) if isinstance(event, dict) else (("0", event),):
            if isinstance(text, str) and text:
                texts.setdefault(place, []).append(text)
    return {place: "".join(parts) for place, parts in texts.items()}


def _told(event: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Each text of an event and where it belongs."""
    for choice in _dicts(event.get("choices")):
        yield from _names(choice)
    number = str(event.get("index", event.get("output_index", 0)))
    for begun in _dicts([event.get("content_block"), event.get("item")]):
        if str(event.get("type")) in _BEGINS:
            yield number, begun.get("text")
            yield f"{number}.call", begun.get("name")
    for slot in slots(event):
        yield _of_choice(slot.channel) if event.get("choices") else _of_item(number, slot.channel), slot.text
    for failed in _dicts([event.get("error")]):
        yield "error", failed.get("message")


def _names(choice: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Of the tools that a piece of a chat calls, and its text where that comes in bare pieces."""
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


def _of_choice(channel: Channel) -> str:
    """Where a text belongs in a chat, or in a completion."""
    place, *rest = channel
    if is_said(channel):
        return place
    if rest[0] == ARGUMENTS:
        return ".".join(part for part in (place, "call", rest[1]) if part)
    return f"{place}.{rest[0] if len(rest) == 1 else 'reasoning_details'}"


def _of_item(place: str, channel: Channel) -> str:
    """The same, in events that bear a type."""
    name = channel[1].removeprefix("response.").removesuffix(".delta")
    if name in ("text", "output_text", "transcript.text"):
        return place
    return f"{place}.call" if name in _INPUTS else f"{place}.{name}"


def _dicts(values: Any) -> list[dict[str, Any]]:
    return [each for each in values if isinstance(each, dict)] if isinstance(values, list) else []
