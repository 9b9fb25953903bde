"""An experiment as it is stored, and its JSON. Types only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from groundplan.core.clock import last_day
from groundplan.economics.experiment.model import SHADOW
from groundplan.economics.experiment.verdict import UNASKED, UNREADABLE, Rule
from groundplan.economics.replay.pairwise import UNASKED_CODE, UNASKED_HINT, UNREAD_CODE, UNREAD_HINT


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentRecord:
    """One row of `experiment`. `share`: of ten thousand; amounts: US dollars."""

    id: UUID
    name: str
    workload: str
    type: str
    candidate: str
    judge: str
    share: int
    split: str
    tolerance: float
    guard_tolerance: float
    budget_usd: Decimal
    until: datetime
    reason: str
    asked_by: str
    state: str
    """asked | refused | running | ended"""
    level: float = 0.95
    slow_ms: float | None = None
    """Duration above which an answer counts as slow; fixed at the start."""
    dear_usd: Decimal | None = None
    """Cost from which on a call counts as expensive; fixed at the start."""
    blueprint: int | None = None
    digest: str = ""
    asked_at: datetime | None = None
    decided_by: str | None = None
    decided_at: datetime | None = None
    decided_reason: str | None = None
    began_at: datetime | None = None
    outcome: str = ""
    outcome_reason: str = ""
    ended_by: str | None = None
    ended_at: datetime | None = None
    figures: dict[str, Any] = field(default_factory=dict)

    @property
    def rule(self) -> Rule:
        return Rule(
            name=str(self.id),
            share=self.share / 10_000,
            tolerance=self.tolerance,
            guard_tolerance=self.guard_tolerance,
            level=self.level,
            budget_usd=self.budget_usd,
        )

    @property
    def kind(self) -> str:
        return "shadow" if self.type == SHADOW else "A/B test"

    @property
    def standing(self) -> str:
        """Sentence about an experiment that has not ended: it runs, or waits for its approval, and until when."""
        does = "runs" if self.state == "running" else "waits for its approval"
        return f"the {self.kind} {self.name} of {self.candidate} {does} until {last_day(self.until)}"

    def to_json(self) -> dict[str, Any]:
        """The experiment as JSON of the API."""
        return {
            "id": str(self.id), "name": self.name, "workload": self.workload, "type": self.type,
            "candidate": self.candidate, "judge": self.judge or None, "share": self.share / 10_000, "by": self.split,
            "tolerance": self.tolerance, "guard_tolerance": self.guard_tolerance, "level": self.level,
            "budget_usd": f"{self.budget_usd:.6f}", "until": self.until.isoformat(), "reason": self.reason,
            "state": self.state, "outcome": self.outcome or None, "outcome_reason": self.outcome_reason or None,
            "blueprint": self.blueprint, "asked_by": self.asked_by, "asked_at": _iso(self.asked_at),
            "decided_by": self.decided_by, "decided_reason": self.decided_reason, "began_at": _iso(self.began_at),
            "ended_by": self.ended_by, "ended_at": _iso(self.ended_at), "slow_ms": self.slow_ms,
            "error": {**_SILENT[self.outcome], "message": self.outcome_reason} if self.outcome in _SILENT else None,
            "figures": {**_NOTHING, **self.figures},
        }  # fmt: skip


def blocking_experiment(
    every: Iterable[ExperimentRecord], workload: str, candidate: str = ""
) -> ExperimentRecord | None:
    """The experiment that prevents another one of the workload: a running one, or one of the same candidate that waits
    for its approval."""
    mine = [each for each in every if each.workload == workload]
    runs = next((each for each in mine if each.state == "running"), None)
    return runs or next((each for each in mine if each.state == "asked" and each.candidate == candidate), None)


_SILENT = {
    UNREADABLE: {"code": UNREAD_CODE, "hint": UNREAD_HINT},
    UNASKED: {"code": UNASKED_CODE, "hint": UNASKED_HINT},
}
"""Outcome -> code and hint of the judge's error."""
_NOTHING: dict[str, Any] = {
    "verdict": "running", "reason": None, "quality": None, "segments": {}, "order": [], "guards": {},
    "spent_usd": "0.000000", "left": "",
    "pairs": dict.fromkeys(
        ("pairs", "compared", "contradicted", "unanswered", "unread", "unasked", "reviewed", "agreed"), 0
    ),
}  # fmt: skip
"""Figures of an experiment that has not been evaluated yet."""


def _iso(at: datetime | None) -> str | None:
    return at.isoformat() if at is not None else None
