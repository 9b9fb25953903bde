"""Reads a bill, CSV or JSON, as a table of cells from its head on.

`parse` gives the cells their meaning.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence

from groundplan.core.errors import Invalid, Where
from groundplan.economics.bills.columns import detect_columns, normalize_name
from groundplan.economics.bills.nested import is_json, parse_map, read_json_rows

MAX_BYTES = 16 << 20
MAX_LINES = 200_000
MAX_CELL = 1 << 17
"""Characters; `csv` has one limit for the whole process, so it is set before each read."""
MAX_HEAD_LINE = 30
"""Number of the last line that may be the head: some bills have addresses and numbers above it."""

_PRODUCT_NAME = "productproductname"


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
    rows = {n: row for n, row in _read_rows(text, file, delimiter).items() if n >= head_line}
    _add_product_names(rows)
    return rows, delimiter


def _add_product_names(rows: Mapping[int, list[str]]) -> None:
    """Add the column `product.product_name` where products are maps, as in AWS' second cost and usage report: the first
    has it as a column of its own. Where a map has no name, it is the code of the product."""
    head, *body = [*rows.values()] or [[]]
    columns = {normalize_name(name): i for i, name in enumerate(head)}
    if (product := columns.get("product")) is None or _PRODUCT_NAME in columns:
        return
    names = [parse_map(_cell(row, product)).get("product_name") for row in body]
    if not any(names):
        return
    code, width = columns.get("lineitemproductcode"), max(len(row) for row in rows.values())
    for row, name in zip(body, names, strict=True):
        row += [""] * (width - len(row)) + [name or _cell(row, code)]
    head += [""] * (width - len(head)) + ["product.product_name"]


def _cell(row: Sequence[str], column: int | None) -> str:
    return row[column] if column is not None and column < len(row) else ""


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
