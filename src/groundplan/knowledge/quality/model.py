"""The documents that are assessed for quality, and the weight of each kind of finding in a score.

A document's score is 1 minus the weights of its kinds of findings, at least 0. docs/knowledge.md lists the kinds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final
from uuid import UUID

from groundplan.ledger.finding import Severity


@dataclass(frozen=True, slots=True)
class AssessedDocument:
    """A live document with the attributes that its quality depends on. `checked` and `personal` are None until its text
    is scanned."""

    id: UUID
    source: str
    path: str
    title: str
    state: str
    sensitivity: str
    owner: str | None
    steward: str | None
    modified_at: datetime | None
    review_by: date | None
    review_days: int | None
    valid_until: date | None
    superseded_by: UUID | None
    content: str | None
    notes: Sequence[str]
    readers: Sequence[str]
    personal: Mapping[str, int] | None
    checked: Mapping[str, Any] | None
    declared: Mapping[str, Any]
    decided: Mapping[str, Any]
    media: str | None = None
    source_owner: str | None = None
    acl: int | None = None
    """Number of its readers' set: documents with the same one have the same readers."""
    version: int = 1
    standing: str = "approved"
    """A value of `governed_store.STANDING`."""

    @property
    def subject(self) -> str:
        return f"source/{self.source}/{self.path}"

    @property
    def is_settled(self) -> bool:
        """Whether the document was taken out of use by a decision: then its age needs no attention."""
        return self.state in ("rejected", "retired")

    @property
    def responsible(self) -> str | None:
        """The person who is to correct it."""
        return self.steward or self.owner

    @property
    def owners(self) -> list[str]:
        """Owner and steward."""
        return [name for name in (self.owner, self.steward) if name]


@dataclass(frozen=True, slots=True)
class SketchedDocument:
    """A document that was not replaced, for the search for copies. `content` is the digest of its words."""

    id: UUID
    source: str
    path: str
    content: str | None
    sketch: bytes
    acl: int | None
    holds: bool
    """Whether it is approved and valid today. Of two copies, one that is not is the copy, whichever is newer."""


@dataclass(frozen=True, slots=True)
class Kind:
    """The weight of a kind of finding in a document's score, and its severity."""

    weight: float
    severity: Severity


KINDS: Final[Mapping[str, Kind]] = {
    "knowledge.stale": Kind(0.3, "medium"),
    "knowledge.expired": Kind(0.3, "medium"),
    "knowledge.duplicate": Kind(0.3, "medium"),
    "knowledge.near_duplicate": Kind(0.2, "low"),
    "knowledge.superseded": Kind(0.4, "medium"),
    "knowledge.versions": Kind(0.3, "medium"),
    "knowledge.conflict": Kind(0.3, "high"),
    "knowledge.owner": Kind(0.2, "medium"),
    "knowledge.metadata": Kind(0.1, "low"),
    "knowledge.structure": Kind(0.1, "low"),
    "knowledge.incomplete": Kind(0.2, "medium"),
    "knowledge.personal_data": Kind(0.3, "high"),
    "knowledge.secret": Kind(0.6, "critical"),
    "knowledge.glossary": Kind(0.1, "low"),
    "knowledge.reader_unknown": Kind(0.1, "medium"),
    "knowledge.nobody": Kind(0.2, "medium"),
    "knowledge.table": Kind(0.2, "high"),
    "knowledge.sensor": Kind(0.2, "high"),
    "knowledge.unreadable": Kind(1.0, "medium"),
    "knowledge.unsupported": Kind(1.0, "info"),
    "knowledge.deleted_at_source": Kind(0.0, "medium"),
}
"""Every kind of finding about documents. `knowledge.source_missing` is about the source itself."""


def document_score(kinds: Sequence[str]) -> float:
    """The score of a document with findings of these kinds; each kind counts once."""
    return max(0.0, round(1.0 - sum(KINDS[kind].weight for kind in set(kinds)), 3))
