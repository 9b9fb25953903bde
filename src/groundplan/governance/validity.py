"""When an approval ends, when its end is announced, and its grace period. Pure: dates in, phases out."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Literal

ANNOUNCEMENT_DAYS = (1, 7, 30)
"""Days before the end on which the end is announced, the nearest first."""
Phase = Literal["holds", "announced", "grace", "over"]


@dataclass(frozen=True, slots=True)
class Term:
    """The last day that an approval is valid, and the last day that production may go on after it."""

    expires_on: date
    grace_until: date

    def capped_at(self, last: date | None) -> Term:
        """This term, but no longer than `last`, the end of the approved thing itself; None: it has none."""
        return self if last is None else Term(min(self.expires_on, last), min(self.grace_until, last))


def validity_term(approved_on: date, *, valid_days: int, grace_days: int, stage: str, sensitivity: str) -> Term:
    """Term of an approval given on a day. Grace is for production only, and never for restricted data."""
    expires = approved_on + timedelta(days=valid_days)
    grace = grace_days if stage == "production" and sensitivity != "restricted" else 0
    return Term(expires, expires + timedelta(days=grace))


def phase(term: Term, today: date) -> Phase:
    """`holds`; `announced` from 30 days before the end; `grace` after it; `over` when grace has passed too."""
    if today > term.grace_until:
        return "over"
    if today > term.expires_on:
        return "grace"
    return "announced" if (term.expires_on - today).days <= ANNOUNCEMENT_DAYS[-1] else "holds"


def due_announcement(term: Term, today: date) -> int | None:
    """The announcement (30, 7 or 1 days before the end) that is due; None before the first."""
    left = (term.expires_on - today).days
    return next((days for days in ANNOUNCEMENT_DAYS if left <= days), None)
