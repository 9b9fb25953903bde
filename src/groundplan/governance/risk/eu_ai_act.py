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
class Class:
    """What it is, why, and which duties follow."""

    name: ClassName
    role: str
    why: str
    profile: str
    """Profile of the framework eu-ai-act that holds."""
    duties: tuple[str, ...]
    """In words."""


def classify(answers: EuAiActAnswers) -> Class:
    """The gravest class that an answer gives."""
    if answers.prohibited != "none":
        why = f"{answers.prohibited} is a practice of Article 5"
        return Class("prohibited", answers.role, why, "minimal", ("It must not be placed on the market or used.",))
    if answers.safety_component:
        return _high(answers, "a safety component of a product of Annex I (Article 6(1))")
    if answers.area != "none" and (answers.profiles_people or not answers.narrow_task):
        more = ", and it profiles people" if answers.profiles_people else ""
        return _high(answers, f"{answers.area} is an area of Annex III{more} (Article 6(2))")
    told = _transparency(answers)
    if told:
        return Class("limited", answers.role, "people deal with it or with what it makes (Article 50)", "limited", told)
    why = (
        "a narrow task in an area of Annex III (Article 6(3)): document that"
        if answers.area != "none"
        else "no article names it"
    )
    return Class("minimal", answers.role, why, "minimal", ("People who use it know what they are doing (Article 4).",))


def _high(answers: EuAiActAnswers, why: str) -> Class:
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
    return Class("high-risk", answers.role, why, f"high-risk-{answers.role}", duties)


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
    read: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return read


def holds_from(article: str) -> date | None:
    """The first day on which an article applies, as published; None where the timeline does not say."""
    for each in timeline()["dates"]:
        if article in each.get("articles", ()):
            return date.fromisoformat(each["from"])
    return None
