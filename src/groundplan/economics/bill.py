"""A provider's bill or usage export as CSV -> its lines, with exact amounts and what each says of a call.

Text in, lines out: what the ledger knows is `reconcile`. Amounts are decimals in the bill's own currency, unrounded.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from uuid import UUID

from groundplan.core.errors import Invalid, Problem, Where
from groundplan.economics.bill_columns import detect, format_of

MAX_BYTES = 16 << 20
MAX_LINES = 200_000
LONGEST_CELL = 1 << 17
"""Characters; the bound is one of the whole process, so it is set where it is needed."""
_MOST = Decimal(10) ** 12
_FINEST = -30
_CALL = re.compile(
    r"(?<![0-9a-f])([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})(?:-(\d{1,4}))?(?![0-9a-f-])", re.ASCII
)
_THOUSANDS = re.compile(r"-?[1-9]\d{0,2}(,\d{3})+(\.\d+)?", re.ASCII)
_COMMA = re.compile(r"-?\d+,\d+", re.ASCII)
_SLASHED = re.compile(r"(\d{1,2})[/.](\d{1,2})[/.](\d{4})(?:[ T].*)?", re.ASCII)
_CLASSES = (
    ("cache_write", ("cache_write", "cache write", "cache creation", "cache_creation")),
    ("cache_read", ("cache_read", "cached", "cache read", "cchd")),
    ("output", ("output", "outp", "outpt", "completion", "generated")),
    ("input", ("input", "inp", "prompt", "no_cache")),
)
_PURPOSES = {
    "storage": (
        "storage",
        "blob",
        "bucket",
        "disk",
        "backup",
        "s3",
        "database",
        "sql",
        "rds",
        "dynamodb",
        "cosmos",
        "search",
        "vector",
        "cloudwatch",
        "log analytics",
        "cloud logging",
    ),
    "network": ("bandwidth", "network", "egress", "data transfer", "load balancer", "vpn"),
}
_AI_SERVICES = (
    "openai",
    "cognitive",
    "foundry",
    "ai services",
    "ai studio",
    "bedrock",
    "vertex",
    "claude",
    "machine learning",
)


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a bill."""

    number: int
    """In the file, from 1."""
    day: date | None
    """UTC."""
    model: str | None
    call: UUID | None
    attempt: int | None
    """Of the call; None where the line tells the call alone."""
    amount: Decimal | None
    currency: str
    decimals: int
    """How many decimals the amount was written with: it is rounded to that."""
    input: int | None
    output: int | None
    requests: int | None
    token_class: str | None
    """input | output | cache_read | cache_write, where a line is for one class of tokens."""
    deployment: str | None
    service: str | None

    @property
    def foreign(self) -> bool:
        """Whether it names a service that is not one of models."""
        return self.service is not None and not any(word in self.service.lower() for word in _AI_SERVICES)

    @property
    def purpose(self) -> str:
        """`storage`, `network`, or empty for any other service."""
        service = (self.service or "").lower()
        return next((name for name, words in _PURPOSES.items() if any(word in service for word in words)), "")


@dataclass(frozen=True, slots=True)
class Bill:
    """A read file."""

    file: str
    format: str
    columns: Mapping[str, str]
    """Role -> name in the head."""
    lines: tuple[Line, ...]
    notes: tuple[str, ...]
    period: tuple[date, date] | None = None
    """First and last day to compare, where somebody chose them."""

    @property
    def days(self) -> tuple[date, date] | None:
        """First and last day, None where no line has one."""
        days = [line.day for line in self.lines if line.day is not None]
        return (min(days), max(days)) if days else None


