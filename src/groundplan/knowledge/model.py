"""The frozen types of knowledge: documents, their readers and passages.

Nothing is read, stored or ranked here; the messages of searches are in `retrieval.wire`. Lines count from 1, characters
from 0; spans are half open and refer to the cleaned text of the document (line ends are `\\n`, control characters are
spaces), which has the lines of the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Protocol, TypeAlias
from uuid import UUID

if TYPE_CHECKING:  # the process that parses needs no vectors, and is started for every few documents
    import numpy as np
    from numpy.typing import NDArray

DIMENSION = 384
"""Length of a vector of the embedded model."""

Vectors: TypeAlias = "NDArray[np.float32]"
"""Shape (n, 384), rows of unit length."""


class Embedder(Protocol):
    """Turns texts into vectors, by the model in this process, the local service, or a deployment."""

    def embed(self, texts: Sequence[str]) -> Vectors: ...


@dataclass(frozen=True, slots=True)
class Readers:
    """Who may read a document: names of groups and teams, `everyone`, or e-mail addresses; `deny` wins over `allow`."""

    allow: frozenset[str]
    deny: frozenset[str] = frozenset()


def by_grant(source: str) -> str:
    """The name among the readers of a document that stands for the holders of a grant on its source."""
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
    """The head row of the table that it begins in, if that row is in an earlier passage: no part of its text."""


@dataclass(frozen=True, slots=True)
class IngestReport:
    """The counts of one ingestion of a source. Problems with its documents are findings in the ledger."""

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
    """A chunk as read from PostgreSQL with the permissions of a person."""

    id: UUID
    document: UUID
    source: str
    path: str
    title: str
    text: str
    start_line: int
    end_line: int
    review_by: date | None = None
