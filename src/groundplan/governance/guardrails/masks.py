"""Stand-ins for personal data and secrets: the model sees `<email_1>`, the caller gets the value back. Pure.

Of one call; the same value has the same stand-in throughout. What stands in nothing of the caller's own text is never
restored, so an answer that makes up a stand-in keeps it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from groundplan.governance.guardrails.model import Hit
from groundplan.governance.guardrails.nested_json import Nested

_encode = msgspec.json.Encoder().encode
_STAND_IN = re.compile(r"<([a-z_]{2,32})_([0-9]{1,6})>")
LONGEST_STAND_IN = 42


class Masks:
    """What was taken out of one call."""

    __slots__ = ("_made", "_numbers", "_taken", "_values")

    def __init__(self) -> None:
        self._values: dict[str, str] = {}
        self._numbers: dict[tuple[str, str], str] = {}
        self._made: dict[str, int] = {}
        """The last number of each kind: a long list of customers has tens of thousands."""
        self._taken: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._values)

    def avoid(self, text: str) -> None:
        """Stand-ins that the caller wrote itself are given to nothing else."""
        self._taken.update(match.group() for match in _STAND_IN.finditer(text))

    def mask(self, text: str, hits: Iterable[Hit], *, keep: bool = True) -> str:
        """The text with a stand-in for every hit; `keep` false: `[kind]`, that nothing brings back."""
        parts: list[str] = []
        at = 0
        for hit in hits:
            value = text[hit.start : hit.end]
            parts += (text[at : hit.start], self._stand_in(hit.kind, value) if keep else f"[{hit.kind}]")
            at = hit.end
        return "".join((*parts, text[at:]))

    def restore(self, text: str, *, json: bool | None = None, behind: Nested | None = None) -> str:
        """The text with the values back in it. `json`: it is a part of JSON, where they are written as in a string of
        it, or in one of JSON that is written there as a text; None: that is seen by how it begins. `behind`: what came
        of the same JSON before, to which this part is added."""
        if not self._values or (behind is None and "<" not in text):
            return text
        values = self._values
        if not (is_json(text) if json is None else json):
            return _STAND_IN.sub(lambda match: values.get(match[0], match[0]), text)
        nested, at = behind if behind is not None else Nested(), 0
        parts: list[str] = []
        for match in _STAND_IN.finditer(text):
            nested.feed(text[at : match.start()])
            value = values.get(match[0], match[0])
            parts += (text[at : match.start()], _in_string(value, nested.depth) if match[0] in values else value)
            at = match.end()
            nested.feed(match[0])
        nested.feed(text[at:])
        return "".join((*parts, text[at:]))

    def hide(self, text: str) -> str:
        """The text with the stand-ins in the place of the values: what another model may see of what was restored."""
        for made, value in sorted(self._values.items(), key=lambda each: -len(each[1])):
            text = text.replace(value, made)
        return text

    def _stand_in(self, kind: str, value: str) -> str:
        known = self._numbers.get((kind, value))
        if known is not None:
            return known
        number = 1 + self._made.get(kind, 0)
        while (made := f"<{kind}_{number}>") in self._taken or made in self._values:
            number += 1
        self._made[kind] = number
        self._numbers[kind, value] = made
        self._values[made] = value
        return made


def _in_string(value: str, depth: int) -> str:
    """As it is written in a string of JSON, or at that depth of them."""
    for _ in range(max(1, depth)):
        value = _encode(value)[1:-1].decode()
    return value


def is_json(text: str) -> bool:
    """Whether a text is an object of JSON, as what functions are called with and answers of a demanded form are."""
    return text.lstrip().startswith("{")


def unfinished(text: str) -> int:
    """Where a stand-in begins at the end of the text that is not whole yet; its length where there is none."""
    at = text.rfind("<", max(0, len(text) - LONGEST_STAND_IN))
    if at < 0 or ">" in text[at:]:
        return len(text)
    rest = text[at + 1 :]
    return at if all(c.isascii() and (c.islower() or c.isdigit() or c == "_") for c in rest) else len(text)
