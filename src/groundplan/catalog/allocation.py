"""What a workspace declares of costs that no provider bills by the call: what they are, and who carries which part."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from groundplan.catalog.base import Strict
from groundplan.catalog.currency import USD, split_currency
from groundplan.catalog.fields import Amount, Count, Date, Frequency, Line, Name, PeriodAmount

Term = Literal[
    "platform", "capacity", "vector_storage", "object_storage", "database", "logs", "egress", "review", "energy",
    "device", "connectivity", "support",
]  # fmt: skip
Unit = Literal["review hour", "gigabyte of documents", "gigabyte of content", "1000 calls", "1M tokens"]
_NAME = r"[a-z0-9][a-z0-9-]{0,62}"


class AllocationDoc(Strict):
    """A cost beside the calls, and the rule by which workloads carry it: always in whole, to the last picodollar."""

    kind: Literal["allocation"] = "allocation"
    name: Name
    term: Term
    cost: PeriodAmount | None = None
    """What it costs: 120 USD/month. Of a year or quarter each month has its part."""
    rate: Amount | None = None
    """Instead of a cost: for each unit that is measured."""
    currency: Annotated[str, Field(pattern="^[A-Z]{3}$")] = USD
    """That of the amount as it is written: 120 EUR/month. Its dated rates are the company's `currencies`."""
    per: Unit | None = None
    by: Literal["cost", "calls", "tokens", "equal", "shares"] = "cost"
    """How it is divided among the workloads that it covers."""
    shares: dict[Name, Count] = Field(default_factory=dict)
    """Workload and its part, for by: shares: {support: 60, finance: 40}"""
    covers: Annotated[str, StringConstraints(pattern=rf"^(company|(team|workload|deployment)/{_NAME})$")] = "company"
    """company, team/NAME, workload/NAME or deployment/NAME"""
    capacity: Frequency | None = None
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
        written = {name: value[name] for name in ("cost", "rate", "currency") if name in value}
        amounts, currency = split_currency(written)
        return {**value, **amounts, **({} if currency == USD else {"currency": currency})}

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.cost is None) == (self.rate is None):
            raise ValueError("write either cost: 120 USD/month or rate: 45 USD with per: review hour")
        if (self.rate is None) != (self.per is None):
            raise ValueError("rate and per belong together")
        if (self.by == "shares") != bool(self.shares) or (self.shares and not any(self.shares.values())):
            raise ValueError("by: shares needs shares: {workload: part}, and only it")
        if self.capacity is not None and not (self.covers.startswith("deployment/") and self.cost is not None):
            raise ValueError("capacity is of a deployment: covers: deployment/NAME, with a cost")
        if self.cost is not None and self.cost.period == "total":
            raise ValueError("write what it costs in a day, week, month, quarter or year")
        if self.since is not None and self.until is not None and self.until < self.since:
            raise ValueError("until is before from")
        return self
