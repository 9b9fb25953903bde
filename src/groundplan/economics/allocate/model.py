"""Types of the book of costs: one line for each term, with where it is from and how it got there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

Basis = Literal["measured", "allocated", "estimated"]
IDLE: Final = "idle"
"""Term of what stands ready and is not used."""
NOBODY: Final = ""
"""Workload of a line that no workload carries."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """`amount` picodollars of one term that one workload carries in a time."""

    term: str
    workload: str
    amount: int
    basis: Basis
    rule: str
    """In words: `tokens x price of gpt-eu`, `by calls (allocation vector-store)`."""
    source: str
    """Where the amount is from: a price list with its version, a contract, the ledger."""
    team: str = ""
    deployment: str = ""
    site: str = ""
    model: str = ""
    quantity: int = 0
    unit: str = ""
    tier: str = ""
    """Class of service, tier of long prompts, time of day of its price; empty: the standard one, or no tokens."""


@dataclass(frozen=True, slots=True)
class Use:
    """What one workload did in a time: the weights by which costs are divided."""

    workload: str
    team: str = ""
    calls: int = 0
    cost: int = 0
    tokens: int = 0
    by_deployment: Mapping[str, int] = field(default_factory=dict)
    """Tokens at each deployment."""
    by_site: Mapping[str, int] = field(default_factory=dict)
    """Tokens at each site."""
    units: Mapping[str, float] = field(default_factory=dict)
    """What is paid by the unit, such as hours of review and gigabytes of documents."""
    nearest: frozenset[str] = frozenset()
    """Units of which some days have no sample of their own, and count as the nearest one."""
    written: Mapping[str, int] = field(default_factory=dict)
    """Tokens of answers, of the `company` and at each `deployment/NAME` and `site/NAME`."""
