"""Lines of a bill that repeat another line of the same attempt. Pure: which lines are of one attempt is `reconcile`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal

from groundplan.economics.bills.parse import Line

Gap = Callable[[Sequence[Line]], Decimal | None]


AGAIN = "the bill has its line once more"


def told_again(
    lines: Sequence[Line], attempts: int, gap: Gap, exact: Callable[[Sequence[Line]], Decimal] | None = None
) -> tuple[Sequence[Line], Sequence[Line]]:
    """(lines, those among them that are there once more) of a call of which `attempts` cost something, or of a group.
    Lines that are alike are several images, parts of a class or equal calls, where together they come nearer to what
    the ledger has (`gap`); with `exact` they are so, unless the others come as near as what they round."""
    seen = Counter[Line]()
    once, again = list[Line](), list[Line]()
    for line in lines:
        alike = replace(line, number=0)
        (again if seen[alike] >= max(1, attempts) else once).append(line)
        seen[alike] += 1
    if not again or (apart := gap(once)) is None or (together := gap(lines)) is None:
        return lines, ()
    return (once, again) if apart < together and (exact is None or apart <= exact(once)) else (lines, ())
