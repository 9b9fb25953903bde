"""Declared checks of the columns of a table: types, nulls, keys, ranges, values, forms, freshness. Pure; which values
have not a form is asked of `misfits`, since a company's regular expression may take any time.

Cells are text, as every format and database can give them; an empty cell is null. A column that is not there is a
finding of its own, not a hundred.
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

_SKEW: Final = timedelta(days=1)
SHOWN: Final = 5
"""So many rows are named in a finding."""
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?")
_COMMA = re.compile(r"[+-]?(?:\d{1,3}(?:[. \u00a0\u202f'’]\d{3})+|\d+),(?:\d{1,2}|\d{4,})")
"""With a comma before its decimals. Three digits behind a comma may be a thousand: that is no number for certain."""
_POINT = re.compile(r"[+-]?\d{1,3}(?:(?:[, \u00a0\u202f'’]\d{3})+\.\d+|(?:,\d{3}){2,})")
_THOUSANDS = re.compile(r"[., \u00a0\u202f'’]")
_DAY = re.compile(r"(\d{1,2})\.(\d{1,2})\.(\d{4})(?:[ T](\d{1,2}:\d{2}(?::\d{2})?))?")
"""With dots it is the day that stands first."""

Check = dict[str, Any]
Misfits = Callable[[str, Sequence[str]], list[int] | None]
"""(pattern, values) -> numbers of the values that have not that form as a whole; None: it takes too long to tell."""


def table_findings(
    source: Source, key: str, tables: Sequence[Table], misfits: Misfits, now: datetime | None = None
) -> list[Finding]:
    """Findings about the tables of one document by the checks that its source declares."""
    subject = f"source/{source.name}/{key}" if key else f"source/{source.name}"
    found: list[Finding] = []
    for table in tables:
        if table.partial and any(_applies_to(check, table, key) for check in source.checks):
            found.append(_partial(source, subject, table))
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
                        message=f"{_called(table.name, key or source.name)}: {message}",
                        mark=f"{table.name}:{check['column']}:{code}"
                        + (f":{detail['sensor']}" if "sensor" in detail else ""),
                        hint=_SLOW if code == "form_slow" else _HINTS[kind],
                        detail={"column": check["column"], "check": code, **detail},
                        quote=quote,
                    )
                )
    return found


def _called(table: str, of: str) -> str:
    """A table by its name and where it is; a file that is nothing but a table, by its own name."""
    return of if of.rpartition("/")[2] == table else f"{table} of {of}"


def _partial(source: Source, subject: str, table: Table) -> Finding:
    """Of a table with more rows than are checked."""
    return Finding(
        kind="knowledge.table", subject=subject, severity="medium", owner=source.governed.steward or source.owner,
        message=f"only the first {len(table.rows):,} rows of {table.name} are checked, and not how fresh it is",
        mark=f"{table.name}:rows", hint="Name a view that has the rows which matter, such as those of the last weeks.",
        detail={"check": "rows", "rows": len(table.rows)},
    )  # fmt: skip


def _applies_to(check: Check, table: Table, key: str) -> bool:
    """Whether a check is about this table: named, or with its column; of a file that is nothing but a table a missing
    column is told."""
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
    """(code, what is wrong, figures) for one check of one column; `quote` of the figures are values of the table."""
    name = check["column"]
    if name not in table.columns:
        yield "column", f"there is no column '{name}'", {"columns": table.columns[:20]}
        return
    at = table.columns.index(name)
    cells = [row[at] for row in table.rows]
    yield from _nulls(cells, check)
    values = [(row, cell) for row, cell in enumerate(cells, 1) if cell]
    wrong = [(row, cell) for row, cell in values if not _has_type(cell, check.get("type"))]
    yield from _rows("type", wrong, f"'{name}' is not a {check.get('type')}")
    if check.get("type") is None and ("at_least" in check or "at_most" in check or check.get("sensor")):
        others = [(row, cell) for row, cell in values if parse_number(cell) is None]
        yield from _rows("type", others, f"'{name}' is no number, as its check needs,")
    yield from _rows("range", [each for each in values if _out_of_range(each[1], check)], f"'{name}' is out of range")
    if allowed := set(check.get("one_of", ())):
        yield from _rows(
            "values", [each for each in values if each[1] not in allowed], f"'{name}' is none of its values"
        )
    if pattern := check.get("matches"):
        yield from _form(values, pattern, name, misfits)
    if check.get("unique"):
        yield from _rows("key", _repeated(values), f"'{name}' is there more than once")
    if not table.partial:
        yield from _fresh(values, check, now)
    if check.get("sensor"):
        yield from _sensor(table, at, check)


def _nulls(cells: Sequence[str], check: Check) -> Iterator[tuple[str, str, dict[str, Any]]]:
    missing = sum(not cell for cell in cells)
    share = missing / len(cells) if cells else 0.0
    if share > check.get("nulls", 1.0):
        message = f"'{check['column']}' has no value in {missing:,} of {quantity(len(cells), 'row')}"
        yield "nulls", message, {"share": round(share, 4)}


def _form(
    values: Sequence[tuple[int, str]], pattern: str, name: str, misfits: Misfits
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    found = misfits(pattern, [cell for _, cell in values])
    if found is None:
        message = f"whether '{name}' has its form takes too long to tell; it is not checked"
        yield "form_slow", message, {"rows": len(values), "matches": pattern}
    else:
        yield from _rows("form", [values[number] for number in found], f"'{name}' has another form")


def _rows(code: str, rows: Sequence[tuple[int, str]], what: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    if rows:
        some = ", ".join(f"{row}" for row, _ in rows[:SHOWN])
        where = f"{len(rows):,} rows ({some}{', …' if len(rows) > SHOWN else ''})"
        quote = ", ".join(f"row {row}: {cell[:40]}" for row, cell in rows[:SHOWN])
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
    """As Python writes it, or as people do, where that is certain: `1.234,56` and `1,234.56`, not `1,234`."""
    if _NUMBER.fullmatch(cell):
        return float(cell)
    if _COMMA.fullmatch(cell):
        whole, _, decimals = cell.rpartition(",")
        return float(f"{_THOUSANDS.sub('', whole)}.{decimals}")
    if _POINT.fullmatch(cell):
        whole, point, decimals = cell.partition(".")
        return float(_THOUSANDS.sub("", whole) + point + decimals)
    return None


def parse_time(cell: str) -> datetime | None:
    """A time in ISO form, or a day as in `31.12.2026`; of UTC where it names no zone."""
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


def _repeated(values: Sequence[tuple[int, str]]) -> list[tuple[int, str]]:
    seen: set[str] = set()
    found = []
    for row, cell in values:
        if cell in seen:
            found.append((row, cell))
        seen.add(cell)
    return found


def _fresh(values: Sequence[tuple[int, str]], check: Check, now: datetime) -> Iterator[tuple[str, str, dict[str, Any]]]:
    if "fresh" not in check:
        return
    # a clock that goes wrong once must not keep a table fresh for years; a day, since a zone may not be told
    times = (at for _, cell in values if (at := parse_time(cell)) is not None)
    newest = max((at for at in times if at <= now + _SKEW), default=None)
    if newest is None or (now - newest).total_seconds() * 1000 > check["fresh"]:
        when = "never" if newest is None else date.isoformat(newest)
        yield "fresh", f"the newest '{check['column']}' is of {when}", {"newest": when}


def _sensor(table: Table, at: int, check: Check) -> Iterator[tuple[str, str, dict[str, Any]]]:
    time, by = check.get("time"), check.get("by")
    for name in (time, by):
        if name is not None and name not in table.columns:
            yield "column", f"there is no column '{name}'", {"columns": table.columns[:20]}
            return
    clock = None if time is None else table.columns.index(time)
    named = None if by is None else table.columns.index(by)
    if clock is not None:
        untold = [
            (row, cells[clock]) for row, cells in enumerate(table.rows, 1) if cells[at] and not parse_time(cells[clock])
        ]
        yield from _rows("time", untold, f"'{time}' is no time, as its check needs,")
    sensors: dict[str, list[Reading]] = {}
    for row, cells in enumerate(table.rows, 1):
        value = parse_number(cells[at])
        when = parse_time(cells[clock]) if clock is not None else None
        if value is not None and abs(value) <= MAX_MAGNITUDE and (clock is None or when is not None):
            sensors.setdefault("" if named is None else cells[named], []).append(Reading(row, value, when))
    for sensor, readings in sorted(sensors.items()):
        for code, message, detail in sensor_failures(readings, check):
            of = f"{sensor[:40]}: " if sensor else ""
            yield code, f"{of}{message}", {**detail, **({"sensor": sensor[:200]} if sensor else {})}
