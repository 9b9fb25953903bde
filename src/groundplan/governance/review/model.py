"""Types of the review queue. Types only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Reviewer:
    """The person who decides. `is_alone`: nobody else is in the company."""

    actor: str
    email: str | None
    is_alone: bool = False


@dataclass(frozen=True, slots=True)
class ReviewDecision:
    """A decision about a held call. `minutes`: the time it took; None: counted from when it was first opened."""

    release: bool
    reason: str
    minutes: float | None = None


@dataclass(frozen=True, slots=True)
class HeldCall:
    """An answer or a tool call that is or was in the queue. Texts are sealed, and deleted with the decision."""

    id: UUID
    kind: str
    """answer | tool"""
    workload: str
    subject: str
    """The deployment that answered, or server/tool."""
    person: str
    """E-mail address of the person it is for; empty: an application."""
    at: datetime
    due_at: datetime
    state: str
    """waiting | released | refused | lapsed (no decision in time) | used (an approval) | gone (the caller left)"""
    reviewers: list[str]
    release_after: bool
    opened_at: datetime | None
    opened_by: str | None
    decided_by: str | None
    decided_at: datetime | None
    reason: str | None
    minutes: Decimal | None
    minutes_said: bool
    """Whether the reviewer stated the minutes; else they were counted."""
    asked: str | None
    """The sealed prompt."""
    said: str | None
    """The sealed answer."""

    def to_json(self, now: datetime) -> dict[str, Any]:
        over = self.state == "waiting" and self.due_at <= now
        return {
            "id": str(self.id),
            "kind": self.kind,
            "workload": self.workload,
            "subject": self.subject,
            "person": self.person or None,
            "at": self.at.isoformat(),
            "due_at": self.due_at.isoformat(),
            "seconds_left": max(0, round((self.due_at - now).total_seconds())),
            "state": "lapsed" if over else self.state,
            "reviewers": self.reviewers,
            "opened_by": self.opened_by,
            "decided_by": self.decided_by,
            "decided_at": self.decided_at.isoformat() if self.decided_at else None,
            "reason": self.reason,
            "minutes": float(self.minutes) if self.minutes is not None else None,
            "minutes_said": self.minutes_said,
        }
