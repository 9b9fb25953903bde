"""Types of experiments as gateways know them. No behaviour."""

from __future__ import annotations

from math import inf
from typing import Final

import msgspec

SHADOW: Final = "shadow"
"""Type: both deployments answer, and the client gets the present one's answer."""
AB: Final = "ab"
"""Type: a share of the callers gets the candidate's answers."""
PERSON, CONVERSATION = "person", "conversation"
BUDGET_PREFIX: Final = "experiment/"
"""Prefix of the name of an experiment's own budget."""


class Experiment(msgspec.Struct, frozen=True, kw_only=True):
    """A running experiment."""

    id: str
    name: str
    workload: str
    type: str
    """shadow | ab"""
    candidate: str
    """A deployment that the workload may use."""
    judge: str = ""
    """Deployment that compares pairs of answers; empty: they are compared by similarity."""
    share: float = 1.0
    """Share of calls (shadow) or of callers (ab) that the candidate answers."""
    split: str = PERSON
    """Unit that an arm is drawn for: person | conversation"""
    budget: int = 0
    """Limit of the cost of its own calls, picodollars"""
    until: float = inf
    """Seconds since the epoch from which on no call takes part, even if the experiment has not been ended."""

    @property
    def budget_name(self) -> str:
        return f"{BUDGET_PREFIX}{self.id}"
