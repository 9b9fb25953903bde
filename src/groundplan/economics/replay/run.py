"""A replay of stored calls on a candidate deployment, and its results. Types only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One row of `replay_run`. `current`, `candidate`: deployments; `budget_usd`: limit of its cost."""

    id: UUID
    workload: str
    current: str
    candidate: str
    judge: str
    budget_usd: Decimal
    calls: int
    asked_by: str
    state: str = "waiting"
    """waiting | running | done | failed"""
    night: date | None = None
    """Night of a declared replay."""
    asked_at: datetime | None = None
    began_at: datetime | None = None
    ended_at: datetime | None = None
    sampled: bool = False
    outcome: str = ""
    """Why an ended run has a proposal, or none."""
    proposal: dict[str, Any] | None = None
    problem: dict[str, str] | None = None
    """`code` and `hint` of a failed run; the message is `outcome`."""
    keys: tuple[UUID, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "id": str(self.id), "workload": self.workload, "current": self.current, "candidate": self.candidate,
            "judge": self.judge, "budget_usd": f"{self.budget_usd:.6f}", "calls": self.calls, "state": self.state,
            "night": self.night.isoformat() if self.night else None, "asked_by": self.asked_by,
            "asked_at": _iso(self.asked_at), "began_at": _iso(self.began_at), "ended_at": _iso(self.ended_at),
            "outcome": self.outcome or None, "proposal": self.proposal,
            "error": None if self.problem is None else {**self.problem, "message": self.outcome},
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class QueuedCall:
    """The next stored call to replay."""

    call: UUID
    endpoint: str
    email: str | None
    """Email address of the person it was made for."""


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """Result of one replayed call. `kept`: None if it could not be judged; then `why` says the reason."""

    call: UUID
    beside: UUID | None
    kept: bool | None
    contradicted: bool
    candidate_usd: Decimal
    why: str = ""
    said: str | None = None
    """The judge's reply; None: it was not asked, or did not answer."""
    code: str = ""
    """Error code if the judge could not be asked or did not answer, else empty."""


def _iso(at: datetime | None) -> str | None:
    return at.isoformat() if at is not None else None
