"""Lines of a bill and attempts of the ledger that belong together, compared: rows whose amounts add up to
the difference.

Which belong together is decided in `match`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from uuid import UUID

from groundplan.blueprint.model import Rates
from groundplan.core.money import PICO
from groundplan.core.words import quantity
from groundplan.economics.bills.explain_gap import GapPart, Side, explain_gap, value_of_tokens
from groundplan.economics.bills.model import Attempt, Row
from groundplan.economics.bills.parse import Bill, BillLine
from groundplan.economics.prices.currency import DatedCurrencyRates

WHOLE_UNIT_CURRENCIES = frozenset(
    {"BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "VND", "VUV", "XAF", "XOF", "XPF"}
)
"""Currencies without fractions in bills."""


@dataclass(slots=True)
class Comparison:
    """What the comparison collects."""

    bill: Bill
    rates: Mapping[str, Rates]
    exchange: dict[str, Decimal]
    dated: DatedCurrencyRates = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    unpriced: dict[str, int] = field(default_factory=dict)
    """Currency without a rate -> lines."""
    decimals: int = 0
    """The most that any amount of the file was written with, since zeros at the end are often left out."""
    usage_only: bool = False
    """The bill has no amounts at all."""
    by_model: dict[str, Rates] = field(default_factory=dict)
    unvalued: int = 0
    total: Decimal = Decimal(0)
    """Of the bill, so far."""

    def usd(self, line: BillLine) -> Decimal | None:
        """Exact USD of a line; None if it has no amount, or its currency no rate."""
        rate = self.rate(line)
        return None if line.amount is None or rate is None else line.amount * rate

    def rate(self, line: BillLine) -> Decimal | None:
        """USD for one unit of its currency on its day."""
        if line.currency == "USD":
            return Decimal(1)
        rate = self.exchange.get(line.currency)
        if rate is None and line.currency in self.dated and line.day is not None:
            begun = [each for each in self.dated[line.currency] if each.since <= line.day.isoformat()]
            rate = Decimal(max(begun, key=lambda each: each.since).rate) / PICO if begun else None
        return rate

    def gap(self, attempts: Sequence[Attempt], lines: Sequence[BillLine]) -> Decimal | None:
        """How far lines and attempts are apart: in USD, or in tokens where the bill has no amounts; None: who knows."""
        if self.usage_only:
            told = sum((line.input or 0) + (line.output or 0) for line in lines)
            return Decimal(abs(told - sum(each.input + each.output for each in attempts)))
        amounts = [self.usd(line) for line in lines]
        known = [amount for amount in amounts if amount is not None]
        cost = sum((each.cost for each in attempts), Decimal(0))
        return abs(sum(known, Decimal(0)) - cost) if len(known) == len(amounts) else None

    def rounding_bound(self, lines: Sequence[BillLine]) -> Decimal:
        """The most in USD that rounding of these lines can come to."""
        half = Decimal(5).scaleb(-self.decimals - 1)
        known = (
            line
            for line in lines
            if line.amount is not None and (self.decimals or line.currency in WHOLE_UNIT_CURRENCIES)
        )
        return sum((half * (self.rate(line) or 0) for line in known), Decimal(0))

    def notes(self) -> list[str]:
        found = [
            f"{quantity(count, 'line')} in {currency} left out, since it has no rate: say --rate {currency}=USD, or"
            " declare its rates at the company"
            for currency, count in self.unpriced.items()
        ]
        if self.usage_only:
            found.append("the file has tokens and no amounts: they are valued as the ledger charges them")
        if self.unvalued:
            found.append(f"{quantity(self.unvalued, 'line')} for models without a price here: counted as nothing")
        return found

    def compare(
        self, lines: Sequence[BillLine], attempts: Sequence[Attempt], *, model: str | None, told: str = ""
    ) -> None:
        """Rows for lines and attempts that belong together. `told`: note that applies to all of them."""
        known, unknown = self._split_by_rate(lines)
        if unknown and not known:
            self._add_unpriced_row(unknown, attempts, model)
            return
        left = self._without_open_and_demo(known, attempts, model)
        ledger, rates = _ledger_side(left), self._common_rates(left)
        bill = self._bill_side(known)
        if self.usage_only:
            bill = self._with_value(bill, ledger, rates, model)
        self.total += bill.usd
        found = explain_gap(bill, ledger, rates)
        asked = _sum_known(line.requests for line in known)
        ours = sum(bool(each.cost) or each.outcome == "ok" for each in left)  # no bill counts one that was turned away
        counted = f"the bill counts {asked} requests, the ledger {ours}" if asked not in (None, ours) else ""
        for part in found:
            self.add_row(replace(part, note="; ".join(filter(None, (told, part.note, counted)))), known, left, model)

    def _with_value(self, bill: Side, ledger: Side, rates: Rates | None, model: str | None) -> Side:
        """A side of tokens alone, with the amount that the ledger would charge for them."""
        if ledger.count:
            return replace(bill, usd=ledger.usd + value_of_tokens(bill, ledger, rates))
        rates = self.by_model.get(model or "")
        self.unvalued += bill.count if rates is None else 0
        nothing = Side(Decimal(0), 0, 0, count=0)
        return bill if rates is None else replace(bill, usd=value_of_tokens(bill, nothing, rates))

    def _split_by_rate(self, lines: Sequence[BillLine]) -> tuple[list[BillLine], list[BillLine]]:
        known, unknown = [], []
        for line in lines:
            if line.amount is not None and self.usd(line) is None:
                self.unpriced[line.currency] = self.unpriced.get(line.currency, 0) + 1
                unknown.append(line)
            else:
                known.append(line)
        return known, unknown

    def _add_unpriced_row(self, lines: Sequence[BillLine], attempts: Sequence[Attempt], model: str | None) -> None:
        cost = sum((attempt.cost for attempt in attempts), Decimal(0))
        if cost:
            self.add_row(GapPart("currency", -cost, ""), lines, attempts, model)

    def _without_open_and_demo(
        self, lines: Sequence[BillLine], attempts: Sequence[Attempt], model: str | None
    ) -> list[Attempt]:
        """Attempts that a bill can list. In a group, open ones and those of the demo are separated; by id none are, and
        of rows that the ledger wrote itself only the open ones."""
        named = any(line.call is not None for line in lines)
        left, demo = [], []
        for attempt in attempts:
            settled = attempt.state == "settled" and not attempt.demo
            if named or settled or (self.bill.is_own and attempt.state != "open"):
                left.append(attempt)
            elif attempt.demo:
                demo.append(attempt)
            elif attempt.cost:
                self.add_row(GapPart("open_reservation", -attempt.cost, ""), (), [attempt], model)
        if beside := sum((attempt.cost for attempt in demo), Decimal(0)):
            self.add_row(GapPart("demo", -beside, ""), (), demo, model)
        return left

    def _bill_side(self, lines: Sequence[BillLine]) -> Side:
        amounts = [amount for line in lines if (amount := self.usd(line)) is not None]
        classes: dict[str, tuple[Decimal, int]] = {}
        for line in lines:
            tokens = line.output if line.token_class == "output" else line.input
            if line.token_class and tokens and (amount := self.usd(line)) is not None:
                before = classes.get(line.token_class, (Decimal(0), 0))
                classes[line.token_class] = (before[0] + amount, before[1] + tokens)
        return Side(
            sum(amounts, Decimal(0)),
            _sum_known(line.input for line in lines), _sum_known(line.output for line in lines),
            count=len(lines), rounded=self.rounding_bound(lines), classes=classes,
        )  # fmt: skip

    def _common_rates(self, attempts: Sequence[Attempt]) -> Rates | None:
        """Rates by which these attempts were charged, where they are the same for all."""
        several = [attempt.rates or self.rates.get(attempt.deployment) for attempt in attempts]
        return several[0] if several and all(rates is several[0] or rates == several[0] for rates in several) else None

    def add_row(self, part: GapPart, lines: Sequence[BillLine], attempts: Sequence[Attempt], model: str | None) -> None:
        """Note one part of the difference."""
        days = {line.day for line in lines if line.day} or {attempt.at.date() for attempt in attempts}
        places = {attempt.deployment for attempt in attempts}
        kind = part.kind
        if kind == "bill_line_without_call" and all(line.is_foreign for line in lines):
            purposes = {line.purpose for line in lines}
            kind = (purposes.pop() if len(purposes) == 1 else "") or "other_service"
        self.rows.append(
            Row(
                kind, part.amount, sum((self.usd(line) or Decimal(0) for line in lines), Decimal(0)),
                sum((attempt.cost for attempt in attempts), Decimal(0)), min(days, default=None),
                model or next((line.model for line in lines if line.model), None),
                places.pop() if len(places) == 1 else None,
                tuple(dict.fromkeys(attempt.call for attempt in attempts)) or _calls(lines),
                tuple(line.number for line in lines), part.note,
            )
        )  # fmt: skip


def _calls(lines: Sequence[BillLine]) -> tuple[UUID, ...]:
    return tuple(dict.fromkeys(line.call for line in lines if line.call is not None))


def _sum_known(values: Iterable[int | None]) -> int | None:
    told = [value for value in values if value is not None]
    return sum(told) if told else None


def _ledger_side(attempts: Sequence[Attempt]) -> Side:
    return Side(
        sum((attempt.cost for attempt in attempts), Decimal(0)),
        sum(attempt.input for attempt in attempts), sum(attempt.output for attempt in attempts), count=len(attempts),
        estimated=sum((one.cost for one in attempts if one.estimated), Decimal(0))
        if any(one.estimated for one in attempts)
        else None,
        open=any(attempt.state != "settled" for attempt in attempts),
        not_billed=bool(attempts) and all(not attempt.cost and attempt.outcome != "ok" for attempt in attempts),
    )  # fmt: skip
