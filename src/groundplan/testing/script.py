"""How the scripted model is to behave: what it says, how slowly, and how it fails. It is `scripted` that heeds it."""

from __future__ import annotations

from typing import Any

import msgspec


class Script(msgspec.Struct, forbid_unknown_fields=True):
    """How to behave. `tokens` fixes the completion tokens of each answer."""

    mode: str = "ok"
    after: int = 0
    latency_ms: float = 0
    chunk_ms: float = 0
    tokens: int | None = None
    status: int = 500
    times: int | None = None
    """So many attempts fail; None: all of them."""
    retry_after: str | None = None
    """Header of an error answer."""
    calls_itself: str | None = None
    """Model that its answers name, instead of the one that was asked for."""
    fingerprint: str | None = None
    """`system_fingerprint` of its answers."""
    tier: str | None = None
    """`service_tier` of its answers, whatever was asked for."""
    at: int | None = None
    """Chunk of a stream after which it fails; None: in the middle."""
    tool: bool = False
    """Answers end with a tool call."""
    overlap: int = 0
    """Characters of what was sent already that the rest of an answer repeats."""
    cache_read: int = 0
    """Tokens of the prompt that it says its cache read, on top of the others."""
    cache_write: int = 0
    say: str | None = None
    """What it answers to everything, in tokens of three characters."""
    line_ms: float = 0
    """How long it takes for each line of a batch."""
    lines: int | None = None
    """Of a batch it makes so many lines."""
    lines_end: str = "stall"
    """What becomes of the others: stall | expire | lose."""
    only: str | None = None
    """Method and beginning of a path, such as `POST /v1/batches`: nothing else fails. None: calls, batches' too."""
    usage: dict[str, Any] | None = None
    """What it reports as its usage, whatever that was, in the words of the API that is asked."""
    last: dict[str, Any] | None = None
    """Fields that the last event of a stream of an image, of speech or of a transcript has instead of its own."""
