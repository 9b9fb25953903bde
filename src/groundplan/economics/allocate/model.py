"""Types of the book of costs: one line for each term, with its source and how it was computed."""

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
"""Term of capacity that is not used."""
CREDIT: Final = "credit"
"""Term of credits: amounts are negative."""
NOBODY: Final = ""
"""Workload of a line that no workload carries."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """`amount` picodollars of one term that one workload carries in a period."""

    term: str
    workload: str
    amount: int
    basis: Basis
    rule: str
    """The computation in words: `tokens x price of gpt-eu`, `by calls (allocation vector-store)`."""
    source: str
    """Source of the amount: a price list with its version, a contract, the ledger."""
    team: str = ""
    deployment: str = ""
    site: str = ""
    model: str = ""
    quantity: int = 0
    unit: str = ""
    tier: str = ""
    """Class of service, tier of long prompts, time of day of the price; empty: the standard price, or no tokens."""
    allocation: str = ""
    """Name of the allocation rule; empty for priced attempts."""
    blueprints: tuple[int, ...] = ()
    """Numbers of the blueprints whose price or rule applied, in order."""


class Part(NamedTuple):
    """One workload's part of one rule on one day. Days are added up where all fields but the last two are equal."""

    term: str
    workload: str
    team: str
    basis: Basis
    rule: str
    """As `Line.rule`, without the count of units."""
    source: str
    deployment: str
    site: str
    allocation: str
    version: int
    """Number of the first blueprint that has the rule in this form."""
    amount: int
    units: Decimal = Decimal(0)
    """Units that a price per unit was applied to."""


@dataclass(frozen=True, slots=True)
class Use:
    """Usage of one workload on one day: the weights by which costs are divided."""

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
    """Units with a price, such as hours of review and gigabytes of documents."""
    nearest_sample_units: frozenset[str] = frozenset()
    """Units without a sample of that day, which count as on the nearest sampled day."""
    answer_tokens: Mapping[str, int] = field(default_factory=dict)
    """Tokens of answers: of all under `company`, and at each `deployment/NAME` and `site/NAME`."""
    calls_at: Mapping[str, int] = field(default_factory=dict)
    """Calls at each `deployment/NAME` and `site/NAME`."""
    reported_units: Mapping[str, Decimal] = field(default_factory=dict)
    """The part of `units` that people stated instead of being measured, such as minutes that a reviewer writes down."""


@dataclass(frozen=True, slots=True)
class LookupCost:
    """Semantic look-ups of one workload on one day. `spent_us`: microseconds of all of them; `hourly_price`:
    picodollars of a processor hour."""

    workload: str
    spent_us: int
    hourly_price: int
    team: str = ""

    @property
    def cost(self) -> int:
        return self.spent_us * self.hourly_price // HOUR_US


@dataclass(frozen=True, slots=True)
class Day:
    """The rules and the usage of one day."""

    day: date
    blueprint: int
    """Number of the blueprint that was in force."""
    rules: Sequence[Allocation]
    uses: Sequence[Use]
    currencies: DatedCurrencyRates = field(default_factory=dict)
    lookups: Mapping[str, LookupCost] = field(default_factory=dict)
    """workload -> its semantic look-ups"""
    sites: Mapping[str, str] = field(default_factory=dict)
    """deployment -> its site"""
