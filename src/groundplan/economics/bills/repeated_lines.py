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
    """(lines, those among them that are there once more) of a call of which `attempts` cost something, or of a group.
    Lines that are alike are several images, parts of a class or equal calls, where together they come nearer to what
    the ledger has (`gap`); with `exact` they are so, unless the others come as near as what they round."""
    seen = Counter[BillLine]()
    once, again = list[BillLine](), list[BillLine]()
    for line in lines:
        alike = replace(line, number=0)
        (again if seen[alike] >= max(1, attempts) else once).append(line)
        seen[alike] += 1
    if not again or (apart := gap(once)) is None or (together := gap(lines)) is None:
        return lines, ()
    return (once, again) if apart < together and (exact is None or apart <= exact(once)) else (lines, ())
