"""An exception from a company rule, with its state as a change. Types only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from groundplan.identity.model import Person


@dataclass(frozen=True, slots=True)
class ExceptionRequest:
    """A requested exception."""

    rule: str
    workload: str
    person: Person | None
    """None: everybody in the workload."""
    until: datetime
    reason: str


@dataclass(frozen=True, slots=True)
class PolicyException:
    """An exception: once it is approved, a rule does not apply to a workload, or to one person in it, until a time."""

    id: UUID
    """Also the id of the change."""
    rule: str
    workload: str
    person: str
    """E-mail address; empty: everybody in the workload."""
    until: datetime
    reason: str
    asked_by: str
    asked_at: datetime | None = None
    state: str = "asked"
    """asked | approved | refused | ended; `lapsed` in JSON: approved, and its time is over"""
    waits_for: Sequence[str] = ()
    """Duties that have not approved yet."""
    decided_by: str | None = None
    decided_at: datetime | None = None
    decided_reason: str | None = None
    ended_by: str | None = None

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
