"""Which table is read and what its columns mean, and what is asked of a database. Types and errors only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from groundplan.core.errors import TooLarge, Unavailable
from groundplan.knowledge.parsing.model import MAX_TEXT_BYTES

MAX_NAME = 4000
"""Characters of the value that names a row: what is longer is no name."""
ROW_SECURITY = "source_row_security"
"""Code of the error of a table whose grants do not tell who reads which row."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Which table, and what its columns mean. `grants`: whoever may read the table reads its rows."""

    table: str
    id: str = "id"
    changed: str | None = None
    readers: str | None = None
    grants: bool = False


class Engine(Protocol):
    """The few questions that are asked of a database. Raises `Unavailable` where it does not answer."""

    def rows(self, layout: Layout, columns: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        """These columns of every row, and behind them how long it is; of one that is too long only its name."""
        ...

    def row(self, layout: Layout, key: str) -> Mapping[str, Any] | None:
        """Raises `TooLarge`."""
        ...

    def columns(self, layout: Layout) -> list[str]: ...

    def grantees(self, layout: Layout) -> set[str]: ...

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
