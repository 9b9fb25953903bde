"""Parses what a table of cells has no place for: exports in JSON with nested fields, and lists of credits in one cell.

Google Cloud's billing export in BigQuery has its credits as a list in each line, as no column of its own. Saved as CSV
that list is one cell; as JSON it is part of the line.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from decimal import Decimal
from typing import Any

from groundplan.core.errors import Invalid, Where
from groundplan.economics.bills.cells import Style, parse_number

_BETWEEN = re.compile(r"[\s,]*")
"""Between two objects of a file: they are one to a line, or the items of a list."""
_DECODER = json.JSONDecoder(parse_float=str, parse_int=str, parse_constant=str)
"""Keeps numbers as they are written."""
_SYNTAX_ERRORS = (ValueError, SyntaxError, RecursionError, MemoryError)
"""What a text may raise that is no JSON, or no Python."""
_ARRAY = re.compile(r"array\((\[.*\])(?:, dtype=object)?\)", re.DOTALL)
_DECIMAL = re.compile(r"Decimal\(('[^']*')\)")
_MAP = re.compile(r"\{\s*[\"\w]")
_ATHENA_PAIR = re.compile(r"(\w+)=(.*?)(?=, \w+=|\}$)")
"""`{product_name=Amazon Bedrock, region=eu-north-1}`, as Athena writes a map of AWS' second cost and usage report."""
_MAX_NAME = 500
"""The longest name of a field, with the names of all that it is nested in."""
_MAX_CELLS = 16 << 20
"""The most cells of all rows: a CSV of the largest size has no more. Objects that each have a name of their own would
make a table with the square of their number."""


def is_json(text: str) -> bool:
    """Whether a file is JSON: one object to a line, or a list of objects."""
    return re.match(r"\s*(\[\s*)?\{", text) is not None


def read_json_rows(text: str, file: str, most: int) -> tuple[list[str], dict[int, list[str]]]:
    """(head, line number -> cells): nested fields are named `service.description`; a list is one cell, as JSON.

    Raises `Invalid` where the file is not JSON, is nested too deeply, or has more than `most` objects or too many
    different fields.
    """
    head: dict[str, int] = {}
    rows: dict[int, list[str]] = {}
    number = cell_count = 0
    for line, item in _read_objects(text, file):
        number = max(line, number + 1)  # several objects in one line are counted on
        if len(rows) == most:
            raise Invalid(
                f"more than {most} lines", code="bill_too_large", hint="Split it by day or model.",
                where=Where(file, line),
            )  # fmt: skip
        try:
            cells = dict(_flatten(item))
        except (RecursionError, ValueError) as error:
            raise Invalid(
                f"fields of line {line} are nested too deeply", code="bill_syntax",
                hint="Export it as CSV, or leave such fields out.", where=Where(file, line),
            ) from error  # fmt: skip
        for name in cells:
            head.setdefault(name, len(head))
        cell_count += len(head)
        if cell_count > _MAX_CELLS:
            raise Invalid(
                f"{len(head)} different fields in {len(rows) + 1} lines are too many", code="bill_too_large",
                hint="Split it by day or model, or leave fields out.", where=Where(file, line),
            )  # fmt: skip
        row = rows[number] = [""] * len(head)
        for name, cell in cells.items():
            row[head[name]] = cell
    return list(head), rows


def _read_objects(text: str, file: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """(line number, object) of each object in the file."""
    start = len(text) - len(text.lstrip())
    is_list = text.startswith("[", start)
    place, counted, line = start + is_list, 0, 1
    while True:
        between = _BETWEEN.match(text, place)
        place = place if between is None else between.end()
        line, counted = line + text.count("\n", counted, place), place
        if place >= len(text) or (is_list and text.startswith("]", place)):
            return
        try:
            item, place = _DECODER.raw_decode(text, place)
        except _SYNTAX_ERRORS as error:
            raise _no_json(file, line) from error
        if not isinstance(item, dict):
            raise _no_json(file, line)
        yield line, item


def _no_json(file: str, line: int) -> Invalid:
    return Invalid(
        f"the file is not JSON from line {line} on", code="bill_syntax",
        hint="Export it as CSV, or as JSON with one object to a line.", where=Where(file, line),
    )  # fmt: skip


def _flatten(item: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """(name, cell) of each field. Raises `ValueError` where a name is too long, and `RecursionError`."""
    for key, value in item.items():
        if len(prefix) + len(key) > _MAX_NAME:
            raise ValueError("the name of a field is too long")
        name = sys.intern(prefix + _storable(key))
        if isinstance(value, dict):
            yield from _flatten(value, f"{name}.")
        elif isinstance(value, list):
            yield name, json.dumps(value) if value else ""
        elif value is not None:
            yield name, _storable(str(value)).strip()


def _storable(text: str) -> str:
    """The text with `?` for lone surrogates: JSON can name them, but no answer of ours can have them."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def parse_map(cell: str) -> dict[str, str]:
    """The texts of a map in one cell, as JSON or as Athena writes it; empty if the cell is no map."""
    if _MAP.match(cell) is None:
        return {}
    try:
        value = _DECODER.decode(cell)
    except _SYNTAX_ERRORS:
        value = dict(_ATHENA_PAIR.findall(cell))
    return {key: text for key, text in value.items() if isinstance(text, str)} if isinstance(value, dict) else {}


def sum_credits(cell: str, style: Style) -> Decimal | None:
    """Sum of the amounts in a list of credits, as JSON or as Python writes it; None if the cell is no such list."""
    items = _parse_list(cell)
    if items is None:
        return None
    total = Decimal(0)
    for item in items:
        amount = item.get("amount") if isinstance(item, dict) else None
        value = None if amount is None else parse_number(str(amount), style)
        if value is None:
            return None
        total += value
    return total


def _parse_list(cell: str) -> list[Any] | None:
    value: Any = None
    try:
        value = _DECODER.decode(cell)
    except _SYNTAX_ERRORS:
        array = _ARRAY.fullmatch(cell)
        with suppress(*_SYNTAX_ERRORS):
            value = ast.literal_eval(_DECIMAL.sub(r"\1", array[1] if array else cell))
    return value if isinstance(value, list) else None
