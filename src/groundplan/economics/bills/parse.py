"""Parses a provider's bill or usage export (CSV, or JSON) into lines with exact amounts and the calls that they name.

Amounts are decimals in the bill's currency, unrounded. `reconcile` compares the lines with the ledger.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import date
from decimal import Decimal
from uuid import UUID

from groundplan.core.currencies import USD
from groundplan.core.errors import Invalid, Problem, Where
from groundplan.core.words import quantity
from groundplan.economics.bills.cells import (
    Style,
    currency_in,
    detect_style,
    has_slashes,
    is_ambiguous,
    is_dash,
    may_be_in,
    parse_count,
    parse_day,
    parse_last_day,
    parse_month,
    parse_number,
    split_head_currency,
)
from groundplan.economics.bills.columns import (
    OWN_FORMAT,
    charge_kind,
    detect_columns,
    detect_format,
    is_total,
    normalize_name,
)
from groundplan.economics.bills.nested import sum_credits
from groundplan.economics.bills.table import read_table

DAYS_PER_MONTH = 31
_CALL = re.compile(
    r"(?<![0-9a-f])([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})(?:-(\d{1,4}))?(?![0-9a-f-])", re.ASCII
)
_TOKEN_CLASSES = (
    ("cache_write", ("cachewrite", "cachecreation")),
    ("cache_read", ("cacheread", "cached", "cchd")),
    ("output", ("outp", "completion", "generated")),
    ("input", ("inp", "prompt", "nocache")),
)
"""Class -> what its name has, without hyphens, underscores and spaces."""
_NOT_CACHED = re.compile(r"[-_ ]|uncached")
_MARKETPLACE = "mp:"
"""In a type of use at AWS: its units are millions of tokens."""
_PURPOSE_WORDS = {
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
_NOT_MODELS = frozenset({"amazonbedrock", "amazonbedrockservice", "amazonbedrockfoundationmodels"})
"""Names in the model's column that are products, not models: the usage type names the model."""
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
class BillLine:
    """One line of a bill."""

    number: int
    """Line number in the file, from 1."""
    day: date | None
    """UTC."""
    model: str | None
    call: UUID | None
    attempt: int | None
    """Number of the attempt; None where the line names the call alone."""
    amount: Decimal | None
    currency: str
    decimals: int
    """Decimals of the amount as written, to which it was rounded."""
    input: int | None
    output: int | None
    requests: int | None
    token_class: str | None
    """input | output | cache_read | cache_write; None unless the line is for one class of tokens."""
    deployment: str | None
    service: str | None
    charge: str = ""
    """`tax` or `credit` (a discount, refund or adjustment), which belong to no single call; empty: usage."""
    has_foreign_id: bool = False
    """Whether the line has an id that is no call id."""
    until: date | None = None
    """Last day, UTC, of a line for several days, such as a month; None: `day` only."""
    account: str | None = None
    """The provider's account, project, workspace or subscription."""

    @property
    def is_foreign(self) -> bool:
        """Whether the line cannot belong to a call: a tax, a credit, or a service without models. A line with a count
        of tokens is for models, whatever its service is called."""
        if self.charge:
            return True
        if self.input or self.output:
            return False
        return self.service is not None and not any(word in self.service.lower() for word in _AI_SERVICES)

    @property
    def is_prepaid(self) -> bool:
        """Whether the line belongs to no call and covers more than a month, such as a commitment of a year: its days
        are not the days of the bill."""
        return (
            self.day is not None
            and self.until is not None
            and (self.until - self.day).days > DAYS_PER_MONTH
            and self.is_foreign
        )

    @property
    def purpose(self) -> str:
        """`tax`, `credit`, `storage`, `network`, or empty for any other service."""
        if self.charge:
            return self.charge
        service = (self.service or "").lower()
        return next((name for name, words in _PURPOSE_WORDS.items() if any(word in service for word in words)), "")


@dataclass(frozen=True, slots=True)
class Bill:
    """A parsed bill."""

    file: str
    format: str
    columns: Mapping[str, str]
    """Role -> name in the head."""
    lines: tuple[BillLine, ...]
    notes: tuple[str, ...]
    period: tuple[date, date] | None = None
    """(first, last) day to compare; None: not chosen."""

    @property
    def is_own(self) -> bool:
        """Whether the file is the ledger's own export, which also has costs that no provider bills."""
        return self.format == OWN_FORMAT

    @property
    def date_range(self) -> tuple[date, date] | None:
        """(first, last) day of the lines; None where no line has one."""
        lines = [line for line in self.lines if not line.is_prepaid] or self.lines
        days = [day for line in lines for day in (line.day, line.until) if day is not None]
        return (min(days), max(days)) if days else None


