"""How ready a workload is: evidence that was gathered, and the points that it earns. Types only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

AREAS = ("placement", "data", "cost", "operations", "governance")


@dataclass(frozen=True, slots=True)
class SourceEvidence:
    """One source that a workload uses."""

    name: str
    owner_present: bool
    """Its owner is an active person."""
    indexed: bool
    open_findings: int


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of one workload. Calls of the demo and approvals that count for nothing are not in here.

    Links are paths of the console; None where there is nothing to point to.
    """

    workload: str
    stage: str
    served: bool
    blueprint: int | None
    fallbacks: tuple[str, ...] = ()
    sources: tuple[SourceEvidence, ...] = ()
    own_budget_usd: float | None = None
    """The least that one of its own budgets allows in a month: calls are charged to each of them in full."""
    own_hard_budget: bool = False
    """Whether one of them refuses what is beyond it."""
    price_sources: tuple[str, ...] = ()
    """Where the price of each of its deployments is from."""
    calls: int = 0
    """Calls of the last 30 days that were not refused."""
    ok: int = 0
    cost_usd: float = 0.0
    first_byte_p95_ms: float | None = None
    first_token_objective_ms: int | None = None
    availability_objective: float | None = None
    call: str | None = None
    grounded_call: str | None = None
    fallback_call: str | None = None
    logged_call: str | None = None
    outcomes: int = 0
    support: str | None = None
    """Place of the support contact with a runbook, file:line."""
    duties_held: frozenset[str] = frozenset()
    """Duties that an active person holds."""
    duties_missing: tuple[str, ...] = ()
    declares: frozenset[str] = frozenset()
    """What its declaration has, served or not: `fallbacks`, `budget`, and duties that name somebody."""
    approved_change: str | None = None
    """Id of the change whose approvals, by others than who asked, hold for what is served."""


@dataclass(frozen=True, slots=True)
class Point:
    """One thing that is either proven or not. `points` is 0 without evidence, else 1."""

    area: str
    name: str
    points: int
    evidence: str | None
    """Link to what proves it."""
    next_step: str | None
    """What would earn it, or None where it is earned."""

    def to_json(self) -> dict[str, Any]:
        return {
            "area": self.area,
            "name": self.name,
            "points": self.points,
            "evidence": self.evidence,
            "next_step": self.next_step,
        }


@dataclass(frozen=True, slots=True)
class Readiness:
    """All points of one workload."""

    workload: str
    stage: str
    points: tuple[Point, ...]

    def of(self, area: str) -> tuple[Point, ...]:
        return tuple(point for point in self.points if point.area == area)

    def score(self, area: str) -> str:
        """`3/4`, or `not measured yet` where nothing is proven."""
        points = self.of(area)
        earned = sum(point.points for point in points)
        return f"{earned}/{len(points)}" if earned else "not measured yet"

    @property
    def next_step(self) -> str | None:
        """The first thing to do."""
        return next((point.next_step for point in self.points if point.next_step), None)

    def to_json(self) -> dict[str, Any]:
        areas = [
            {
                "area": area,
                "score": self.score(area),
                "earned": sum(point.points for point in self.of(area)),
                "of": len(self.of(area)),
                "points": [point.to_json() for point in self.of(area)],
            }
            for area in AREAS
        ]
        return {"workload": self.workload, "stage": self.stage, "areas": areas, "next_step": self.next_step}
