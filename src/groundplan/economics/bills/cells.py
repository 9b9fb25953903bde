"""Parses cells of a bill: amounts, counts, currencies and days as spreadsheets of several countries write them. Pure.

The meaning of a comma, a point or 05/11/2026 is derived from all cells of a file together, since a single cell is
ambiguous. This module converts no currency.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Final

from groundplan.core.currencies import CODES, USD
from groundplan.core.months import add_months

MAX_AMOUNT: Final = Decimal(10) ** 12
MIN_EXPONENT: Final = -30
MAX_LENGTH: Final = 120
"""Characters of an amount."""
_CURRENCY_SIGNS: Final = {
    "$": USD, "US$": USD, "€": "EUR", "£": "GBP", "₹": "INR", "₩": "KRW", "A$": "AUD", "AU$": "AUD", "CA$": "CAD",
    "HK$": "HKD", "MX$": "MXN", "NT$": "TWD", "NZ$": "NZD", "R$": "BRL",
}  # fmt: skip
"""Signs that mean one currency everywhere; others (¥, kr, C$) are refused."""
_DOLLARS: Final = frozenset({USD, "AUD", "CAD", "HKD", "MXN", "NZD", "SGD", "TWD"})
"""Currencies that are written with `$` alone where a code beside it tells which one it is."""
_SPACES: Final = dict.fromkeys(map(ord, "\u00a0\u202f\u2009"), " ") | {ord("\u2212"): "-", ord("\u2019"): "'"}
_CURRENCY: Final = r"(?:[A-Z]{0,2}\$|[€£₹₩]|[A-Z]{3})"
_MONEY: Final = re.compile(
    rf"(?:(?P<lead>{_CURRENCY})\s*(?=\())?(?P<open>\()?\s*(?P<sign>[-+]?)\s*(?P<before>{_CURRENCY})?\s*(?P<inner>[-+]?)"
    rf"(?P<number>[0-9.,' ]*[0-9.](?:[eE][-+]?\d{{1,2}})?)\s*(?P<after>{_CURRENCY})?\s*(?P<back>-?)\s*(?P<close>\))?",
    re.ASCII,
)
_DASH: Final = re.compile(rf"(?:{_CURRENCY} ?)?[-\u2013\u2014]")
_GROUPED: Final = re.compile(r"\d{1,3}(?:[ ']\d{3})+(?:[.,]\d+)?", re.ASCII)
_POINT_GROUPS: Final = re.compile(r"\d{1,3}(?:\.\d{3})+,\d+|\d{1,3}(?:\.\d{3}){2,}", re.ASCII)
"""1.234,56 and 1.234.567: a point between thousands."""
_COMMA_GROUPS: Final = re.compile(r"\d{1,3}(?:,\d{2,3})+\.\d+|\d{1,3}(?:,\d{2,3})+,\d{3}", re.ASCII)
"""1,234.56 and 1,00,000: a comma between thousands."""
_SINGLE_COMMA: Final = re.compile(r"\d+,\d+", re.ASCII)
_SCIENTIFIC: Final = re.compile(r"\d,\d+[eE][-+]?\d{1,2}", re.ASCII)
"""1,18E-05, as a spreadsheet saves a small amount where a comma is the decimal point."""
_AMBIGUOUS: Final = re.compile(r"[1-9]\d{0,2}[.,]\d{3}", re.ASCII)
"""1,234 and 1.234, whose separator may be the decimal point or one between thousands."""
_PLAIN: Final = re.compile(r"\d{0,24}(?:\.\d{0,30})?(?:[eE][-+]?\d{1,2})?", re.ASCII)
_SLASHED_DAY: Final = re.compile(r"(\d{1,2})([/.])(\d{1,2})[/.](\d{4})(?:[ T].*)?", re.ASCII)
_DAY_FORMATS: Final = ("%b %d, %Y", "%B %d, %Y", "%b %d %Y", "%d %b %Y", "%d %B %Y", "%d-%b-%Y")
"""Nov 5, 2026 and 5 November 2026."""
_MONTH: Final = re.compile(r"20\d{4}|\d{4}[-/]\d\d|\d\d[-/]\d{4}|[A-Za-z]{3,9} \d{4}", re.ASCII)
_MONTH_FORMATS: Final = ("%Y%m", "%Y-%m", "%Y/%m", "%m-%Y", "%m/%Y", "%b %Y", "%B %Y")
_MIDNIGHT: Final = re.compile(r"[ T]00:00(?::00(?:\.0+)?)?(?: ?(?:Z|UTC|\+00:00))?$", re.ASCII)
_HEAD_CURRENCY: Final = re.compile(r"[\s_]*\(\s*(US\$|[$€£]|[A-Za-z]{3})\s*\)\s*$|[\s_]+([A-Z]{3}|[a-z]{3})\s*$")


@dataclass(frozen=True, slots=True)
class Style:
    """How a file writes numbers and days. `comma`: the decimal point is a comma; None: unknown. `semicolons`: cells are
    separated by semicolons, as where a comma is the decimal point. `day_first`: 05/11/2026 is in November;
    `day_is_certain`: some day can be read in one order only."""

    comma: bool | None = None
    semicolons: bool = False
    day_first: bool = False
    day_is_certain: bool = False
    mixed: bool = False
    """Whether some amounts have a decimal comma and others a decimal point."""


def detect_style(amounts: Iterable[str], days: Iterable[str], *, semicolons: bool) -> Style:
    """Derive the style from all amounts and days of a file."""
    commas = points = False
    for text in amounts:
        number = _digits(text)
        commas |= number is not None and _has_decimal_comma(number)
        points |= number is not None and _has_decimal_point(number)
    slashed = [match for text in days if (match := _SLASHED_DAY.fullmatch(text)) and match[2] == "/"]
    first_is_day, second_is_day = (any(int(match[group]) > 12 for match in slashed) for group in (1, 3))
    comma = commas if commas is not points else None
    # a locale with a decimal comma never writes the month first
    day_first = not second_is_day and (first_is_day or comma is True or (semicolons and comma is None))
    return Style(comma, semicolons, day_first, first_is_day or second_is_day, mixed=commas and points)


def parse_number(text: str, style: Style) -> Decimal | None:
    """Parse an exact finite number; None if the text is not a number, or names a currency that is not known.
    Understands currency signs, negatives in brackets or with a minus at the end, and thousands separators."""
    match = _match_money(text)
    plain = None if match is None else _with_decimal_point(_strip_groups(match["number"].strip()), style)
    if match is None or plain is None or (match["open"] is None) is not (match["close"] is None):
        return None
    signs = [match["sign"], match["inner"], match["back"], "-" if match["open"] else ""]
    if sum(bool(sign) for sign in signs) > 1 or _PLAIN.fullmatch(plain) is None or _currency(match) is None:
        return None
    try:
        value = Decimal(plain)
    except InvalidOperation:
        return None
    exponent = value.as_tuple().exponent
    if abs(value) > MAX_AMOUNT or not isinstance(exponent, int) or exponent < MIN_EXPONENT:
        return None
    return -value if "-" in signs else value


def is_dash(text: str) -> bool:
    """Whether the text is a dash, with or without a currency, as accountants write zero."""
    return _DASH.fullmatch(_normalize_spaces(text)) is not None


def parse_count(text: str, style: Style) -> int | None:
    """Parse a non-negative integer; None if the text is none. Where the separator may be either (1.234), it separates
    thousands, since a count has no fraction."""
    value = parse_number(text, style)
    if value is not None and value != int(value) and _AMBIGUOUS.fullmatch(text.strip()):
        value = Decimal(text.strip().replace(",", "").replace(".", ""))
    return None if value is None or value < 0 or value != int(value) else int(value)


def is_ambiguous(text: str, style: Style) -> bool:
    """Whether the mark in an amount (1,234 or 1.234) may be its decimal point or one between thousands, and neither the
    other amounts of the file, nor a dollar sign, nor semicolons between cells tell which."""
    number = _digits(text)
    if number is None or style.comma is not None or _AMBIGUOUS.fullmatch(number) is None:
        return False
    has_dollar_sign = "$" in text and currency_in(text) in _DOLLARS
    if style.mixed or "," in number:
        return style.mixed or style.semicolons is has_dollar_sign
    return style.semicolons or (bool(currency_in(text)) and not has_dollar_sign)


def currency_in(text: str) -> str:
    """Currency that an amount names (€12.34, 12.34 EUR, $12.34 CAD); empty where it names none."""
    match = _match_money(text)
    return (_currency(match) if match else "") or ""


def may_be_in(text: str, currency: str) -> bool:
    """Whether what an amount says of its currency agrees with the currency that its line names."""
    named = currency_in(text)
    only_sign = "$" in text and "US$" not in text and named == USD
    return named in ("", currency) or (only_sign and currency in _DOLLARS)


def split_head_currency(name: str) -> tuple[str, str | None]:
    """Split the name of a column into (name, currency or None): `Cost (€)` and `cost_eur` are costs in EUR."""
    name = re.sub(r"[\s_]+", "_", name)
    match = _HEAD_CURRENCY.search(name)
    code = _currency_code((match[1] or match[2]).upper()) if match else None
    return (name, None) if match is None or code is None else (name[: match.start()], code)


def parse_day(text: str, style: Style) -> date:
    """UTC day of an ISO date or time, of seconds (or milliseconds) since 1970, or of a date as people write it. Raises
    `ValueError`, `OverflowError` or `OSError` if the text is no date."""
    if slashed := _SLASHED_DAY.fullmatch(text):
        first, second, year = int(slashed[1]), int(slashed[3]), int(slashed[4])
        day_first = style.day_first or slashed[2] == "." or first > 12
        return date(year, second, first) if day_first else date(year, first, second)
    if re.fullmatch(r"\d{10}(\d{3})?(\.\d+)?", text, re.ASCII):
        return datetime.fromtimestamp(int(text[:10]), UTC).date()
    if re.fullmatch(r"\d{8}|\d{4}/\d\d/\d\d", text, re.ASCII):
        return date.fromisoformat(text.replace("/", ""))
    if text[-4:].isdigit() and not text[:4].isdigit() and any(c.isalpha() for c in text):
        return _parse_named_day(text)
    moment = datetime.fromisoformat(text.replace(" UTC", "+00:00").replace("Z", "+00:00"))
    return (moment.astimezone(UTC) if moment.tzinfo else moment).date()


def parse_month(text: str) -> tuple[date, date] | None:
    """First and last day of a whole month (`2026-11`, `11/2026`, `Nov 2026`); None if the text is no month."""
    for form in _MONTH_FORMATS if _MONTH.fullmatch(text) else ():
        with suppress(ValueError):
            first = datetime.strptime(text, form).replace(tzinfo=UTC).date()
            return first, add_months(first, 1) - timedelta(days=1)
    return None


def parse_last_day(text: str, style: Style, *, exclusive: bool) -> date:
    """Last day, UTC, of a period with this end: the day before if the end is midnight, or names no time and ends are
    `exclusive`. Raises as `parse_day`."""
    day = parse_day(text, style)
    seconds = re.fullmatch(r"(\d{10})(?:\d{3})?(?:\.\d+)?", text, re.ASCII)
    midnight = int(seconds[1]) % 86_400 == 0 if seconds else _MIDNIGHT.search(text) is not None
    return day - timedelta(days=1) if midnight or (exclusive and ":" not in text) else day


def has_slashes(text: str) -> bool:
    """Whether a day is written with slashes, so that the order of day and month is ambiguous."""
    match = _SLASHED_DAY.fullmatch(text)
    return match is not None and match[2] == "/"


def _parse_named_day(text: str) -> date:
    for form in _DAY_FORMATS:
        try:
            return datetime.strptime(text, form).replace(tzinfo=UTC).date()
        except ValueError:
            continue
    raise ValueError(text)


def _match_money(text: str) -> re.Match[str] | None:
    """Match the parts of an amount. Spaces are collapsed and the length is bounded, since the pattern backtracks."""
    text = _normalize_spaces(text)
    return _MONEY.fullmatch(text) if len(text) <= MAX_LENGTH else None


def _normalize_spaces(text: str) -> str:
    return " ".join(text.translate(_SPACES).split())


def _currency(match: re.Match[str]) -> str | None:
    """Code of the currency of an amount; empty where it names none, None where it is unknown or there are several."""
    names = [name for group in ("lead", "before", "after") if (name := match[group])]
    codes = {_currency_code(name) for name in names}
    if len(names) == 2 and "$" in names and codes <= _DOLLARS:
        codes.discard(USD)  # `$5 CAD`: the sign is that of the code
    return (codes or {USD if names else ""}).pop() if len(codes) < 2 else None


def _currency_code(text: str) -> str | None:
    code = _CURRENCY_SIGNS.get(text, text)
    return code if code == USD or code in CODES else None


def _digits(text: str) -> str | None:
    """Digits, points and commas of an amount; None if it is not an amount."""
    match = _match_money(text)
    return None if match is None else _strip_groups(match["number"].strip())


def _strip_groups(plain: str) -> str:
    return plain.replace(" ", "").replace("'", "") if _GROUPED.fullmatch(plain) else plain


def _has_decimal_comma(plain: str) -> bool:
    """Whether a comma can only be the decimal point."""
    if _SINGLE_COMMA.fullmatch(plain):
        return _AMBIGUOUS.fullmatch(plain) is None
    return _POINT_GROUPS.fullmatch(plain) is not None or _SCIENTIFIC.fullmatch(plain) is not None


def _has_decimal_point(plain: str) -> bool:
    """Whether a point can only be the decimal point."""
    if "," not in plain and plain.count(".") == 1:
        return _AMBIGUOUS.fullmatch(plain) is None
    return _COMMA_GROUPS.fullmatch(plain) is not None


def _with_decimal_point(plain: str, style: Style) -> str | None:
    """Normalise to a number with a decimal point and without thousands separators; None where the text is unclear."""
    if _POINT_GROUPS.fullmatch(plain):
        return plain.replace(".", "").replace(",", ".")
    if _COMMA_GROUPS.fullmatch(plain):
        return plain.replace(",", "")
    if _SINGLE_COMMA.fullmatch(plain):
        thousand = _AMBIGUOUS.fullmatch(plain) is not None
        decimal = style.comma is True or not thousand or (style.comma is None and style.semicolons)
        return plain.replace(",", "." if decimal else "")
    if _SCIENTIFIC.fullmatch(plain):
        return plain.replace(",", ".")
    if style.comma is True and _AMBIGUOUS.fullmatch(plain):
        return plain.replace(".", "")
    return None if "," in plain or " " in plain or "'" in plain else plain
