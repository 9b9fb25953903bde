"""Builds tables with named columns from rows of cells, and reads CSV. Pure.

No cell is lost: cells beyond the head stay in the last column, and a title above the head becomes the table's title.
Types of cells (numbers, dates) are not interpreted here.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from typing import Final

from groundplan.core.errors import Invalid
from groundplan.core.words import quantity
from groundplan.knowledge.parsing.model import Table
from groundplan.knowledge.parsing.text import TextDocument, decode

MAX_COLUMNS: Final = 500
_SEPARATORS: Final = "\t;|,"
"""In order of preference if several would fit: a comma occurs in numbers and in prose as well."""
_SEPARATOR_LINE: Final = re.compile(r"sep=([,;\t|])\r?\n", re.IGNORECASE)
"""The first line by which Excel states the separator."""
_QUOTED_CELL: Final = re.compile(r'(?:^|(?<=[\t;|,]))"(?:[^"]|"")*"(?=[\t;|,\n]|\Z)', re.MULTILINE)
_SAMPLE: Final = 20_000
MAX_TITLES: Final = 5
"""Most rows above a head that may be titles."""


def as_table(name: str, rows: Sequence[Sequence[str]]) -> tuple[Table, tuple[str, ...]]:
    """(table, notes): the first row below the titles names the columns, and all rows get its width; the notes say which
    rows did not fit."""
    titles: list[str] = []
    while len(rows) > len(titles) + 2 and len(titles) < MAX_TITLES and (title := _title_text(rows[len(titles)])):
        titles.append(title)
    if titles and sum(bool(cell.strip()) for cell in rows[len(titles)]) < 2:
        titles = []
    rows = rows[len(titles) :]
    head, body = list(rows[0]), rows[1:]
    width = min(MAX_COLUMNS, _width(head, body))
    names = (head + [""] * width)[:width]
    columns = [cell.strip() or f"column {number}" for number, cell in enumerate(names, 1)]
    misfits = sum(len(row) != len(head) for row in body)
    subject = quantity(misfits, "row", "rows") + f" of {name} " + ("has" if misfits == 1 else "have")
    notes = (f"{subject} another number of cells than its head",) if misfits else ()
    if len(head) > MAX_COLUMNS:
        notes = (*notes, f"only the first {MAX_COLUMNS} columns of {name} are read")
    cells = [_fit_row(row, width, cut=len(head) > MAX_COLUMNS) for row in body]
    return Table(name=name, columns=columns, rows=cells, title=" ".join(titles)), notes


def _title_text(row: Sequence[str]) -> str:
    """The title in a row above a head: one text, alone in it or repeated in all of its merged cells; else empty."""
    cells = [cell.strip() for cell in row]
    texts = {cell for cell in cells if cell}
    if len(texts) != 1 or not any(map(str.isalpha, cells[0])):
        return ""
    alone = len(row) == 1 or (len(row) > 2 and sum(map(bool, cells)) == 1)
    merged = len(row) > 1 and all(cells)
    return cells[0] if alone or merged else ""


def _width(head: Sequence[str], body: Sequence[Sequence[str]]) -> int:
    """The width of the head, or of most rows if these are wider: then the last names in the head are missing."""
    widths = Counter(len(row) for row in body)
    most, rows = max(widths.items(), key=lambda each: (each[1], each[0]), default=(0, 0))
    return max(len(head), most) if 2 * rows > len(body) else len(head)


def _fit_row(row: Sequence[str], width: int, *, cut: bool) -> list[str]:
    cells = [cell.strip() for cell in row]
    if len(cells) > width and not cut:
        # a separator within an unquoted text: the cells after it belong to that text
        cells = [*cells[: width - 1], " ".join(filter(None, cells[width - 1 :]))]
    return (cells + [""] * width)[:width]


def markdown_table(table: Table) -> str:
    """The table in Markdown, one line per row, below its title."""
    lines = [_markdown_row(table.columns), "|" + " --- |" * len(table.columns)]
    above = [" ".join(table.title.split()), ""] if table.title else []
    return "\n".join(above + lines + [_markdown_row(row) for row in table.rows]) + "\n"


def _markdown_row(cells: list[str]) -> str:
    return "| " + " | ".join(re.sub(r"\s+", " ", cell).replace("|", "\\|") for cell in cells) + " |"


def read_csv(data: bytes, name: str) -> TextDocument:
    """Read CSV, with any common separator, as a table. Raises `Invalid`."""
    text = decode(data)
    separator_line = _SEPARATOR_LINE.match(text)
    separator = separator_line[1] if separator_line else _detect_separator(text[:_SAMPLE])
    body = text[separator_line.end() if separator_line else 0 :]
    warnings: tuple[str, ...] = ()
    rows = _parse_rows(body, separator)
    if rows is None and '\\"' in body:
        rows = _parse_rows(body, separator, escape="\\")
    if rows is None:
        rows = _parse_rows(body, separator, strict=False) or []
        warnings = (f"the quotation marks of {name} do not match: rows may stand in one cell",)
    if not rows:
        return TextDocument("")
    table, notes = as_table(name, rows)
    return TextDocument(markdown_table(table), markdown=True, notes=(*warnings, *notes), tables=(table,))


def _parse_rows(text: str, separator: str, *, escape: str | None = None, strict: bool = True) -> list[list[str]] | None:
    """The rows that are not empty; None if `strict` and the quotation marks do not match. `escape`: the character that
    escapes a quotation mark within a text, if it is not doubled. Raises `Invalid`."""
    csv.field_size_limit(1 << 20)
    try:
        found = csv.reader(io.StringIO(text), delimiter=separator, escapechar=escape, strict=strict)
        return [row for row in found if any(cell.strip() for cell in row)]
    except csv.Error as error:
        if strict:
            return None
        raise Invalid(f"it is not a table: {error}", code="document_table", hint="Export it again, as CSV.") from error


def _detect_separator(sample: str) -> str:
    """The separator that occurs equally often in most lines, outside of quotation marks."""
    lines = [line for line in _QUOTED_CELL.sub("", sample).splitlines() if line.strip()]
    regular = {mark: _regular_lines([line.count(mark) for line in lines]) for mark in _SEPARATORS}
    best = max(_SEPARATORS, key=lambda mark: regular[mark])
    return best if regular[best] else ","


def _regular_lines(counts: Sequence[int]) -> int:
    """How many lines have the most frequent nonzero count of a separator."""
    return max(Counter(count for count in counts if count).values(), default=0)
