"""The documents that a call used, in the form of its row and its audit entry. Pure.

A passage is `[document, path, first line, last line]`. A document that contradicts a passage and of which no passage
was given has no lines: `[document, path, null, null, "conflict"]`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from groundplan.ledger.model import Finish

CONFLICT: Final = "conflict"
PASSAGE: Final = 4
"""Length of a passage row."""


def used_documents(end: Finish) -> list[Sequence[Any]]:
    """The passages in their order, then the conflicting documents."""
    if not end.conflicts:
        return [*end.sources]
    return [*end.sources, *((document, path, None, None, CONFLICT) for document, path in end.conflicts)]


def passages(rows: Iterable[Sequence[Any]]) -> list[Sequence[Any]]:
    """The rows that are passages."""
    return [row for row in rows if len(row) == PASSAGE]


def conflicts(rows: Iterable[Sequence[Any]]) -> list[Sequence[Any]]:
    """The rows of documents that only contradict a passage."""
    return [row for row in rows if len(row) > PASSAGE and row[PASSAGE] == CONFLICT]
