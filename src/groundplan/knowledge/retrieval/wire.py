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
"""Most characters of one text that are searched for personal data."""


class PersonalRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Asks which personal data Presidio finds in a text. It takes milliseconds, the first time a second."""

    text: str


class PersonalAnswer(msgspec.Struct, frozen=True):
    """The kinds that were found, such as `us_ssn`, once for each occurrence."""

    kinds: list[str]


class Where(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A filter: only documents that match all fields; None matches everything. `after` and `before` bound the last
    modification (ISO 8601); a document without a date matches neither."""

    path: Said | None = None
    """Prefix of the path."""
    owner: Said | None = None
    sensitivity: list[Literal["public", "internal", "confidential", "restricted"]] | None = None
    """One of these."""
    media: Said | None = None
    """`md`, `pdf`, `csv`, …"""
    after: Moment | None = None
    before: Moment | None = None


class SearchRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A question on behalf of a person. Without `person` only public documents are visible. `max_bytes` bounds the
    UTF-8 text of all passages together. `floor` (0 to 1): below that confidence there are no passages."""

    workload: str
    person: str | None
    query: str
    sources: list[str]
    k: int = 4
    max_bytes: int = 6000
    floor: float = 0.0
    explain: bool = False
    context: int = 1
    """How many chunks before and after a passage are added to it if they fit: 0 or 1."""
    synonyms: bool = False
    """Also search for the glossary's synonyms of terms in the question."""
    where: Where = Where()
    edition: int | None = None
    """The edition of the index; None: the serving one. Only complete editions can be searched."""
    rerank: Rerank | None = None
    """The deployment that reorders the best passages."""
    stated: bool = False
    """Also return the state of the documents at the time of the answer, for `Since`. For gateways only: the state
    counts hidden changes too, so it must not be shown to the person."""


class Since(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An earlier answer: made in `state`, as returned by a search or the last confirmation, from the passages that
    `query` finds in these sources."""

    state: str
    query: str
    sources: list[str]
    synonyms: bool = False


class ConfirmRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Asks which of these chunks and documents a person may read now; chunks that changed, and those of sources that
    are not named, are not readable."""

    person: str
    chunks: list[str]
    sources: list[str]
    workload: str = ""
    documents: list[str] = []
    since: Since | None = None
    """Also check whether any later change may affect that answer."""


class ConfirmAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The requested chunks and documents that may be read."""

    readable: list[str]
    documents: list[str]
    state: str = ""
    """The state up to which no change may affect the answer in `since`. Empty: a change may, so only a new search
    tells; or no answer was given."""


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Another place with the text of a passage that the person may read too."""

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
    """The version of the document; the text of older versions is no longer available."""
    start_char: int = 0
    end_char: int = 0
    head: str = ""
    """The head row of the table in which the text begins, if that row is before the text: context, no part of the text.
    """
    also: list[Place] = []
    """The best of the other places with the same text, which is returned only once; without the text around them."""
    similarity: float | None = None
    """With `explain` only: its exact cosine with the question, -1 to 1; the rest of the score comes from its words and
    its neighbours."""
    words: list[str] = []
    """With `explain` only: the words of the question that are in its title, head or text, in any form."""
    overdue: bool = False
    """With `explain` only: whether the review of its document is overdue, which halves its score."""


class Withheld(msgspec.Struct, frozen=True, kw_only=True):
    """A document that matches and that the person may read, but that is kept back now: `reason` in one word."""

    document: str
    path: str
    title: str
    reason: str


class Conflict(msgspec.Struct, frozen=True, kw_only=True):
    """A sentence of a passage, and a contradicting one of another document that the person may read."""

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
"""Reason why a newer version is withheld as well -> words."""


class Newer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A document that matches and is withheld because a newer one replaces it; the person may read both. `reason`: in
    one word, as in `NOT_GIVEN`, why the newer one is withheld as well; empty if it is not."""

    document: str
    path: str
    title: str
    newer_document: str
    newer_path: str
    newer_title: str
    newer_source: str
    reason: str = ""


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """A step besides the search by words and vectors. `name` is `rerank`: a deployment ordered `passages` passages in
    `ms` milliseconds."""

    name: str
    deployment: str
    passages: int
    ms: float
    skipped: str = ""
    """The reason why the order did not change; empty: it is the deployment's."""


class SearchAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The passages for a question that a person may read. Nothing in it counts or names documents that they may not
    read.
    """

    passages: list[Passage]
    confidence: float = 0.0
    """How near the best passage is to the question, 0 to 1."""
    abstained: bool = False
    """Whether nothing reached the floor of the request: then there are no passages."""
    withheld: list[Withheld] = []
    """With `explain` only: documents that would have been among the passages."""
    conflicts: list[Conflict] = []
    """Facts in the passages that another document contradicts; both sources are named."""
    newer: list[Newer] = []
    """Documents that would have been among the passages, but have a newer version."""
    degraded: str = ""
    """The reason why the search was by words only, if the model of the index is unavailable."""
    steps: list[Step] = []
    """Further steps, executed or skipped."""


class StatedAnswer(SearchAnswer, frozen=True, kw_only=True):
    """The answer to a `stated` request."""

    state: str
