"""Runs the declared checks of columns of a table: types, nulls, keys, ranges, values, forms, freshness. Pure; forms are
checked by `misfits`, since a company's regular expression may take any time.

Cells are text, which every format and database can deliver; an empty cell is null. A missing column is one finding of
its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from fnmatch import fnmatchcase
from typing import Any, Final

from groundplan.blueprint.model import Source
from groundplan.core.words import quantity
from groundplan.knowledge.parsing.model import Table
from groundplan.knowledge.quality.sensors import MAX_MAGNITUDE, Reading, sensor_failures
from groundplan.ledger.finding import Finding

_MAX_CLOCK_SKEW: Final = timedelta(days=1)
MAX_ROWS_SHOWN: Final = 5
"""Most rows that a finding names."""
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?")
_DECIMAL_COMMA = re.compile(r"[+-]?(?:\d{1,3}(?:[. \u00a0\u202f'’]\d{3})+|\d+),(?:\d{1,2}|\d{4,})")
"""A number with a decimal comma. Three digits after a comma may be thousands: that is ambiguous, so no number."""
_DECIMAL_POINT = re.compile(r"[+-]?\d{1,3}(?:(?:[, \u00a0\u202f'’]\d{3})+\.\d+|(?:,\d{3}){2,})")
_THOUSANDS = re.compile(r"[., \u00a0\u202f'’]")
_DAY = re.compile(r"(\d{1,2})\.(\d{1,2})\.(\d{4})(?:[ T](\d{1,2}:\d{2}(?::\d{2})?))?")
"""A date with dots: the day comes first."""

Check = dict[str, Any]
Misfits = Callable[[str, Sequence[str]], list[int] | None]
"""(pattern, values) -> indices of the values that do not match completely; None: it takes too long."""


def table_findings(
    source: Source, key: str, tables: Sequence[Table], misfits: Misfits, now: datetime | None = None
) -> list[Finding]:
    """Findings about the tables of one document by the checks that its source declares."""
    subject = f"source/{source.name}/{key}" if key else f"source/{source.name}"
    found: list[Finding] = []
    for table in tables:
        if table.partial and any(_applies_to(check, table, key) for check in source.checks):
            found.append(_partial_finding(source, subject, table))
        for check in source.checks:
            if not _applies_to(check, table, key):
                continue
            for code, message, detail in check_table(table, check, misfits, now or datetime.now(UTC)):
                quote = str(detail.pop("quote", ""))
                kind = "knowledge.sensor" if code.startswith("sensor_") else "knowledge.table"
                found.append(
                    Finding(
                        kind=kind,
                        subject=subject,
                        severity="high",
                        owner=source.governed.steward or source.owner,
                        message=f"{_table_name(table.name, key or source.name)}: {message}",
                        mark=f"{table.name}:{check['column']}:{code}"
                        + (f":{detail['sensor']}" if "sensor" in detail else ""),
                        hint=_SLOW if code == "form_slow" else _HINTS[kind],
                        detail={"column": check["column"], "check": code, **detail},
                        quote=quote,
                    )
                )
    return found


def _table_name(table: str, place: str) -> str:
    """The name of a table with the document that it is in; for a file that is a single table, only its name."""
    return place if place.rpartition("/")[2] == table else f"{table} of {place}"


def _partial_finding(source: Source, subject: str, table: Table) -> Finding:
    """The finding about a table with more rows than are checked."""
    return Finding(
        kind="knowledge.table", subject=subject, severity="medium", owner=source.governed.steward or source.owner,
        message=f"only the first {len(table.rows):,} rows of {table.name} are checked, and not how fresh it is",
        mark=f"{table.name}:rows", hint="Name a view that has the rows which matter, such as those of the last weeks.",
        detail={"check": "rows", "rows": len(table.rows)},
    )  # fmt: skip


def _applies_to(check: Check, table: Table, key: str) -> bool:
    """Whether a check applies to this table: by its declared name, or because it has the column. To files that are a
    single table it always applies, so that a missing column is reported."""
    if (name := check.get("table")) is not None:
        return fnmatchcase(table.name, str(name))
    return check["column"] in table.columns or not key or key.lower().endswith(_ONLY_TABLES)


_ONLY_TABLES: Final = (".csv", ".tsv")
_HINTS: Final = {
    "knowledge.table": "Correct the rows where they are kept, or the check in the source's declaration.",
    "knowledge.sensor": "Look at the sensor and its wiring; leave readings out of answers until it is mended.",
}
_SLOW: Final = (
    "Write `matches` without a repetition inside a repetition, such as (a+)+, or as `one_of`, `type` or a range."
)


def check_table(
    table: Table, check: Check, misfits: Misfits, now: datetime
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(code, message, figures) for each failure of one check of one column; the figure `quote` has values of the
    table."""
    name = check["column"]
    if name not in table.columns:
        yield "column", f"there is no column '{name}'", {"columns": table.columns[:20]}
        return
    index = table.columns.index(name)
    cells = [row[index] for row in table.rows]
    yield from _check_nulls(cells, check)
    values = [(row, cell) for row, cell in enumerate(cells, 1) if cell]
    mistyped = [(row, cell) for row, cell in values if not _has_type(cell, check.get("type"))]
    yield from _row_failure("type", mistyped, f"'{name}' is not a {check.get('type')}")
    if check.get("type") is None and ("at_least" in check or "at_most" in check or check.get("sensor")):
        non_numbers = [(row, cell) for row, cell in values if parse_number(cell) is None]
        yield from _row_failure("type", non_numbers, f"'{name}' is no number, as its check needs,")
    yield from _row_failure(
        "range", [each for each in values if _out_of_range(each[1], check)], f"'{name}' is out of range"
    )
    if allowed := set(check.get("one_of", ())):
        yield from _row_failure(
            "values", [each for each in values if each[1] not in allowed], f"'{name}' is none of its values"
        )
    if pattern := check.get("matches"):
        yield from _check_form(values, pattern, name, misfits)
    if check.get("unique"):
        yield from _row_failure("key", _repeated_values(values), f"'{name}' is there more than once")
    if not table.partial:
        yield from _check_freshness(values, check, now)
    if check.get("sensor"):
        yield from _check_sensor(table, index, check)


