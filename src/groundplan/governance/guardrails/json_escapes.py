"""JSON text without its escapes, with the position of each character in the raw text: checks read the unescaped text,
and what they find is masked in the raw one. Pure.

JSON is not parsed here, so a part of it will do, and so will text that is not JSON.
"""

from __future__ import annotations

import re
from bisect import bisect_right

import msgspec

_ESCAPE = re.compile(
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|u(?![dD][89a-fA-F])[0-9a-fA-F]{4}|[\"\\/bfnrt])"
)
LEVELS = 4
"""How deep JSON in strings of JSON is checked; each level is another pass."""
_ESCAPED_CHARACTERS = {"\\n": "\n", '\\"': '"', "\\\\": "\\", "\\/": "/", "\\t": "\t", "\\r": "\r"}


class UnescapedText:
    """A text without its escapes, `text`, and how its positions map to those of the raw text."""

    __slots__ = ("_raw_starts", "_starts", "text")

    def __init__(self, raw: str) -> None:
        parts: list[str] = []
        self._starts, self._raw_starts = [0], [0]
        """Where each run without escapes begins: in `text`, and in the raw text."""
        length = at = 0
        for found in _ESCAPE.finditer(raw):
            character = _ESCAPED_CHARACTERS.get(found.group()) or msgspec.json.decode(f'"{found.group()}"', type=str)
            parts += (raw[at : found.start()], character)
            length, at = length + found.start() - at + len(character), found.end()
            self._starts.append(length)
            self._raw_starts.append(at)
        self.text = "".join((*parts, raw[at:]))

    def raw_position(self, at: int) -> int:
        """Position in the raw text of the character of `text` at `at`."""
        run = bisect_right(self._starts, at) - 1
        return self._raw_starts[run] + at - self._starts[run]

    def escape_span(self, at: int) -> tuple[int, int]:
        """Start and end of the escape that the position `at` of the raw text is in; (at, at) if it is in none."""
        run = bisect_right(self._raw_starts, at) - 1
        if run + 1 == len(self._raw_starts):
            return at, at
        start = self._raw_starts[run] + self._starts[run + 1] - 1 - self._starts[run]
        return (start, self._raw_starts[run + 1]) if start <= at else (at, at)
