"""Checks of what goes in and comes out, and answers that wait for a person."""

from __future__ import annotations

import msgspec


class CompanyEntity(msgspec.Struct, frozen=True, kw_only=True):
    """A shape of the company's own that counts as personal data or as a secret."""

    name: str
    pattern: str
    secret: bool = False


class Judge(msgspec.Struct, frozen=True, kw_only=True):
    """A model that answers yes or no about a whole answer."""

    deployment: str
    question: str
    refuse_on: str = "yes"


class Guardrails(msgspec.Struct, frozen=True, kw_only=True):
    """Checks of what goes in and comes out. What is found is `flag`ged, `mask`ed or `block`ed, by where it stands."""

    input: dict[str, str] = {}
    """check (personal_data, secrets, injection) -> what is done"""
    passages: dict[str, str] = {}
    """the same; `drop` leaves a passage out"""
    output: dict[str, str] = {}
    deny_input: list[str] = []
    deny_output: list[str] = []
    max_input_bytes: int | None = None
    max_output_bytes: int | None = None
    input_languages: list[str] = []
    output_languages: list[str] = []
    links: list[str] | None = None
    schema: str | None = None
    """JSON text"""
    grounded: bool = False
    judge: Judge | None = None
    presidio: str = ""
    """flag | block: what is done where Presidio finds personal data in an answer; empty: it is not asked"""
    presidio_input: str = ""
    """the same of what is sent in"""
    tools: list[str] | None = None
    entities: list[CompanyEntity] = []
    shadow: bool = False
    budget_ms: int = 50
    fail_open: bool = False
    unchecked: list[str] = []
    """What may pass though no check can look at it: image, audio, file, tokens."""
    hold_bytes: int = 256


class Review(msgspec.Struct, frozen=True, kw_only=True):
    """Answers that wait for a person."""

    by: list[str] = []
    """e-mail addresses; empty: whoever holds the product or business duty"""
    within_ms: int = 300_000
    release_after: bool = False
    """What happens when nobody looked in time."""
    share: int = 10_000
    """Of ten thousand answers."""
