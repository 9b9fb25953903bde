"""The batch that a run over a source writes in one transaction, and a document that is being parsed. Types only."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from groundplan.knowledge.deletion.legal_hold_store import Cause
from groundplan.knowledge.intake.settle import DocumentGovernance
from groundplan.knowledge.model import Readers
from groundplan.knowledge.parsing.model import Piece
from groundplan.knowledge.sources.model import Change, Content, Cursor

BATCH: Final = 200
_CHARACTERS: Final = 4_000_000
_SECONDS: Final = 2.0

GovernanceResolver = Callable[[Mapping[str, Any], str | None], DocumentGovernance]
"""(decisions about a document, what put it under a legal hold) -> its governance."""


@dataclass(frozen=True, slots=True)
class InheritedDecisions:
    """Decisions that a document takes over from `origin`, the document that they were made about."""

    origin: UUID
    decisions: Mapping[str, Mapping[str, Any]]


@dataclass(slots=True)
class Batch:
    """What is written in one transaction: `rows` are new or changed documents, `governance_rows` those whose content
    is unchanged but whose governance is not, `tokens` those where only the source's version changed."""

    rows: list[Mapping[str, Any]] = field(default_factory=list)
    governance_rows: list[Mapping[str, Any]] = field(default_factory=list)
    tokens: dict[UUID, str] = field(default_factory=dict)
    readers: dict[UUID, Readers] = field(default_factory=dict)
    resolvers: dict[UUID, GovernanceResolver] = field(default_factory=dict)
    """Of `rows` and `governance_rows`: how to resolve them again, for decisions made before they are written."""
    decisions: dict[UUID, Mapping[str, Any]] = field(default_factory=dict)
    """Of the same: the decisions that they were resolved with."""
    inherited: dict[UUID, InheritedDecisions] = field(default_factory=dict)
    """Of `rows`: decisions that a moved document takes along from its former place."""
    chunks: dict[UUID, list[Piece]] = field(default_factory=dict)
    plain_documents: set[UUID] = field(default_factory=set)
    """Of `chunks`: documents that are not Markdown."""
    replaced: list[UUID] = field(default_factory=list)
    removed: dict[UUID, Cause] = field(default_factory=dict)
    cursor: Cursor | None = None
    started_at: float = field(default_factory=time.monotonic)
    characters: int = 0

    def set_governance(
        self, id: UUID, governance: DocumentGovernance, resolver: GovernanceResolver, decisions: Mapping[str, Any]
    ) -> None:
        """Set the readers of one of `rows` or `governance_rows`, and what they follow from."""
        self.readers[id], self.resolvers[id], self.decisions[id] = governance.readers, resolver, decisions

    def extract(self, row: Mapping[str, Any]) -> Batch:
        """A batch with one of `rows` or `governance_rows` only."""
        id = UUID(row["id"])
        part = Batch(
            readers={id: self.readers[id]}, resolvers={id: self.resolvers[id]}, decisions={id: self.decisions[id]},
            inherited={id: self.inherited[id]} if id in self.inherited else {},
            chunks={id: self.chunks[id]} if id in self.chunks else {}, plain_documents=self.plain_documents & {id},
            replaced=[id] if id in self.replaced else [],
        )  # fmt: skip
        (part.rows if id in self.chunks else part.governance_rows).append(row)
        return part

    def discard(self, ids: Collection[UUID]) -> None:
        """Take documents out of the batch."""
        self.rows = [row for row in self.rows if UUID(row["id"]) not in ids]
        self.governance_rows = [row for row in self.governance_rows if UUID(row["id"]) not in ids]
        self.replaced = [id for id in self.replaced if id not in ids]
        for id in ids:
            self.readers.pop(id, None)
            self.inherited.pop(id, None)
            self.chunks.pop(id, None)

    @property
    def is_full(self) -> bool:
        count = len(self.rows) + len(self.governance_rows) + len(self.removed) + len(self.tokens) // 10
        late = time.monotonic() - self.started_at > _SECONDS
        return count >= BATCH or self.characters >= _CHARACTERS or (late and (count > 0 or self.cursor is not None))


@dataclass(frozen=True, slots=True)
class Pending:
    """A document that is being parsed."""

    change: Change
    content: Content
    folder_rules: tuple[Any, ...]
    digest: str
    cursor_may_advance: bool
    """No document before this one is to be retried."""
