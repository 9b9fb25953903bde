"""Types of readiness: the evidence about a workload, and the points that it earns. No logic."""

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
    """The evidence about one workload, without demo calls and approvals that do not count.

    Links are paths of the console; None where there is nothing to point to.
    """

    workload: str
    stage: str
    served: bool
    blueprint: int | None
    fallbacks: tuple[str, ...] = ()
    sources: tuple[SourceEvidence, ...] = ()
    own_budget_usd: float | None = None
    """The lowest monthly limit of its own budgets: calls are charged to each of them in full."""
    own_hard_budget: bool = False
    """Whether one of its own budgets is hard."""
    price_sources: tuple[str, ...] = ()
    """The price source of each of its deployments."""
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
    """Where its support contact with a runbook is declared, as file:line."""
    duties_held: frozenset[str] = frozenset()
    """Duties that an active person holds."""
    duties_missing: tuple[str, ...] = ()
    declares: frozenset[str] = frozenset()
    """Parts of its declaration, served or not: `fallbacks`, `budget`, and the duties with an owner."""
    approved_change: str | None = None
    """Id of the change whose approvals, by people other than the requester, are valid for what is served."""


@dataclass(frozen=True, slots=True)
class Point:
    """One criterion, either proven or not. `points` is 0 without evidence, else 1."""

    area: str
    name: str
    points: int
    evidence: str | None
    """Link to what proves it."""
    next_step: str | None
    """What would earn it; None where it is earned."""

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
        """The next step of the first unearned point; None where all are earned."""
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
