"""Collects the cells of an HTML table as rows; a cell that spans several rows or columns is repeated in each. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from groundplan.core.errors import TooLarge

MAX_COLSPAN: Final = 500
"""Most columns that a cell may span."""
MAX_ROWSPAN: Final = 5000
_MAX_CELLS: Final = 1_000_000
"""Most cells of a table, repeated ones included: a page with more is an attack on its reader."""


@dataclass(slots=True)
class Grid:
    """The cells of one table. `rows`: the rows begun so far. A cell ends with its own end tag, or where another cell,
    row or table begins."""

    rows: list[list[str]] = field(default_factory=list)
    title: list[str] = field(default_factory=list)
    _words: list[str] | None = None
    _span: tuple[int, int] = (1, 1)
    _row_spans: dict[int, tuple[int, str]] = field(default_factory=dict)
    """Column -> (number of further rows that a cell above spans there, its text)."""
    _cells: int = 0

    @property
    def in_cell(self) -> bool:
        return self._words is not None

    def add(self, text: str) -> None:
        """Add text to the open cell, if there is one."""
        if self._words is not None:
            self._words.append(text)

    def begin_row(self) -> None:
        self.end_row()
        self.rows.append([])

    def end_row(self) -> None:
        self.end_cell()
        last = max(self._row_spans, default=-1)
        while self.rows and len(self.rows[-1]) <= last:
            # a row may have fewer cells than there are columns beside the cells that span into it
            if len(self.rows[-1]) not in self._row_spans:
                self._append_cell("")
            self._fill_spanned_cells()

    def begin_cell(self, attributes: Mapping[str, str]) -> None:
        """Begin a cell; `attributes` are those of its tag."""
        self.end_cell()
        if not self.rows:
            self.rows.append([])
        self._words = []
        self._span = (_parse_span(attributes, "colspan", MAX_COLSPAN), _parse_span(attributes, "rowspan", MAX_ROWSPAN))

    def end_cell(self) -> None:
        if self._words is None:
            return
        text, self._words = " ".join("".join(self._words).split()), None
        columns, rows = self._span
        self._fill_spanned_cells()
        for _ in range(columns):
            if rows > 1:
                self._row_spans[len(self.rows[-1])] = (rows - 1, text)
            self._append_cell(text)

    def _fill_spanned_cells(self) -> None:
        """Append the cells above that span into the row, at its present end."""
        row = self.rows[-1]
        while (above := self._row_spans.get(len(row))) is not None:
            finish, text = above
            if finish > 1:
                self._row_spans[len(row)] = (finish - 1, text)
            else:
                del self._row_spans[len(row)]
            self._append_cell(text)

    def _append_cell(self, text: str) -> None:
        self._cells += 1
        if self._cells > _MAX_CELLS:
            raise TooLarge("a table of it has no end", code="document_too_large", hint="Split it into parts.")
        self.rows[-1].append(text)

    def finish(self) -> list[list[str]]:
        """End the open cell and return the rows that are not empty."""
        self.end_row()
        return [row for row in self.rows if any(row)]


def _parse_span(attributes: Mapping[str, str], name: str, limit: int) -> int:
    value = attributes.get(name, "").strip()
    return min(limit, max(1, int(value))) if value.isascii() and value.isdigit() and len(value) < 9 else 1
