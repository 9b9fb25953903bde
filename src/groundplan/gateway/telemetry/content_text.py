"""What was asked and answered, as a document to keep: from the bytes of any API surface, redacted where wanted. Pure.

A streamed answer is put together again first, so that nothing hides in the cut between two events.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import Any

from groundplan.core.detect import find, redact
from groundplan.gateway.http.sse import DONE, EventReader

LONGEST_TEXT = 100_000
"""Characters of one text that are kept; an image or a sound in base64 is longer."""
_LONGEST_FIND = 4_000
"""Characters of a private key; all else that is taken out is shorter."""
_SPELLED = frozenset({"logprobs", "prompt_logprobs", "token_ids", "prompt_token_ids"})
"""Fields that tell a text again token by token, which in pieces has no shape that is known."""
_TEXT_FIELDS = ("content", "text", "partial_json", "thinking", "refusal", "arguments")


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
        value = {"prompt": cleaner.clean(_decoded(prompt)), "answer": cleaner.clean(answered(answer))}
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
        if self._redacted and name in _SPELLED and isinstance(value, dict | list):
            return None
        return self.clean(value)

    def _text(self, text: str) -> str:
        if len(text) > LONGEST_TEXT:
            self.cut = True
            text, rest = text[: _end(text) if self._redacted else LONGEST_TEXT], f"... ({len(text)} characters)"
        else:
            rest = ""
        if self._redacted:
            text, found = redact(text)
            self.found.update(found)
        return text + rest


def _end(text: str) -> int:
    """Where a long text is cut: half of what would be taken out is not kept either."""
    found = find(text[: LONGEST_TEXT + _LONGEST_FIND])
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
    """The texts of a stream by where they belong: `0` for the first choice, `0.arguments` for what it called."""
    texts: dict[str, list[str]] = {}

    def add(place: str, value: Any) -> None:
        if isinstance(value, str) and value:
            texts.setdefault(place, []).append(value)

    for event in events:
        if not isinstance(event, dict):
            add("0", event)
            continue
        for choice in event.get("choices") or []:
            if isinstance(choice, dict):
                _of_choice(choice, add)
        if not event.get("choices"):
            place = str(event.get("index", event.get("output_index", 0)))
            _of_delta(place, event.get("delta"), add)
            add(place, event.get("completion"))
            if isinstance(event.get("error"), dict):
                add("error", event["error"].get("message"))
    return {place: "".join(parts) for place, parts in texts.items()}


def _of_choice(choice: dict[str, Any], add: Any) -> None:
    place = str(choice.get("index", 0))
    add(place, choice.get("text"))
    delta = choice.get("delta")
    _of_delta(place, delta, add)
    for call in (delta.get("tool_calls") or []) if isinstance(delta, dict) else []:
        called = (call.get("function") or call.get("custom")) if isinstance(call, dict) else None
        if isinstance(called, dict):
            for name in ("name", "arguments", "input"):
                add(f"{place}.call.{call.get('index', 0)}", called.get(name))


def _of_delta(place: str, delta: Any, add: Any) -> None:
    add(place, delta)
    if isinstance(delta, dict):
        for name in _TEXT_FIELDS:
            add(place, delta.get(name))
        for part in delta["content"] if isinstance(delta.get("content"), list) else ():
            add(place, part.get("text") if isinstance(part, dict) else part)
