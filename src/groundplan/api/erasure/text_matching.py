"""Texts as they are searched for a name: however it was typed, laid out, or written in JSON. Pure."""

from __future__ import annotations

import re
from typing import Final

from groundplan.core.letters import letters

_APART: Final = re.compile(r"[\s|*_`]+")
"""What may stand between two words of a name: also the marks of a table, of emphasis and of code."""
_ESCAPE: Final = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)
_BLANKS: Final = frozenset("bfnrt")
_LEVELS: Final = 4
"""So often JSON may stand in a text of JSON: a tool's arguments in a call in a kept request."""


def as_read(text: str) -> str:
    """Words with one blank between them, in no particular case, accents composed."""
    return _APART.sub(" ", letters(text)).casefold()


def unescaped(text: str) -> str:
    """Without the escapes of JSON, also where they were escaped once more."""
    for _ in range(_LEVELS):
        if "\\" not in text:
            break
        text = _ESCAPE.sub(_meant, text)
    # halves of a character beyond 16 bits stand behind each other now
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _meant(escape: re.Match[str]) -> str:
    number, letter = escape.groups()
    if number is not None:
        return chr(int(number, 16))
    return " " if letter in _BLANKS else str(letter)
