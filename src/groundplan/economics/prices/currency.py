"""Converts amounts of other currencies to USD, by the rate declared for a day or given for one bill. Pure; a missing
rate is an error."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import date
from decimal import ROUND_CEILING, ROUND_HALF_EVEN, Decimal

import msgspec

from groundplan.blueprint.model import CurrencyRate, RateDetails, Rates
from groundplan.core.errors import Invalid
from groundplan.core.money import PICO

DatedCurrencyRates = Mapping[str, Sequence[CurrencyRate]]
USD = "USD"


def rate_on(currencies: DatedCurrencyRates, currency: str, day: date) -> int:
    """Picodollars for one unit of the currency on a day.

    Raises `Invalid` (`currency_unknown`, `currency_rate_missing`).
    """
    if currency == USD:
        return PICO
    if currency not in currencies:
        raise Invalid(
            f"no rate of {currency} is declared",
            code="currency_unknown",
            hint=f"Declare it at the company: currencies: {{{currency}: {{source: ..., rates: [...]}}}}.",
        )
    in_force = [each for each in currencies[currency] if each.since <= day.isoformat()]
    if not in_force:
        first_day = min((each.since for each in currencies[currency]), default="never")
        raise Invalid(
            f"there is no rate of {currency} for {day}: the first one holds from {first_day}",
            code="currency_rate_missing",
            hint=f"Add {{from: {day}, rate: ... USD}} to the rates of {currency}.",
        )
    return max(in_force, key=lambda each: each.since).rate


def to_usd(amount: int, rate: int) -> int:
    """Convert an amount in 10^-12 units of a currency to picodollars; half a picodollar is rounded to even."""
    return int((Decimal(amount) * rate / PICO).to_integral_value(ROUND_HALF_EVEN))


def rates_in_usd(rates: Rates, rate: int) -> Rates:
    """Convert rates in another currency to USD, each rounded up, so that a cost is never understated."""

    def usd(value: int) -> int:
        return int((Decimal(value) * rate / PICO).to_integral_value(ROUND_CEILING))

    other_fields = {
        "long_above", "shortest", "windows", "details", "long", "batch", "priority", "flex", "images", "source",
        "effective", "then", "then_from",
    }  # fmt: skip
    plain = {
        name: usd(value)
        for name in Rates.__struct_fields__
        if name not in other_fields and (value := getattr(rates, name)) is not None
    }
    nested = {
        name: rates_in_usd(inner, rate)
        for name in ("long", "batch", "priority", "flex")
        if (inner := getattr(rates, name)) is not None
    }
    details = {} if rates.details is None else msgspec.structs.asdict(rates.details)
    detail_rates = {name: usd(value) for name, value in details.items() if value is not None}
    return msgspec.structs.replace(
        rates,
        **plain,
        **nested,
        images={name: usd(value) for name, value in rates.images.items()},
        details=RateDetails(**detail_rates) if detail_rates else None,
        windows=[msgspec.structs.replace(each, rates=rates_in_usd(each.rates, rate)) for each in rates.windows],
    )


def parse_exchange_rates(texts: Mapping[str, str]) -> dict[str, Decimal]:
    """Parse currency -> text into currency -> USD for one unit. Raises `Invalid` (`bill_rate`)."""
    rates = {}
    for currency, text in texts.items():
        if not re.fullmatch(r"\d{1,9}(?:\.\d{1,12})?", text, re.ASCII) or not Decimal(text):
            raise Invalid(f"the rate of {currency[:8]} is not a number", code="bill_rate", hint="Write EUR=1.08.")
        rates[currency.strip().upper()] = Decimal(text)
    return rates
