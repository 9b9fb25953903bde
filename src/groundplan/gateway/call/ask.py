"""The parsed body of a request (`Ask`), and the passages that are put before a model for it. Values only.

The state of the call is in `exchange`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import force_setattr, replace

if TYPE_CHECKING:
    from collections.abc import Iterable

    from groundplan.gateway.surfaces.upload import Upload


NO_NAMES = frozenset[str]()


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
    """The head row of the table in which the text begins: context, not part of the text."""

    @property
    def text_with_head(self) -> str:
        """The text as a model gets it: below the head row of its table, where it has one."""
        return f"{self.head}\n{self.text}" if self.head else self.text


class Ask(msgspec.Struct, frozen=True):
    """The client's request body, parsed once. `fields`: its top-level fields as raw JSON, in order; `messages`: their
    number; `query`: the text to search with; `cap`: most output tokens; `copies`: number of answers (`n`); `size`: its
    bytes."""

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
    """Content and service tiers that not every deployment takes: `image`, `file`, `priority`, `flex`, ..."""
    images: int = 0
    """Images in the request; their bytes are not counted in `size`."""
    extra_tokens: int = 0
    """Tokens that its bytes do not bound: the most that the provider adds for tools, and a prompt given as tokens."""
    audio_kib: int = 0
    """KiB of audio in the request, not counted in `size` either."""
    service: str = "standard"
    """Class of service: standard | auto | batch | priority | flex."""
    is_batch_line: bool = False
    """Whether it is a line of a batch that this gateway makes as a call."""
    body: bytes = b""
    """The bytes that `fields` were parsed from, where they may be spliced; empty where fields were changed."""
    header_lines: bytes = b""
    """The client's header lines that are passed to an upstream with the same API."""
    upload: Upload | None = None
    """An uploaded form that is sent on while it arrives."""
    files: tuple[str, ...] = ()
    """Ids of the files in it, each once; their content replaces them before it is sent."""
    binary: bool = False
    """Whether its answer is binary and passed on as it arrives."""
    parsed: object = None
    """The body as the surface itself parsed it."""
    offers_found_tools: bool = False
    """Whether its input offers functions that an earlier search among tools found, beside those of `fields`."""
    left_out: set[str] | None = None
    """Names of what of its answer is left out, since the client's API has no field for it; see `note_left_out`. None:
    nothing so far."""


def note_left_out(ask: Ask, names: Iterable[str]) -> None:
    """Add to `Ask.left_out`, which is None at first where few answers are translated."""
    if ask.left_out is None:
        force_setattr(ask, "left_out", set(names))
    else:
        ask.left_out.update(names)


def reset_left_out(ask: Ask, names: frozenset[str]) -> None:
    """Set `Ask.left_out` to `names`, after an attempt whose answer the client does not get. The set is a new one, since
    the stream of the earlier attempt may still be read to its end."""
    if names or ask.left_out:
        force_setattr(ask, "left_out", set(names))


def fork_ask(ask: Ask, names: frozenset[str] = NO_NAMES) -> Ask:
    """A copy for an answer of its own, of which only `names` are left out so far."""
    return replace(ask, left_out=None if ask.left_out is None and not names else set(names))
