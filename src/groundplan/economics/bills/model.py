"""Inputs and results of a comparison of the ledger with a bill: attempts, discrepancies and totals. Pure values.

A difference is always the bill minus the ledger.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal, localcontext
from typing import NamedTuple
from uuid import UUID

from groundplan.blueprint.model import Rates

CALL_ID_VERSION = 7
"""UUID version of call ids; a provider's own request ids have another version."""
PRECISION = 90
"""Decimal digits of the arithmetic: sums of amounts within the bounds of `cells` stay exact."""
EXPLANATION_KINDS: dict[str, str] = {
    "call_without_bill_line": "calls of the ledger that the bill does not have",
    "bill_line_without_call": "lines of the bill that no call of the ledger explains",
    "tokens": "the bill counts other tokens",
    "price": "the bill has another price",
    "rounding": "amounts of the bill are rounded",
    "estimated": "the provider reported no usage, so that ours is an estimate",
    "open_reservation": "calls in flight, or cut off by a crash and booked at the most they could cost",
    "billed_failure": "the bill charges an attempt that the ledger holds for not billed",
    "demo": "traffic of the demo, which no provider bills",
    "currency": "calls whose line is in a currency without a rate",
    "tax": "taxes of the bill, which no call pays",
    "credit": "credits, discounts, refunds and adjustments of the bill, which are of no single call",
    "storage": "lines for storage, which no call pays: see allocations of object_storage, vector_storage and logs",
    "network": "lines for traffic, which no call pays: see allocations of egress and connectivity",
    "other_service": "lines for other services than models",
    "unexplained": "the bill tells no tokens here, so that price and usage cannot be told apart",
}
"""Kind of a discrepancy -> what it means."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt as the ledger has it. Amounts are exact USD."""

    call: UUID
    """Id of the call."""
    number: int
    at: datetime
    """When the attempt was sent, UTC."""
    workload: str
    deployment: str
    model: str
    state: str
    """open | settled | crashed"""
    outcome: str
    cost: Decimal
    input: int
    output: int
    estimated: bool = False
    demo: bool = False
    rates: Rates | None = None
    """Rates in force when the attempt was sent; None: its deployment's present rates."""


class Explanation(NamedTuple):
    """Sum of all discrepancies of one kind, exact USD."""

    kind: str
    amount: Decimal
    discrepancies: int


@dataclass(frozen=True, slots=True)
class Discrepancy:
    """One place where bill and ledger differ. Amounts are exact USD."""

    kind: str
    """One of `EXPLANATION_KINDS`."""
    amount: Decimal
    """This part of the difference between `bill` and `ledger`."""
    bill: Decimal
    ledger: Decimal
    day: date | None
    model: str | None
    deployment: str | None
    calls: tuple[UUID, ...]
    lines: tuple[int, ...]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """Totals in exact USD, and discrepancies whose amounts add up to the difference exactly."""

    bill: Decimal
    ledger: Decimal
    discrepancies: tuple[Discrepancy, ...]
    matched_by_id: int
    """Number of attempts that a line of the bill names."""
    attempts: int
    """Number of attempts compared."""
    excluded_attempts: int
    """Number of attempts of models that the bill does not name; they are not compared."""
    excluded_usd: Decimal
    notes: tuple[str, ...]
    uncompared_lines: int = 0
    """Number of lines of the bill without a known amount in USD. They are left out, so that the comparison covers the
    whole bill only if this is 0."""

    @property
    def difference(self) -> Decimal:
        with localcontext(prec=PRECISION):
            return self.bill - self.ledger

    def explanations(self) -> list[Explanation]:
        """The discrepancies summed by kind, the largest amount first; the amounts add up to the difference."""
        sums: dict[str, tuple[Decimal, int]] = {}
        with localcontext(prec=PRECISION):
            for discrepancy in self.discrepancies:
                amount, count = sums.get(discrepancy.kind, (Decimal(0), 0))
                sums[discrepancy.kind] = (amount + discrepancy.amount, count + 1)
        explanations = [Explanation(kind, amount, count) for kind, (amount, count) in sums.items()]
        return sorted(explanations, key=lambda each: (-abs(each.amount), each.kind))
