"""A bill's lines for storage and traffic, which an allocation rule pays and no call, compared with what is allocated of
them. Pure.
"""

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
"""Purpose of a bill's line -> terms of allocations that stand for it."""
CLOSE: Final = Decimal("0.02")
"""Of the bill within which an allocation is right."""


@dataclass(frozen=True, slots=True)
class Beside:
    """Of one purpose, exact USD. `rules` are the sources of what is allocated; `told` says what to do."""

    purpose: str
    bill: Decimal
    allocated: Decimal
    rules: tuple[str, ...]
    told: str

    @property
    def difference(self) -> Decimal:
        with localcontext(prec=PRECISION):
            return self.bill - self.allocated


def beside(made: Reconciliation, lines: Sequence[Line], sources: Collection[str] = ()) -> list[Beside]:
    """Storage and traffic that the bill has, and what the book of the same days allocates of it. `sources`: those of
    the allocations that stand for this bill, where others stand for other bills."""
    found = []
    for purpose, terms in TERMS.items():
        with localcontext(prec=PRECISION):
            bill = sum((row.bill for row in made.rows if row.kind == purpose), Decimal(0))
        mine = [line for line in lines if line.term in terms and (not sources or line.source in sources)]
        if not bill:
            continue
        allocated = to_decimal(sum(line.amount for line in mine))
        rules = tuple(sorted({line.source for line in mine if line.source}))
        found.append(Beside(purpose, bill, allocated, rules, _told(purpose, bill, allocated, rules)))
    return found


def _told(purpose: str, bill: Decimal, allocated: Decimal, rules: Sequence[str]) -> str:
    if not allocated:
        terms = ", ".join(sorted(TERMS[purpose]))
        return f"nothing is allocated of it: declare kind: allocation with the amount of the bill, of {terms}"
    if abs(bill - allocated) <= CLOSE * abs(bill):
        return "what is allocated is what was billed"
    if allocated > bill and len(rules) > 1:
        return (
            f"more is allocated than this bill has, of {' and '.join(rules)}: name those that it is about with --source"
        )
    more = "less" if allocated < bill else "more"
    return f"{more} is allocated than was billed: end the rule with until: and begin one with the amount of the bill"
