"""The contract between a source and whoever reads it. Types only.

A connector tells what changed since a cursor, reads one document, says who may read it and what holds around it, and
tells what is gone. It never writes to what it reads from. Every connector passes `testing.connectors`, the shipped
contract.

- `changes(cursor)` yields `Change`s in an order that is the same each time. Where it is cut off it is asked again with
  the cursor of the last change that was taken over, and goes on after that one: what was taken over before may come
  again, nothing may be missed. Afterwards `whole` says whether it told all there is: what it did not tell is gone.
- `version` of a change is the same as long as the document and who may read it are the same.
- `changes` may raise `Unavailable` at any point, also after all that it can tell: what it told is taken over, nothing
  counts as gone, and the reason is told of the source.
- `read(key)` gives the document as it is now. `NotFound` means that it is gone. `Invalid` and `TooLarge` take it out of
  search, `Unavailable` leaves it as it was until it is read again; each costs that document one finding. So does any
  other error, which takes it out of search and is tried again.
- `around(key)` are the levels above the document, the farthest first: folders, not the source itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol, runtime_checkable

from groundplan.knowledge.model import Readers
from groundplan.knowledge.parsing.model import Table

Cursor = Mapping[str, Any]
"""Whatever a connector needs to go on, as JSON."""


@dataclass(frozen=True, slots=True)
class Change:
    """A document that may be new or changed, or is gone. `cursor`: where to go on after it; None: not from here."""

    key: str
    version: str
    gone: bool = False
    cursor: Cursor | None = None


@dataclass(frozen=True, slots=True)
class Content:
    """A document. `media` is a suffix such as `md`, empty: as the key says. `told`: governed values besides its own."""

    data: bytes
    media: str = ""
    modified_at: datetime | None = None
    told: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Around:
    """What a folder says: `origin` is `folder/PATH`; `readers` None: nothing. `told` are governed values as written.

    `complete`: an access list, so that whoever is not in it may not read; an empty one lets nobody. Else who is not
    named is left to the level above.
    """

    origin: str
    readers: Readers | None = None
    told: Mapping[str, Any] = field(default_factory=dict)
    complete: bool = False


class Connector(Protocol):
    """See the module's text."""

    @property
    def whole(self) -> bool: ...

    def changes(self, cursor: Cursor | None) -> Iterator[Change]: ...

    def read(self, key: str) -> Content: ...

    def around(self, key: str) -> Sequence[Around]: ...

    def tables(self) -> Sequence[Table]:
        """What the source keeps as tables, for the checks that it declares."""
        ...

    def close(self) -> None: ...


@runtime_checkable
class Beside(Protocol):
    """A connector of a tree with sidecars."""

    def alone(self) -> Sequence[str]:
        """Of what `changes` went through to its end: sidecars whose documents are not there."""
        ...
