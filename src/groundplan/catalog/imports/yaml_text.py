"""Writes the YAML of imported documents, with comments that state their origin.

Only what `catalog` reads: texts, numbers, and lists and mappings of them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Value = str | int | Sequence[Any] | Mapping[str, Any]
_WORD = r"[\w./%@+-]+(?::[\w./%@+-]+)*"
_PLAIN = re.compile(rf"(?:[A-Za-z]|\d+(?:\.\d+)? (?=[A-Za-z])|\d+(?=ms)){_WORD}(?: {_WORD})*|[A-Za-z]", re.ASCII)
_WORDS = frozenset({"true", "false", "null", "yes", "no", "on", "off"})


def document(body: Mapping[str, Value], comments: Iterable[str] = ()) -> str:
    """One document with `---` before it."""
    return f"---\n{comment(comments)}{lines(body)}"


def commented(body: Mapping[str, Value], comments: Iterable[str]) -> str:
    """A document as comments only: it is not declared until somebody completes it."""
    return comment([*comments, "---", *lines(body).splitlines()])


def lines(body: Mapping[str, Value]) -> str:
    return "".join(f"{key}: {_value(value)}\n" for key, value in body.items())


def block(key: str, items: Iterable[Mapping[str, Value]]) -> str:
    """A list with one item per line."""
    return f"{key}:\n" + "".join(f"- {_value(item)}\n" for item in items)


def comment(texts: Iterable[str]) -> str:
    return "".join(f"# {' '.join(text.split())}\n" for text in texts)


def _value(value: Value) -> str:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_value(item)}" for key, item in value.items()) + "}"
    return "[" + ", ".join(_value(item) for item in value) + "]"


def _text(value: str) -> str:
    """A plain scalar if it is unambiguous, else quoted."""
    if _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return value
    return json.dumps(value, ensure_ascii=False)
