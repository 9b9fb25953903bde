"""Values with units, as people write them: `800ms`, `99.5%`, `200 USD/month`, `0.40 USD/Mtok`, `8 KiB`, `2000/day`.

Every function takes the text (or a plain number where that is unambiguous) and raises `ValueError` with a sentence that
says how to write it; the loader adds the place in the file. Nothing is rounded, guessed or localised.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from ipaddress import IPv6Network, ip_network

from groundplan.core.errors import Invalid
from groundplan.core.money import MAX_AMOUNT, PICO, Picodollars, format_usd, parse_usd

PERIODS = ("day", "week", "month", "quarter", "year", "total")
"""Calendar periods over which a budget runs."""
WINDOWS = ("minute", "hour", "day", "month")
"""Windows over which a limit counts, in UTC."""
_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")

MAX_COST = 10**12 * PICO
"""Largest allocated cost: other currencies have small units, so amounts are larger than those of calls."""
DAYS_PER_PERIOD = {"hour": Decimal(1) / 24, "day": Decimal(1), "week": Decimal(7), "month": Decimal(30)}

_DURATION_UNITS = {
    "ms": 1,
    "s": 1000,
    "min": 60_000,
    "m": 60_000,
    "h": 3_600_000,
    "d": 86_400_000,
    "day": 86_400_000,
    "days": 86_400_000,
    "w": 604_800_000,
}
_SIZE_UNITS = {"B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_COUNT_UNITS = {"": 1, "k": 10**3, "M": 10**6}
_MAX_INTEGER = 2**53 - 1
_NUMBER = re.compile(r"(?P<number>\d{1,18}(?:\.\d{1,12})?)\s*(?P<unit>[A-Za-z%]*)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Limit:
    """An amount of money for each period: `200 USD/month`."""

    amount: Picodollars
    period: str
    """day | week | month | quarter | year | total"""

    def __str__(self) -> str:
        integer, _, fraction = format_usd(self.amount).partition(".")
        fraction = fraction.rstrip("0").ljust(2, "0") if fraction.strip("0") else ""
        return f"{integer}{'.' + fraction if fraction else ''} USD/{self.period}"


@dataclass(frozen=True, slots=True)
class Rate:
    """The most of something in a period: `600/minute`."""

    amount: int
    """A count, or picodollars."""
    period: str
    """minute | hour | day | month"""


@dataclass(frozen=True, slots=True)
class Frequency:
    """How often something happens: `2000/day`."""

    count: int
    period: str
    """hour | day | week | month"""

    @property
    def per_day(self) -> Decimal:
        return self.count / DAYS_PER_PERIOD[self.period]

    @property
    def per_month(self) -> Decimal:
        """In a month of 30 days."""
        return self.per_day * 30

    def __str__(self) -> str:
        return f"{self.count}/{self.period}"


def _split_number(value: object, expected: str) -> tuple[Decimal, str]:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    match = _NUMBER.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError(expected)
    return Decimal(match["number"]), match["unit"]


def _require_integer(amount: Decimal, expected: str) -> int:
    result = int(amount)
    if result != amount or result > _MAX_INTEGER:
        raise ValueError(expected)
    return result


def duration_ms(value: object) -> int:
    """Milliseconds of `800ms`, `2s`, `1.5h`, `90d`; the unit is required."""
    expected = "write a duration like 800ms, 2s, 15min, 1h or 90d"
    number, unit = _split_number(value, expected)
    if unit not in _DURATION_UNITS:
        raise ValueError(expected)
    return _require_integer(number * _DURATION_UNITS[unit], expected)


def size_bytes(value: object) -> int:
    """Bytes of `6000 B`, `8 KiB`, `2 MB`; the unit is required."""
    expected = "write a size like 6000 B, 8 KiB or 2 MB"
    number, unit = _split_number(value, expected)
    if unit not in _SIZE_UNITS:
        raise ValueError(expected)
    return _require_integer(number * _SIZE_UNITS[unit], expected)


def fraction(value: object) -> float:
    """0..1 of `99.5%` (more than 100% is refused); the sign % is required."""
    expected = "write a percentage like 99.5%, from 0% to 100%"
    number, unit = _split_number(value, expected)
    if unit != "%" or number > 100:
        raise ValueError(expected)
    return float(number / 100)


def format_like(value: object, example: object) -> object:
    """Write a parsed value in the notation of `example`: 3600000 with `800ms` is `1h`."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not isinstance(example, str):
        return value
    if example.endswith("%"):
        return f"{round(value * 100, 6):g}%"
    if " USD" in example:
        integer, _, decimals = format_usd(int(value)).partition(".")
        return f"{integer}.{decimals}".rstrip("0").rstrip(".") + example[example.index(" USD") :]
    for units, gap in ((_DURATION_UNITS, ""), (_SIZE_UNITS, " ")):
        if re.sub(r"[\d. ]+", "", example) in units:
            names = ("d", "h", "min", "s", "ms") if units is _DURATION_UNITS else ("GB", "MB", "kB", "B")
            name = next(
                name for name in names if (value % units[name] == 0 and value >= units[name]) or units[name] == 1
            )
            return f"{int(value) // units[name]}{gap}{name}"
    return value


