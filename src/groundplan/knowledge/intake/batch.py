"""What one run over a source writes together, and what it knows of a document while that is parsed. Types only."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from groundplan.knowledge.deletion.legal_hold_store import Cause
from groundplan.knowledge.intake.settle import Settled
from groundplan.knowledge.model import Readers
from groundplan.knowledge.parsing.model import Piece
from groundplan.knowledge.sources.model import Change, Content, Cursor

BATCH: Final = 200
_CHARACTERS: Final = 4_000_000
_SECONDS: Final = 2.0

Settle = Callable[[Mapping[str, Any], str | None], Settled]
"""What holds for a document, by what was decided about it and by what put it under a legal hold."""


@dataclass(frozen=True, slots=True)
class Carried:
    """Decisions about a document, and the one that they were about: it stood where nothing stands now."""

    of: UUID
    decided: Mapping[str, Mapping[str, Any]]


@dataclass(slots=True)
class Batch:
    """What is written together."""

    rows: list[Mapping[str, Any]] = field(default_factory=list)
    held: list[Mapping[str, Any]] = field(default_factory=list)
    tokens: dict[UUID, str] = field(default_factory=dict)
    readers: dict[UUID, Readers] = field(default_factory=dict)
    settle: dict[UUID, Settle] = field(default_factory=dict)
    """Of `rows` and `held`: how they follow from what was decided, for what is decided until they are written."""
    decided: dict[UUID, Mapping[str, Any]] = field(default_factory=dict)
    """Of the same: by which decisions they are as they are; none: by none."""
    carried: dict[UUID, Carried] = field(default_factory=dict)
    """Of `rows`: decisions that come with a document from where it stood before."""
    chunks: dict[UUID, list[Piece]] = field(default_factory=dict)
    plain: set[UUID] = field(default_factory=set)
    """Of `chunks`: documents that are no Markdown."""
    replaced: list[UUID] = field(default_factory=list)
    removed: dict[UUID, Cause] = field(default_factory=dict)
    cursor: Cursor | None = None
    began: float = field(default_factory=time.monotonic)
    characters: int = 0

    def keep(self, id: UUID, settled: Settled, settle: Settle, decided: Mapping[str, Any]) -> None:
        """Who may read one of `rows` or `held`, and what that follows from."""
        self.readers[id], self.settle[id], self.decided[id] = settled.readers, settle, decided

    def part(self, row: Mapping[str, Any]) -> Batch:
        """One of its `rows` or `held` by itself."""
        id = UUID(row["id"])
        own = Batch(
            readers={id: self.readers[id]}, settle={id: self.settle[id]}, decided={id: self.decided[id]},
            carried={id: self.carried[id]} if id in self.carried else {},
            chunks={id: self.chunks[id]} if id in self.chunks else {}, plain=self.plain & {id},
            replaced=[id] if id in self.replaced else [],
        )  # fmt: skip
        (own.rows if id in self.chunks else own.held).append(row)
        return own

    def without(self, ids: Collection[UUID]) -> None:
        """Take documents out of it."""
        self.rows = [row for row in self.rows if UUID(row["id"]) not in ids]
        self.held = [row for row in self.held if UUID(row["id"]) not in ids]
        self.replaced = [id for id in self.replaced if id not in ids]
        for id in ids:
            self.readers.pop(id, None)
            self.carried.pop(id, None)
            self.chunks.pop(id, None)

    @property
    def full(self) -> bool:
        count = len(self.rows) + len(self.held) + len(self.removed) + len(self.tokens) // 10
        late = time.monotonic() - self.began > _SECONDS
        return count >= BATCH or self.characters >= _CHARACTERS or (late and (count > 0 or self.cursor is not None))


@dataclass(frozen=True, slots=True)
class Pending:
    """A document on its way through the parser."""

    change: Change
    content: Content
    around: tuple[Any, ...]
    digest: str
    clear: bool
    """No document before it is tried again."""
