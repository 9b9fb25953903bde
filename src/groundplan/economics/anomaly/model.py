"""Types of anomaly detection: past hours, recent minutes, alarms."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal

Kind = Literal["spend", "tokens_per_call", "cache_rate", "mix", "new_caller", "runaway"]
KINDS: Final[tuple[Kind, ...]] = ("spend", "tokens_per_call", "cache_rate", "mix", "new_caller", "runaway")


@dataclass(frozen=True, slots=True)
class Hour:
    """One past hour of one workload."""

    at: datetime
    calls: int
    cost: int
    """picodollars"""
    tokens: int
    cached: int
    by_model: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Minute:
    """One recent minute of one workload. Refused calls count in `by_caller` only."""

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
    """The minute from which on the sum of scores is largest."""
    seen: float
    usual: float
    score: float
    """Strength of the anomaly; alarms have at least 1."""
    subject: str = ""
    """The model for `mix`, the caller for `new_caller` and `runaway`, else empty."""
