"""Compares a bill's lines for storage and traffic, which belong to no call, with the costs allocated for them. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext
from typing import Final

from groundplan.core.money import to_decimal
from groundplan.economics.allocate.model import Line
from groundplan.economics.bills.model import PRECISION, Reconciliation

TERMS: Final[Mapping[str, frozenset[str]]] = {
    "storage": frozenset({"object_storage", "vector_storage", "database", "logs"}),
    "network": frozenset({"egress", "connectivity", "updates"}),
}
"""Purpose of a bill's line -> terms of allocations that cover it."""
TOLERANCE: Final = Decimal("0.02")
"""Share of the billed amount by which an allocation may differ from it."""


@dataclass(frozen=True, slots=True)
class AllocationGap:
    """Billed and allocated cost of one purpose, exact USD. `rules`: sources of the allocations; `advice`: what the
    reader should change."""

    purpose: str
    bill: Decimal
    allocated: Decimal
    rules: tuple[str, ...]
    advice: str

    @property
    def difference(self) -> Decimal:
        with localcontext(prec=PRECISION):
            return self.bill - self.allocated


def compare_allocations(
    reconciliation: Reconciliation, lines: Sequence[Line], sources: Collection[str] = ()
) -> list[AllocationGap]:
    """Compare the bill's costs of storage and traffic with the allocated `lines` of the same days; purposes that the
    bill does not have are left out. `sources`: the sources of allocations that belong to this bill; empty: all."""
    gaps = []
    for purpose, terms in TERMS.items():
        with localcontext(prec=PRECISION):
            bill = sum((each.bill for each in reconciliation.discrepancies if each.kind == purpose), Decimal(0))
        covering = [line for line in lines if line.term in terms and (not sources or line.source in sources)]
        if not bill:
            continue
        allocated = to_decimal(sum(line.amount for line in covering))
        rules = tuple(sorted({line.source for line in covering if line.source}))
        gaps.append(AllocationGap(purpose, bill, allocated, rules, _advice(purpose, bill, allocated, rules)))
    return gaps


def _advice(purpose: str, bill: Decimal, allocated: Decimal, rules: Sequence[str]) -> str:
    if not allocated:
        terms = ", ".join(sorted(TERMS[purpose]))
        return f"nothing is allocated of it: declare kind: allocation with the amount of the bill, of {terms}"
    if abs(bill - allocated) <= TOLERANCE * abs(bill):
        return "what is allocated is what was billed"
    if allocated > bill and len(rules) > 1:
        return (
            f"more is allocated than this bill has, of {' and '.join(rules)}: name those that it is about with --source"
        )
    more = "less" if allocated < bill else "more"
    return f"{more} is allocated than was billed: end the rule with until: and begin one with the amount of the bill"
