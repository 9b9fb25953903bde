"""What a text says that JSON writes with escapes, each sign with its place in the text as it stands: checks look at the
one, and what they find is taken out of the other. Pure.

No JSON is read here, so a part of it will do, and what is none.
"""

from __future__ import annotations

import re
from bisect import bisect_right

import msgspec

_ESCAPE = re.compile(
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|u(?![dD][89a-fA-F])[0-9a-fA-F]{4}|[\"\\/bfnrt])"
)
LEVELS = 4
"""Of JSON that is written as a text of other JSON, and that again, in what is looked at; each is a further look."""
_SIGNS = {"\\n": "\n", '\\"': '"', "\\\\": "\\", "\\/": "/", "\\t": "\t", "\\r": "\r"}


class Said:
    """A text without its escapes."""

    __slots__ = ("_from", "_to", "text")

    def __init__(self, written: str) -> None:
        parts: list[str] = []
        self._from, self._to = [0], [0]
        """Where a stretch begins that is written as it is said: in `text`, and as it stands."""
        length = at = 0
        for found in _ESCAPE.finditer(written):
            sign = _SIGNS.get(found.group()) or msgspec.json.decode(f'"{found.group()}"', type=str)
            parts += (written[at : found.start()], sign)
            length, at = length + found.start() - at + len(sign), found.end()
            self._from.append(length)
            self._to.append(at)
        self.text = "".join((*parts, written[at:]))

    def place(self, at: int) -> int:
        """Where a sign of `text` begins as it stands."""
        stretch = bisect_right(self._from, at) - 1
        return self._to[stretch] + at - self._from[stretch]

    def escape(self, at: int) -> tuple[int, int]:
        """Where the escape begins and ends that a sign of the text as it stands is in; (at, at): it is in none."""
        stretch = bisect_right(self._to, at) - 1
        if stretch + 1 == len(self._to):
            return at, at
        begins = self._to[stretch] + self._from[stretch + 1] - 1 - self._from[stretch]
        return (begins, self._to[stretch + 1]) if begins <= at else (at, at)
