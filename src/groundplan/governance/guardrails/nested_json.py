"""JSON in strings of JSON, and how deep a place of it lies there: arguments of a tool may hold JSON as a text, and that
again. Pure.

Told piece by piece, as a stream has it; nothing is parsed, so a part of JSON will do.
"""

from __future__ import annotations

import re

_QUOTE = re.compile(r'(\\*)"')
_BLANK = re.compile(r"^(?:\s|\\+[nrt])*")


class Nested:
    """See the module. `feed` everything that comes before a place, then ask for its `depth`."""

    __slots__ = ("_open", "_slashes")

    def __init__(self) -> None:
        self._open: list[bool | None] = []
        """The strings that a place is in, the outermost first: whether each holds JSON; None: nothing of it came."""
        self._slashes = ""
        """At the end of what came: the next sign tells what they are."""

    @property
    def depth(self) -> int:
        return len(self._open)

    def feed(self, text: str) -> None:
        text, at = self._slashes + text, 0
        whole = text.rstrip("\\")
        self._slashes = text[len(whole) :]
        for found in _QUOTE.finditer(whole):
            self._see(whole[at : found.start()])
            self._quote(_level(len(found[1])))
            at = found.end()
        self._see(whole[at:])

    def _see(self, text: str) -> None:
        """What stands between two quotes."""
        if self._open and self._open[-1] is None and (rest := _BLANK.sub("", text, 1)):
            self._open[-1] = rest[0] in "{["

    def _quote(self, level: int) -> None:
        if level <= len(self._open):
            del self._open[level - 1 :]
        elif level == len(self._open) + 1 and (not self._open or self._open[-1]):
            self._open.append(None)
        elif self._open and self._open[-1] is None:
            self._open[-1] = False  # a text that begins with a quote


def _level(slashes: int) -> int:
    """The depth of the string that a quote behind so many of them begins or ends, where it does."""
    level = 1
    while slashes % 2:
        slashes, level = slashes // 2, level + 1
    return level
