"""Lines of a bill that repeat another line of the same attempt. Pure: which lines are of one attempt is `reconcile`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal

from groundplan.economics.bills.parse import BillLine

Gap = Callable[[Sequence[BillLine]], Decimal | None]


REPEATED_NOTE = "the bill has its line once more"


def split_repeated(
    lines: Sequence[BillLine], attempts: int, gap: Gap, exact: Callable[[Sequence[BillLine]], Decimal] | None = None
) -> tuple[Sequence[BillLine], Sequence[BillLine]]:
    """(lines, repeated lines among them) of a call with `attempts` billed attempts, or of a group. Equal lines are
    several images, parts of a class or equal calls if together they are nearer to the ledger (`gap`); with `exact` they
    are so unless the other lines differ by no more than rounding."""
    seen = Counter[BillLine]()
    once, again = list[BillLine](), list[BillLine]()
    for line in lines:
        alike = replace(line, number=0)
        (again if seen[alike] >= max(1, attempts) else once).append(line)
        seen[alike] += 1
    if not again or (apart := gap(once)) is None or (together := gap(lines)) is None:
        return lines, ()
    return (once, again) if apart < together and (exact is None or apart <= exact(once)) else (lines, ())
