"""What a workload declares to be tried, as the control process reads it; gateways follow what runs, by live policy."""

from __future__ import annotations

import msgspec


class DeclaredExperiment(msgspec.Struct, frozen=True, kw_only=True):
    """A declared experiment."""

    name: str
    type: str
    """shadow | ab"""
    candidate: str
    judge: str | None = None
    share: int = 10_000
    """Of ten thousand calls (shadow) or callers (ab)."""
    split: str = "person"
    """person | conversation"""
    tolerance: float = 0.02
    guard_tolerance: float = 0.05
    budget: int = 0
    """picodollars"""
    until: str | None = None
    """ISO date of its last day."""


class Replay(msgspec.Struct, frozen=True, kw_only=True):
    """Kept calls that are replayed on cheaper deployments, every night."""

    candidates: list[str]
    judge: str
    budget: int
    """picodollars a run"""
    calls: int = 200
    """At most, of each run."""
