"""What a workload declares to be tried: another deployment in shadow or for a share of its callers, and replays."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from groundplan.catalog.base import Strict
from groundplan.catalog.fields import Count, Date, Name, Names, Percent, Share, Usd


class ExperimentRule(Strict):
    """Another deployment is tried on this workload's calls until it is decided."""

    name: Name
    type: Literal["shadow", "ab"]
    """shadow: both answer, the usual answer is shown. ab: a share of the callers gets the candidate's answers."""
    candidate: Name
    """A deployment that the workload may use, and not its first."""
    judge: Name | None = None
    """Deployment that compares both answers in both orders; left out: by likeness. Of a shadow alone."""
    share: Annotated[Share, Field(gt=0, le=1)] = 0.1
    """Of the calls (shadow) or of the callers (ab)."""
    by: Literal["person", "conversation"] = "person"
    """Whom an arm is drawn for."""
    tolerance: Annotated[Percent, Field(gt=0, lt=1)] | None = None
    """How much worse it may be and still be taken: 2% of accepted outcomes (ab), 10% of the answers (shadow)."""
    guard_tolerance: Annotated[Percent, Field(gt=0, lt=1)] = 0.05
    """How much worse answering, speed or cost may become before it stops."""
    budget: Annotated[Usd, Field(gt=0)]
    """What its own calls may cost, within the workload's budgets: those beside others (shadow), which are reserved, or
    all that the candidate answers (ab), at which it ends within seconds."""
    until: Date | None = None
    """Its last day; left out: 30 days after it began."""


class ReplayRule(Strict):
    """Every night kept calls are asked again of other deployments, and a judge compares the answers."""

    candidates: Annotated[Names, Field(min_length=1, max_length=5)]
    """Deployments that the workload may use."""
    judge: Name
    """Deployment that compares answers, in both orders."""
    budget: Annotated[Usd, Field(gt=0)]
    """What one night may cost at most for each candidate, within the workload's budgets."""
    calls: Annotated[Count, Field(ge=30, le=5000)] = 200
    """Kept calls that are replayed at most."""
