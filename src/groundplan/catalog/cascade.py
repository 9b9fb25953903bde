"""What a workload declares about trying a cheaper deployment first, and how its answer is checked. Types only."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from groundplan.catalog.base import Strict
from groundplan.catalog.fields import Line, Name, Percent


class CascadeJudge(Strict):
    """A model that answers yes or no about the question and the answer to it."""

    deployment: Name
    """One of the workload's; better not the one that is judged."""
    question: Line
    """Such as `Does the answer follow from what was asked, and is it complete?`"""
    passes_on: Literal["yes", "no"] = "yes"


class CascadeChecks(Strict):
    """All that are named must pass, the cheapest first. A check that cannot be made has not passed."""

    schema_: Annotated[bool, Field(alias="schema")] = False
    """The answer fits the `schema` of the workload's guardrails."""
    grounded: bool = False
    """It cites a passage."""
    confidence: Annotated[Percent, Field(gt=0)] | None = None
    """Least mean probability (geometric) of its tokens, as its upstream tells them."""
    agreement: Annotated[int, Field(ge=2, le=5)] | None = None
    """So many answers of the same deployment must say the same; each is a call of its own."""
    judge: CascadeJudge | None = None

    @property
    def any(self) -> bool:
        return bool(self.schema_ or self.grounded or self.confidence or self.agreement or self.judge)


class CascadeRule(Strict):
    """A cheaper deployment answers first; what does not pass the checks is answered by the others, in their order."""

    first: Name
    """Deployment that is tried."""
    checks: CascadeChecks
    otherwise: Literal["refuse", "give"] = "refuse"
    """What becomes of an answer that did not pass where nobody else can answer."""
