"""Finds tables without ruling lines on a PDF page: rows whose cells are aligned in columns. Pure: characters with their
places in, cells out.

Only clear cases count: a head of words above at least two rows of short cells, with a column of numbers. Prose in
columns, tables of contents, forms and lists do not; a table that is missed here is still in the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

MAX_SIGNS: Final = 20_000
"""Most characters of a page: a page with more is not searched."""
_MIN_ROWS: Final = 3
_MAX_COLUMNS: Final = 30
_CELL_GAP: Final = 1.0
"""Gap between two cells, in line heights; words of a justified line stand closer."""
_GUTTER: Final = 0.5
"""Gap between two columns that is free in all rows, in line heights."""
_WORD_GAP: Final = 0.12
_ROW_GAP: Final = 2.6
_MAX_TRIMMED: Final = 3
"""Lines above and below a table that may look like rows without being part of it."""
_MAX_CELL_CHARACTERS: Final = 80
_MIN_FILLED: Final = 0.6
_MIN_NUMBERS: Final = 0.8
_YEAR = re.compile(r"(?:19|20)\d\d")


class PageSign(NamedTuple):
    """A character of a page, with the box of its line around it."""

    left: float
    bottom: float
    right: float
    top: float
    text: str


@dataclass(slots=True)
class _Cell:
    left: float
    right: float
    text: str


@dataclass(frozen=True, slots=True)
class _Line:
    middle: float
    height: float
    cells: list[_Cell]


def find_tables(signs: Sequence[PageSign]) -> list[list[list[str]]]:
    """The rows of cells of each table, head first, from the top of the page down."""
    if len(signs) > MAX_SIGNS:
        return []
    return [rows for run in _row_runs(_group_lines(signs)) if (rows := _table_rows(run)) is not None]


def _group_lines(signs: Sequence[PageSign]) -> list[_Line]:
    """Lines from the top down, each with its cells from left to right."""
    rows: list[list[PageSign]] = []
    for sign in sorted(signs, key=lambda one: -(one.bottom + one.top)):
        if rows and abs(_middle(rows[-1][0]) - _middle(sign)) < 0.4 * (sign.top - sign.bottom):
            rows[-1].append(sign)
        elif sign.top > sign.bottom:
            rows.append([sign])
    return [_build_line(row) for row in rows]


def _middle(sign: PageSign) -> float:
    return (sign.bottom + sign.top) / 2


def _build_line(row: list[PageSign]) -> _Line:
    height = max(sign.top - sign.bottom for sign in row)
    cells: list[_Cell] = []
    for sign in sorted(row):
        gap = sign.left - cells[-1].right if cells else 0.0
        if not cells or gap > _CELL_GAP * height:
            cells.append(_Cell(sign.left, sign.right, sign.text))
        else:
            cells[-1].text += f" {sign.text}" if gap > _WORD_GAP * height else sign.text
            cells[-1].right = max(cells[-1].right, sign.right)
    return _Line(_middle(row[0]), height, cells)


def _row_runs(lines: Sequence[_Line]) -> Iterator[list[_Line]]:
    """Groups of close lines that have several cells; a line with a single cell may continue the row above."""
    run: list[_Line] = []
    for line in lines:
        if run and run[-1].middle - line.middle > _ROW_GAP * max(line.height, run[-1].height):
            yield run
            run = []
        if len(line.cells) > 1 or run:
            run.append(line)
    yield run


def _table_rows(run: Sequence[_Line]) -> list[list[str]] | None:
    """The rows of the table in a run, without up to `_MAX_TRIMMED` lines above and below; None if it has none."""
    run = list(run)
    while run and len(run[-1].cells) == 1:
        run.pop()
    for last in range(len(run), max(len(run) - _MAX_TRIMMED, _MIN_ROWS) - 1, -1):
        for first in range(min(_MAX_TRIMMED, last - _MIN_ROWS) + 1):
            rows = _align_cells(run[first:last])
            if rows is not None and _is_table(rows):
                return rows
    return None


def _align_cells(lines: Sequence[_Line]) -> list[list[str]] | None:
    """The cells of each line by column; None if they are not aligned."""
    if len(lines[0].cells) == 1:
        return None
    columns = _column_spans(lines)
    if not 2 <= len(columns) <= _MAX_COLUMNS:
        return None
    rows: list[list[str]] = []
    for line in lines:
        row = [""] * len(columns)
        for cell in line.cells:
            matching = (
                column for column, (left, right) in enumerate(columns) if left <= cell.left and cell.right <= right
            )
            column = next(matching, None)
            if column is None or row[column]:
                return None
            row[column] = cell.text
        if len(line.cells) > 1:
            rows.append(row)
        else:
            rows[-1] = [" ".join(filter(None, pair)) for pair in zip(rows[-1], row, strict=True)]
    return rows


def _column_spans(lines: Sequence[_Line]) -> list[tuple[float, float]]:
    """The (left, right) edges of each column: what the cells of all rows cover, from left to right."""
    gutter = _GUTTER * max(line.height for line in lines)
    found: list[tuple[float, float]] = []
    for left, right in sorted((cell.left, cell.right) for line in lines if len(line.cells) > 1 for cell in line.cells):
        if found and left < found[-1][1] + gutter:
            found[-1] = (found[-1][0], max(found[-1][1], right))
        else:
            found.append((left, right))
    return found


def _is_table(rows: Sequence[Sequence[str]]) -> bool:
    head, body = rows[0], rows[1:]
    cells = [cell for row in rows for cell in row if cell]
    if len(body) < _MIN_ROWS - 1 or len(cells) < _MIN_FILLED * len(rows) * len(head):
        return False
    if max(map(len, cells)) > _MAX_CELL_CHARACTERS:
        return False
    if not all(map(_is_title, head[1:])) or not (not head[0] or _is_title(head[0])):
        return False
    return any(_is_numeric_column([row[at] for row in body if row[at]]) for at in range(len(head)))


def _is_title(cell: str) -> bool:
    """Whether a cell may be the head of a column: words or a year, and not a label of the cell beside it."""
    return bool(_YEAR.fullmatch(cell)) or (
        any(map(str.isalpha, cell)) and not any(map(str.isdigit, cell)) and not cell.endswith(":")
    )


def _is_numeric_column(column: Sequence[str]) -> bool:
    numbers = sum(any(map(str.isdigit, cell)) and len(cell) <= 24 and len(cell.split()) <= 3 for cell in column)
    return numbers >= _MIN_ROWS - 1 and numbers >= _MIN_NUMBERS * len(column)
