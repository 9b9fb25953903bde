"""Cutting a document anew from its own passages, so that neither its source nor its file is needed. Pure.

Passages are verbatim and leave out white space only; where each stands and how many lines lie between two is known. So
the text comes out with every character and line at its place; between two passages white space may stand in another
order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from groundplan.knowledge.chunk import split_passages
from groundplan.knowledge.parsing.model import Piece

PLAIN: Final = frozenset({"txt", "text", "json", "jsonl"})
"""Kinds of files without headings of Markdown; every other kind is read as Markdown."""


def recut_passages(pieces: Sequence[Piece], *, markdown: bool, limit: int) -> list[Piece]:
    """The passages of at most `limit` characters of the text that `pieces` are all of."""
    if not pieces:
        return []
    return [
        Piece(c.number, c.text, c.start_char, c.end_char, c.start_line, c.end_line, list(c.headings), c.head)
        for c in split_passages(join_passages(pieces), markdown=markdown, start=pieces[0].start_char, limit=limit)
    ]


def join_passages(pieces: Sequence[Piece]) -> str:
    """The text, with white space for what stood before the first passage and between two."""
    parts: list[str] = []
    at, line = 0, 1
    for piece in pieces:
        breaks = piece.start_line - line
        parts += ["\n" * breaks, " " * (piece.start_char - at - breaks), piece.text]
        at, line = piece.end_char, piece.end_line
    return "".join(parts)


def is_markdown(media: str | None) -> bool:
    """Whether documents of this kind have headings."""
    return media not in PLAIN
