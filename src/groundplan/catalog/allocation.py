"""What a workspace declares of costs that no provider bills by the call: what they are, and who carries which part."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from groundplan.catalog import units
from groundplan.catalog.base import Strict
from groundplan.catalog.currency import split_currency
from groundplan.catalog.fields import CostAmount, Count, Date, Duration, Frequency, Line, Name, PeriodAmount
from groundplan.core.currencies import USD

Term = Literal[
    "platform", "capacity", "vector_storage", "object_storage", "database", "logs", "egress", "review", "energy",
    "device", "connectivity", "updates", "site_visits", "support", "tools", "credit",
]  # fmt: skip
Measured = Literal[
    "review hour", "gigabyte of documents", "gigabyte of content", "gigabyte of answers", "1000 calls",
    "1000 tool uses", "1M tokens",
]  # fmt: skip
Counted = Literal["device", "kWh", "gigabyte of updates", "gigabyte of traffic", "site visit"]
COUNTED = frozenset(get_args(Counted))
Unit = Literal[Measured, Counted]
DAY_MS = 86_400_000
COVERS = r"^(company|(team|workload|deployment|site)/[a-z0-9][a-z0-9-]{0,62})$"


def _capacity(value: units.Frequency) -> units.Frequency:
    if value.per_day < 1:
        raise ValueError("write at least one token a day, such as 40M/day; left out, nothing is told of idle")
    return value


class AllocationDoc(Strict):
    """A cost beside the calls, and the rule by which workloads carry it: always in whole, to the last picodollar."""

    kind: Literal["allocation"] = "allocation"
    name: Name
    term: Term
    """What it is for. A `credit` is taken off: what a provider grants, a discount of a contract, a rebate a unit."""
    cost: PeriodAmount | None = None
    """What it costs: 120 USD/month. Of a year or quarter each month has its part."""
    rate: CostAmount | None = None
    """Instead of a cost: for each unit that is measured, or of which `quantity` says how many."""
    currency: Annotated[str, Field(pattern="^[A-Z]{3}$")] = USD
    """That of the amount as it is written: 120 EUR/month. Its dated rates are the company's `currencies`."""
    per: Unit | None = None
    """What is measured: review hour, 1000 calls, 1000 tool uses, 1M tokens; gigabyte of documents and gigabyte of
    content, at a price a month, by daily samples; gigabyte of answers, at 4 bytes a token. What is counted by
    `quantity`: device, kWh, gigabyte of updates, gigabyte of traffic, site visit."""
    quantity: Frequency | None = None
    """Of what nobody measures here, such as site visits: 3/month."""
    purchase: CostAmount | None = None
    """Instead of a cost: what one piece was bought for, spread evenly over the days of its life from `from` on."""
    life: Duration | None = None
    """How long it lasts: 1095d"""
    count: Annotated[Count, Field(ge=1)] = 1
    """How many were bought."""
    by: Literal["cost", "calls", "tokens", "equal", "shares"] = "cost"
    """How it is divided among the workloads that it covers."""
    shares: dict[Name, Count] = Field(default_factory=dict)
    """Workload and its part, for by: shares: {support: 60, finance: 40}"""
    covers: Annotated[str, StringConstraints(pattern=COVERS)] = "company"
    """company, team/NAME, workload/NAME, deployment/NAME or site/NAME: whoever has calls there, by their tokens"""
    capacity: Annotated[Frequency, AfterValidator(_capacity)] | None = None
    """Tokens that a deployment of one's own can make: what is not used is a line of its own, idle."""
    basis: Literal["allocated", "estimated"] = "allocated"
    """estimated: the amount itself is not known yet."""
    source: Line
    """Where the amount is from, such as a contract or an invoice."""
    since: Date | None = Field(default=None, alias="from")
    until: Date | None = None
    """Last day."""

    @model_validator(mode="before")
    @classmethod
    def _in_its_currency(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        written = {name: value[name] for name in ("cost", "rate", "purchase", "currency") if name in value}
        amounts, currency = split_currency(written)
        return {**value, **amounts, **({} if currency == USD else {"currency": currency})}

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if sum(each is not None for each in (self.cost, self.rate, self.purchase)) != 1:
            raise ValueError("write one of cost: 120 USD/month, rate: 45 USD with per: review hour, purchase: 900 USD")
        if (self.rate is None) != (self.per is None):
            raise ValueError("rate and per belong together")
        if (self.per in COUNTED) != (self.quantity is not None):
            raise ValueError(f"quantity: 3/month goes with per: {', '.join(sorted(COUNTED))}, and only with them")
        if self.per == "1000 tool uses" and self.covers.startswith(("deployment/", "site/")):
            raise ValueError("tools are used by workloads: covers company, team/NAME or workload/NAME")
        self._lives()
        if self.term == "credit" and (self.purchase is not None or self.capacity is not None):
            raise ValueError("a credit is a cost of a period (200 USD/month) or a rate for each unit, without capacity")
        if (self.by == "shares") != bool(self.shares) or (self.shares and not any(self.shares.values())):
            raise ValueError("by: shares needs shares: {workload: part}, and only it")
        if self.capacity is not None and not (self.covers.startswith("deployment/") and self.rate is None):
            raise ValueError("capacity is of a deployment: covers: deployment/NAME, with a cost")
        if self.capacity is not None and self.capacity.per_day < 1:
            raise ValueError(
                "capacity is at least one token a day, such as 40M/day; leave it out to tell nothing of idle"
            )
        if self.since is not None and self.until is not None and self.until < self.since:
            raise ValueError("until is before from")
        return self

    def _lives(self) -> None:
        if (self.purchase is None) != (self.life is None):
            raise ValueError("purchase and life belong together: purchase: 900 USD, life: 1095d")
        if self.life is None:
            return
        if self.since is None:
            raise ValueError("say from which day on it is used: from: 2026-01-01")
        if self.life % DAY_MS or not 30 <= self.life // DAY_MS <= 7300:
            raise ValueError("life is whole days, from 30 to 7300")
