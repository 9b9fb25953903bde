"""What a workload's own matches teach: by region of questions, whether matches are given, checked, or not given. Pure.

A region is what lies near the first question of it. It begins checked, so that nothing is given on thin evidence; each
check that finds another answer raises what a match there must score, and a region that is surely worse than the bound
is switched off.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf

import numpy as np

from groundplan.economics.semantic.accept import least_wrong
from groundplan.economics.semantic.likeness import Vector

NEAR = 0.45
"""Likeness to the first question of a region."""
MOST = 256
"""Regions of a workload; what lies in none of them then goes to the nearest."""
STEP = 0.5
"""How much more than a wrong match the next one must score."""
OFF_CONFIDENCE = 0.8
ASK, CHECK, GIVE = "ask", "check", "give"


@dataclass(slots=True)
class Region:
    """Counts of checked matches, and the least score that came of them."""

    first: Vector
    checked: int = 0
    wrong: int = 0
    raised: float = -inf
    off: bool = False


@dataclass(slots=True)
class Regions:
    """Of one workload in one worker."""

    bound: float
    check: float
    evidence: int
    threshold: float
    known: list[Region] = field(default_factory=list)

    def of(self, vector: Vector) -> Region:
        """The region of a question, made where there is none yet."""
        likeness = np.stack([region.first for region in self.known]) @ vector if self.known else np.zeros(0)
        place = int(likeness.argmax()) if len(likeness) else -1
        if place >= 0 and (likeness[place] >= NEAR or len(self.known) >= MOST):
            return self.known[place]
        self.known.append(Region(vector))
        return self.known[-1]

    def decide(self, region: Region, score: float, dice: float) -> str:
        """`give` the answer, `check` it against a fresh one, or `ask` a model as if there were none. `dice`: 0 to 1."""
        if region.off or score < max(self.threshold, region.raised):
            return ASK
        if region.checked - region.wrong < self.evidence or dice < self.check:
            return CHECK
        return GIVE

    def learn(self, region: Region, score: float, same: bool) -> None:
        """Whether the fresh answer to a checked match said the same."""
        region.checked += 1
        if same:
            return
        region.wrong += 1
        region.raised = max(region.raised, score + STEP)
        region.off = least_wrong(region.wrong, region.checked, OFF_CONFIDENCE) > self.bound
