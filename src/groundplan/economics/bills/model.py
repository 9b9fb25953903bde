"""Inputs and results of a comparison of the ledger with a bill: attempts, differences, and totals. Pure values.
Difference means bill minus ledger."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal, localcontext
from uuid import UUID

from groundplan.blueprint.model import Rates

OUR_VERSION = 7
"""Of UUIDs that calls have; a provider's own request ids of another kind are not ours."""
PRECISION = 90
"""Digits of arithmetic: sums of amounts within the bounds of `cells` never lose one."""
KINDS: dict[str, str] = {
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
"""Kind of an explanation -> what it means."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt as the ledger has it. Amounts are exact USD."""

    call: UUID
    number: int
    at: datetime
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
    """Those of its moment; None: as its deployment costs now."""


@dataclass(frozen=True, slots=True)
class Row:
    """One place where bill and ledger differ."""

    kind: str
    amount: Decimal
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
    """Totals, and rows whose amounts add up to the difference exactly."""

    bill: Decimal
    ledger: Decimal
    rows: tuple[Row, ...]
    matched_by_id: int
    """Attempts that a line named."""
    attempts: int
    left_out: int
    """Attempts of models that the bill does not name."""
    left_out_usd: Decimal
    notes: tuple[str, ...]
    uncompared: int = 0
    """Lines of the bill without a known amount in USD, which are left out: with them the comparison does not cover the
    whole bill."""

    @property
    def difference(self) -> Decimal:
        with localcontext(prec=PRECISION):
            return self.bill - self.ledger

    def explanations(self) -> list[tuple[str, Decimal, int]]:
        """(kind, amount, how many places), the largest first; the amounts add up to the difference."""
        found: dict[str, tuple[Decimal, int]] = {}
        with localcontext(prec=PRECISION):
            for row in self.rows:
                amount, count = found.get(row.kind, (Decimal(0), 0))
                found[row.kind] = (amount + row.amount, count + 1)
        return sorted(((kind, *value) for kind, value in found.items()), key=lambda item: (-abs(item[1]), item[0]))
