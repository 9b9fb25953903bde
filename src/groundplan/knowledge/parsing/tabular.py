"""Rows of cells as a table with the names of its columns, and CSV. Pure.

No cell is lost: what is wider than the head stays in the last column, and a title above the head stands above the
table. What a cell means (a number, a day) is not judged here.
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
"""Where two of them would do, the earlier is it: a comma stands in numbers and in prose as well."""
_SAID: Final = re.compile(r"sep=([,;\t|])\r?\n", re.IGNORECASE)
"""The line in which Excel says its separator."""
_QUOTED: Final = re.compile(r'(?:^|(?<=[\t;|,]))"(?:[^"]|"")*"(?=[\t;|,\n]|\Z)', re.MULTILINE)
_SAMPLE: Final = 20_000
TITLES: Final = 5
"""So many rows above a head may be titles."""


def as_table(name: str, rows: Sequence[Sequence[str]]) -> tuple[Table, tuple[str, ...]]:
    """The first row below the titles as names of columns, and the rows as wide as these; notes tell what did not
    fit."""
    titles: list[str] = []
    while len(rows) > len(titles) + 2 and len(titles) < TITLES and (title := _title(rows[len(titles)])):
        titles.append(title)
    if titles and sum(bool(cell.strip()) for cell in rows[len(titles)]) < 2:
        titles = []
    rows = rows[len(titles) :]
    head, body = list(rows[0]), rows[1:]
    width = min(MAX_COLUMNS, _width(head, body))
    named = (head + [""] * width)[:width]
    columns = [cell.strip() or f"column {at}" for at, cell in enumerate(named, 1)]
    wrong = sum(len(row) != len(head) for row in body)
    have = quantity(wrong, "row", "rows") + f" of {name} " + ("has" if wrong == 1 else "have")
    notes = (f"{have} another number of cells than its head",) if wrong else ()
    if len(head) > MAX_COLUMNS:
        notes = (*notes, f"only the first {MAX_COLUMNS} columns of {name} are read")
    cells = [_fit_row(row, width, cut=len(head) > MAX_COLUMNS) for row in body]
    return Table(name=name, columns=columns, rows=cells, title=" ".join(titles)), notes


def _title(row: Sequence[str]) -> str:
    """What a row above a head says: one text, alone in it or in all of its merged cells; empty where it is none."""
    said = [cell.strip() for cell in row]
    texts = {cell for cell in said if cell}
    if len(texts) != 1 or not any(map(str.isalpha, said[0])):
        return ""
    alone = len(row) == 1 or (len(row) > 2 and sum(map(bool, said)) == 1)
    merged = len(row) > 1 and all(said)
    return said[0] if alone or merged else ""


def _width(head: Sequence[str], body: Sequence[Sequence[str]]) -> int:
    """That of the head, or of most rows where these are wider: its last names are missing."""
    widths = Counter(len(row) for row in body)
    most, rows = max(widths.items(), key=lambda each: (each[1], each[0]), default=(0, 0))
    return max(len(head), most) if 2 * rows > len(body) else len(head)


def _fit_row(row: Sequence[str], width: int, *, cut: bool) -> list[str]:
    cells = [cell.strip() for cell in row]
    if len(cells) > width and not cut:
        # a separator within a text that is not quoted: what follows it belongs to that text
        cells = [*cells[: width - 1], " ".join(filter(None, cells[width - 1 :]))]
    return (cells + [""] * width)[:width]


def markdown_table(table: Table) -> str:
    """The table in Markdown, one line a row, below its title."""
    lines = [_row(table.columns), "|" + " --- |" * len(table.columns)]
    above = [" ".join(table.title.split()), ""] if table.title else []
    return "\n".join(above + lines + [_row(row) for row in table.rows]) + "\n"


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(re.sub(r"\s+", " ", cell).replace("|", "\\|") for cell in cells) + " |"


def comma_separated(data: bytes, name: str) -> TextDocument:
    """CSV (any common separator) as a table. Raises `Invalid`."""
    text = decode(data)
    said = _SAID.match(text)
    separator = said[1] if said else _separator(text[:_SAMPLE])
    body = text[said.end() if said else 0 :]
    doubts: tuple[str, ...] = ()
    rows = _rows(body, separator)
    if rows is None and '\\"' in body:
        rows = _rows(body, separator, escape="\\")
    if rows is None:
        rows = _rows(body, separator, strict=False) or []
        doubts = (f"the quotation marks of {name} do not match: rows may stand in one cell",)
    if not rows:
        return TextDocument("")
    table, notes = as_table(name, rows)
    return TextDocument(markdown_table(table), markdown=True, notes=(*doubts, *notes), tables=(table,))


def _rows(text: str, separator: str, *, escape: str | None = None, strict: bool = True) -> list[list[str]] | None:
    """Those with anything; None where its quotation marks do not match. `escape` stands before one that belongs to a
    text, where it is not doubled. Raises `Invalid`."""
    csv.field_size_limit(1 << 20)
    try:
        found = csv.reader(io.StringIO(text), delimiter=separator, escapechar=escape, strict=strict)
        return [row for row in found if any(cell.strip() for cell in row)]
    except csv.Error as error:
        if strict:
            return None
        raise Invalid(f"it is not a table: {error}", code="document_table", hint="Export it again, as CSV.") from error


def _separator(sample: str) -> str:
    """The one that stands as often in most lines, outside quotation marks."""
    lines = [line for line in _QUOTED.sub("", sample).splitlines() if line.strip()]
    regular = {mark: _regular_lines([line.count(mark) for line in lines]) for mark in _SEPARATORS}
    best = max(_SEPARATORS, key=lambda mark: regular[mark])
    return best if regular[best] else ","


def _regular_lines(counts: Sequence[int]) -> int:
    """How many lines have the most frequent number of a separator that is none."""
    return max(Counter(count for count in counts if count).values(), default=0)
