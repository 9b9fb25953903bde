"""Rates of other currencies, each with the day from which it holds: declared, never fetched. Inside, amounts are USD.

Types and the reading of amounts alone; converting is `economics.prices.currency`.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from groundplan.catalog.base import Strict
from groundplan.catalog.fields import Date, Line, Usd
from groundplan.core.currencies import CODES, USD

_CODE = re.compile(r"(?<=\d)\s*([A-Z]{3})(?=$|/)", re.ASCII)


def _known(code: str) -> str:
    if code not in CODES:
        raise ValueError(f"{code} is no currency: write a code of ISO 4217 such as EUR")
    if code == USD:
        raise ValueError("USD needs no rate: every amount is kept in it")
    return code


Code = Annotated[str, Field(pattern="^[A-Z]{3}$"), AfterValidator(_known)]


class DatedRate(Strict):
    """What one unit costs from a day on, until the next one."""

    since: Date = Field(alias="from")
    """First day."""
    rate: Annotated[Usd, Field(gt=0)]
    """Of one unit: 1.0832 USD."""


class CurrencyRule(Strict):
    """A currency in which amounts may be written."""

    source: Line
    """Where the rates are from, such as the reference rates of a central bank."""
    rates: Annotated[tuple[DatedRate, ...], BeforeValidator(lambda v: tuple(v) if isinstance(v, list) else v)] = Field(
        min_length=1
    )

    @model_validator(mode="after")
    def _one_a_day(self) -> Self:
        days = [each.since for each in self.rates]
        if len(set(days)) != len(days):
            raise ValueError("two rates begin on the same day")
        return self


def split_currency(value: Any) -> tuple[Any, str]:
    """(the same with USD in its place, currency) of text like `120 EUR/month`, or of a mapping of such texts.

    Raises `ValueError` where several currencies are mixed, or one is none.
    """
    found: set[str] = set()

    def read(part: Any) -> Any:
        if isinstance(part, str):
            match = _CODE.search(part)
            if match is None or match[1] == USD:
                found.update([USD] if match else [])
                return part
            found.add(_known(match[1]))
            return f"{part[: match.start(1)]}{USD}{part[match.end(1) :]}"
        if isinstance(part, dict):
            return {key: read(each) for key, each in part.items()}
        return [read(each) for each in part] if isinstance(part, list | tuple) else part

    text = read(value)
    said = value.get("currency") if isinstance(value, dict) else None
    found.update([str(said)] if said and said != next(iter(found), USD) else [])
    if len(found) > 1:
        raise ValueError(f"amounts in {' and '.join(sorted(found))} do not go together: write one currency")
    return text, next(iter(found), USD)
