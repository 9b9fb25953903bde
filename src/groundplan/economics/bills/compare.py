"""Compares lines of a bill with the attempts that they belong to, as discrepancies whose amounts add up to the
difference.

`match` decides which lines and attempts belong together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from uuid import UUID

from groundplan.blueprint.model import Rates
from groundplan.core.money import PICO
from groundplan.core.words import quantity
from groundplan.economics.bills.explain_gap import GapPart, Side, explain_gap, value_of_token_gap
from groundplan.economics.bills.model import Attempt, Discrepancy
from groundplan.economics.bills.parse import Bill, BillLine
from groundplan.economics.prices.currency import DatedCurrencyRates

WHOLE_UNIT_CURRENCIES = frozenset(
    {"BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "VND", "VUV", "XAF", "XOF", "XPF"}
)
"""Currencies without fractions in bills."""


@dataclass(slots=True)
class Comparison:
    """A comparison in progress: its inputs, and the discrepancies and totals collected so far."""

    bill: Bill
    rates: Mapping[str, Rates]
    """Deployment -> its present rates, for attempts without rates of their own."""
    exchange_rates: dict[str, Decimal]
    """Currency -> USD for one unit on every day; takes precedence over `dated_exchange_rates`."""
    dated_exchange_rates: DatedCurrencyRates = field(default_factory=dict)
    discrepancies: list[Discrepancy] = field(default_factory=list)
    lines_without_rate: dict[str, int] = field(default_factory=dict)
    """Currency without an exchange rate -> number of lines."""
    decimals: int = 0
    """The most decimals of any amount in the file, since zeros at the end are often left out."""
    usage_only: bool = False
    """Whether the bill has no amounts at all."""
    rates_by_model: dict[str, Rates] = field(default_factory=dict)
    unpriced_lines: int = 0
    """Number of lines with tokens only, for models without a price here."""
    describes_no_model: bool = False
    """Whether the lines of the bill describe what is paid without naming models."""
    total: Decimal = Decimal(0)
    """Sum of the compared lines, USD."""

    def usd(self, line: BillLine) -> Decimal | None:
        """Exact USD of a line; None if it has no amount, or its currency no rate."""
        rate = self.rate(line)
        return None if line.amount is None or rate is None else line.amount * rate

    def rate(self, line: BillLine) -> Decimal | None:
        """USD for one unit of the line's currency on its day; None where no rate is known."""
        if line.currency == "USD":
            return Decimal(1)
        rate = self.exchange_rates.get(line.currency)
        if rate is None and line.currency in self.dated_exchange_rates and line.day is not None:
            in_force = [each for each in self.dated_exchange_rates[line.currency] if each.since <= line.day.isoformat()]
            rate = Decimal(max(in_force, key=lambda each: each.since).rate) / PICO if in_force else None
        return rate

    def gap(self, attempts: Sequence[Attempt], lines: Sequence[BillLine]) -> Decimal | None:
        """Absolute gap between attempts and lines: in USD, or in tokens where the bill has no amounts; None where the
        amount of a line in USD is unknown."""
        if self.usage_only:
            billed_tokens = sum((line.input or 0) + (line.output or 0) for line in lines)
            return Decimal(abs(billed_tokens - sum(each.input + each.output for each in attempts)))
        amounts = [self.usd(line) for line in lines]
        known_amounts = [amount for amount in amounts if amount is not None]
        cost = sum((each.cost for each in attempts), Decimal(0))
        return abs(sum(known_amounts, Decimal(0)) - cost) if len(known_amounts) == len(amounts) else None

    def rounding_bound(self, lines: Sequence[BillLine]) -> Decimal:
        """The most in USD that rounding of these lines can come to."""
        half = Decimal(5).scaleb(-self.decimals - 1)
        rounded_lines = (
            line
            for line in lines
            if line.amount is not None and (self.decimals or line.currency in WHOLE_UNIT_CURRENCIES)
        )
        return sum((half * (self.rate(line) or 0) for line in rounded_lines), Decimal(0))

    def notes(self) -> list[str]:
        """Notes for readers of the comparison about lines left out or valued by the ledger's prices."""
        notes = [
            f"{quantity(count, 'line')} in {currency} left out, since it has no rate: say --rate {currency}=USD, or"
            " declare its rates at the company"
            for currency, count in self.lines_without_rate.items()
        ]
        if self.describes_no_model:
            notes.append("no line names a model: they are compared with all calls of the provider")
        if self.usage_only:
            notes.append("the file has tokens and no amounts: they are valued as the ledger charges them")
        if self.unpriced_lines:
            notes.append(f"{quantity(self.unpriced_lines, 'line')} for models without a price here: counted as nothing")
        return notes

    def compare(
        self, lines: Sequence[BillLine], attempts: Sequence[Attempt], *, model: str | None, note: str = ""
    ) -> None:
        """Add discrepancies for lines and attempts that belong together. `note` is put before the note of each."""
        rated, unrated = self._split_by_rate(lines)
        if unrated and not rated:
            self._add_unrated_discrepancy(unrated, attempts, model)
            return
        billable = self._without_open_and_demo(rated, attempts, model)
        ledger, rates = _ledger_side(billable), self._common_rates(billable)
        bill = self._bill_side(rated)
        if self.usage_only:
            bill = self._with_value(bill, ledger, rates, model)
        self.total += bill.usd
        parts = explain_gap(bill, ledger, rates)
        billed_requests = _sum_known(line.requests for line in rated)
        # a bill does not count rejected requests
        ledger_requests = sum(bool(each.cost) or each.outcome == "ok" for each in billable)
        request_note = ""
        if billed_requests not in (None, ledger_requests):
            request_note = f"the bill counts {billed_requests} requests, the ledger {ledger_requests}"
        for part in parts:
            notes = "; ".join(filter(None, (note, part.note, request_note)))
            self.add_discrepancy(replace(part, note=notes), rated, billable, model)

    def _with_value(self, bill: Side, ledger: Side, rates: Rates | None, model: str | None) -> Side:
        """The side of a bill without amounts, with the amount that the ledger would charge for its tokens."""
        if ledger.count:
            return replace(bill, usd=ledger.usd + value_of_token_gap(bill, ledger, rates))
        rates = self.rates_by_model.get(model or "")
        self.unpriced_lines += bill.count if rates is None else 0
        no_attempts = Side(Decimal(0), 0, 0, count=0)
        return bill if rates is None else replace(bill, usd=value_of_token_gap(bill, no_attempts, rates))

    def _split_by_rate(self, lines: Sequence[BillLine]) -> tuple[list[BillLine], list[BillLine]]:
        """Split into (lines to compare, lines in a currency without an exchange rate), and count the latter."""
        rated, unrated = [], []
        for line in lines:
            if line.amount is not None and self.usd(line) is None:
                self.lines_without_rate[line.currency] = self.lines_without_rate.get(line.currency, 0) + 1
                unrated.append(line)
            else:
                rated.append(line)
        return rated, unrated

    def _add_unrated_discrepancy(
        self, lines: Sequence[BillLine], attempts: Sequence[Attempt], model: str | None
    ) -> None:
        cost = sum((attempt.cost for attempt in attempts), Decimal(0))
        if cost:
            self.add_discrepancy(GapPart("currency", -cost, ""), lines, attempts, model)

    def _without_open_and_demo(
        self, lines: Sequence[BillLine], attempts: Sequence[Attempt], model: str | None
    ) -> list[Attempt]:
        """The attempts that a bill can list; the others become discrepancies of their own. In a group these are the
        open attempts and those of the demo, in the ledger's own export the open ones without the demo; where lines name
        their calls, there are none."""
        names_calls = any(line.call is not None for line in lines)
        billable, demo = [], []
        for attempt in attempts:
            settled = attempt.state == "settled" and not attempt.demo
            if names_calls or settled or (self.bill.is_own and attempt.state != "open"):
                billable.append(attempt)
            elif attempt.demo:
                demo.append(attempt)
            elif attempt.cost:
                self.add_discrepancy(GapPart("open_reservation", -attempt.cost, ""), (), [attempt], model)
        if demo_cost := sum((attempt.cost for attempt in demo), Decimal(0)):
            self.add_discrepancy(GapPart("demo", -demo_cost, ""), (), demo, model)
        return billable

    def _bill_side(self, lines: Sequence[BillLine]) -> Side:
        amounts = [amount for line in lines if (amount := self.usd(line)) is not None]
        classes: dict[str, tuple[Decimal, int]] = {}
        for line in lines:
            tokens = line.output if line.token_class == "output" else line.input
            if line.token_class and tokens and (amount := self.usd(line)) is not None:
                sums = classes.get(line.token_class, (Decimal(0), 0))
                classes[line.token_class] = (sums[0] + amount, sums[1] + tokens)
        return Side(
            sum(amounts, Decimal(0)),
            _sum_known(line.input for line in lines), _sum_known(line.output for line in lines),
            count=len(lines), rounded=self.rounding_bound(lines), classes=classes,
        )  # fmt: skip

    def _common_rates(self, attempts: Sequence[Attempt]) -> Rates | None:
        """Rates by which these attempts were charged; None unless they are the same for all."""
        rates_of_attempts = [attempt.rates or self.rates.get(attempt.deployment) for attempt in attempts]
        return (
            rates_of_attempts[0]
            if rates_of_attempts
            and all(rates is rates_of_attempts[0] or rates == rates_of_attempts[0] for rates in rates_of_attempts)
            else None
        )

    def add_discrepancy(
        self, part: GapPart, lines: Sequence[BillLine], attempts: Sequence[Attempt], model: str | None
    ) -> None:
        """Record one part of the difference between `lines` and `attempts`."""
        days = {line.day for line in lines if line.day} or {attempt.at.date() for attempt in attempts}
        deployments = {attempt.deployment for attempt in attempts}
        kind = part.kind
        if kind == "bill_line_without_call" and all(line.is_foreign for line in lines):
            purposes = {line.purpose for line in lines}
            kind = (purposes.pop() if len(purposes) == 1 else "") or "other_service"
        self.discrepancies.append(
            Discrepancy(
                kind, part.amount, sum((self.usd(line) or Decimal(0) for line in lines), Decimal(0)),
                sum((attempt.cost for attempt in attempts), Decimal(0)), min(days, default=None),
                model or next((line.model for line in lines if line.model), None),
                deployments.pop() if len(deployments) == 1 else None,
                tuple(dict.fromkeys(attempt.call for attempt in attempts)) or _calls(lines),
                tuple(line.number for line in lines), part.note,
            )
        )  # fmt: skip


def _calls(lines: Sequence[BillLine]) -> tuple[UUID, ...]:
    return tuple(dict.fromkeys(line.call for line in lines if line.call is not None))


def _sum_known(values: Iterable[int | None]) -> int | None:
    """Sum of the known values; None where all are unknown."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _ledger_side(attempts: Sequence[Attempt]) -> Side:
    return Side(
        sum((attempt.cost for attempt in attempts), Decimal(0)),
        sum(attempt.input for attempt in attempts), sum(attempt.output for attempt in attempts), count=len(attempts),
        estimated=sum((attempt.cost for attempt in attempts if attempt.estimated), Decimal(0))
        if any(attempt.estimated for attempt in attempts)
        else None,
        open=any(attempt.state != "settled" for attempt in attempts),
        not_billed=bool(attempts) and all(not attempt.cost and attempt.outcome != "ok" for attempt in attempts),
    )  # fmt: skip
