"""Role and class of a workload under Regulation (EU) 2024/1689, from the declared answers. Pure; no legal advice.

Articles 5, 6 and 50 and Annexes I and III decide; the dates from which duties hold are data (`timeline.json`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date
from functools import cache
from importlib import resources
from typing import Any, Literal

from groundplan.catalog.risk import EuAiActAnswers

ClassName = Literal["prohibited", "high-risk", "limited", "minimal"]


@dataclass(frozen=True, slots=True)
class RiskClass:
    """The class of a workload, the reason, and the duties that follow."""

    name: ClassName
    role: str
    why: str
    profile: str
    """The profile of the framework eu-ai-act that applies."""
    duties: tuple[str, ...]
    """In sentences."""


def classify(answers: EuAiActAnswers) -> RiskClass:
    """The strictest class that follows from the answers."""
    if answers.prohibited != "none":
        why = f"{answers.prohibited} is a practice of Article 5"
        return RiskClass("prohibited", answers.role, why, "minimal", ("It must not be placed on the market or used.",))
    if answers.safety_component:
        return _high_risk(answers, "a safety component of a product of Annex I (Article 6(1))")
    if answers.area != "none" and (answers.profiles_people or not answers.narrow_task):
        more = ", and it profiles people" if answers.profiles_people else ""
        return _high_risk(answers, f"{answers.area} is an area of Annex III{more} (Article 6(2))")
    duties = _transparency(answers)
    if duties:
        why = "people deal with it or with what it makes (Article 50)"
        return RiskClass("limited", answers.role, why, "limited", duties)
    why = (
        "a narrow task in an area of Annex III (Article 6(3)): document that"
        if answers.area != "none"
        else "no article names it"
    )
    return RiskClass(
        "minimal", answers.role, why, "minimal", ("People who use it know what they are doing (Article 4).",)
    )


def _high_risk(answers: EuAiActAnswers, why: str) -> RiskClass:
    common = (
        "People can oversee it and stop it (Article 14).",
        "Its logs are kept for at least six months (Articles 19 and 26(6)).",
        *_transparency(answers),
    )
    if answers.role == "provider":
        duties = (
            "Risk management, data governance and documentation (Articles 9 to 13).",
            "Conformity (Article 43).",
            *common,
        )
    else:
        duties = ("It is used as its instructions say, and watched (Article 26).", *common)
    return RiskClass("high-risk", answers.role, why, f"high-risk-{answers.role}", duties)


def _transparency(answers: EuAiActAnswers) -> tuple[str, ...]:
    duties: list[str] = []
    if answers.talks_to_people:
        duties.append("People are told that they deal with AI (Article 50(1)).")
    if answers.makes_content:
        duties.append("What it makes is marked as made by AI (Article 50(2) to (4)).")
    return tuple(duties)


@cache
def timeline() -> dict[str, Any]:
    """`{"regulation", "source", "as_of", "note", "dates": [{"from", "what", "articles"}]}`"""
    file = resources.files("groundplan.governance.risk") / "timeline.json"
    document: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return document


def applies_from(article: str) -> date | None:
    """The first day on which an article applies, as published; None if the timeline does not say."""
    for each in timeline()["dates"]:
        if article in each.get("articles", ()):
            return date.fromisoformat(each["from"])
    return None
