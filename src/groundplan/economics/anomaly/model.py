"""Types of the watch over spending: what usually happens in an hour, what happened in each minute, what is unusual."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal

Kind = Literal["spend", "tokens_per_call", "cache_rate", "mix", "new_caller", "runaway"]
KINDS: Final[tuple[Kind, ...]] = ("spend", "tokens_per_call", "cache_rate", "mix", "new_caller", "runaway")


@dataclass(frozen=True, slots=True)
class Hour:
    """One hour of one workload in the past."""

    at: datetime
    calls: int
    cost: int
    """picodollars"""
    tokens: int
    cached: int
    by_model: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Minute:
    """One minute of one workload. Refused calls count for callers only."""

    at: datetime
    calls: int
    cost: int
    tokens: int
    cached: int
    by_model: dict[str, int] = field(default_factory=dict)
    by_caller: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Alarm:
    """`seen` and `usual` are in the unit of the kind: USD an hour, tokens a call, shares (0 to 1), calls a minute."""

    kind: Kind
    since: datetime
    """The minute from which on the sum of what is unusual is largest."""
    seen: float
    usual: float
    score: float
    """How far beyond what is usual; 1 is the least that is told."""
    subject: str = ""
    """Of a mix the model, of callers the caller."""
