"""What workloads carry, spread over something that only their calls know: features, prompts, sources, people. Pure.

The calls' own cost is the weight, so what was measured is told as it was, and what is allocated beside it follows it.
What is allocated of a deployment or a site follows the tokens there, which calls that were paid elsewhere do not carry.
Every sum is exactly that of the lines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from groundplan.economics.allocate.model import Basis, Line
from groundplan.economics.terms.apportion import shares

Weights = Mapping[str, Mapping[str, int]]
"""workload -> key -> picodollars of its calls, or tokens at a place"""
NONE = ""
"""Key of what no call carries."""
_NO_CALLS: Final = {NONE: 1}
COMPANY: Final = ""
"""What is of no deployment or site."""


def spread(lines: Sequence[Line], weights: Weights, places: Mapping[str, Weights]) -> Mapping[Basis, Mapping[str, int]]:
    """basis -> key -> picodollars, which sum exactly to all lines. `places`: deployment/NAME or site/NAME -> weights
    there. Of a workload without calls the key is `NONE`."""
    sums: dict[tuple[str, str, Basis], int] = {}
    for line in lines:
        at = line.workload, place_of(line), line.basis
        sums[at] = sums.get(at, 0) + line.amount
    weighed: dict[int, tuple[list[str], list[int]]] = {}  # many lines follow the same weights, of thousands of people
    found: dict[Basis, dict[str, int]] = {}
    for (workload, place, basis), amount in sums.items():
        there = places[place].get(workload) if place in places else None
        mine = (there if there and any(there.values()) else None) or weights.get(workload) or _NO_CALLS
        if (known := weighed.get(id(mine))) is None:
            keys = sorted(mine)
            known = weighed[id(mine)] = keys, [max(0, mine[key]) for key in keys]
        of_basis = found.setdefault(basis, {})
        for key, share in zip(known[0], shares(amount, known[1]), strict=True):
            of_basis[key] = of_basis.get(key, 0) + share
    return found


def place_of(line: Line) -> str:
    """deployment/NAME or site/NAME of an allocated line, else `COMPANY`; what attempts cost follows their calls."""
    if not line.allocation:
        return COMPANY
    if line.deployment:
        return f"deployment/{line.deployment}"
    return f"site/{line.site}" if line.site else COMPANY
