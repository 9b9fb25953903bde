"""Reads XLSX as Markdown: each sheet as a heading with its tables, then its charts and text boxes; values, not
formulas. The library is that of `groundplan[knowledge]`.

The size that a sheet states is ignored, and the text of a merged cell is repeated in every row and column that it
covers. Hidden sheets are not read: the person who approves the workbook does not see them. Hidden rows and columns are
read, since a filter hides them. Number formats (percentage, currency) are ignored.
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
from groundplan.knowledge.parsing.tabular import MAX_TITLES, as_table, markdown_table
from groundplan.knowledge.parsing.text import TextDocument, check_length, clean

MAX_ROWS: Final = 200_000
_MAX_XML: Final = 64 << 20
"""Largest XML of a sheet, in bytes, that is searched for merged cells and formulas."""
_MAX_MERGED_CELLS: Final = 1_000_000
_MERGED = re.compile(
    rb"<(?:\w+:)?mergeCell\s[^>]*?ref=[\"']\$?([A-Z]{1,3})\$?(\d{1,7}):\$?([A-Z]{1,3})\$?(\d{1,7})[\"']"
)
_MAX_TITLE_ROWS: Final = 3
"""The head of another table is among so many rows after an empty one."""
_EMPTY_FORMULA = re.compile(
    rb"(?:</(?:\w+:)?f>|<(?:\w+:)?f\b[^<>]*/>)\s*(?:<(?:\w+:)?v\s*/>|<(?:\w+:)?v></(?:\w+:)?v>)?\s*</(?:\w+:)?c>"
)
"""The end of a cell that has a formula and no value."""

Row = tuple[int, list[str]]
"""(number of the row from 1, its cells)."""


def read_xlsx(data: bytes) -> TextDocument:
    """Read a workbook. Raises `Invalid` and `TooLarge`."""
    from openpyxl.reader.excel import ExcelReader  # noqa: PLC0415 -- heavy

    reader: Any = ExcelReader(open_package(data), read_only=True, data_only=True, keep_links=False)
    reader.read_chartsheet = lambda *_: None  # its charts are read below, as those of other sheets
    reader.read()
    worksheets = {sheet._worksheet_path: sheet for sheet in reader.wb.worksheets}
    blocks: list[str] = []
    tables: list[Table] = []
    notes: tuple[str, ...] = ()
    sheets = list(reader.parser.find_sheets())
    visible = [(sheet.name, relation.target) for sheet, relation in sheets if sheet.state == "visible"]
    if hidden := len(sheets) - len(visible):
        notes = (f"{quantity(hidden, 'hidden sheet is', 'hidden sheets are')} not read",)
    for name, path in visible:
        sheet_title = clean(name)
        sheet_blocks, sheet_tables, sheet_notes = (
            _read_tables(sheet_title, worksheets[path]) if path in worksheets else ([], [], ())
        )
        notes += sheet_notes
        drawings: list[Table | str] = []
        try:
            drawings += _read_drawings(Part(reader.archive, path), dict(visible))
        except (SyntaxError, ValueError, KeyError):  # a broken drawing must not lose the cells
            notes += (f"what is drawn on sheet {sheet_title} cannot be read",)
        if sheet_blocks or drawings:
            blocks += [f"# {sheet_title}", *sheet_blocks, *(_markdown_block(each) for each in drawings)]
            tables += [*sheet_tables, *(each for each in drawings if isinstance(each, Table))]
    workbook_title = reader.wb.properties.title
    return TextDocument(
        check_length(join_blocks(blocks)),
        markdown=True,
        title=workbook_title or None,
        notes=notes,
        tables=tuple(tables),
    )


def _read_tables(title: str, sheet: Any) -> tuple[list[str], list[Table], tuple[str, ...]]:
    """(Markdown of the tables of a sheet, the tables, notes on what could not be read)."""
    rows = list(_iter_rows(sheet))
    xml = _sheet_xml(sheet)
    notes: tuple[str, ...] = ()
    if missing := len(_EMPTY_FORMULA.findall(xml)):
        notes = (f"{quantity(missing, 'formula')} of sheet {title} {'has' if missing == 1 else 'have'} no value",)
    tables: list[Table] = []
    if rows:
        _fill_merged_cells(rows, xml)
        for part in _split_tables(rows):
            table, more = as_table(title, _trim_columns(part))
            notes += more
            tables.append(table)
    return [_markdown_block(table) for table in tables], tables, notes


def _read_drawings(sheet: Part, read: Collection[str]) -> Iterator[Table | str]:
    """The text boxes, charts and diagrams of a sheet."""
    from openpyxl.xml.functions import fromstring  # noqa: PLC0415 -- heavy

    for relation in sheet.rels.values():
        if relation.reltype.endswith("/drawing") and not relation.is_external:
            yield from shape_texts(fromstring(relation.target_part.blob))
            yield from read_drawings(relation.target_part, fromstring, read)


def _markdown_block(each: Table | str) -> str:
    return each if isinstance(each, str) else markdown_table(each).rstrip()


def _iter_rows(sheet: Any) -> Iterator[Row]:
    """The rows that are not empty."""
    sheet.reset_dimensions()  # some programs write those of an empty sheet: all but one cell would be left out
    for number, row in enumerate(sheet.iter_rows(values_only=True), 1):
        if number > MAX_ROWS:
            raise TooLarge(
                f"sheet {sheet.title} has more than {MAX_ROWS} rows", code="document_too_large",
                hint="Read it from its database as a source of type sql.",
            )  # fmt: skip
        cells = [_format_value(value) for value in row]
        if any(cells):
            yield number, cells


def _format_value(value: Any) -> str:
    """A value as Excel shows it without a format: at most fifteen digits, and dates without midnight."""
    if isinstance(value, float):
        return f"{value:.15g}"
    if isinstance(value, datetime) and value.time() == time():
        return value.date().isoformat()
    return "" if value is None else str(value)


def _sheet_xml(sheet: Any) -> bytes:
    """The XML of a sheet; empty if it is longer than `_MAX_XML`."""
    with sheet._get_source() as source:
        data: bytes = source.read(_MAX_XML + 1)
    return data if len(data) <= _MAX_XML else b""


def _fill_merged_cells(rows: Sequence[Row], xml: bytes) -> None:
    """Write the text of each merged cell into all empty cells that it covers, in rows that are not empty."""
    by_number: Mapping[int, list[str]] = dict(rows)
    left = _MAX_MERGED_CELLS
    for first, top, last, bottom in _MERGED.findall(xml):
        begin, end = _column_index(first), _column_index(last)
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


def _split_tables(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    """Split the rows of a sheet into the tables that stand below one another.

    A table begins after an empty row, and optionally titles, with a head whose next row has a number where the head has
    words. Other empty rows are within a table.
    """
    begin = wide = 0
    for at in range(1, len(rows)):
        wide += _filled_count(rows[at - 1][1]) > 1
        if wide < 2 or rows[at][0] == rows[at - 1][0] + 1:
            continue
        head = next(
            (row for row in range(at, min(at + _MAX_TITLE_ROWS, len(rows) - 1)) if _filled_count(rows[row][1]) > 1),
            None,
        )
        if head is None or rows[head + 1][0] > rows[head][0] + 1 or not _is_head(rows[head][1], rows[head + 1][1]):
            continue
        yield rows[begin:at]
        begin, wide = at, 0
    yield rows[begin:]


def _filled_count(cells: Sequence[str]) -> int:
    return sum(bool(cell.strip()) for cell in cells)


def _is_head(cells: Sequence[str], below: Sequence[str]) -> bool:
    said = [cell for cell in cells if cell.strip()]
    return (
        len(set(said)) == len(said) > 1 and not any(map(_is_number, said))
        and any(cell.strip() and _is_number(under) for cell, under in zip(cells, below, strict=False))
    )  # fmt: skip


def _is_number(cell: str) -> bool:
    return any(map(str.isdigit, cell)) and not any(map(str.isalpha, cell))


def _column_index(letters: bytes) -> int:
    """The index, from 0, of a column given by letters."""
    number = 0
    for letter in letters:
        number = 26 * number + letter - 64
    return number - 1


def _trim_columns(rows: Sequence[Row]) -> list[list[str]]:
    """The rows with equal width, without empty columns; rows of titles have one cell with their text."""
    used = sorted({at for _, cells in rows for at, cell in enumerate(cells) if cell.strip()})
    found = [[cells[at] if at < len(cells) else "" for at in used] for _, cells in rows]
    head = next((at for at, cells in enumerate(found) if _filled_count(cells) > 1), 0)
    titles = [[cell for cell in cells if cell.strip()] for cells in found[:head]]
    if head <= MAX_TITLES and len(found) > head + 1 and all(any(map(str.isalpha, text)) for (text,) in titles):
        found[:head] = titles
    return found
