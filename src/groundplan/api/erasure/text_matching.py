"""Normalizes texts for searching names, however typed, laid out, or escaped in JSON. Pure."""

from __future__ import annotations

import re
from typing import Final

from groundplan.core.letters import normalize_letters

_SEPARATORS: Final = re.compile(r"[\s|*_`]+")
"""Characters that may separate two words of a name, with marks of tables, emphasis and code."""
_ESCAPE: Final = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)
_BLANKS: Final = frozenset("bfnrt")
_MAX_LEVELS: Final = 4
"""How deep JSON may be nested in JSON texts: arguments of a tool in a call in a kept request."""


def normalize(text: str) -> str:
    """The text casefolded, with composed accents and single blanks between words."""
    return _SEPARATORS.sub(" ", normalize_letters(text)).casefold()


def unescape_json(text: str) -> str:
    """The text without JSON escapes, also nested ones."""
    for _ in range(_MAX_LEVELS):
        if "\\" not in text:
            break
        text = _ESCAPE.sub(_unescape, text)
    # join the surrogate pairs of characters beyond 16 bits
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _unescape(escape: re.Match[str]) -> str:
    number, letter = escape.groups()
    if number is not None:
        return chr(int(number, 16))
    return " " if letter in _BLANKS else str(letter)