def read_bill(text: str, file: str, chosen: Mapping[str, str]) -> Bill:
    """Parse every line of the CSV or JSON `text`. `chosen` names columns (role -> name in the head).

    Raises `Invalid` with every line that cannot be read, and where the file is too large or empty.
    """
    rows, delimiter = read_table(text, file, chosen)
    head_line, head = next(iter(rows.items()), (1, None))
    if head is None or len(rows) < 2:
        raise Invalid(
            "the file has no lines below its head", code="bill_empty", hint="Export it as CSV with column names.",
            where=Where(file, 1),
        )  # fmt: skip
    columns = detect_columns(head, chosen, file)
    body_rows = {number: row for number, row in rows.items() if number != head_line}
    style = _detect_style(body_rows.values(), columns, semicolons=delimiter == ";")
    head_currency = split_head_currency(head[columns["amount"]])[1] if "amount" in columns else None
    reader = _LineReader(
        file,
        columns,
        style,
        head_currency or USD,
        [bool(cell) for cell in head],
        has_exclusive_ends=_has_exclusive_ends(head, body_rows.values(), columns, style),
    )
    lines = reader.read_all(body_rows)
    if reader.problems:
        first = reader.problems[0]
        raise Invalid(
            f"{first.message} (and {len(reader.problems) - 1} more)" if len(reader.problems) > 1 else first.message,
            code=first.code, hint=first.hint, where=first.where, problems=tuple(reader.problems[:50]),
        )  # fmt: skip
    return Bill(file, detect_format(head), {role: head[i] for role, i in columns.items()}, tuple(lines), reader.notes())


def _detect_style(rows: Iterable[Sequence[str]], columns: Mapping[str, int], *, semicolons: bool) -> Style:
    def cells(*roles: str) -> list[str]:
        return [row[i] for role in roles if (i := columns.get(role)) is not None for row in all_rows if i < len(row)]

    all_rows = list(rows)
    return detect_style(cells("amount", "quantity"), cells("day"), semicolons=semicolons)


def _has_exclusive_ends(
    head: Sequence[str], rows: Iterable[Sequence[str]], columns: Mapping[str, int], style: Style
) -> bool:
    """Whether the end days of periods are exclusive.

    They are in FOCUS. In other files they are if no period ends on the day on which it begins, and either another
    period begins on an end day or every period is one day or whole months long."""
    if (end := columns.get("end")) is None or (begin := columns.get("day")) is None:
        return False
    if normalize_name(head[end]) == "chargeperiodend":
        return True
    texts = {(row[begin], row[end]) for row in rows if max(begin, end) < len(row) and row[begin] and row[end]}
    periods = set()
    for first, last in texts:
        with suppress(ValueError, OverflowError, OSError):
            periods.add((parse_day(first, style), parse_day(last, style)))
    starts, several = {first for first, _ in periods}, [each for each in periods if each[0] < each[1]]
    if len(several) < len(periods):
        return False
    return any(last in starts for _, last in several) or all(
        (last - first).days == 1 or first.day == last.day == 1 for first, last in several
    )


