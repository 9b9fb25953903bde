"""The frozen types of knowledge: what a document is, how it is cut, how it is stored.

No reading, no storing, no ranking here; what a search asks and gives is in `retrieval.wire`. Lines count from 1,
characters from 0; spans are half open and refer to the cleaned text of the document (line ends are `\\n`, control
characters are spaces), which has the lines of the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Protocol, TypeAlias
from uuid import UUID

if TYPE_CHECKING:  # the process that parses needs no vectors, and is started for every few documents
    import numpy as np
    from numpy.typing import NDArray

DIMENSION = 384
"""Length of an embedding vector, as in the column chunk.embedding."""

Vectors: TypeAlias = "NDArray[np.float32]"
"""Shape (n, 384), rows of unit length."""


class Embedder(Protocol):
    """Whatever turns texts into vectors: the model in this process, or the local service that has it."""

    def embed(self, texts: Sequence[str]) -> Vectors: ...


@dataclass(frozen=True, slots=True)
class Readers:
    """Who may read: names of groups and teams, `everyone`, or e-mail addresses; `deny` wins over `allow`."""

    allow: frozenset[str]
    deny: frozenset[str] = frozenset()


def by_grant(source: str) -> str:
    """The name, among the readers of a document, of whoever has a grant on its source."""
    return f"source/{source}"


@dataclass(frozen=True, slots=True)
class Chunk:
    """A passage of a document: `text == document[start_char:end_char]`, on lines start_line..end_line inclusive."""

    number: int
    text: str
    start_char: int
    end_char: int
    start_line: int
    end_line: int
    headings: tuple[str, ...] = ()
    """Titles of the sections around it, outermost first: context for its embedding, no part of its text."""
    head: str = ""
    """The head row of the table that it begins in, where that stands in a passage before it: no part of its text."""


@dataclass(frozen=True, slots=True)
class Document:
    """A document that was read: `path` is relative to its source's folder, with forward slashes."""

    path: str
    title: str
    text: str
    digest: str
    """SHA-256 of what was read and of how it is processed: the same digest means that nothing has to be done again."""
    readers: Readers
    markdown: bool
    modified_at: datetime | None = None
    review_by: date | None = None


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What one ingestion of a source did. What is wrong with its documents are findings in the ledger."""

    source: str
    read: int
    added: int
    changed: int
    deleted: int
    readers_changed: int
    chunks: int
    failed: int


@dataclass(frozen=True, slots=True)
class StoredChunk:
    """A chunk as PostgreSQL let its reader see it."""

    id: UUID
    document: UUID
    source: str
    path: str
    title: str
    text: str
    start_line: int
    end_line: int
    review_by: date | None = None
