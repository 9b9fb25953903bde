"""What a workload declares about checks of requests, of passages and of answers."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, StringConstraints, WithJsonSchema

from groundplan.catalog.base import Strict
from groundplan.catalog.fields import LIST, Duration, Line, Lines, Name, Size, list_schema

Found = Literal["off", "flag", "mask", "block"]
"""flag: count it and let it pass; mask: put a stand-in in its place; block: refuse."""
Signal = Literal["off", "flag", "block"]
Language = Literal["de", "en", "es", "fr", "it", "nl", "pl", "pt", "sv"]
Keyword = Annotated[str, StringConstraints(pattern=r"^[$A-Za-z]{1,40}$")]
_SCHEMA = WithJsonSchema({"type": "object", "patternProperties": {"^[$A-Za-z]{1,40}$": {"examples": ["type: object"]}}})
Languages = Annotated[tuple[Language, ...], LIST, list_schema({"type": "string"})]


def _budget(milliseconds: int) -> int:
    if not 1 <= milliseconds <= 10_000:
        raise ValueError("write from 1ms to 10s")
    return milliseconds


_PART = re.compile(
    r"\\.|\[\^?(?:\\.|[^\]\\])+\]|\{[0-9]{1,3}(?:,[0-9]{1,3})?\}|\((?:\?:)?(?!\?)|\)|[?|.^$]|"
    r"[^\\\[\](){}*+?|.^$]",
    re.DOTALL,
)


def _pattern(text: str) -> str:
    """Every repetition is bounded and none is of a group, so that hostile text costs no more than its length."""
    at, after_group = 0, False
    while at < len(text):
        match = _PART.match(text, at)
        if match is None:
            raise ValueError(f"'{text[at : at + 10]}' may not stand in a pattern: write repetitions as {{6,10}}")
        if after_group and match.group().startswith("{"):
            raise ValueError("a group must not be repeated")
        after_group, at = match.group() == ")", match.end()
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"this is no regular expression: {error}") from error
    return text


class CompanyEntity(Strict):
    """A pattern of the company's own for personal data or secrets."""

    name: Name
    pattern: Annotated[str, StringConstraints(min_length=2, max_length=200), AfterValidator(_pattern)]
    """A regular expression; every repetition in it has an upper bound, such as [0-9]{6,10}."""
    secret: bool = False
    """true: matches are handled as secrets."""


class InputChecks(Strict):
    """Checks of requests."""

    personal_data: Found = "off"
    """mask: the model sees stand-ins such as <email_1>, and the client gets the values back in the answer."""
    secrets: Found = "off"
    injection: Signal = "off"
    """Text that tries to change the model's instructions."""
    deny: Lines = ()
    """Words or phrases that are refused, in any case."""
    max_size: Size | None = None
    languages: Languages = ()
    """Other languages are refused, if the text is long enough to detect its language."""
    presidio: Signal = "off"
    """Personal data as Presidio's pattern recognisers see it, beside `personal_data`: what that masks they do not see.
    The call waits for it. Needs the extra groundplan[governance]."""


class PassageChecks(Strict):
    """Checks of passages before they reach the model."""

    injection: Literal["off", "flag", "drop"] = "off"
    """drop: the passage is left out."""
    personal_data: Literal["off", "flag", "mask"] = "off"
    secrets: Literal["off", "flag", "mask"] = "mask"
    """Secrets in documents are shown to nobody, unless this says otherwise."""


class JudgeRule(Strict):
    """A model that judges the complete answer."""

    deployment: Name
    """A chat deployment of the workload; its calls are metered like all others."""
    question: Line
    """Question that it answers with yes or no, such as: Does the answer give legal advice?"""
    refuse_on: Literal["yes", "no"] = "yes"


class OutputChecks(Strict):
    """Checks of answers."""

    personal_data: Found = "off"
    secrets: Found = "off"
    deny: Lines = ()
    links: Lines | None = None
    """Hosts that links may point to; other links are removed. Left out: any."""
    schema_: Annotated[dict[Keyword, Any] | None, Field(alias="schema"), _SCHEMA] = None
    """JSON Schema of the answer. Needs the complete answer."""
    grounded: bool = False
    """Refuse an answer that cites no passage. Needs the complete answer."""
    max_size: Size | None = None
    languages: Languages = ()
    """Needs the complete answer."""
    judge: JudgeRule | None = None
    """Needs the complete answer."""
    presidio: Signal = "off"
    """Personal data as Presidio's pattern recognisers see it, beside `personal_data`. Needs the whole answer, and the
    extra groundplan[governance]."""


class GuardrailRule(Strict):
    """Checks of requests, passages and answers. Without this block nothing is checked, and no stream is held back."""

    input: InputChecks = InputChecks()
    passages: PassageChecks | None = None
    output: OutputChecks = OutputChecks()
    tools: Lines | None = None
    """Functions that an answer may call; an answer with another call is refused. Left out: any."""
    entities: Annotated[tuple[CompanyEntity, ...], LIST] = ()
    mode: Literal["enforce", "shadow"] = "enforce"
    """shadow: hits are only counted."""
    budget: Annotated[Duration, AfterValidator(_budget)] = 50
    """What all checks of one text, without the judge, may take; measured, and told (`budget`) when it is exceeded.
    That refuses nothing: the checks were made."""
    on_failure: Literal["closed", "open"] = "closed"
    """What happens if a check cannot be made, for instance because the judge does not answer."""
    unchecked: Annotated[
        tuple[Literal["image", "audio", "file", "tokens"], ...],
        LIST,
        list_schema({"enum": ["image", "audio", "file", "tokens"]}),
    ] = ()
    """What may pass though no check can look at it. Left out: where checks are demanded, images, sound, files and
    texts that are given as tokens are refused by name."""
    hold_back: Annotated[Size, Field(ge=64, le=65_536)] = 256
    """Hold-back of a stream, until what follows is known; longer matches are found by their beginning."""
