"""Types of the book of costs: one line for each term, with where it is from and how it got there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import Final, Literal, NamedTuple

from groundplan.blueprint.model import Allocation
from groundplan.economics.prices.currency import DatedCurrencyRates
from groundplan.economics.semantic.net_savings import HOUR_US

Basis = Literal["measured", "allocated", "estimated"]
IDLE: Final = "idle"
"""Term of what stands ready and is not used."""
CREDIT: Final = "credit"
"""Term of what is taken off: its amounts are below zero."""
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
    allocation: str = ""
    """The rule's name; empty where attempts were priced."""
    blueprints: tuple[int, ...] = ()
    """Those whose price or rule it is by, in order."""


class Part(NamedTuple):
    """What one workload carries of one rule on one day. Days are added up where all but the last two are the same."""

    term: str
    workload: str
    team: str
    basis: Basis
    rule: str
    """As of a line, without how many units there were."""
    source: str
    deployment: str
    site: str
    allocation: str
    version: int
    """Number of the blueprint with which the rule, as it is, came."""
    amount: int
    units: Decimal = Decimal(0)
    """What was paid for, of a rate."""


@dataclass(frozen=True, slots=True)
class Use:
    """What one workload did on one day: the weights by which costs are divided."""

    workload: str
    team: str = ""
    calls: int = 0
    cost: int = 0
    tokens: int = 0
    by_deployment: Mapping[str, int] = field(default_factory=dict)
    """Tokens of attempts at each deployment."""
    by_site: Mapping[str, int] = field(default_factory=dict)
    """Tokens of attempts at each site."""
    units: Mapping[str, Decimal] = field(default_factory=dict)
    """What is paid by the unit, such as hours of review and gigabytes of documents."""
    nearest: frozenset[str] = frozenset()
    """Units of which the day has no sample of its own, and that count as on the nearest one."""
    written: Mapping[str, int] = field(default_factory=dict)
    """Tokens of answers, of the `company` and at each `deployment/NAME` and `site/NAME`."""
    asked: Mapping[str, int] = field(default_factory=dict)
    """Calls at each `deployment/NAME` and `site/NAME`."""
    said: Mapping[str, Decimal] = field(default_factory=dict)
    """The part of `units` that nobody measured and somebody said, such as minutes that a reviewer writes down."""


@dataclass(frozen=True, slots=True)
class LookedUp:
    """Of one workload on one day: microseconds of all look-ups, and picodollars of an hour of the processor."""

    workload: str
    spent_us: int
    hour: int
    team: str = ""

    @property
    def cost(self) -> int:
        return self.spent_us * self.hour // HOUR_US


@dataclass(frozen=True, slots=True)
class Day:
    """What a day's costs are divided by."""

    day: date
    blueprint: int
    """The one that was in force on it."""
    rules: Sequence[Allocation]
    uses: Sequence[Use]
    currencies: DatedCurrencyRates = field(default_factory=dict)
    looked: Mapping[str, LookedUp] = field(default_factory=dict)
    """workload -> its look-ups by meaning"""
    sites: Mapping[str, str] = field(default_factory=dict)
    """deployment -> its site"""