def read_bill(text: str, file: str, said: Mapping[str, str]) -> Bill:
    """Every line of the CSV `text`. `said` names columns (role -> name in the head).

    Raises `Invalid` with every line that cannot be read, and where the file is too large or empty.
    """
    if len(text) > MAX_BYTES:
        raise Invalid(
            "the file is larger than 16 MiB", code="bill_too_large", hint="Split it by day or model.",
            where=Where(file, 1),
        )  # fmt: skip
    delimiter = _delimiter(text)
    rows = _rows(text.removeprefix("\ufeff"), file, delimiter)
    head = next(iter(rows.values()), None)
    if head is None or len(rows) < 2:
        raise Invalid(
            "the file has no lines below its head", code="bill_empty", hint="Export it as CSV with column names.",
            where=Where(file, 1),
        )  # fmt: skip
    columns = detect(head, said, file)
    reader = _LineReader(file, columns, comma=delimiter == ";")
    numbers = list(rows)[1:]
    lines = [line for number in numbers if (line := reader.read(number, rows[number])) is not None]
    if reader.problems:
        first = reader.problems[0]
        raise Invalid(
            f"{first.message} (and {len(reader.problems) - 1} more)" if len(reader.problems) > 1 else first.message,
            code=first.code, hint=first.hint, where=first.where, problems=tuple(reader.problems[:50]),
        )  # fmt: skip
    notes = (
        *reader.notes,
        *([f"{reader.empty} lines without an amount or tokens were passed over"] * (reader.empty > 0)),
    )
    return Bill(file, format_of(head), {role: head[i] for role, i in columns.items()}, tuple(lines), notes)


def _delimiter(text: str) -> str:
    """What is most often in the head."""
    return max(",;\t|", key=text.partition("\n")[0].count)


def _rows(text: str, file: str, delimiter: str) -> dict[int, list[str]]:
    """Line number -> its cells, empty ones left out."""
    found: dict[int, list[str]] = {}
    csv.field_size_limit(LONGEST_CELL)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
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
            "the file is not CSV", code="bill_syntax", hint="Export it as CSV, quoted where a cell has commas.",
            where=Where(file, number),
        ) from error  # fmt: skip
    return found


class _LineReader:
    """Reads one line after another; collects what is wrong."""

    def __init__(self, file: str, columns: Mapping[str, int], *, comma: bool) -> None:
        self._file = file
        self._comma = comma
        self._columns = columns
        self.problems: list[Problem] = []
        self.notes: list[str] = []
        self.empty = 0

    def read(self, number: int, row: Sequence[str]) -> Line | None:
        """The line, None where it says nothing (a total of zero cells, a day without use)."""
        cells = {role: row[i] for role, i in self._columns.items() if i < len(row) and row[i]}
        amount, decimals = self._amount(number, cells)
        tokens = self._tokens(number, cells)
        if amount is None and not tokens:
            self.empty += 1
            return None
        model, token_class = _model_and_class(cells)
        if "quantity" in cells and token_class in ("input", "output", "cache_read", "cache_write"):
            _quantity(cells, token_class, tokens, self._comma)
        call = _CALL.search(cells.get("id", "").lower())
        return Line(
            number, self._day(number, cells.get("day")), model,
            UUID(call[1]) if call else None, int(call[2]) if call and call[2] else None,
            amount, _currency(cells), decimals, tokens.get("input"), tokens.get("output"),
            self._whole(number, cells, "requests"), token_class, cells.get("deployment"), cells.get("service"),
        )  # fmt: skip

    def _wrong(self, number: int, role: str, what: str) -> None:
        hint = f"Write {what}, or name another column: --columns {role}=NAME."
        self.problems.append(Problem(f"{role} is not {what}", "bill_line", hint, Where(self._file, number)))

    def _amount(self, number: int, cells: Mapping[str, str]) -> tuple[Decimal | None, int]:
        text = cells.get("amount")
        if text is None:
            return None, 0
        amount = _decimal(text, self._comma)
        if amount is None:
            self._wrong(number, "amount", "an amount of money")
            return None, 0
        exponent = amount.as_tuple().exponent
        return amount, -exponent if isinstance(exponent, int) and exponent < 0 else 0

    def _whole(self, number: int, cells: Mapping[str, str], role: str) -> int | None:
        text = cells.get(role)
        if text is None:
            return None
        value = _decimal(text, self._comma)
        if value is None or value < 0 or value != int(value):
            self._wrong(number, role, "a whole number")
            return None
        return int(value)

    def _tokens(self, number: int, cells: Mapping[str, str]) -> dict[str, int]:
        """Totals of input (cached ones included) and output."""
        found: dict[str, int] = {}
        for role in ("input", "cache_read", "cache_write", "cache_write_long"):
            value = self._whole(number, cells, role)
            if value is not None:
                found["input"] = found.get("input", 0) + value
        output = self._whole(number, cells, "output")
        return {**found, "output": output} if output is not None else found

    def _day(self, number: int, text: str | None) -> date | None:
        if text is None:
            return None
        slashed = _SLASHED.fullmatch(text)
        try:
            if slashed:
                return self._ordered(int(slashed[1]), int(slashed[2]), int(slashed[3]))
            return _iso_day(text)
        except (ValueError, OverflowError, OSError):
            self._wrong(number, "day", "a date such as 2026-11-25")
            return None

    def _ordered(self, first: int, second: int, year: int) -> date:
        note = "days such as 11/25/2026 were read as month/day/year"
        if first <= 12 and note not in self.notes:
            self.notes.append(note)
        return date(year, first, second) if first <= 12 else date(year, second, first)


