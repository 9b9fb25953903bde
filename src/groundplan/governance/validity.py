"""When an approval ends, what is said before, and what may go on after. Pure: dates in, words out."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Literal

AHEAD = (1, 7, 30)
"""Days before the end on which it is said, the nearest first."""
Phase = Literal["holds", "announced", "grace", "over"]


@dataclass(frozen=True, slots=True)
class Term:
    """The last day that an approval holds, and the last day that production may go on after it."""

    expires_on: date
    grace_until: date

    def within(self, last: date | None) -> Term:
        """Not longer than what was approved lasts by itself; None: that has no end."""
        return self if last is None else Term(min(self.expires_on, last), min(self.grace_until, last))


def term_of(approved: date, *, valid_days: int, grace_days: int, stage: str, sensitivity: str) -> Term:
    """For what is approved on a day. Grace is for production only, and never for restricted data."""
    expires = approved + timedelta(days=valid_days)
    grace = grace_days if stage == "production" and sensitivity != "restricted" else 0
    return Term(expires, expires + timedelta(days=grace))


def phase(term: Term, today: date) -> Phase:
    """`holds`; `announced` from 30 days before the end on; `grace` after it; `over` when that has passed too."""
    if today > term.grace_until:
        return "over"
    if today > term.expires_on:
        return "grace"
    return "announced" if (term.expires_on - today).days <= AHEAD[-1] else "holds"


def announced(term: Term, today: date) -> int | None:
    """Which of the announcements (30, 7, 1 days) is due by now; None before the first."""
    left = (term.expires_on - today).days
    return next((days for days in AHEAD if left <= days), None)
