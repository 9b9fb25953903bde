"""Lines of a bill that say once more what another line of the same attempt says. Pure: which lines are of one attempt
is `reconcile`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal

from groundplan.economics.bill import Line

Gap = Callable[[Sequence[Line]], Decimal | None]


def told_again(lines: Sequence[Line], attempts: int, gap: Gap) -> tuple[Sequence[Line], Sequence[Line]]:
    """(lines, those among them that are there once more) of a call of which `attempts` cost something. Lines that are
    alike are several images, or parts of a class, where together they come nearer to what the ledger has (`gap`)."""
    seen = Counter[Line]()
    once, again = list[Line](), list[Line]()
    for line in lines:
        alike = replace(line, number=0)
        (again if seen[alike] >= max(1, attempts) else once).append(line)
        seen[alike] += 1
    if not again:
        return lines, ()
    apart, together = gap(once), gap(lines)
    return (once, again) if apart is not None and together is not None and apart < together else (lines, ())
