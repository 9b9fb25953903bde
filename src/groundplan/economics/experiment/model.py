"""Types of experiments: what is tried, and who says so. No behaviour."""

from __future__ import annotations

from math import inf
from typing import Final

import msgspec

SHADOW: Final = "shadow"
"""Both deployments answer, one answer is shown."""
AB: Final = "ab"
"""A share of the callers gets the candidate's answers."""
PERSON, CONVERSATION = "person", "conversation"
BUDGET_PREFIX: Final = "experiment/"
"""Of the name of an experiment's own budget."""


class Experiment(msgspec.Struct, frozen=True, kw_only=True):
    """One that runs, as gateways know it."""

    id: str
    name: str
    workload: str
    type: str
    """shadow | ab"""
    candidate: str
    """A deployment that the workload may use."""
    judge: str = ""
    """Deployment that compares answers in pairs; empty: they are compared by likeness."""
    share: float = 1.0
    """Of calls (shadow) or of callers (ab) that the candidate answers."""
    split: str = PERSON
    """Whom an arm is drawn for: person | conversation"""
    budget: int = 0
    """picodollars that its own calls may cost at most"""
    until: float = inf
    """Seconds since the epoch from which on no call is in it, whether or not somebody has ended it by then."""

    @property
    def budget_name(self) -> str:
        return f"{BUDGET_PREFIX}{self.id}"
