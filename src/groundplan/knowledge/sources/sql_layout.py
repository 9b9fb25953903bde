"""The table that is read with the meaning of its columns, and the interface to a database. Types and errors only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from groundplan.core.errors import TooLarge, Unavailable
from groundplan.knowledge.parsing.model import MAX_TEXT_BYTES

MAX_NAME = 4000
"""Longest id of a row, in characters."""
ROW_SECURITY = "source_row_security"
"""Code of the error for a table whose grants do not determine who may read which row."""


@dataclass(frozen=True, slots=True)
class Layout:
    """A table and the meaning of its columns. `grants`: those who may read the table may read all its rows."""

    table: str
    id: str = "id"
    changed: str | None = None
    readers: str | None = None
    grants: bool = False


class Engine(Protocol):
    """Reads tables of one database. All methods raise `Unavailable` if it does not answer."""

    def rows(self, layout: Layout, columns: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        """These columns of every row, followed by the row's length in bytes; of a row that is too long, only its id."""
        ...

    def row(self, layout: Layout, key: str) -> Mapping[str, Any] | None:
        """The values of a row by column; None if there is no such row. Raises `TooLarge`."""
        ...

    def columns(self, layout: Layout) -> list[str]:
        """The names of the table's columns."""
        ...

    def grantees(self, layout: Layout) -> set[str]:
        """The readers by the grants on the table."""
        ...

    def close(self) -> None: ...


def value_too_long() -> TooLarge:
    return TooLarge(
        f"the row is longer than {MAX_TEXT_BYTES >> 20} MiB", code="document_too_large",
        hint="Name a view that leaves its longest column out, or shortens it.",
    )  # fmt: skip


def database_unavailable(what: str, error: Exception | None) -> Unavailable:
    said = f": {str(error).splitlines()[0][:200]}" if error is not None and str(error) else ""
    return Unavailable(
        f"{what}{said}", code="source_missing", hint="Check its address and rights; its documents stay as they were."
    )
