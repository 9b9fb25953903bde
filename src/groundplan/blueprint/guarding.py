"""Guardrails on inputs and outputs, and human review of answers."""

from __future__ import annotations

import msgspec


class CompanyEntity(msgspec.Struct, frozen=True, kw_only=True):
    """A pattern of the company's own that counts as personal data or as a secret."""

    name: str
    pattern: str
    secret: bool = False


class Judge(msgspec.Struct, frozen=True, kw_only=True):
    """A model that answers yes or no to a question about a complete answer."""

    deployment: str
    question: str
    refuse_on: str = "yes"


class Guardrails(msgspec.Struct, frozen=True, kw_only=True):
    """Checks of inputs, passages and outputs. Depending on the check and place, a finding is `flag`ged, `mask`ed or
    `block`ed."""

    input: dict[str, str] = {}
    """check (personal_data, secrets, injection) -> action"""
    passages: dict[str, str] = {}
    """as `input`; the action `drop` leaves a passage out"""
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
    """flag | block: action where Presidio finds personal data in an answer; empty: Presidio is not used"""
    presidio_input: str = ""
    """as `presidio`, for inputs"""
    tools: list[str] | None = None
    entities: list[CompanyEntity] = []
    shadow: bool = False
    budget_ms: int = 50
    fail_open: bool = False
    unchecked: list[str] = []
    """Content that may pass although no check can examine it: image, audio, file, tokens."""
    hold_bytes: int = 256


class Review(msgspec.Struct, frozen=True, kw_only=True):
    """Human review of answers before they are released."""

    by: list[str] = []
    """e-mail addresses; empty: the holders of the product or business duty"""
    within_ms: int = 300_000
    release_after: bool = False
    """Whether an answer is released when nobody has reviewed it in time."""
    share: int = 10_000
    """Share of answers that are reviewed, of ten thousand."""
