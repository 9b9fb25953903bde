"""The messages of the local search service, for any process; without numpy, so a gateway worker may import it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

import msgspec

from groundplan.blueprint.content import Rerank

Moment = Annotated[datetime, msgspec.Meta(tz=True)]
Said = Annotated[str, msgspec.Meta(max_length=1000, pattern=r"^[^\x00]*$")]


PERSONAL = b"/personal"
MOST_PERSONAL = 200_000
"""Characters of one text that are looked at for personal data."""


class PersonalRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What of personal data Presidio finds in a text. It blocks for milliseconds, the first time for a second."""

    text: str


class PersonalAnswer(msgspec.Struct, frozen=True):
    """The kinds that were found, such as `us_ssn`, once for each find."""

    kinds: list[str]


class Where(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Only documents of which all of this holds; what is None does not matter. `after` and `before` bound the last
    modification (ISO 8601): a document without a date was not modified in any time."""

    path: Said | None = None
    """How it begins."""
    owner: Said | None = None
    sensitivity: list[Literal["public", "internal", "confidential", "restricted"]] | None = None
    """One of these."""
    media: Said | None = None
    """`md`, `pdf`, `csv`, …"""
    after: Moment | None = None
    before: Moment | None = None


class SearchRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A question on behalf of a person. Without `person` only what is public is visible. `max_bytes` bounds UTF-8 text
    in all. `floor` (0 to 1): below that confidence there is no answer."""

    workload: str
    person: str | None
    query: str
    sources: list[str]
    k: int = 4
    max_bytes: int = 6000
    floor: float = 0.0
    explain: bool = False
    context: int = 1
    """How many chunks before and after a passage are given with it, where they fit: 0 or 1."""
    synonyms: bool = False
    """Also look for what the glossary says for the terms of the question."""
    where: Where = Where()
    edition: int | None = None
    """Which edition of the index; None: the one that serves. Only whole ones can be asked."""
    rerank: Rerank | None = None
    """Who puts the best passages in order."""
    stated: bool = False
    """Also tell in which state of the documents it was answered, for `Since`. For a gateway: it counts hidden changes,
    too, so whoever asks is not told."""


class Since(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An answer that was made in that `state`, as a search or the last look told it, from what `query` finds in these
    sources."""

    state: str
    query: str
    sources: list[str]
    synonyms: bool = False


class ConfirmRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which of these chunks and documents a person may read now; those of other sources than named, and chunks that
    changed, are none."""

    person: str
    chunks: list[str]
    sources: list[str]
    workload: str = ""
    documents: list[str] = []
    since: Since | None = None
    """Also look whether anything that came since may bear on that answer."""


class ConfirmAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Those of what was asked that may be read: chunks and documents."""

    readable: list[str]
    documents: list[str]
    state: str = ""
    """Up to which nothing came that may bear on the answer that was asked about. Empty: something may, and only what is
    found now tells; or none was asked about."""


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where else the words of a passage stand, which the person may read there, too."""

    document: str
    path: str
    title: str
    source: str
    start_line: int
    end_line: int
    start_char: int
    end_char: int
    version: int = 1


class Passage(msgspec.Struct, frozen=True, kw_only=True):
    """A chunk that the person may read at this moment. `score` only orders the passages of one answer."""

    document: str
    path: str
    title: str
    source: str
    start_line: int
    end_line: int
    text: str
    score: float
    chunk: str
    version: int = 1
    """Of the document: the text of an older one is no longer there."""
    start_char: int = 0
    end_char: int = 0
    head: str = ""
    """The head row of the table in which the text begins, where it stands before it: context, no part of the text."""
    also: list[Place] = []
    """The best of the other places where the same words stand, which are told once; without those around them."""
    similarity: float | None = None
    """With `explain` only: its own to the question, -1 to 1, exact; the rest of the score is its words and its
    neighbours."""
    words: list[str] = []
    """With `explain` only: those of the question that it has, in whatever form, in its title, head or text."""
    overdue: bool = False
    """With `explain` only: its document's review is over, so that it counts half."""


class Withheld(msgspec.Struct, frozen=True, kw_only=True):
    """A document that matches and that the person may read, but that may not be used now: `reason` in one word."""

    document: str
    path: str
    title: str
    reason: str


class Conflict(msgspec.Struct, frozen=True, kw_only=True):
    """A sentence of a passage, and what another document that the person may read says about the same."""

    document: str
    path: str
    title: str
    source: str
    says: str
    other_document: str
    other_path: str
    other_title: str
    other_source: str
    other_says: str


NOT_GIVEN = {
    "expired": "is not valid any more",
    "not_yet_valid": "is not valid yet",
    "draft": "waits for approval",
    "rejected": "was rejected",
    "retired": "is retired",
    "superseded": "has a newer version itself",
}
"""Why a newer version is not given either, in words."""


class Newer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A document that matches and is not given because a newer one replaces it; the person may read both. `reason`: in
    one word why the newer one is not given either, as in `NOT_GIVEN`; empty where it may be."""

    document: str
    path: str
    title: str
    newer_document: str
    newer_path: str
    newer_title: str
    newer_source: str
    reason: str = ""


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """What was done besides words and vectors. `name` is `rerank`: a deployment was asked for the order of so many
    passages, which took `ms`."""

    name: str
    deployment: str
    passages: int
    ms: float
    skipped: str = ""
    """Why the order stayed as it was; empty: it is the deployment's."""


class SearchAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What a person may read of what a question asks for. Nothing in it counts or names what they may not."""

    passages: list[Passage]
    confidence: float = 0.0
    """Of the best passage, 0 to 1: how near it is to the question."""
    abstained: bool = False
    """Whether nothing reached the floor of the request: then there are no passages."""
    withheld: list[Withheld] = []
    """With `explain` only: what would have been among the passages."""
    conflicts: list[Conflict] = []
    """Facts in the passages that another document contradicts: both sources are named."""
    newer: list[Newer] = []
    """What would have been among the passages, but has a newer version."""
    degraded: str = ""
    """Why it was looked for by words alone, where the model of the index is away."""
    steps: list[Step] = []
    """What was done besides, or was to be done and was not."""


class StatedAnswer(SearchAnswer, frozen=True, kw_only=True):
    """To a `stated` request."""

    state: str
