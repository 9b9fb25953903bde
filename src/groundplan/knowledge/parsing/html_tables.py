"""Cells of a table of HTML while its tags go by, as rows: one that reaches over several is repeated in each. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from groundplan.core.errors import TooLarge

MOST_OVER: Final = 500
"""Columns that a cell may reach over."""
MOST_ROWS_OVER: Final = 5000
_MOST_CELLS: Final = 1_000_000
"""Of a table, with those that are repeated: what is more is a page that wants to harm its reader."""


@dataclass(slots=True)
class Grid:
    """`rows` are those that were begun. A cell ends with its own tag, or where another cell, row or table begins."""

    rows: list[list[str]] = field(default_factory=list)
    title: list[str] = field(default_factory=list)
    _words: list[str] | None = None
    _over: tuple[int, int] = (1, 1)
    _below: dict[int, tuple[int, str]] = field(default_factory=dict)
    """Column -> for how many rows more a cell above reaches into it, and its text."""
    _cells: int = 0

    @property
    def in_cell(self) -> bool:
        return self._words is not None

    def add(self, text: str) -> None:
        """Words of the open cell."""
        if self._words is not None:
            self._words.append(text)

    def begin_row(self) -> None:
        self.end_row()
        self.rows.append([])

    def end_row(self) -> None:
        self.end_cell()
        last = max(self._below, default=-1)
        while self.rows and len(self.rows[-1]) <= last:
            # a row may have fewer cells than there is place for beside what reaches into it
            if len(self.rows[-1]) not in self._below:
                self._put("")
            self._reach()

    def begin_cell(self, given: Mapping[str, str]) -> None:
        """`given` are the attributes of its tag."""
        self.end_cell()
        if not self.rows:
            self.rows.append([])
        self._words = []
        self._over = (_number(given, "colspan", MOST_OVER), _number(given, "rowspan", MOST_ROWS_OVER))

    def end_cell(self) -> None:
        if self._words is None:
            return
        text, self._words = " ".join("".join(self._words).split()), None
        columns, rows = self._over
        self._reach()
        for _ in range(columns):
            if rows > 1:
                self._below[len(self.rows[-1])] = (rows - 1, text)
            self._put(text)

    def _reach(self) -> None:
        """Cells above that reach into the row where it stands now."""
        row = self.rows[-1]
        while (above := self._below.get(len(row))) is not None:
            left, text = above
            if left > 1:
                self._below[len(row)] = (left - 1, text)
            else:
                del self._below[len(row)]
            self._put(text)

    def _put(self, text: str) -> None:
        self._cells += 1
        if self._cells > _MOST_CELLS:
            raise TooLarge("a table of it has no end", code="document_too_large", hint="Split it into parts.")
        self.rows[-1].append(text)

    def left(self) -> list[list[str]]:
        """The rows with anything in them, the open cell too."""
        self.end_row()
        return [row for row in self.rows if any(row)]


def _number(given: Mapping[str, str], name: str, most: int) -> int:
    value = given.get(name, "").strip()
    return min(most, max(1, int(value))) if value.isascii() and value.isdigit() and len(value) < 9 else 1