@dataclass(slots=True)
class _LineReader:
    """Parses the lines of a file and collects problems and notes."""

    file: str
    columns: Mapping[str, int]
    style: Style
    currency: str
    """Currency of amounts that do not name one."""
    is_named: Sequence[bool]
    """Whether each column has a name in the head."""
    has_exclusive_ends: bool = False
    """Whether the end day of a period is not part of it."""
    problems: list[Problem] = field(default_factory=list)
    has_ambiguous_days: bool = False
    """Whether the order of day and month mattered for some day."""
    empty_lines: int = 0
    """Number of lines skipped since they have neither an amount nor tokens."""
    total_lines: int = 0
    """Number of lines skipped since they are sums of others."""

    def read_all(self, rows: Mapping[int, Sequence[str]]) -> list[BillLine]:
        """Parse all lines; sums of others are skipped unless the file has nothing else."""
        single_lines = {number: row for number, row in rows.items() if not is_total(row, self._cells(row))}
        self.total_lines = len(rows) - len(single_lines) if single_lines else 0
        lines: list[BillLine] = []
        for number, row in (single_lines or rows).items():
            line = self.read(number, row)
            if line is not None:
                lines.append(line)
                lines += self._credit_lines(line, row)
        return lines

    def _credit_lines(self, line: BillLine, row: Sequence[str]) -> list[BillLine]:
        """The credits that a line has as a list, as one line of their own; its amount is the one before credits."""
        cell = self._cells(row).get("credits", "")
        if not cell.startswith(("[", "array(")):
            return []
        amount = sum_credits(cell, self.style)
        if amount is None:
            self._add_problem(line.number, "credits", "a list of credits, each with an amount")
        if not amount:
            return []
        return [
            replace(
                line, amount=amount, decimals=_decimals(amount), charge="credit", call=None, attempt=None, input=None,
                output=None, requests=None, token_class=None, has_foreign_id=False,
            )
        ]  # fmt: skip

    def _cells(self, row: Sequence[str]) -> dict[str, str]:
        """Role -> text of its cell."""
        return {role: row[i] for role, i in self.columns.items() if i < len(row) and row[i]}

    def read(self, number: int, row: Sequence[str]) -> BillLine | None:
        """Parse one line; None if the line has neither an amount nor tokens, or is invalid (with a problem)."""
        cells = self._cells(row)
        if (unnamed := self._unnamed_cell(row)) is not None:
            message = f"cell {unnamed} of the line is below no name of the head"
            hint = 'Quote cells with commas: "1,234.56", and give each column a name.'
            self.problems.append(Problem(message, "bill_line", hint, Where(self.file, number)))
            return None
        amount, decimals = self._amount(number, cells)
        tokens = self._tokens(number, cells)
        if amount is None and not tokens:
            self.empty_lines += 1
            return None
        model, token_class = _model_and_class(cells)
        if "quantity" in cells and token_class in ("input", "output", "cache_read", "cache_write"):
            _add_quantity(cells, token_class, tokens, self.style)
        call = _CALL.search(cells.get("id", "").lower())
        day, until = self._days(number, cells)
        return BillLine(
            number, day, model,
            UUID(call[1]) if call else None, int(call[2]) if call and call[2] else None,
            amount, self._currency(number, cells), decimals, tokens.get("input"), tokens.get("output"),
            self._count(number, cells, "requests"), token_class, cells.get("deployment"), cells.get("service"),
            charge_kind(cells), has_foreign_id=call is None and "id" in cells,
            until=until, account=cells.get("account"),
        )  # fmt: skip

    def _unnamed_cell(self, row: Sequence[str]) -> int | None:
        """Number, from 1, of a filled cell without a name in the head: an amount may have been cut in two by its own
        comma. Before the first name there may be the numbers of lines."""
        first_named = self.is_named.index(True)
        return next(
            (
                i + 1
                for i, cell in enumerate(row)
                if cell and i > first_named and not (i < len(self.is_named) and self.is_named[i])
            ),
            None,
        )

    def notes(self) -> tuple[str, ...]:
        """Notes for readers of the comparison about how the file was parsed."""
        day = (
            "25/11/2026 were read as day/month/year"
            if self.style.day_first
            else "11/25/2026 were read as month/day/year"
        )
        advice = "" if self.style.day_is_certain else "; if that is wrong, write them as 2026-11-25"
        notes = [f"days such as {day}{advice}"] if self.has_ambiguous_days else []
        if self.style.comma:
            notes.append("a comma in an amount was read as the decimal point")
        for number, kind in ((self.total_lines, "of totals"), (self.empty_lines, "without an amount or tokens")):
            notes += (
                [f"{quantity(number, 'line')} {kind} {'was' if number == 1 else 'were'} passed over"] if number else []
            )
        return tuple(notes)

    def _currency(self, number: int, cells: Mapping[str, str]) -> str:
        named, amount = cells.get("currency", "").strip().upper()[:8], cells.get("amount", "")
        if named and not may_be_in(amount, named):
            message = f"the amount is in {currency_in(amount)}, and the line's currency is {named}"
            hint = "Correct one of them, or read no column of currencies: --columns currency= (with an empty name)."
            self.problems.append(Problem(message, "bill_line", hint, Where(self.file, number)))
        return named or currency_in(amount) or self.currency

    def _add_problem(self, number: int, role: str, expected: str) -> None:
        hint = f"Write {expected}, or name another column: --columns {role}=NAME."
        self.problems.append(Problem(f"{role} is not {expected}", "bill_line", hint, Where(self.file, number)))

    def _amount(self, number: int, cells: Mapping[str, str]) -> tuple[Decimal | None, int]:
        """(amount or None, decimals as written)."""
        text = cells.get("amount")
        if text is None or is_dash(text):
            return None, 0
        amount = parse_number(text, self.style)
        if amount is None:
            self._add_problem(number, "amount", "an amount of money")
            return None, 0
        if is_ambiguous(text, self.style):
            message = f"amount {text[:40]} may be thousands, or have three decimals"
            hint = "No other amount tells how the file writes them: write this one as 1234.00 or 1.2340."
            self.problems.append(Problem(message, "bill_line", hint, Where(self.file, number)))
        return amount, _decimals(amount)

    def _count(self, number: int, cells: Mapping[str, str], role: str) -> int | None:
        text = cells.get(role)
        if text is None:
            return None
        if (value := parse_count(text, self.style)) is None:
            self._add_problem(number, role, "a whole number")
        return value

    def _tokens(self, number: int, cells: Mapping[str, str]) -> dict[str, int]:
        """`input` (cached tokens included) and `output` -> count, where the line has one."""
        totals: dict[str, int] = {}
        for role in ("input", "cache_read", "cache_write", "cache_write_long"):
            value = self._count(number, cells, role)
            if value is not None:
                totals["input"] = totals.get("input", 0) + value
        output = self._count(number, cells, "output")
        return {**totals, "output": output} if output is not None else totals

    def _days(self, number: int, cells: Mapping[str, str]) -> tuple[date | None, date | None]:
        """(day, last day of several): a cell of days may name a whole month."""
        if (month := parse_month(cells.get("day", ""))) is not None:
            return month
        day = self._day(number, cells.get("day"))
        return day, self._last_day(day, cells.get("end"))

    def _day(self, number: int, text: str | None) -> date | None:
        if text is None:
            return None
        self.has_ambiguous_days |= has_slashes(text)
        try:
            return parse_day(text, self.style)
        except (ValueError, OverflowError, OSError):
            self._add_problem(number, "day", "a date such as 2026-11-25")
            return None

    def _last_day(self, day: date | None, text: str | None) -> date | None:
        """Last day of a line for several days; None for a single day. An unreadable end counts as none, since many
        files use the column's name for other things."""
        try:
            last = None if text is None else parse_last_day(text, self.style, exclusive=self.has_exclusive_ends)
        except (ValueError, OverflowError, OSError):
            return None
        return last if day is not None and last is not None and last > day else None


