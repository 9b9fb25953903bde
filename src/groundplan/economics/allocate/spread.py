"""What workloads carry, spread over something that only their calls know: features, prompts, sources, people. Pure.

The calls' own cost is the weight, so what was measured is told as it was, and what is allocated beside it follows it.
Every sum is exactly that of the lines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from groundplan.economics.allocate.model import Basis, Line
from groundplan.economics.terms.share import shares

Weights = Mapping[str, Mapping[str, int]]
"""workload -> key -> picodollars of its calls"""
NONE = ""
"""Key of what no call carries."""


def spread(lines: Sequence[Line], weights: Weights) -> list[tuple[str, Basis, int]]:
    """(key, basis, picodollars), which sum exactly to all lines. Of a workload without calls the key is `NONE`."""
    sums: dict[tuple[str, Basis], int] = {}
    for line in lines:
        place = line.workload, line.basis
        sums[place] = sums.get(place, 0) + line.amount
    found: dict[tuple[str, Basis], int] = {}
    for (workload, basis), amount in sums.items():
        mine = weights.get(workload) or {NONE: 1}
        keys = sorted(mine)
        for key, share in zip(keys, shares(amount, [max(0, mine[key]) for key in keys]), strict=True):
            found[key, basis] = found.get((key, basis), 0) + share
    return [(key, basis, amount) for (key, basis), amount in sorted(found.items()) if amount]
