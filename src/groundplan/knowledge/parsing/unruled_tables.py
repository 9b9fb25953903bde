"""Tables of a PDF page that have no ruling lines: rows whose cells stand under one another. Pure: places of signs in,
cells out.

Only what is surely one is taken: a head of words above at least two rows of short cells, with a column of numbers.
Prose in columns, contents, forms and lists are none; what is left out here is text all the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

MAX_SIGNS: Final = 20_000
"""Of a page: with more it is no page that anybody reads."""
_LEAST_ROWS: Final = 3
_MOST_COLUMNS: Final = 30
_APART: Final = 1.0
"""Heights of a line between two cells; words of a justified line stand closer."""
_GUTTER: Final = 0.5
"""Heights of a line that stay free between two columns, in all rows."""
_WORDS_APART: Final = 0.12
_ROWS_APART: Final = 2.6
_TRIED: Final = 3
"""Lines above and below that may look like rows and be none."""
_LONGEST: Final = 80
_FILLED: Final = 0.6
_NUMBERS: Final = 0.8
_YEAR = re.compile(r"(?:19|20)\d\d")


class PageSign(NamedTuple):
    """A letter or sign of a page, and the box of its line around it."""

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
    """The cells of each table, its head first, from the top down."""
    if len(signs) > MAX_SIGNS:
        return []
    return [rows for run in _runs(_lines(signs)) if (rows := _table(run)) is not None]


def _lines(signs: Sequence[PageSign]) -> list[_Line]:
    """Lines from the top down, each with its cells from left to right."""
    rows: list[list[PageSign]] = []
    for sign in sorted(signs, key=lambda one: -(one.bottom + one.top)):
        if rows and abs(_middle(rows[-1][0]) - _middle(sign)) < 0.4 * (sign.top - sign.bottom):
            rows[-1].append(sign)
        elif sign.top > sign.bottom:
            rows.append([sign])
    return [_line(row) for row in rows]


def _middle(sign: PageSign) -> float:
    return (sign.bottom + sign.top) / 2


def _line(row: list[PageSign]) -> _Line:
    height = max(sign.top - sign.bottom for sign in row)
    cells: list[_Cell] = []
    for sign in sorted(row):
        gap = sign.left - cells[-1].right if cells else 0.0
        if not cells or gap > _APART * height:
            cells.append(_Cell(sign.left, sign.right, sign.text))
        else:
            cells[-1].text += f" {sign.text}" if gap > _WORDS_APART * height else sign.text
            cells[-1].right = max(cells[-1].right, sign.right)
    return _Line(_middle(row[0]), height, cells)


def _runs(lines: Sequence[_Line]) -> Iterator[list[_Line]]:
    """Lines that follow each other closely and have several cells; one with a single cell may go on with a row."""
    run: list[_Line] = []
    for line in lines:
        if run and run[-1].middle - line.middle > _ROWS_APART * max(line.height, run[-1].height):
            yield run
            run = []
        if len(line.cells) > 1 or run:
            run.append(line)
    yield run


def _table(run: Sequence[_Line]) -> list[list[str]] | None:
    """The rows of the run, without some lines above and below that are no part of it."""
    run = list(run)
    while run and len(run[-1].cells) == 1:
        run.pop()
    for last in range(len(run), max(len(run) - _TRIED, _LEAST_ROWS) - 1, -1):
        for first in range(min(_TRIED, last - _LEAST_ROWS) + 1):
            rows = _rows(run[first:last])
            if rows is not None and _is_table(rows):
                return rows
    return None


def _rows(lines: Sequence[_Line]) -> list[list[str]] | None:
    """The cells by column; None where they do not stand under one another."""
    if len(lines[0].cells) == 1:
        return None
    columns = _columns(lines)
    if not 2 <= len(columns) <= _MOST_COLUMNS:
        return None
    rows: list[list[str]] = []
    for line in lines:
        row = [""] * len(columns)
        for cell in line.cells:
            within = (at for at, (left, right) in enumerate(columns) if left <= cell.left and cell.right <= right)
            at = next(within, None)
            if at is None or row[at]:
                return None
            row[at] = cell.text
        if len(line.cells) > 1:
            rows.append(row)
        else:
            rows[-1] = [" ".join(filter(None, pair)) for pair in zip(rows[-1], row, strict=True)]
    return rows


def _columns(lines: Sequence[_Line]) -> list[tuple[float, float]]:
    """What the cells of all rows cover, from left to right."""
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
    if len(body) < _LEAST_ROWS - 1 or len(cells) < _FILLED * len(rows) * len(head):
        return False
    if max(map(len, cells)) > _LONGEST:
        return False
    if not all(map(_is_title, head[1:])) or not (not head[0] or _is_title(head[0])):
        return False
    return any(_counts([row[at] for row in body if row[at]]) for at in range(len(head)))


def _is_title(cell: str) -> bool:
    """Whether it may stand above a column: words or a year, and not the name of what stands beside it."""
    return bool(_YEAR.fullmatch(cell)) or (
        any(map(str.isalpha, cell)) and not any(map(str.isdigit, cell)) and not cell.endswith(":")
    )


def _counts(column: Sequence[str]) -> bool:
    numbers = sum(any(map(str.isdigit, cell)) and len(cell) <= 24 and len(cell.split()) <= 3 for cell in column)
    return numbers >= _LEAST_ROWS - 1 and numbers >= _NUMBERS * len(column)
