"""Money is an integer number of picodollars (10^-12 USD) in memory and `numeric(30,12)` USD in the database.

Nothing here rounds silently: a text with more than 12 decimals is refused, and division rounds up (a cost is never
understated). Other currencies and rates are not handled here.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import NewType

from groundplan.core.errors import Invalid

Picodollars = NewType("Picodollars", int)
"""10^-12 US dollars."""

PICO = 10**12
MAX_AMOUNT = Picodollars(2**63 - 1)
"""Largest amount that one record may carry, about 9.2 million USD."""

_DIGITS = 20
"""Most digits of whole dollars; longer numbers exceed every limit."""
_AMOUNT = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?:USD)?", re.ASCII)


def parse_usd(text: str, most: int = MAX_AMOUNT) -> Picodollars:
    """Read `"200"`, `"200 USD"` or `"0.000000000001"`; raises `Invalid` on anything else, signs included, and on more
    than `most`."""
    match = _AMOUNT.fullmatch(text.strip())
    if match is None:
        raise Invalid(f"'{text[:40]}' is not an amount of money", code="money_syntax", hint="Write it like 12.50 USD.")
    whole, _, fraction = match["number"].partition(".")
    if len(fraction.rstrip("0")) > 12:
        raise Invalid(
            f"'{text[:40]}' has more than 12 decimals", code="money_precision", hint="The smallest unit is 10^-12 USD."
        )
    whole = whole.lstrip("0") or "0"
    amount = int(whole[:_DIGITS]) * PICO + int(fraction[:12].ljust(12, "0") or 0)
    if amount > most or len(whole) > _DIGITS:
        hint = f"Use at most {most // PICO // 1_000_000 * 1_000_000:,} USD."
        raise Invalid(f"'{text[:40]}' is too large", code="money_range", hint=hint)
    return Picodollars(amount)


def format_usd(amount: Picodollars | int) -> str:
    """Exact decimal text of USD with 12 decimals, as in JSON fields that end in `_usd`: `"0.012345678901"`."""
    if amount < 0:
        return "-" + format_usd(-amount)
    return f"{amount // PICO}.{amount % PICO:012d}"


def optional_usd(amount: Picodollars | int | None) -> str | None:
    """`format_usd`, or None for None."""
    return None if amount is None else format_usd(amount)


def from_usd_text(text: str) -> Picodollars:
    """The inverse of `format_usd`, for sums of any size and sign. Use `parse_usd` for what people write."""
    return from_decimal(Decimal(text))


def format_numeric(value: Decimal) -> str:
    """`format_usd` of a value from a `numeric(30,12)` column."""
    return format_usd(from_decimal(value))


_NEARLY_ONE = Decimal("0.9995")
"""Rounded to three digits this is 1, and `$1.000` would be read as a thousand."""


def short_usd(amount: Picodollars | int) -> str:
    """For people: at least two decimals, small amounts with three significant digits: `$0.00214`, `$12.30`."""
    value = Decimal(abs(amount)) / PICO
    sign = "-" if amount < 0 else ""
    if value == 0 or value >= _NEARLY_ONE:
        return f"{sign}${value:,.2f}"
    digits = max(2, 2 - value.adjusted())
    return f"{sign}${value:.{digits}f}"


def distinct_usd(amount: Picodollars | int, other: Picodollars | int) -> str:
    """`short_usd`, or the exact amount where a different `other` would be written the same."""
    short = short_usd(amount)
    return short if amount == other or short != short_usd(other) else f"${format_plain(to_decimal(amount))}"


def format_plain(amount: Decimal, decimals: int = 2) -> str:
    """All significant digits without exponent, with at least `decimals` decimals and no trailing zeros after them."""
    whole, _, fraction = f"{amount:f}".partition(".")
    return f"{whole}.{fraction.rstrip('0').ljust(decimals, '0')}"


def to_decimal(amount: Picodollars | int) -> Decimal:
    """USD for a `numeric(30,12)` column."""
    return Decimal(amount).scaleb(-12)


def from_decimal(value: Decimal) -> Picodollars:
    """Picodollars of a `numeric(30,12)` column. Raises `Invalid` if it has finer parts."""
    scaled = value.scaleb(12)
    amount = int(scaled)
    if amount != scaled:
        raise Invalid(f"{value} USD is finer than a picodollar", code="money_precision", hint="Store 12 decimals.")
    return Picodollars(amount)


def ceil_div(numerator: int, denominator: int) -> int:
    """Integer division rounded up."""
    return -(-numerator // denominator)
