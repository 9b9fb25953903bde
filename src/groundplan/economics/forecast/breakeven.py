"""Break-even of own hardware and commitments against paying per token, from measured use. Pure.

Amounts are picodollars over the measured days. The value of other models' answers is not considered.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class OwnCapacity:
    """Capacity at a fixed price: its `cost` over the days, the `possible` tokens in them, and those `made`."""

    deployment: str
    cost: int
    possible: int
    made: int


@dataclass(frozen=True, slots=True)
class BreakEven:
    """Comparison with the cheapest other deployment that the same workloads may use. None: unknown."""

    deployment: str
    cost: int
    used: float
    """Measured share of the possible tokens."""
    each: int | None
    """picodollars for a million tokens as it was used"""
    other: str | None
    other_cost: int | None
    """Cost of the same tokens there."""
    other_each: int | None
    needed: float | None
    """Share of use from which the own capacity is cheaper; above 1 it never is."""

    @property
    def verdict(self) -> str:
        if self.each is None:
            return "nothing was made"
        if self.needed is None:
            return "nothing else with a price is declared for the workloads that use it"
        if self.needed > 1:
            return f"{self.other} is cheaper at any use: even full, it costs less there"
        if self.used >= self.needed:
            return f"it pays: it is used more than the {self.needed:.0%} from which on it is cheaper than {self.other}"
        return f"{self.other} would cost less: it pays from {self.needed:.0%} use on"


def break_even(own: OwnCapacity, others: Mapping[str, int]) -> BreakEven:
    """Compare own capacity with `others`: deployment -> what the same tokens would have cost there."""
    used = own.made / own.possible if own.possible else 0.0
    each = own.cost * 1_000_000 // own.made if own.made else None
    priced = {name: cost for name, cost in others.items() if cost > 0}
    if not priced or not own.made or not own.possible:
        return BreakEven(own.deployment, own.cost, used, each, None, None, None, None)
    name = min(priced, key=lambda other: (priced[other], other))
    cost = priced[name]
    needed = own.cost * own.made / (cost * own.possible)
    return BreakEven(own.deployment, own.cost, used, each, name, cost, cost * 1_000_000 // own.made, needed)
