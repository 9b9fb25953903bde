"""A replay of kept calls as it is kept: what is asked again of whom, and what came of it. Types only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One row. `current` and `candidate` are deployments, `budget_usd` what it may cost at most."""

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
    """Of a declared one."""
    asked_at: datetime | None = None
    began_at: datetime | None = None
    ended_at: datetime | None = None
    sampled: bool = False
    outcome: str = ""
    """Of a run that ended: why there is a proposal, or none."""
    proposal: dict[str, Any] | None = None
    problem: dict[str, str] | None = None
    """Of one that failed: `code` and `hint`, beside the sentence that `outcome` is."""
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
class Waiting:
    """A kept call whose turn comes."""

    call: UUID
    endpoint: str
    email: str | None
    """Of the person it was made for."""


@dataclass(frozen=True, slots=True)
class Answered:
    """What came of one: `kept` None where it could not be judged, and `why`."""

    call: UUID
    beside: UUID | None
    kept: bool | None
    contradicted: bool
    candidate_usd: Decimal
    why: str = ""
    said: str | None = None
    """What the judge said; None: it was not asked, or did not answer."""
    code: str = ""
    """Why it could not be asked, or did not answer; empty: it did, or need not."""


def _iso(at: datetime | None) -> str | None:
    return at.isoformat() if at is not None else None