def _decimals(amount: Decimal) -> int:
    """Decimals of an amount as written."""
    exponent = amount.as_tuple().exponent
    return -exponent if isinstance(exponent, int) and exponent < 0 else 0


def _model_and_class(cells: Mapping[str, str]) -> tuple[str | None, str | None]:
    """(model, class of tokens) that the cells name; `gpt-4o-2024-08-06, input` in the model's cell names both."""
    name = cells.get("model")
    class_text = cells.get("class", "")
    if name is not None and normalize_name(name) in _NOT_MODELS:
        name = class_text or name
    if name is not None and ", " in name:
        name, _, class_text = name.rpartition(", ")
    words = _NOT_CACHED.sub("", (class_text or (name or "") if "quantity" in cells or class_text else "").lower())
    token_class = next((kind for kind, marks in _TOKEN_CLASSES if any(mark in words for mark in marks)), None)
    return name, token_class


def _add_quantity(cells: Mapping[str, str], token_class: str, tokens: dict[str, int], style: Style) -> None:
    """Add to `tokens` the quantity of a line for one class of tokens, unless its unit is not one of tokens."""
    value, unit = parse_number(cells["quantity"], style), cells.get("unit", "").lower()
    is_million = "1m" in unit or _MARKETPLACE in cells.get("class", "").lower()
    scale = 1_000_000 if is_million else 1000 if "1k" in unit or "1000" in unit else 1
    if value is None or value < 0 or (unit and not re.search(r"token|1k|1m|1000|unit", unit)):
        return
    total = value * scale
    if total == int(total):
        tokens.setdefault("output" if token_class == "output" else "input", int(total))
