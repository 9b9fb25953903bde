"""An exception from a company rule, with what is said to it as a change. Types only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from groundplan.identity.model import Person


@dataclass(frozen=True, slots=True)
class ExceptionRequest:
    """An exception that somebody asks for."""

    rule: str
    workload: str
    person: Person | None
    """None: everybody in the workload."""
    until: datetime
    reason: str


@dataclass(frozen=True, slots=True)
class Exempted:
    """One rule does not hold for a workload, or for one person in it, until then; once it is approved."""

    id: UUID
    """That of the change, too"""
    rule: str
    workload: str
    person: str
    """E-mail address; empty: everybody in the workload."""
    until: datetime
    reason: str
    asked_by: str
    asked_at: datetime | None = None
    state: str = "asked"
    """asked | approved | refused | ended; lapsed: approved once, and over"""
    waits_for: Sequence[str] = ()
    """Duties that have not agreed yet."""
    decided_by: str | None = None
    decided_at: datetime | None = None
    decided_reason: str | None = None
    ended_by: str | None = None

    def holds(self, now: datetime) -> bool:
        return self.state == "approved" and self.until > now

    def to_json(self, now: datetime) -> dict[str, Any]:
        lapsed = self.state == "approved" and self.until <= now
        return {
            "id": str(self.id),
            "rule": self.rule,
            "workload": self.workload,
            "person": self.person or None,
            "until": self.until.isoformat(),
            "reason": self.reason,
            "asked_by": self.asked_by,
            "asked_at": self.asked_at.isoformat() if self.asked_at else None,
            "state": "lapsed" if lapsed else self.state,
            "waits_for": list(self.waits_for),
            "decided_by": self.decided_by,
            "decided_at": self.decided_at.isoformat() if self.decided_at else None,
            "decided_reason": self.decided_reason,
            "ended_by": self.ended_by,
        }
