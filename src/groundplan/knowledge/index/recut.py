"""Cuts a document again from its stored passages, so that neither its source nor its file is needed. Pure.

Passages are verbatim and leave out only white space; their offsets and lines are known. So the text is restored with
every character and line in its place; only the order of white space between two passages may differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from groundplan.knowledge.chunk import split_passages
from groundplan.knowledge.parsing.model import Piece

PLAIN_MEDIA: Final = frozenset({"txt", "text", "json", "jsonl"})
"""Suffixes of documents without Markdown headings; all others are read as Markdown."""


def recut_passages(pieces: Sequence[Piece], *, markdown: bool, limit: int) -> list[Piece]:
    """Passages of at most `limit` characters, from all passages of a document."""
    if not pieces:
        return []
    return [
        Piece(c.number, c.text, c.start_char, c.end_char, c.start_line, c.end_line, list(c.headings), c.head)
        for c in split_passages(join_passages(pieces), markdown=markdown, start=pieces[0].start_char, limit=limit)
    ]


def join_passages(pieces: Sequence[Piece]) -> str:
    """The text of a document from all its passages, with white space before the first and between them."""
    parts: list[str] = []
    offset, line = 0, 1
    for piece in pieces:
        breaks = piece.start_line - line
        parts += ["\n" * breaks, " " * (piece.start_char - offset - breaks), piece.text]
        offset, line = piece.end_char, piece.end_line
    return "".join(parts)


def is_markdown(media: str | None) -> bool:
    """Whether documents of this type are read as Markdown."""
    return media not in PLAIN_MEDIA
