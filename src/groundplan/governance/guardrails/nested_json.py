"""Depth of a position in JSON nested in strings of JSON: arguments of a tool may hold JSON as text, and so on. Pure.

Fed piece by piece, as a stream delivers it; nothing is parsed, so a part of JSON will do.
"""

from __future__ import annotations

import re

_QUOTE = re.compile(r'(\\*)"')
_BLANK = re.compile(r"^(?:\s|\\+[nrt])*")


class JsonNesting:
    """`feed` everything before a position, then read its `depth`."""

    __slots__ = ("_open", "_slashes")

    def __init__(self) -> None:
        self._open: list[bool | None] = []
        """The open strings, the outermost first: whether each holds JSON; None: empty so far."""
        self._slashes = ""
        """Backslashes at the end of the text so far, whose meaning depends on the next character."""

    @property
    def depth(self) -> int:
        """Number of strings that are open."""
        return len(self._open)

    def feed(self, text: str) -> None:
        """Add the next piece of the text."""
        text, at = self._slashes + text, 0
        complete = text.rstrip("\\")
        self._slashes = text[len(complete) :]
        for found in _QUOTE.finditer(complete):
            self._add_text(complete[at : found.start()])
            self._add_quote(_quote_level(len(found[1])))
            at = found.end()
        self._add_text(complete[at:])

    def _add_text(self, text: str) -> None:
        """Note whether the innermost string holds JSON, by its first characters."""
        if self._open and self._open[-1] is None and (rest := _BLANK.sub("", text, 1)):
            self._open[-1] = rest[0] in "{["

    def _add_quote(self, level: int) -> None:
        """Open or close the string at `level`."""
        if level <= len(self._open):
            del self._open[level - 1 :]
        elif level == len(self._open) + 1 and (not self._open or self._open[-1]):
            self._open.append(None)
        elif self._open and self._open[-1] is None:
            self._open[-1] = False  # a text that begins with a quote


def _quote_level(slashes: int) -> int:
    """Depth of the string that a quote after so many backslashes opens or closes."""
    level = 1
    while slashes % 2:
        slashes, level = slashes // 2, level + 1
    return level
