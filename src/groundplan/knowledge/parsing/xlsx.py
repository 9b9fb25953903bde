"""XLSX as Markdown: each sheet with a heading as a table, then its charts and text boxes; values, not formulas. The
library is that of `groundplan[knowledge]`.

What a sheet says of its own size is not believed, and a merged cell stands in every row and column that it covers.
Sheets that Excel hides are not read: whoever approves the workbook does not see them. Rows and columns that it hides
are, as a filter hides some. How a number is shown (as a percentage, with a currency) is not read.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime, time
from typing import Any, Final

from groundplan.core.errors import TooLarge
from groundplan.core.words import quantity
from groundplan.knowledge.parsing.model import Table
from groundplan.knowledge.parsing.office import join_blocks, open_package
from groundplan.knowledge.parsing.office_drawings import read_drawings, shape_texts
from groundplan.knowledge.parsing.office_package import Part
from groundplan.knowledge.parsing.tabular import TITLES, as_table, markdown_table
from groundplan.knowledge.parsing.text import TextDocument, check_length, clean

MAX_ROWS: Final = 200_000
_MAX_XML: Final = 64 << 20
"""Of a sheet whose merged cells and formulas are looked at."""
_MOST_MERGED: Final = 1_000_000
_MERGED = re.compile(
    rb"<(?:\w+:)?mergeCell\s[^>]*?ref=[\"']\$?([A-Z]{1,3})\$?(\d{1,7}):\$?([A-Z]{1,3})\$?(\d{1,7})[\"']"
)
_TITLED: Final = 3
"""Among so many rows behind an empty one is the head of another table."""
_EMPTY_FORMULA = re.compile(
    rb"(?:</(?:\w+:)?f>|<(?:\w+:)?f\b[^<>]*/>)\s*(?:<(?:\w+:)?v\s*/>|<(?:\w+:)?v></(?:\w+:)?v>)?\s*</(?:\w+:)?c>"
)
"""The end of a cell that has a formula and no value."""

Row = tuple[int, list[str]]
"""Its number from 1, and its cells."""


def read_xlsx(data: bytes) -> TextDocument:
    """Raises `Invalid` and `TooLarge`."""
    from openpyxl.reader.excel import ExcelReader  # noqa: PLC0415 -- heavy

    reader: Any = ExcelReader(open_package(data), read_only=True, data_only=True, keep_links=False)
    reader.read_chartsheet = lambda *_: None  # what it draws is read below, as that of other sheets
    reader.read()
    cells = {sheet._worksheet_path: sheet for sheet in reader.wb.worksheets}
    blocks: list[str] = []
    tables: list[Table] = []
    notes: tuple[str, ...] = ()
    sheets = list(reader.parser.find_sheets())
    shown = [(sheet.name, relation.target) for sheet, relation in sheets if sheet.state == "visible"]
    if hidden := len(sheets) - len(shown):
        notes = (f"{quantity(hidden, 'hidden sheet is', 'hidden sheets are')} not read",)
    for name, path in shown:
        title = clean(name)
        found, parts, more = _cells(title, cells[path]) if path in cells else ([], [], ())
        notes += more
        drawings: list[Table | str] = []
        try:
            drawings += _drawn(Part(reader.archive, path), dict(shown))
        except (SyntaxError, ValueError, KeyError):  # a broken one costs no cell
            notes += (f"what is drawn on sheet {title} cannot be read",)
        if found or drawings:
            blocks += [f"# {title}", *found, *(_block(each) for each in drawings)]
            tables += [*parts, *(each for each in drawings if isinstance(each, Table))]
    named = reader.wb.properties.title
    return TextDocument(
        check_length(join_blocks(blocks)), markdown=True, title=named or None, notes=notes, tables=tuple(tables)
    )


def _cells(title: str, sheet: Any) -> tuple[list[str], list[Table], tuple[str, ...]]:
    """The tables of a sheet as text and as such, and what could not be read of them."""
    rows = list(_rows(sheet))
    xml = _xml(sheet)
    notes: tuple[str, ...] = ()
    if missing := len(_EMPTY_FORMULA.findall(xml)):
        notes = (f"{quantity(missing, 'formula')} of sheet {title} {'has' if missing == 1 else 'have'} no value",)
    tables: list[Table] = []
    if rows:
        _spread(rows, xml)
        for part in _parts(rows):
            table, more = as_table(title, _columns(part))
            notes += more
            tables.append(table)
    return [_block(table) for table in tables], tables, notes


def _drawn(sheet: Part, read: Collection[str]) -> Iterator[Table | str]:
    """The text boxes, charts and diagrams of a sheet."""
    from openpyxl.xml.functions import fromstring  # noqa: PLC0415 -- heavy

    for relation in sheet.rels.values():
        if relation.reltype.endswith("/drawing") and not relation.is_external:
            yield from shape_texts(fromstring(relation.target_part.blob))
            yield from read_drawings(relation.target_part, fromstring, read)


def _block(each: Table | str) -> str:
    return each if isinstance(each, str) else markdown_table(each).rstrip()


def _rows(sheet: Any) -> Iterator[Row]:
    """Those that have anything."""
    sheet.reset_dimensions()  # some programs write that of an empty sheet: all but one cell would be left out
    for number, row in enumerate(sheet.iter_rows(values_only=True), 1):
        if number > MAX_ROWS:
            raise TooLarge(
                f"sheet {sheet.title} has more than {MAX_ROWS} rows", code="document_too_large",
                hint="Read it from its database as a source of type sql.",
            )  # fmt: skip
        cells = [_shown(value) for value in row]
        if any(cells):
            yield number, cells


def _shown(value: Any) -> str:
    """A value as Excel shows it without a format: a number with fifteen digits at most, a day without its midnight."""
    if isinstance(value, float):
        return f"{value:.15g}"
    if isinstance(value, datetime) and value.time() == time():
        return value.date().isoformat()
    return "" if value is None else str(value)


def _xml(sheet: Any) -> bytes:
    """What a sheet is written as; nothing of one that is too long."""
    with sheet._get_source() as source:
        data: bytes = source.read(_MAX_XML + 1)
    return data if len(data) <= _MAX_XML else b""


def _spread(rows: Sequence[Row], xml: bytes) -> None:
    """Put the text of each merged cell into all rows and columns that it covers and that have anything else."""
    by_number: Mapping[int, list[str]] = dict(rows)
    left = _MOST_MERGED
    for first, top, last, bottom in _MERGED.findall(xml):
        begin, end = _column(first), _column(last)
        origin = by_number.get(int(top), [])
        text = origin[begin] if begin < len(origin) else ""
        numbers = [
            number for number in range(int(top), min(int(bottom), int(top) + MAX_ROWS) + 1) if number in by_number
        ]
        left -= len(numbers) * (end - begin + 1)
        if not text or left < 0:
            continue
        for number in numbers:
            cells = by_number[number]
            cells += [""] * (end + 1 - len(cells))
            cells[begin : end + 1] = [cell or text for cell in cells[begin : end + 1]]


def _parts(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    """The tables of a sheet that stand below one another: behind an empty row, and maybe a title, another head, above a
    row with numbers where it has words. Other empty rows are within a table."""
    begin = wide = 0
    for at in range(1, len(rows)):
        wide += _filled(rows[at - 1][1]) > 1
        if wide < 2 or rows[at][0] == rows[at - 1][0] + 1:
            continue
        head = next((row for row in range(at, min(at + _TITLED, len(rows) - 1)) if _filled(rows[row][1]) > 1), None)
        if head is None or rows[head + 1][0] > rows[head][0] + 1 or not _is_head(rows[head][1], rows[head + 1][1]):
            continue
        yield rows[begin:at]
        begin, wide = at, 0
    yield rows[begin:]


def _filled(cells: Sequence[str]) -> int:
    return sum(bool(cell.strip()) for cell in cells)


def _is_head(cells: Sequence[str], below: Sequence[str]) -> bool:
    said = [cell for cell in cells if cell.strip()]
    return (
        len(set(said)) == len(said) > 1 and not any(map(_is_number, said))
        and any(cell.strip() and _is_number(under) for cell, under in zip(cells, below, strict=False))
    )  # fmt: skip


def _is_number(cell: str) -> bool:
    return any(map(str.isdigit, cell)) and not any(map(str.isalpha, cell))


def _column(letters: bytes) -> int:
    """From 0."""
    number = 0
    for letter in letters:
        number = 26 * number + letter - 64
    return number - 1


def _columns(rows: Sequence[Row]) -> list[list[str]]:
    """The rows as wide as each other, without columns that are empty; titles above the others have their text alone."""
    used = sorted({at for _, cells in rows for at, cell in enumerate(cells) if cell.strip()})
    found = [[cells[at] if at < len(cells) else "" for at in used] for _, cells in rows]
    head = next((at for at, cells in enumerate(found) if _filled(cells) > 1), 0)
    titles = [[cell for cell in cells if cell.strip()] for cells in found[:head]]
    if head <= TITLES and len(found) > head + 1 and all(any(map(str.isalpha, text)) for (text,) in titles):
        found[:head] = titles
    return found
