"""What one run over a source writes together, and what it knows of a document while that is parsed. Types only."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from groundplan.knowledge.deletion.held_store import Cause
from groundplan.knowledge.model import Readers
from groundplan.knowledge.parsing.model import Piece
from groundplan.knowledge.sources.model import Change, Content, Cursor

BATCH: Final = 200
_CHARACTERS: Final = 4_000_000
_SECONDS: Final = 2.0


@dataclass(slots=True)
class Batch:
    """What is written together."""

    rows: list[Mapping[str, Any]] = field(default_factory=list)
    held: list[Mapping[str, Any]] = field(default_factory=list)
    tokens: dict[UUID, str] = field(default_factory=dict)
    readers: dict[UUID, Readers] = field(default_factory=dict)
    chunks: dict[UUID, list[Piece]] = field(default_factory=dict)
    plain: set[UUID] = field(default_factory=set)
    """Of `chunks`: documents that are no Markdown."""
    replaced: list[UUID] = field(default_factory=list)
    removed: dict[UUID, Cause] = field(default_factory=dict)
    cursor: Cursor | None = None
    began: float = field(default_factory=time.monotonic)
    characters: int = 0

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
