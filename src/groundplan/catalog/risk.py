"""The risk of a workload as its owners see it: what may go wrong, what is done about it, who accepts the rest until
when; and what decides its class under the EU AI Act. What follows from the answers is governance's.
"""

from __future__ import annotations

from typing import Literal

from groundplan.catalog.base import Strict
from groundplan.catalog.fields import Date, Line, Lines, PersonRef

Level = Literal["low", "medium", "high", "severe"]
LEVELS = ("low", "medium", "high", "severe")
Likelihood = Literal["rare", "possible", "likely"]


class EuAiActAnswers(Strict):
    """The questions that decide role and class under Regulation (EU) 2024/1689."""

    role: Literal["provider", "deployer"] = "deployer"
    """provider: develops it, or puts it into service under its own name; deployer: uses it."""
    prohibited: Literal[
        "none", "manipulation", "exploiting-vulnerability", "social-scoring", "crime-prediction", "face-scraping",
        "emotions-at-work-or-school", "biometric-categories", "remote-biometrics",
    ] = "none"  # fmt: skip
    """A practice of Article 5."""
    area: Literal[
        "none", "biometrics", "critical-infrastructure", "education", "employment", "essential-services",
        "law-enforcement", "migration", "justice",
    ] = "none"  # fmt: skip
    """An area of Annex III."""
    safety_component: bool = False
    """Of a product that Annex I lists."""
    narrow_task: bool = False
    """Only a narrow procedural, preparatory or improving task (Article 6(3))."""
    profiles_people: bool = False
    """Profiling of natural persons: high-risk in an area of Annex III whatever the task."""
    talks_to_people: bool = True
    """People deal with it directly (Article 50(1))."""
    makes_content: bool = False
    """It makes text, image, sound or video that is published or shown as if real (Article 50(2) to (4))."""


class RiskRule(Strict):
    """What may go wrong, and who accepts what is left."""

    impact: Level
    """Of the worst that is likely enough to plan for."""
    likelihood: Likelihood
    """Likelihood without the controls."""
    harms: Lines = ()
    """What may happen, to whom."""
    controls: Lines = ()
    """What is done about it."""
    residual: Level
    """What is left with it."""
    accepted_by: PersonRef | None = None
    """Who accepts what is left."""
    until: Date | None = None
    """Last day on which that holds."""
    notice: Line | None = None
    """How people are informed that they interact with AI."""
    known_limits: Lines = ()
    """What it is not good at."""
    eu_ai_act: EuAiActAnswers | None = None