def _iso_day(text: str) -> date:
    """UTC day of an ISO date or time, or of seconds (or milliseconds) since 1970."""
    if re.fullmatch(r"\d{10}(\d{3})?(\.\d+)?", text, re.ASCII):
        seconds = int(text[:10])
        return datetime.fromtimestamp(seconds, UTC).date()
    if re.fullmatch(r"\d{8}", text, re.ASCII):
        return date.fromisoformat(text)
    moment = datetime.fromisoformat(text.replace(" UTC", "+00:00").replace("Z", "+00:00"))
    return (moment.astimezone(UTC) if moment.tzinfo else moment).date()


def _decimal(text: str, comma: bool = False) -> Decimal | None:
    """An exact finite number; thousands with commas, a comma for the point, a sign of currency are understood.

    `comma`: the file writes a comma for the point, as files with semicolons between their cells do.
    """
    plain = text.strip().replace("\u00a0", "").removeprefix("$").removesuffix("USD").strip()
    if comma and "," in plain:
        plain = plain.replace(".", "").replace(",", ".")
    elif _THOUSANDS.fullmatch(plain):
        plain = plain.replace(",", "")
    elif _COMMA.fullmatch(plain):
        plain = plain.replace(",", ".")
    if not re.fullmatch(r"[-+]?\d{0,24}(?:\.\d{0,30})?(?:[eE][-+]?\d{1,2})?", plain, re.ASCII):
        return None
    try:
        value = Decimal(plain)
    except InvalidOperation:
        return None
    exponent = value.as_tuple().exponent
    return value if abs(value) <= _MOST and isinstance(exponent, int) and exponent >= _FINEST else None


def _model_and_class(cells: Mapping[str, str]) -> tuple[str | None, str | None]:
    """`gpt-4o-2024-08-06, input` names a model and a class of tokens."""
    name = cells.get("model")
    told = cells.get("class", "")
    if name is not None and ", " in name:
        name, _, told = name.rpartition(", ")
    words = (told or (name or "") if "quantity" in cells or told else "").lower()
    found = next((kind for kind, marks in _CLASSES if any(mark in words for mark in marks)), None)
    return name, found


def _currency(cells: Mapping[str, str]) -> str:
    return cells.get("currency", "USD").strip().upper()[:8] or "USD"


def _quantity(cells: Mapping[str, str], token_class: str, tokens: dict[str, int], comma: bool) -> None:
    """Tokens of a line that tells a quantity of one class."""
    value, unit = _decimal(cells["quantity"], comma), cells.get("unit", "").lower()
    scale = 1_000_000 if "1m" in unit else 1000 if "1k" in unit or "1000" in unit else 1
    if value is None or value < 0 or (unit and not re.search(r"token|1k|1m|1000|unit", unit)):
        return
    total = value * scale
    if total == int(total):
        tokens.setdefault("output" if token_class == "output" else "input", int(total))
