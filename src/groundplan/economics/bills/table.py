"""Reads a bill, CSV or JSON, as a table of cells from its head on.

`parse` gives the cells their meaning.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping

from groundplan.core.errors import Invalid, Where
from groundplan.economics.bills.columns import detect_columns
from groundplan.economics.bills.nested import is_json, read_json_rows

MAX_BYTES = 16 << 20
MAX_LINES = 200_000
MAX_CELL = 1 << 17
"""Characters; `csv` has one limit for the whole process, so it is set before each read."""
MAX_HEAD_LINE = 30
"""Number of the last line that may be the head: some bills have addresses and numbers above it."""


def read_table(text: str, file: str, chosen: Mapping[str, str]) -> tuple[dict[int, list[str]], str]:
    """(line number -> cells, from the head on; delimiter).

    Raises `Invalid` where the file is too large, or is neither CSV nor JSON."""
    if len(text) > MAX_BYTES:
        raise Invalid(
            "the file is larger than 16 MiB", code="bill_too_large", hint="Split it by day or model.",
            where=Where(file, 1),
        )  # fmt: skip
    text = text.removeprefix("\ufeff")
    if is_json(text):
        head, rows = read_json_rows(text, file, MAX_LINES)
        return {0: head, **rows}, ","
    head_line, delimiter = _find_head(text, chosen, file)
    return {n: row for n, row in _read_rows(text, file, delimiter).items() if n >= head_line}, delimiter


def _find_head(text: str, chosen: Mapping[str, str], file: str) -> tuple[int, str]:
    """(line number of the head, its delimiter): the first line that names an amount or tokens, else the first line."""
    first: tuple[int, str] | None = None
    for number, line in enumerate(text.split("\n", MAX_HEAD_LINE)[:MAX_HEAD_LINE], 1):
        if not line.strip():
            continue
        delimiter = max(",;\t|", key=line.count)
        first = first or (number, delimiter)
        try:
            detect_columns([cell.strip() for cell in next(csv.reader([line], delimiter=delimiter), [])], chosen, file)
        except (Invalid, csv.Error):
            continue
        return number, delimiter
    return first or (1, ",")


def _read_rows(text: str, file: str, delimiter: str) -> dict[int, list[str]]:
    """Line number -> cells, without empty lines."""
    found: dict[int, list[str]] = {}
    csv.field_size_limit(MAX_CELL)
    # strict: a quote that is not closed would make one cell of all lines after it
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    number = 1
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                found[number] = [cell.strip() for cell in row]
            number = reader.line_num + 1
            if len(found) > MAX_LINES:
                raise Invalid(
                    f"more than {MAX_LINES} lines", code="bill_too_large", hint="Split it by day or model.",
                    where=Where(file, number),
                )  # fmt: skip
    except csv.Error as error:
        raise Invalid(
            f"the file is not CSV from line {number} on: {error}", code="bill_syntax",
            hint="Export it as CSV, quoted where a cell has commas, and close each quote.", where=Where(file, number),
        ) from error  # fmt: skip
    return found
