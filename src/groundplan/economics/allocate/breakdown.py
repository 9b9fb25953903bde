"""Spreads the costs of workloads over attributes of their calls: features, prompts, sources, people. Pure.

The weight is the calls' own cost, so measured costs stay exact and allocated costs follow them. Costs allocated to a
deployment or a site follow the tokens there, so that calls answered elsewhere carry none of them. Every sum is exactly
that of the lines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from groundplan.economics.allocate.model import Basis, Line
from groundplan.economics.terms.apportion import shares

Weights = Mapping[str, Mapping[str, int]]
"""workload -> key -> picodollars of its calls, or tokens at a place"""
NO_KEY = ""
"""Key of costs that no call carries."""
_NO_CALLS: Final = {NO_KEY: 1}
NO_PLACE: Final = ""
"""Place of costs of no deployment or site."""


def spread(lines: Sequence[Line], weights: Weights, places: Mapping[str, Weights]) -> Mapping[Basis, Mapping[str, int]]:
    """basis -> key -> picodollars, which sum exactly to all lines. `places`: deployment/NAME or site/NAME -> weights
    there. Workloads without calls have the key `NO_KEY`."""
    sums: dict[tuple[str, str, Basis], int] = {}
    for line in lines:
        group = line.workload, place_of(line), line.basis
        sums[group] = sums.get(group, 0) + line.amount
    sorted_weights: dict[
        int, tuple[list[str], list[int]]
    ] = {}  # many lines follow the same weights, of thousands of people
    found: dict[Basis, dict[str, int]] = {}
    for (workload, place, basis), amount in sums.items():
        place_weights = places[place].get(workload) if place in places else None
        own_weights = (
            (place_weights if place_weights and any(place_weights.values()) else None)
            or weights.get(workload)
            or _NO_CALLS
        )
        if (cached := sorted_weights.get(id(own_weights))) is None:
            keys = sorted(own_weights)
            cached = sorted_weights[id(own_weights)] = keys, [max(0, own_weights[key]) for key in keys]
        of_basis = found.setdefault(basis, {})
        for key, share in zip(cached[0], shares(amount, cached[1]), strict=True):
            of_basis[key] = of_basis.get(key, 0) + share
    return found


def place_of(line: Line) -> str:
    """deployment/NAME or site/NAME of an allocated line, else `NO_PLACE`; costs of attempts follow their calls."""
    if not line.allocation:
        return NO_PLACE
    if line.deployment:
        return f"deployment/{line.deployment}"
    return f"site/{line.site}" if line.site else NO_PLACE