def count(value: object) -> int:
    """A whole number, `1000`, `1,000`, `10k` or `2M`."""
    expected = "write a whole number like 1000, 10k or 2M"
    if isinstance(value, str) and re.fullmatch(r"\d{1,3}(,\d{3})+", value.strip(), re.ASCII):
        value = value.replace(",", "")
    number, unit = _split_number(value, expected)
    if unit not in _COUNT_UNITS:
        raise ValueError(expected)
    return _require_integer(number * _COUNT_UNITS[unit], expected)


def count_or_unlimited(value: object) -> int | None:
    """As `count`; `unlimited` is None."""
    if value is None or (isinstance(value, str) and value.strip() == "unlimited"):
        return None
    try:
        return count(value)
    except ValueError:
        raise ValueError("write a whole number like 1000, or unlimited") from None


def tokens_per_byte(value: object) -> float:
    """A number above 0 and at most 100, with at most 6 decimals, so that bounds computed from it are exact."""
    expected = "write a number like 1 or 1.5: above 0, at most 100, with at most 6 decimals"
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(expected)
    amount = Decimal(repr(value))
    if not amount.is_finite() or not 0 < amount <= 100 or amount * 1_000_000 % 1:
        raise ValueError(expected)
    return float(amount)


def frequency(value: object) -> Frequency:
    """`2000/day`; the period is hour, day, week or month."""
    expected = "write how often like 2000/day (hour, day, week or month)"
    if not isinstance(value, str):
        raise ValueError(expected)
    number, _, period = value.partition("/")
    if period.strip() not in DAYS_PER_PERIOD:
        raise ValueError(expected)
    try:
        return Frequency(count(number), period.strip())
    except ValueError:
        raise ValueError(expected) from None


class _TooLargeError(ValueError):
    """An amount is too large; what is expected otherwise does not tell that."""


def usd(value: object) -> Picodollars:
    """Picodollars of `12.50 USD`; the currency is required, other currencies are refused."""
    return _usd(value, MAX_AMOUNT)


def _usd(value: object, max_amount: int) -> Picodollars:
    expected = "write an amount like 12.50 USD (only US dollars, at most 12 decimals)"
    if not isinstance(value, str) or not value.strip().endswith("USD"):
        raise ValueError(expected)
    try:
        return parse_usd(value, max_amount)
    except Invalid as error:
        if error.code == "money_range":
            most = max_amount // PICO // 1_000_000 * 1_000_000
            raise _TooLargeError(
                f"write at most {most:,}; a larger budget or limit is one of a shorter period"
            ) from error
        raise ValueError(expected) from error


def amount(value: object) -> Picodollars:
    """As `usd`, for a document that may declare another currency; its code has been replaced by USD here."""
    return _amount(value, MAX_AMOUNT)


def _amount(value: object, max_amount: int) -> Picodollars:
    try:
        return _usd(value, max_amount)
    except _TooLargeError:
        raise
    except ValueError:
        raise ValueError("write an amount like 12.50 USD or 11.60 EUR (0 or more, at most 12 decimals)") from None


def cost_amount(value: object) -> Picodollars:
    """As `amount`, with the larger bound `MAX_COST` for allocated costs, which no record of a call carries: a server
    costs millions of yen."""
    return _amount(value, MAX_COST)


def periodic_cost(value: object) -> Limit:
    """As `limit`, for a recurring cost in any currency: the period `total` is refused."""
    expected = (
        "write what it costs in a day, week, month, quarter or year, 0 or more, like 200 USD/month or 180 EUR/month; "
        "what costs by the unit is rate: 45 USD with per: review hour, and what is taken off is term: credit"
    )
    try:
        cost = _limit(value, MAX_COST)
    except _TooLargeError:
        raise
    except ValueError:
        raise ValueError(expected) from None
    if cost.period == "total":
        raise ValueError(expected)
    return cost


_FOREIGN_CURRENCY = re.compile(r"(?:(?!USD)[A-Z]{3}|[€£¥])\s*$")
_USD_ONLY = ", in USD: what is reserved for a call must not change with a rate; prices and allocations may be in others"


def limit(value: object) -> Limit:
    """`200 USD/month`; the period is day, week, month, quarter, year or total."""
    return _limit(value, MAX_AMOUNT)


def _limit(value: object, max_amount: int) -> Limit:
    expected = "write a limit like 200 USD/month (day, week, month, quarter, year or total)"
    if not isinstance(value, str):
        raise ValueError(expected)
    amount, _, period = value.partition("/")
    expected += _USD_ONLY if _FOREIGN_CURRENCY.search(amount) else ""
    if period.strip() not in PERIODS:
        raise ValueError(expected)
    try:
        return Limit(_usd(amount, max_amount), period.strip())
    except _TooLargeError:
        raise
    except ValueError:
        raise ValueError(expected) from None