def _check_nulls(cells: Sequence[str], check: Check) -> Iterator[tuple[str, str, dict[str, Any]]]:
    missing = sum(not cell for cell in cells)
    share = missing / len(cells) if cells else 0.0
    if share > check.get("nulls", 1.0):
        message = f"'{check['column']}' has no value in {missing:,} of {quantity(len(cells), 'row')}"
        yield "nulls", message, {"share": round(share, 4)}


def _check_form(
    values: Sequence[tuple[int, str]], pattern: str, name: str, misfits: Misfits
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    found = misfits(pattern, [cell for _, cell in values])
    if found is None:
        message = f"whether '{name}' has its form takes too long to tell; it is not checked"
        yield "form_slow", message, {"rows": len(values), "matches": pattern}
    else:
        yield from _row_failure("form", [values[number] for number in found], f"'{name}' has another form")


def _row_failure(code: str, rows: Sequence[tuple[int, str]], what: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    if rows:
        some = ", ".join(f"{row}" for row, _ in rows[:MAX_ROWS_SHOWN])
        where = f"{len(rows):,} rows ({some}{', …' if len(rows) > MAX_ROWS_SHOWN else ''})"
        quote = ", ".join(f"row {row}: {cell[:40]}" for row, cell in rows[:MAX_ROWS_SHOWN])
        if len(rows) == 1:
            where, quote = f"row {some}", rows[0][1][:40]
        yield code, f"{what} in {where}", {"rows": len(rows), "first": rows[0][0], "quote": quote}


def _has_type(cell: str, type_: str | None) -> bool:
    if type_ in (None, "text"):
        return True
    if type_ == "date":
        return parse_time(cell) is not None
    return parse_number(cell) is not None and (type_ == "number" or re.fullmatch(r"[+-]?\d+", cell) is not None)


def parse_number(cell: str) -> float | None:
    """The number in a cell, in Python's form or with separators if it is unambiguous: `1.234,56`, `1,234.56`, but not
    `1,234`."""
    if _NUMBER.fullmatch(cell):
        return float(cell)
    if _DECIMAL_COMMA.fullmatch(cell):
        whole, _, decimals = cell.rpartition(",")
        return float(f"{_THOUSANDS.sub('', whole)}.{decimals}")
    if _DECIMAL_POINT.fullmatch(cell):
        whole, point, decimals = cell.partition(".")
        return float(_THOUSANDS.sub("", whole) + point + decimals)
    return None


def parse_time(cell: str) -> datetime | None:
    """The time in a cell, in ISO form or with a date like `31.12.2026`; UTC if it names no time zone."""
    if day := _DAY.fullmatch(cell):
        cell = f"{day[3]}-{day[2]:0>2}-{day[1]:0>2}" + (f"T{day[4]:0>5}" if day[4] else "")
    try:
        found = datetime.fromisoformat(cell)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _out_of_range(cell: str, check: Check) -> bool:
    value = parse_number(cell)
    if value is None:
        return False
    low, high = check.get("at_least"), check.get("at_most")
    return (low is not None and value < low) or (high is not None and value > high)


def _repeated_values(values: Sequence[tuple[int, str]]) -> list[tuple[int, str]]:
    seen: set[str] = set()
    found = []
    for row, cell in values:
        if cell in seen:
            found.append((row, cell))
        seen.add(cell)
    return found


def _check_freshness(
    values: Sequence[tuple[int, str]], check: Check, now: datetime
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    if "fresh" not in check:
        return
    # one wrong clock must not keep a table fresh for years; a day of tolerance, since the time zone may be missing
    times = (at for _, cell in values if (at := parse_time(cell)) is not None)
    newest = max((at for at in times if at <= now + _MAX_CLOCK_SKEW), default=None)
    if newest is None or (now - newest).total_seconds() * 1000 > check["fresh"]:
        when = "never" if newest is None else date.isoformat(newest)
        yield "fresh", f"the newest '{check['column']}' is of {when}", {"newest": when}


def _check_sensor(table: Table, index: int, check: Check) -> Iterator[tuple[str, str, dict[str, Any]]]:
    time, by = check.get("time"), check.get("by")
    for name in (time, by):
        if name is not None and name not in table.columns:
            yield "column", f"there is no column '{name}'", {"columns": table.columns[:20]}
            return
    time_index = None if time is None else table.columns.index(time)
    sensor_index = None if by is None else table.columns.index(by)
    if time_index is not None:
        without_time = [
            (row, cells[time_index])
            for row, cells in enumerate(table.rows, 1)
            if cells[index] and not parse_time(cells[time_index])
        ]
        yield from _row_failure("time", without_time, f"'{time}' is no time, as its check needs,")
    sensors: dict[str, list[Reading]] = {}
    for row, cells in enumerate(table.rows, 1):
        value = parse_number(cells[index])
        when = parse_time(cells[time_index]) if time_index is not None else None
        if value is not None and abs(value) <= MAX_MAGNITUDE and (time_index is None or when is not None):
            sensors.setdefault("" if sensor_index is None else cells[sensor_index], []).append(
                Reading(row, value, when)
            )
    for sensor, readings in sorted(sensors.items()):
        for code, message, detail in sensor_failures(readings, check):
            prefix = f"{sensor[:40]}: " if sensor else ""
            yield code, f"{prefix}{message}", {**detail, **({"sensor": sensor[:200]} if sensor else {})}
