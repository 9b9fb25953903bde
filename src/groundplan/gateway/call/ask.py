"""What a caller asks, read once, and the passages that are put before a model for it. Values only.

What becomes of it is in `exchange`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from groundplan.gateway.surfaces.upload import Upload


class Passage(msgspec.Struct, frozen=True, kw_only=True):
    """One retrieved passage that the caller may read."""

    document: str
    path: str
    title: str
    source: str
    start_line: int
    end_line: int
    text: str
    score: float = 0.0
    chunk: str = ""
    """Id of the chunk; a changed document has new ones."""
    version: int = 1
    start_char: int = 0
    end_char: int = 0
    """Characters of that version of the document."""
    head: str = ""
    """The head row of the table in which the text begins, where it stands before it: context, no part of the text."""

    @property
    def said(self) -> str:
        """The text below the head of its table, as a model is given it."""
        return f"{self.head}\n{self.text}" if self.head else self.text


class Ask(msgspec.Struct, frozen=True):
    """The caller's body, read once. `fields` are its top-level fields as raw JSON, in order; `size` its bytes."""

    fields: dict[str, msgspec.Raw]
    model: str
    messages: int
    query: str
    stream: bool
    include_usage: bool
    cap: int | None
    copies: int
    size: int
    needs: frozenset[str] = frozenset()
    """What it asks of a deployment that not every one takes: `image`, `file`, `priority`, `flex`."""
    images: int = 0
    """Sent in; their bytes are not in `size`."""
    hidden: int = 0
    """Tokens beside those of its bytes: the most that its provider adds of its own accord, about tools; those that a
    prompt is given as."""
    audio_kib: int = 0
    """KiB of audio sent in, not in `size` either."""
    service: str = "standard"
    """Class of service: standard | auto | batch | priority | flex."""
    line: bool = False
    """A line of a batch that is made as a call."""
    body: bytes = b""
    """What `fields` are of, where it may be spliced; empty where they were changed."""
    lines: bytes = b""
    """Header lines of the caller for an upstream that speaks this API itself."""
    upload: Upload | None = None
    """A form that is sent on while it arrives."""
    files: tuple[str, ...] = ()
    """Ids of files that it names, each once; they are put in before it is sent."""
    binary: bool = False
    """Its answer is bytes that are passed on as they come."""
    typed: object = None
    """What the surface itself made of the body."""
