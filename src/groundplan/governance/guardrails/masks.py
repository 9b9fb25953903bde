"""Stand-ins for personal data and secrets: the model sees `<email_1>`, the client gets the value back. Pure.

Within one call the same value always has the same stand-in. Only stand-ins that were given out are restored, so a
stand-in that a model invents stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from groundplan.governance.guardrails.model import Hit
from groundplan.governance.guardrails.nested_json import JsonNesting

_encode = msgspec.json.Encoder().encode
_STAND_IN = re.compile(r"<([a-z_]{2,32})_([0-9]{1,6})>")
MAX_STAND_IN_LENGTH = 42


class Masks:
    """The masked values of one call and their stand-ins."""

    __slots__ = ("_last_numbers", "_reserved", "_stand_ins", "_values")

    def __init__(self) -> None:
        self._values: dict[str, str] = {}
        self._stand_ins: dict[tuple[str, str], str] = {}
        self._last_numbers: dict[str, int] = {}
        """The last number of each kind; kept because a long list of customers has tens of thousands."""
        self._reserved: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._values)

    def reserve(self, text: str) -> None:
        """Reserve what looks like a stand-in in the client's own text, so that no value gets it."""
        self._reserved.update(match.group() for match in _STAND_IN.finditer(text))

    def mask(self, text: str, hits: Iterable[Hit], *, keep: bool = True) -> str:
        """The text with a stand-in for every hit; if `keep` is false with `[kind]`, which cannot be restored."""
        parts: list[str] = []
        at = 0
        for hit in hits:
            value = text[hit.start : hit.end]
            parts += (text[at : hit.start], self._stand_in(hit.kind, value) if keep else f"[{hit.kind}]")
            at = hit.end
        return "".join((*parts, text[at:]))

    def restore(self, text: str, *, json: bool | None = None, nesting: JsonNesting | None = None) -> str:
        """The text with the values restored. `json`: it is a part of JSON, so that values are escaped as in a string of
        it, or of JSON nested in its strings; None: detected by how the text begins. `nesting`: state of the parts of
        the same JSON that came before; this part is added to it."""
        if not self._values or (nesting is None and "<" not in text):
            return text
        values = self._values
        if not (is_json(text) if json is None else json):
            return _STAND_IN.sub(lambda match: values.get(match[0], match[0]), text)
        state, at = nesting if nesting is not None else JsonNesting(), 0
        parts: list[str] = []
        for match in _STAND_IN.finditer(text):
            state.feed(text[at : match.start()])
            value = values.get(match[0], match[0])
            parts += (text[at : match.start()], _escape(value, state.depth) if match[0] in values else value)
            at = match.end()
            state.feed(match[0])
        state.feed(text[at:])
        return "".join((*parts, text[at:]))

    def remask(self, text: str) -> str:
        """A restored text with the stand-ins in place of the values again, for another model to read."""
        for stand_in, value in sorted(self._values.items(), key=lambda each: -len(each[1])):
            text = text.replace(value, stand_in)
        return text

    def _stand_in(self, kind: str, value: str) -> str:
        known = self._stand_ins.get((kind, value))
        if known is not None:
            return known
        number = 1 + self._last_numbers.get(kind, 0)
        while (stand_in := f"<{kind}_{number}>") in self._reserved or stand_in in self._values:
            number += 1
        self._last_numbers[kind] = number
        self._stand_ins[kind, value] = stand_in
        self._values[stand_in] = value
        return stand_in


def _escape(value: str, depth: int) -> str:
    """The value escaped for a JSON string at this depth, at least once."""
    for _ in range(max(1, depth)):
        value = _encode(value)[1:-1].decode()
    return value


def is_json(text: str) -> bool:
    """Whether a text begins as a JSON object, as arguments of functions and structured answers do."""
    return text.lstrip().startswith("{")


def complete_length(text: str) -> int:
    """Length of the text without an incomplete stand-in at its end."""
    at = text.rfind("<", max(0, len(text) - MAX_STAND_IN_LENGTH))
    if at < 0 or ">" in text[at:]:
        return len(text)
    rest = text[at + 1 :]
    return at if all(c.isascii() and (c.islower() or c.isdigit() or c == "_") for c in rest) else len(text)
