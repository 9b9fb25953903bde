"""The contract between a source and its ingestion. Types only.

A connector lists what changed or was deleted since a cursor, reads one document, and says who may read it and which
rules its folders set. It never writes to its source. Every connector passes `testing.connectors`, the shipped contract.

- `changes(cursor)` yields `Change`s in an order that is the same each time. After an interruption it is called with the
  cursor of the last ingested change and continues after it: changes may be repeated, none may be missed. Afterwards
  `is_complete` says whether it listed every document: then those it did not list are deleted.
- `version` of a change stays the same as long as the document and who may read it stay the same.
- `changes` may raise `Unavailable` at any point, also after the last change: what it yielded is ingested, nothing
  counts as deleted, and the reason becomes a finding of the source.
- `read(key)` returns the document as it is now. `NotFound` means that it is deleted. `Invalid` and `TooLarge` exclude
  it from search, `Unavailable` leaves it as it was until it is read again; each is one finding for that document. So
  is any other error, which excludes it from search and is retried.
- `folder_rules(key)` are the rules of the folders above the document, the outermost first, without the source's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol, runtime_checkable

from groundplan.knowledge.model import Readers
from groundplan.knowledge.parsing.model import Table

Cursor = Mapping[str, Any]
"""What a connector needs to continue, as JSON."""


@dataclass(frozen=True, slots=True)
class Change:
    """A document that may be new or changed, or is deleted. `cursor`: where to continue after it; None: not
    possible."""

    key: str
    version: str
    is_deleted: bool = False
    cursor: Cursor | None = None


@dataclass(frozen=True, slots=True)
class Content:
    """A document as read. `media` is a suffix such as `md`; empty: the suffix of the key. `governed_values`: those
    from outside of the document, such as a sidecar."""

    data: bytes
    media: str = ""
    modified_at: datetime | None = None
    governed_values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FolderRules:
    """What a folder sets: `origin` is `folder/PATH`; `values` are governed values as written; `readers` None: none set.

    `is_access_list`: `readers` is complete, so that nobody else may read, and nobody at all if it is empty. Otherwise
    the level above decides about people who are not named.
    """

    origin: str
    readers: Readers | None = None
    values: Mapping[str, Any] = field(default_factory=dict)
    is_access_list: bool = False


class Connector(Protocol):
    """See the module's docstring."""

    @property
    def is_complete(self) -> bool: ...

    def changes(self, cursor: Cursor | None) -> Iterator[Change]: ...

    def read(self, key: str) -> Content: ...

    def folder_rules(self, key: str) -> Sequence[FolderRules]: ...

    def tables(self) -> Sequence[Table]:
        """The tables of the source, for the checks that it declares."""
        ...

    def close(self) -> None: ...


@runtime_checkable
class SidecarConnector(Protocol):
    """A connector of a tree of files with sidecars."""

    def orphan_sidecars(self) -> Sequence[str]:
        """Paths of sidecars without a document; valid once `changes` is exhausted."""
        ...
