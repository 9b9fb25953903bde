"""Hits of checks, and refusals because of them. Types only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Hit:
    """What a check found: `text[start:end]`, or both 0 if it is about the whole text."""

    check: str
    """personal_data, secrets, injection, deny, links, max_size, languages, schema, grounded, judge, presidio, tools,
    unchecked"""
    action: str
    """flag | mask | drop | block"""
    start: int = 0
    end: int = 0
    kind: str = ""
    """email, iban …; the name of an injection sign; a language"""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A refusal by a check, in words that do not repeat what was found."""

    place: str
    """input | passages | output"""
    check: str
    kind: str = ""

    @property
    def code(self) -> str:
        return f"guardrail_{self.check}"

    @property
    def message(self) -> str:
        what = {
            "personal_data": "personal data", "presidio": "personal data",
            "secrets": "a secret", "deny": "a word or phrase that is not allowed",
            "injection": "an attempt to change what the model was told", "links": "a link that is not allowed",
            "max_size": "more than is allowed", "languages": "a language that is not allowed",
            "schema": "what does not fit the declared schema", "grounded": "no passage that it is drawn from",
            "judge": "what the judge of this workload refuses", "tools": "a function that may not be called",
            "failed": "what could not be checked", "unchecked": "what no check of this workload can look at",
        }[self.check]  # fmt: skip
        where = "the request" if self.place == "input" else "the answer"
        return f"{where} has {what}" + (f" ({self.kind})" if self.kind else "")

    @property
    def hint(self) -> str:
        """What the caller can do about it."""
        if self.check == "failed":
            return "Try again: what looks at it gave no answer."
        if self.place != "input":
            return "Ask otherwise, or ask the owner of the workload."
        return {
            "max_size": "Send less, or ask the owner of the workload.",
            "languages": "Write in another language, or ask the owner of the workload.",
        }.get(self.check, "Leave it out.")
