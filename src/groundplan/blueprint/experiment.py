"""Experiments and replays that a workload declares, as the control process reads them. Gateways follow live policy
instead."""

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
    """Share of calls (shadow) or callers (ab), of ten thousand."""
    split: str = "person"
    """person | conversation"""
    tolerance: float = 0.02
    guard_tolerance: float = 0.05
    budget: int = 0
    """picodollars"""
    until: str | None = None
    """ISO date of the last day."""


class Replay(msgspec.Struct, frozen=True, kw_only=True):
    """Nightly replays of stored calls on cheaper deployments."""

    candidates: list[str]
    judge: str
    budget: int
    """picodollars a run"""
    calls: int = 200
    """The most calls of each run."""
