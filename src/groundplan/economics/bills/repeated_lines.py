"""Detects lines of a bill that repeat another line of the same attempt. Pure: `match` decides which lines belong to one
attempt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal

from groundplan.economics.bills.parse import BillLine

GapFunction = Callable[[Sequence[BillLine]], Decimal | None]
"""How far lines are from the ledger; None where that is unknown."""

REPEATED_NOTE = "the bill has its line once more"


def split_repeated(
    lines: Sequence[BillLine],
    attempts: int,
    gap: GapFunction,
    rounding: Callable[[Sequence[BillLine]], Decimal] | None = None,
) -> tuple[Sequence[BillLine], Sequence[BillLine]]:
    """Split the lines of a call with `attempts` billed attempts, or of a group, into (lines, repeated lines).

    Equal lines are no repetition (but several images, parts of a class or equal calls) if all lines together are at
    least as near to the ledger (`gap`) as the lines without them. With `rounding`, the most in USD that rounding of
    lines can come to, equal lines are repeated only if the lines without them are as near as that.
    """
    counts = Counter[BillLine]()
    distinct, repeated = list[BillLine](), list[BillLine]()
    for line in lines:
        unnumbered = replace(line, number=0)
        (repeated if counts[unnumbered] >= max(1, attempts) else distinct).append(line)
        counts[unnumbered] += 1
    if not repeated or (gap_distinct := gap(distinct)) is None or (gap_all := gap(lines)) is None:
        return lines, ()
    return (
        (distinct, repeated)
        if gap_distinct < gap_all and (rounding is None or gap_distinct <= rounding(distinct))
        else (lines, ())
    )
