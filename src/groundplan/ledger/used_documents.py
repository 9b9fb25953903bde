"""The documents a call rested on, as its row and its entry in the audit log have them. Pure.

A passage is `[document, path, first line, last line]`. A document that contradicts one and of which no passage was
given has no lines and says so: `[document, path, null, null, "conflict"]`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from groundplan.ledger.model import Finish

CONFLICT: Final = "conflict"
PASSAGE: Final = 4
"""Members of a passage."""


def used(end: Finish) -> list[Sequence[Any]]:
    """Passages as they were numbered, then the rest."""
    if not end.conflicts:
        return [*end.sources]
    return [*end.sources, *((document, path, None, None, CONFLICT) for document, path in end.conflicts)]


def passages(rows: Iterable[Sequence[Any]]) -> list[Sequence[Any]]:
    """What was given as a passage."""
    return [row for row in rows if len(row) == PASSAGE]


def conflicts(rows: Iterable[Sequence[Any]]) -> list[Sequence[Any]]:
    """What only spoke against one."""
    return [row for row in rows if len(row) > PASSAGE and row[PASSAGE] == CONFLICT]