def use_rates(value: object) -> tuple[Rate, ...]:
    """`600/minute`, or a list of such; the period is minute, hour, day or month."""
    expected = "write how much like 600/minute (minute, hour, day or month)"
    return _parse_rates(value, expected, count)


def money_rates(value: object) -> tuple[Rate, ...]:
    """`5 USD/day`, or a list of such; the period is minute, hour, day or month."""
    foreign = isinstance(value, str) and _FOREIGN_CURRENCY.search(value.partition("/")[0])
    expected = "write how much like 5 USD/day (minute, hour, day or month)"
    return _parse_rates(value, expected + (_USD_ONLY if foreign else ""), usd)


def _parse_rates(value: object, expected: str, parse_amount: Callable[[object], int]) -> tuple[Rate, ...]:
    rates: list[Rate] = []
    for item in value if isinstance(value, list | tuple) else [value]:
        if isinstance(item, Rate):
            rates.append(item)
            continue
        amount, _, period = item.partition("/") if isinstance(item, str) else ("", "", "")
        period = period.strip()
        try:
            rate = Rate(parse_amount(amount.strip()), period)
        except _TooLargeError:
            raise
        except ValueError:
            raise ValueError(expected) from None
        if period not in WINDOWS or rate.amount < 1 or any(rate.period == other.period for other in rates):
            raise ValueError(expected + ", each period once")
        rates.append(rate)
    return tuple(rates)


def period_start(period: str, value: object) -> str:
    """Check when a period begins: a weekday for a week, a day (1 to 28) for a month, MM-DD (to the 28th) for a quarter
    or year."""
    text = str(value).strip().lower()
    if period == "week" and text in _WEEKDAYS:
        return text
    if period == "month" and re.fullmatch(r"[1-9]|1\d|2[0-8]", text, re.ASCII):
        return text
    if period in ("quarter", "year") and re.fullmatch(r"(0[1-9]|1[0-2])-(0[1-9]|1\d|2[0-8])", text, re.ASCII):
        return text
    raise ValueError("starts is a weekday for USD/week, 1 to 28 for USD/month, MM-DD for USD/quarter and USD/year")


def starts_text(value: object) -> str:
    """The start of a period as written; `period_start` checks whether it fits the period."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError("write a weekday, a day of the month, or MM-DD")
    return str(value).strip().lower()


def token_price(value: object) -> int:
    """Picodollars per million tokens of `0.40 USD/Mtok` or `0.0004 USD/ktok`; finer than a picodollar is refused."""
    expected = "write a price like 0.40 USD/Mtok (per million tokens)"
    if not isinstance(value, str):
        raise ValueError(expected)
    amount, _, per = value.partition("/")
    scale = {"Mtok": 1, "ktok": 1000}.get(per.strip())
    if scale is None:
        raise ValueError(expected)
    try:
        return usd(amount) * scale
    except ValueError:
        raise ValueError(expected) from None


_IPV4_MAPPED_BITS = 96
"""Length of the prefix of IPv4-mapped IPv6 addresses (`::ffff:10.0.0.1`)."""


def network(value: object) -> str:
    """`10.0.0.0/8`, `2001:db8::/32` or one address, normalised. IPv4-mapped IPv6 becomes IPv4."""
    expected = "write a network like 10.0.0.0/8, or one address"
    if not isinstance(value, str):
        raise ValueError(expected)
    try:
        parsed = ip_network(value.strip())
    except ValueError:
        raise ValueError(expected) from None
    if (
        isinstance(parsed, IPv6Network)
        and (ipv4_address := parsed.network_address.ipv4_mapped)
        and parsed.prefixlen >= _IPV4_MAPPED_BITS
    ):
        return str(ip_network((ipv4_address, parsed.prefixlen - _IPV4_MAPPED_BITS)))
    return str(parsed)


def iso_date(value: object) -> date:
    """`2026-01-31`."""
    expected = "write a date like 2026-01-31"
    if isinstance(value, date):
        return value
    if not isinstance(value, str) or not re.fullmatch(r"\d{4}-\d\d-\d\d", value.strip(), re.ASCII):
        raise ValueError(expected)
    try:
        return date.fromisoformat(value.strip())
    except ValueError:
        raise ValueError(expected) from None


def day_window(value: object) -> tuple[int, int]:
    """(start, end) in minutes of a day of `16:30-00:30`, UTC; an end before the start is on the next day."""
    expected = "write hours of a day, UTC, like 16:30-00:30"
    match = re.fullmatch(r"([01]\d|2[0-3]):([0-5]\d) ?- ?([01]\d|2[0-3]):([0-5]\d)", str(value).strip(), re.ASCII)
    if not isinstance(value, str) or match is None:
        raise ValueError(expected)
    start, end = int(match[1]) * 60 + int(match[2]), int(match[3]) * 60 + int(match[4])
    if start == end:
        raise ValueError(expected + ", which are not the whole day")
    return start, end
