"""A provider's bill or usage export as CSV -> its lines, with exact amounts and what each says of a call.

Text in, lines out: what the ledger knows is `reconcile`. Amounts are decimals in the bill's own currency, unrounded.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from uuid import UUID

from groundplan.core.currencies import USD
from groundplan.core.errors import Invalid, Problem, Where
from groundplan.core.words import counted
from groundplan.economics.bills.cells import (
    Style,
    currency_in,
    currency_of_head,
    day_of,
    last_of,
    nothing,
    slashed,
    style_of,
    whole,
)
from groundplan.economics.bills.cells import number as number_of
from groundplan.economics.bills.columns import OWN, charge_of, detect, format_of, is_total, plain

MAX_BYTES = 16 << 20
MAX_LINES = 200_000
LONGEST_CELL = 1 << 17
"""Characters; the bound is one of the whole process, so it is set where it is needed."""
MONTH = 31
"""Days."""
HEAD_WITHIN = 30
"""Lines in which the head is looked for: some bills have addresses and numbers above it."""
_CALL = re.compile(
    r"(?<![0-9a-f])([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})(?:-(\d{1,4}))?(?![0-9a-f-])", re.ASCII
)
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
    "network": (
        "bandwidth",
        "network",
        "egress",
        "data transfer",
        "datatransfer",
        "cloudfront",
        "vpc",
        "load balancer",
        "vpn",
    ),
}
_NO_MODELS = frozenset({"amazonbedrock"})
"""Names of products that are no models: what was used of them says which one it was."""
_AI_SERVICES = (
    "gemini",
    "generative ai",
    "anthropic",
    "mistral",
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
    charge: str = ""
    """`tax` or `credit` (a discount, refund or adjustment): of no single call; empty: what was used."""
    other: bool = False
    """It has an id, and that of no call."""
    until: date | None = None
    """Its last day, UTC, where it is of several, as lines of a month are; None: of `day` alone."""

    @property
    def foreign(self) -> bool:
        """Whether no call pays it: a tax, a credit, or what names a service that is not one of models; what counts
        tokens is of models, whatever its service is called."""
        if self.charge:
            return True
        if self.input or self.output:
            return False
        return self.service is not None and not any(word in self.service.lower() for word in _AI_SERVICES)

    @property
    def prepaid(self) -> bool:
        """Whether no call pays it and it is of more than a month, such as a commitment of a year: a bill is of fewer
        days than that."""
        return self.day is not None and self.until is not None and (self.until - self.day).days > MONTH and self.foreign

    @property
    def purpose(self) -> str:
        """`tax`, `credit`, `storage`, `network`, or empty for any other service."""
        if self.charge:
            return self.charge
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
    def own(self) -> bool:
        """Whether the ledger wrote it, so that it has what no provider bills, too."""
        return self.format == OWN

    @property
    def days(self) -> tuple[date, date] | None:
        """First and last day, None where no line has one."""
        lines = [line for line in self.lines if not line.prepaid] or self.lines
        days = [day for line in lines for day in (line.day, line.until) if day is not None]
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
    body = text.removeprefix("\ufeff")
    at, delimiter = _head(body, said, file)
    rows = {number: row for number, row in _rows(body, file, delimiter).items() if number >= at}
    head = next(iter(rows.values()), None)
    if head is None or len(rows) < 2:
        raise Invalid(
            "the file has no lines below its head", code="bill_empty", hint="Export it as CSV with column names.",
            where=Where(file, 1),
        )  # fmt: skip
    columns = detect(head, said, file)
    below = {number: row for number, row in rows.items() if number != at}
    style = _style(below.values(), columns, semicolons=delimiter == ";")
    told = currency_of_head(head[columns["amount"]])[1] if "amount" in columns else None
    reader = _LineReader(
        file, columns, style, told or USD, len(head), exclusive=_exclusive(head, below.values(), columns, style)
    )
    lines = reader.every(below)
    if reader.problems:
        first = reader.problems[0]
        raise Invalid(
            f"{first.message} (and {len(reader.problems) - 1} more)" if len(reader.problems) > 1 else first.message,
            code=first.code, hint=first.hint, where=first.where, problems=tuple(reader.problems[:50]),
        )  # fmt: skip
    return Bill(file, format_of(head), {role: head[i] for role, i in columns.items()}, tuple(lines), reader.told())


def _head(text: str, said: Mapping[str, str], file: str) -> tuple[int, str]:
    """(line number of the head, what is between its cells): the first line that names an amount or tokens, else the
    first one."""
    first: tuple[int, str] | None = None
    for place, line in enumerate(text.split("\n", HEAD_WITHIN)[:HEAD_WITHIN], 1):
        if not line.strip():
            continue
        delimiter = max(",;\t|", key=line.count)
        first = first or (place, delimiter)
        try:
            detect([cell.strip() for cell in next(csv.reader([line], delimiter=delimiter), [])], said, file)
        except (Invalid, csv.Error):
            continue
        return place, delimiter
    return first or (1, ",")


def _style(rows: Iterable[Sequence[str]], columns: Mapping[str, int], *, semicolons: bool) -> Style:
    def cells(*roles: str) -> list[str]:
        return [row[i] for role in roles if (i := columns.get(role)) is not None for row in every if i < len(row)]

    every = list(rows)
    return style_of(cells("amount", "quantity"), cells("day"), semicolons=semicolons)


def _exclusive(head: Sequence[str], rows: Iterable[Sequence[str]], columns: Mapping[str, int], style: Style) -> bool:
    """Whether periods end before the day that is their end: by FOCUS, and where others begin on it or all are a day
    long; none does where some end on the day on which they begin."""
    if (end := columns.get("end")) is None or (begin := columns.get("day")) is None:
        return False
    if plain(head[end]) == "chargeperiodend":
        return True
    told = {(row[begin], row[end]) for row in rows if max(begin, end) < len(row) and row[begin] and row[end]}
    days = set()
    for first, last in told:
        with suppress(ValueError, OverflowError, OSError):
            days.add((day_of(first, style), day_of(last, style)))
    starts, several = {first for first, _ in days}, [each for each in days if each[0] < each[1]]
    if len(several) < len(days):
        return False
    return any(last in starts for _, last in several) or all(
        (last - first).days == 1 or first.day == last.day == 1 for first, last in several
    )


def _rows(text: str, file: str, delimiter: str) -> dict[int, list[str]]:
    """Line number -> its cells, empty ones left out."""
    found: dict[int, list[str]] = {}
    csv.field_size_limit(LONGEST_CELL)
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


@dataclass(slots=True)
class _LineReader:
    """Reads one line after another; collects what is wrong."""

    file: str
    columns: Mapping[str, int]
    style: Style
    currency: str
    """Of amounts that do not say it."""
    width: int
    """Cells of the head."""
    exclusive: bool = False
    """A period ends before the day that is its end."""
    problems: list[Problem] = field(default_factory=list)
    ordered: bool = False
    """Some day was read in one of two orders."""
    empty: int = 0
    totals: int = 0

    def every(self, rows: Mapping[int, Sequence[str]]) -> list[Line]:
        """The lines; totals are left out where anything else is there."""
        parts = {number: row for number, row in rows.items() if not is_total(row, self._cells(row))}
        self.totals = len(rows) - len(parts) if parts else 0
        read = (self.read(number, row) for number, row in (parts or rows).items())
        return [line for line in read if line is not None]

    def _cells(self, row: Sequence[str]) -> dict[str, str]:
        """Role -> what it says."""
        return {role: row[i] for role, i in self.columns.items() if i < len(row) and row[i]}

    def read(self, number: int, row: Sequence[str]) -> Line | None:
        """The line, None where it says nothing (a total of zero cells, a day without use)."""
        cells = self._cells(row)
        if any(row[self.width :]):
            told = f"the line has {len(row)} cells, and the head {self.width}"
            hint = 'Quote cells with commas: "1,234.56".'
            self.problems.append(Problem(told, "bill_line", hint, Where(self.file, number)))
            return None
        amount, decimals = self._amount(number, cells)
        tokens = self._tokens(number, cells)
        if amount is None and not tokens:
            self.empty += 1
            return None
        model, token_class = _model_and_class(cells)
        if "quantity" in cells and token_class in ("input", "output", "cache_read", "cache_write"):
            _quantity(cells, token_class, tokens, self.style)
        call = _CALL.search(cells.get("id", "").lower())
        day = self._day(number, cells.get("day"))
        return Line(
            number, day, model,
            UUID(call[1]) if call else None, int(call[2]) if call and call[2] else None,
            amount, self._currency(cells), decimals, tokens.get("input"), tokens.get("output"),
            self._whole(number, cells, "requests"), token_class, cells.get("deployment"), cells.get("service"),
            charge_of(cells), other=call is None and "id" in cells,
            until=self._until(day, cells.get("end")),
        )  # fmt: skip

    def told(self) -> tuple[str, ...]:
        """What a reader of the comparison has to know of how it was read."""
        day = (
            "25/11/2026 were read as day/month/year"
            if self.style.day_first
            else "11/25/2026 were read as month/day/year"
        )
        told = "" if self.style.day_told else "; if that is wrong, write them as 2026-11-25"
        found = [f"days such as {day}{told}"] if self.ordered else []
        if self.style.comma:
            found.append("a comma in an amount was read as the decimal point")
        for number, what in ((self.totals, "of totals"), (self.empty, "without an amount or tokens")):
            found += (
                [f"{counted(number, 'line')} {what} {'was' if number == 1 else 'were'} passed over"] if number else []
            )
        return tuple(found)

    def _currency(self, cells: Mapping[str, str]) -> str:
        said = cells.get("currency", "").strip().upper()[:8]
        return said or currency_in(cells.get("amount", "")) or self.currency

    def _wrong(self, number: int, role: str, what: str) -> None:
        hint = f"Write {what}, or name another column: --columns {role}=NAME."
        self.problems.append(Problem(f"{role} is not {what}", "bill_line", hint, Where(self.file, number)))

    def _amount(self, number: int, cells: Mapping[str, str]) -> tuple[Decimal | None, int]:
        text = cells.get("amount")
        if text is None or nothing(text):
            return None, 0
        amount = number_of(text, self.style)
        if amount is None:
            self._wrong(number, "amount", "an amount of money")
            return None, 0
        exponent = amount.as_tuple().exponent
        return amount, -exponent if isinstance(exponent, int) and exponent < 0 else 0

    def _whole(self, number: int, cells: Mapping[str, str], role: str) -> int | None:
        text = cells.get(role)
        if text is None:
            return None
        if (value := whole(text, self.style)) is None:
            self._wrong(number, role, "a whole number")
        return value

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
        self.ordered |= slashed(text)
        try:
            return day_of(text, self.style)
        except (ValueError, OverflowError, OSError):
            self._wrong(number, "day", "a date such as 2026-11-25")
            return None

    def _until(self, day: date | None, text: str | None) -> date | None:
        """The last of several days. An end that cannot be read is none: many call something else so."""
        try:
            last = None if text is None else last_of(text, self.style, exclusive=self.exclusive)
        except (ValueError, OverflowError, OSError):
            return None
        return last if day is not None and last is not None and last > day else None


def _model_and_class(cells: Mapping[str, str]) -> tuple[str | None, str | None]:
    """`gpt-4o-2024-08-06, input` names a model and a class of tokens."""
    name = cells.get("model")
    told = cells.get("class", "")
    if name is not None and plain(name) in _NO_MODELS:
        name = told or name
    if name is not None and ", " in name:
        name, _, told = name.rpartition(", ")
    words = (told or (name or "") if "quantity" in cells or told else "").lower()
    found = next((kind for kind, marks in _CLASSES if any(mark in words for mark in marks)), None)
    return name, found


def _quantity(cells: Mapping[str, str], token_class: str, tokens: dict[str, int], style: Style) -> None:
    """Tokens of a line that tells a quantity of one class."""
    value, unit = number_of(cells["quantity"], style), cells.get("unit", "").lower()
    scale = 1_000_000 if "1m" in unit else 1000 if "1k" in unit or "1000" in unit else 1
    if value is None or value < 0 or (unit and not re.search(r"token|1k|1m|1000|unit", unit)):
        return
    total = value * scale
    if total == int(total):
        tokens.setdefault("output" if token_class == "output" else "input", int(total))
