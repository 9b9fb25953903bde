"""The messages to and from the parser's process. Frozen types; no parsing here."""

from __future__ import annotations

from typing import Any

import msgspec

from groundplan.knowledge.chunk import MAX_CHARS

MAX_BYTES = 64 << 20
"""Largest file that is read, in bytes."""
MAX_TEXT_BYTES = 10 << 20
"""Largest file of plain text, Markdown, HTML, CSV or JSON."""
MAX_CHARACTERS = 20_000_000
"""Longest text of one file, in characters."""


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """A table as text, for checks: the names of its columns and its rows."""

    name: str
    columns: list[str]
    rows: list[list[str]]
    partial: bool = False
    """Whether the table has more rows than these."""
    title: str = ""
    """The text above the table's head."""


class Piece(msgspec.Struct, frozen=True, array_like=True):
    """A passage as `knowledge.model.Chunk`, in the form that is sent between processes."""

    number: int
    text: str
    start_char: int
    end_char: int
    start_line: int
    end_line: int
    headings: list[str]
    head: str = ""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A document to parse. `tables`: return its tables as well."""

    key: str
    data: bytes
    media: str = ""
    tables: bool = False
    links: bool = False
    """Return the links of a page as well."""
    limit: int = MAX_CHARS
    """Longest passage, in characters."""
    recognise: bool = False
    """Recognise the text of pictures (OCR)."""
    pdf: str = ""
    """The PDF reader, if not the default: `docling:FOLDER`, with the folder of its models."""


class Parsed(msgspec.Struct, frozen=True, kw_only=True, tag="parsed"):
    """A document as text, cut into passages.

    `told` is the metadata of the document itself (front matter, properties of the file format): names and values as
    written. `content` is the SHA-256 of its words, `sketch` their MinHash.
    """

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
    """Which parts of the document are missing from its text, in sentences."""
    tables: list[Table] = []
    links: list[str] = []
    pictures: int = 0
    """Number of pages that are pictures, whose text is missing."""
    confined: bool = True
    """Whether the kernel restricted the process that parsed the document to reading and computing."""


class Refused(msgspec.Struct, frozen=True, kw_only=True, tag="refused"):
    """A document that could not be parsed: what is wrong with it, and what its owner can do."""

    key: str
    code: str
    message: str
    hint: str


Outcome = Parsed | Refused
