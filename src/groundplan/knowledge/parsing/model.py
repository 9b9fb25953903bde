"""What goes into the parser's process and what comes out. Frozen types; no parsing here.

`Told` is what a document says of itself (front matter, properties of the file format): names and values as written.
"""

from __future__ import annotations

from typing import Any

import msgspec

from groundplan.knowledge.chunk import MAX_CHARS

MAX_BYTES = 64 << 20
"""Largest file that is read at all."""
MAX_TEXT_BYTES = 10 << 20
"""Largest file of plain text, Markdown, HTML, CSV or JSON."""
MAX_CHARACTERS = 20_000_000
"""Most text that is taken out of one file."""


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """A table with the names of its columns and its rows as text, for checks."""

    name: str
    columns: list[str]
    rows: list[list[str]]
    partial: bool = False
    """There are more rows than these."""
    title: str = ""
    """What stands above its head."""


class Piece(msgspec.Struct, frozen=True, array_like=True):
    """A passage as `knowledge.model.Chunk`, to cross the border between processes."""

    number: int
    text: str
    start_char: int
    end_char: int
    start_line: int
    end_line: int
    headings: list[str]
    head: str = ""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A document to parse. `tables`: also give its tables."""

    key: str
    data: bytes
    media: str = ""
    tables: bool = False
    links: bool = False
    """Also give what a page links to."""
    limit: int = MAX_CHARS
    """Most characters of a passage."""
    recognise: bool = False
    """Also the text of pictures."""
    pdf: str = ""
    """Who reads PDF, where other than usual: `docling`."""


class Parsed(msgspec.Struct, frozen=True, kw_only=True, tag="parsed"):
    """A document as text, cut into passages. `content` is the SHA-256 of its words, `sketch` their MinHash."""

    key: str
    media: str
    title: str
    markdown: bool
    characters: int
    told: dict[str, Any]
    pieces: list[Piece]
    content: str
    sketch: bytes
    lines: int
    notes: list[str] = []
    """What could not be taken over, in sentences: a part of the document is missing from its text."""
    tables: list[Table] = []
    links: list[str] = []
    pictures: int = 0
    """Pages that are pictures, whose text is missing."""
    confined: bool = True
    """The kernel itself held the process that read it to reading and computing."""


class Refused(msgspec.Struct, frozen=True, kw_only=True, tag="refused"):
    """A document that could not be parsed: what is wrong, and what to do."""

    key: str
    code: str
    message: str
    hint: str


Outcome = Parsed | Refused
